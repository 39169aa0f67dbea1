"""Runs `aws` commands by the real command line against an emulator that holds what the template makes.

A command that only looks must answer something and change nothing; any other must change what can be seen of the stream, the
tables and their scaling.
"""

import json
import os
import pathlib
import shlex
import subprocess
import sys
import urllib.request

from processes import client, emulator
from template import Template
from typed import wrong_effect

# The emulator takes these and keeps no trace of them.
WITHOUT_A_TRACE = ("--on-demand-throughput",)
LOOKS = ("describe-", "list-", "get-")
SHARDS, LAST_HASH_KEY = 4, 2**128 - 1


class Emulated:
    """The stream and the tables as a runbook finds them, made anew for each command."""

    def __init__(self, folder, running, application, stream):
        self.application, self.stream = application, stream
        process, self.url = emulator(folder)
        running.append(process)
        of = lambda service: client(service, self.url)
        self.kinesis, self.dynamodb, self.scaling = of("kinesis"), of("dynamodb"), of("application-autoscaling")
        self.template = Template(ApplicationName=application, StreamName=stream)

    def restore(self):
        request = urllib.request.Request(f"{self.url}/moto-api/reset", data=b"", method="POST")
        urllib.request.urlopen(request, timeout=10).read()
        self.kinesis.create_stream(StreamName=self.stream, ShardCount=SHARDS)
        for name in self.template.of_type("AWS::DynamoDB::Table"):
            arguments, _ = self.template.create_table(name)
            # A lease table that KCL made, and that has become too small, is what its runbook is for.
            if arguments["TableName"] == self.application:
                arguments |= {
                    "BillingMode": "PROVISIONED", "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}
                }
            self.dynamodb.create_table(**arguments)

    def seen(self):
        """All that a command may change."""
        summary = self.kinesis.describe_stream_summary(StreamName=self.stream)["StreamDescriptionSummary"]
        tables = [self.dynamodb.describe_table(TableName=name)["Table"] for name in self.dynamodb.list_tables()["TableNames"]]
        targets = self.scaling.describe_scalable_targets(ServiceNamespace="dynamodb")["ScalableTargets"]
        return json.dumps([summary, self.shards(), tables, targets], default=str, sort_keys=True)

    def shards(self):
        return self.kinesis.list_shards(StreamName=self.stream)["Shards"]

    def environment(self):
        shard = self.shards()[0]
        first, last = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return kept | {
            "PATH": f"{pathlib.Path(sys.executable).parent}:{kept['PATH']}",
            "AWS_ACCESS_KEY_ID": "check", "AWS_SECRET_ACCESS_KEY": "check", "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.url, "AWS_PAGER": "",
            "APPLICATION": self.application, "STREAM": self.stream, "SHARD": shard["ShardId"],
            "MIDDLE": str((first + last) // 2), "HOURS": "200",
            "SINCE": "2026-01-31T12:00:00Z", "NOW": "2026-01-31T13:00:00Z",
        }

    def wrong(self, line):
        """Runs a command as a shell would; says what is wrong, or None."""
        self.restore()
        before = self.seen()
        done = subprocess.run(
            ["bash", "-euc", line], env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            return f"status {done.returncode}\n{done.stdout}{done.stderr}"
        looks = shlex.split(line)[2].startswith(LOOKS)
        changed = self.seen() != before
        if any(option in line for option in WITHOUT_A_TRACE):
            return "it leaves a trace now: expect it" if changed else None
        return wrong_effect(looks, changed, done.stdout)


# Mistakes that the models of the services do not show, and that have to be found.
WITHOUT_EFFECT = [
    "aws kinesis increase-stream-retention-period --stream-name $STREAM --retention-period-hours 24",
    "aws kinesis describe-stream-summary --stream-name ${STREAM}s",
    "aws kinesis list-shards --stream-name $STREAM --query \"Shards[?ShardId=='none'].HashKeyRange\" --output text",
    "aws kinesis split-shard --stream-name $STREAM --shard-to-split $SHARD --new-starting-hash-key $HOURS$MIDDLE$MIDDLE",
    "aws dynamodb update-table --table-name $APPLICATION-events --billing-mode PAY_PER_REQUEST",
    "aws dynamodb describe-table --table-name $APPLICATION-workers-of-another",
]
