"""What is played in front of the recorder: everything that makes a program call something that it does not call otherwise."""

import json
import signal

from processes import Worker, command, environment, produce, wait_for

APPLICATION, STREAM = "orders", "orders-stream"
# What the analytics table never takes.
POISON = "*poison*"
FORGOTTEN = "shardId-000000009999"
LEASES, LETTERS = APPLICATION, f"{APPLICATION}-dead-letters"


class Scenario:
    def __init__(self, folder, backend, recorder, running, template):
        self.folder, self.backend, self.recorder, self.running = folder, backend, recorder, running
        self.worker_env = environment(*recorder.addresses("WorkerPolicy"))
        self.operator_env = environment(*recorder.addresses("OperatorPolicy"))
        self.reader_env = environment(*recorder.addresses("ReaderPolicy"))
        self.producer_env = environment(*recorder.addresses("ProducerPolicy"))
        self.preflight_env = environment(*recorder.addresses("preflight"))
        self.template = template
        self.published = 0

    # Steps of the play.

    def prepare(self):
        """The stream and the tables of the template; and the row of a shard that the stream has forgotten."""
        self.backend.kinesis.create_stream(StreamName=STREAM, ShardCount=2)
        for name in self.template.of_type("AWS::DynamoDB::Table"):
            arguments, _ = self.template.create_table(name)
            self.backend.dynamodb.create_table(**arguments)
        self.backend.dynamodb.put_item(TableName=LEASES, Item={
            "leaseKey": {"S": FORGOTTEN},
            "leaseCounter": {"N": "7"},
            "checkpoint": {"S": "SHARD_END"},
            "checkpointSubSequenceNumber": {"N": "0"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"},
        })
        self.backend.faults(f'[[fault]]\ntable = "{APPLICATION}-events"\nreject_items_with = "{POISON}"\n')

    def worker(self, name):
        worker = Worker(
            self.folder, name, self.worker_env, STREAM, APPLICATION,
            failover_time="3s", max_batch_age="500ms", idle_read_interval="200ms", spread=2, zstd_level=0,
        )
        worker.address()
        self.running.append(worker.process)
        return worker

    def publish(self, count, mark="plain"):
        lines = [json.dumps({"customer": f"c{n % 4}", "n": self.published + n, "mark": mark}) for n in range(count)]
        self.published += count
        produce(lines, self.producer_env, STREAM, "--key", "{/customer}")

    def workers(self):
        start = self.worker("first")
        self.publish(400)
        self.wait_stored()
        # Handoff: a second worker takes a share, and the first one's leases when that one goes.
        second = self.worker("second")
        wait_for("both to hold leases", lambda: len(self.owners()) == 2)
        start.process.end()
        wait_for("one to hold all", lambda: len(self.owners()) == 1)
        # Failover: it dies without a word.
        self.worker("third")
        wait_for("both to hold leases again", lambda: len(self.owners()) == 2)
        second.process.end(signal.SIGKILL)
        wait_for("the living to hold all", lambda: len(self.owners()) == 1)

    def dead_letter(self):
        # Found by halving a group of several.
        self.publish(40)
        self.publish(1, POISON)
        self.publish(40)
        wait_for("a letter", lambda: self.rows(LETTERS))

    def reshard(self):
        """Split and merge until children are read, and until the forgotten shard's row is gone."""
        split, merged = (shard["ShardId"] for shard in self.open_shards()[:2])
        self.backend.kinesis.split_shard(
            StreamName=STREAM, ShardToSplit=split, NewStartingHashKey=self.middle(split)
        )
        self.publish(100)
        wait_for("the parent's end", lambda: self.row(split)["checkpoint"]["S"] == "SHARD_END")
        wait_for("the children's owners", lambda: self.owned(self.open_shards()))
        left, right = self.adjacent()
        self.backend.kinesis.merge_shards(StreamName=STREAM, ShardToMerge=left, AdjacentShardToMerge=right)
        self.publish(100)
        wait_for("both parents' end", lambda: all(self.row(s)["checkpoint"]["S"] == "SHARD_END" for s in (left, right)))
        wait_for("the child's owner", lambda: self.owned(self.open_shards()))
        self.publish(100)
        self.wait_stored()
        wait_for("the forgotten row to go", lambda: self.row(FORGOTTEN) is None, patience=200)

    def reader(self):
        self.run(self.reader_env, "read", "--application", APPLICATION, "--key", "c1")

    def operator(self):
        """Every command of an operator that AWS hears of."""
        run = lambda *arguments: self.run(self.operator_env, *arguments, "--application", APPLICATION)
        run("leases", "list", "--liveness", "--failover-time", "3s")
        run("leases", "watch", "--for", "2s")
        run("checkpoint", "get")
        letter = json.loads(run("dead-letters", "list", "--json").splitlines()[0])
        run("dead-letters", "show", letter["letter"])
        self.backend.faults("")
        run("dead-letters", "redrive", "--all")
        shard = self.open_shards()[0]["ShardId"]
        run("leases", "release", shard, "--force", "--failover-time", "3s")
        wait_for("its next owner", lambda: self.owned(self.open_shards()))
        owner = next(iter(self.owners()))
        run("drain", owner, "--failover-time", "3s")
        run("checkpoint", "reset", shard, "--to", "trim-horizon", "--yes", "--failover-time", "3s", "--wait", "20s")
        run("checkpoint", "reset", shard, "--to", "latest", "--stream", STREAM, "--yes", "--failover-time", "3s")

    def preflight(self):
        self.run(self.preflight_env, "check", "--preflight", "--stream", STREAM, "--application", APPLICATION)

    # What is looked at, without the recorder.

    def run(self, env, *arguments):
        done = command(list(arguments), env)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def rows(self, table):
        return self.backend.dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]

    def row(self, shard):
        key = {"leaseKey": {"S": shard}}
        return self.backend.dynamodb.get_item(TableName=LEASES, Key=key, ConsistentRead=True).get("Item")

    def owners(self):
        rows = [row for row in self.rows(LEASES) if row["checkpoint"]["S"] != "SHARD_END"]
        owners = {row["leaseOwner"]["S"] for row in rows if "leaseOwner" in row}
        return owners if rows and all("leaseOwner" in row for row in rows) else set()

    def owned(self, shards):
        rows = [self.row(shard["ShardId"]) for shard in shards]
        return all(row is not None and "leaseOwner" in row for row in rows)

    def open_shards(self):
        shards = self.backend.kinesis.list_shards(StreamName=STREAM)["Shards"]
        return [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]

    def range(self, shard):
        return int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"])

    def middle(self, name):
        first, last = next(self.range(shard) for shard in self.open_shards() if shard["ShardId"] == name)
        return str((first + last) // 2)

    def adjacent(self):
        shards = sorted(self.open_shards(), key=self.range)
        return shards[0]["ShardId"], shards[1]["ShardId"]

    def wait_stored(self):
        """All of some customer's events can be read."""

        def stored():
            read = command(["read", "--application", APPLICATION, "--key", "c1"], self.backend.environment())
            marks = [json.loads(line)["n"] for line in read.stdout.splitlines()]
            return bool(marks) and max(marks) >= self.published - 4

        wait_for("events to be stored", stored)
