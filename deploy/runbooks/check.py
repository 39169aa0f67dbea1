"""Alerts and runbooks belong together, and what a runbook says to type works: on a fleet on the embedded backend.

    check.py alerts      every alert has a runbook, a test on both sides, and what a person needs; and the other way round
    check.py commands    every `sluicegate` and `curl` command of every runbook is run
    check.py aws         every `aws` command is one of the service, with options that it has and all that it needs
    check.py emulated    every `aws` command is run by the real program against an emulator, and does something
    check.py kubectl     every `kubectl` command names a namespace, a verb, a resource and options that there are
    check.py cluster F   every `kubectl` command is run by the real program on the Deployment of file F, and does something

With --broken the last four are shown mistakes, and fail if they miss one.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))

import yaml
from processes import PROGRAM, Backend, Worker, ended, produce, wait_for
from template import PATH as TEMPLATE, Template
import cluster
import emulated
from typed import BROKEN, Aws, wrong_kubectl

FOLDER = pathlib.Path(__file__).parent
MONITORING = FOLDER.parent / "monitoring"
INDEX, TROUBLE = FOLDER / "README.md", FOLDER.parent.parent / "docs" / "troubleshooting.md"
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
# What runs on a fleet here, and what talks to AWS or to a cluster, which are emulated.
ON_A_FLEET, ELSEWHERE = ("sluicegate", "curl"), ("kubectl", "aws")
APPLICATION, STREAM, POISON = "orders", "orders-stream", "*poison*"


def runbooks():
    return {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md")) if path.stem != "README"}


def commands(text):
    """The lines of the shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def listed():
    """The variables that the index explains."""
    (block,) = re.findall(r"^```text\n(.*?)^```", INDEX.read_text(), re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^([A-Z_]+) ", block, re.MULTILINE))


def about_variables():
    texts = runbooks() | {"README": INDEX.read_text(), TROUBLE.name: TROUBLE.read_text()}
    used = {name: set(re.findall(r"\$\{?(\w+)", text)) for name, text in texts.items()}
    for name, variables in used.items():
        for variable in sorted(variables - listed()):
            yield f"{name}: ${variable} is not in the index's list"
    for variable in sorted(listed() - set().union(*used.values())):
        yield f"README: explains {variable}, which nothing uses"


# ---- Alerts ----

def alerts():
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def tested():
    """Of each alert, whether a test expects it and whether a test expects it not to fire."""
    found = {}
    for test in yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]:
        for case in test.get("alert_rule_test", []):
            found.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
        for case in test.get("promql_expr_test", []):
            for sample in case.get("exp_samples", []):
                for name in re.findall(r'alertname="(\w+)"', sample["labels"]):
                    found.setdefault(name, set()).update((True, False))
    return found


def about_alerts():
    rules, books, tests = alerts(), runbooks(), tested()
    for name in sorted(set(rules) ^ set(books)):
        yield f"{name}: {'no runbook' if name in rules else 'a runbook without an alert'}"
    index = set(re.findall(r"\((\w+)\.md\)", INDEX.read_text()))
    for name in sorted(index ^ set(books)):
        yield f"{name}: in the index or in the folder, not in both"
    for name, rule in rules.items():
        said = rule.get("annotations", {})
        if said.get("runbook_url") != f"deploy/runbooks/{name}.md":
            yield f"{name}: runbook_url is not that of its runbook"
        if not said.get("summary") or not said.get("description"):
            yield f"{name}: no summary or no description"
        if rule.get("labels", {}).get("severity") not in ("page", "ticket"):
            yield f"{name}: severity is neither page nor ticket"
        if tests.get(name) != {True, False}:
            yield f"{name}: not tested on both sides: {tests.get(name)}"
    for name in re.findall(r"deploy/runbooks/(\w+)\.md", TEMPLATE.read_text()):
        if name not in books:
            yield f"the alarm of the template with the runbook {name}: there is none"
    for name, text in books.items():
        if re.findall(r"^## (.*)$", text, re.MULTILINE) != HEADINGS or not text.startswith(f"# {name}\n"):
            yield f"{name}: its headings are not {HEADINGS}"
        if any(not part.strip() for part in re.split(r"^#.*$", text, flags=re.MULTILINE)[2:]):
            yield f"{name}: a section is empty"
        if not any(line.startswith("sluicegate ") for line in commands(text)) and name != "SluicegateTableThrottled":
            yield f"{name}: no command to look with"
        for line in commands(text):
            if line.split()[0] not in ON_A_FLEET + ELSEWHERE:
                yield f"{name}: cannot judge the command {line}"
        for other in re.findall(r"\b(Sluicegate[A-Z]\w+)", text):
            if other not in rules:
                yield f"{name}: names {other}, which is no alert"
        for document in re.findall(r"\bdocs/[\w-]+\.md", text):
            if not (FOLDER.parent.parent / document).exists():
                yield f"{name}: names {document}, which is not there"


# ---- Commands ----

class Fleet:
    """Two workers that hold shards, an event among the dead letters; made good again before every command."""

    def __init__(self, folder, running):
        self.folder, self.running, self.count = folder, running, 0
        self.backend = Backend(folder)
        running.append(self.backend.process)
        self.env = self.backend.environment()
        self.backend.kinesis.create_stream(StreamName=STREAM, ShardCount=4)
        template = Template(ApplicationName=APPLICATION)
        for name in template.of_type("AWS::DynamoDB::Table"):
            arguments, _ = template.create_table(name)
            self.backend.dynamodb.create_table(**arguments)
        table = f"{APPLICATION}-events"
        self.backend.faults(f'[[fault]]\ntable = "{table}"\nreject_items_with = "{POISON}"\n')
        self.workers = []
        self.restore()
        lines = [json.dumps({"customer": f"c{n % 9}", "n": n, "text": POISON if n == 50 else ""}) for n in range(200)]
        produce(lines, self.env, STREAM, "--key", "{/customer}")
        self.letter = wait_for("a letter", self.open_letter)
        # The cause is mended, as the runbook says.
        self.backend.faults("")

    def restore(self):
        self.workers = [worker for worker in self.workers if worker.process.alive()]
        while len(self.workers) < 2:
            self.count += 1
            worker = Worker(
                self.folder, f"worker{self.count}", self.env, STREAM, APPLICATION,
                failover_time="2s", max_batch_age="500ms", idle_read_interval="200ms", zstd_level=0,
            )
            worker.address()
            self.running.append(worker.process)
            self.workers.append(worker)
        wait_for("two owners", lambda: len(self.owners()) == 2)

    def rows(self):
        return self.backend.dynamodb.scan(TableName=APPLICATION, ConsistentRead=True)["Items"]

    def owners(self):
        rows = self.rows()
        return {row["leaseOwner"]["S"] for row in rows} if rows and all("leaseOwner" in row for row in rows) else set()

    def open_letter(self):
        done = subprocess.run(
            [PROGRAM, "dead-letters", "list", "--application", APPLICATION, "--json"],
            env=self.env, capture_output=True, text=True, timeout=60,
        )
        lines = done.stdout.splitlines()
        return json.loads(lines[0])["letter"] if lines else None

    def begun(self):
        return next((row for row in self.rows() if row["checkpoint"]["S"].isdigit() and "leaseOwner" in row), None)

    def variables(self):
        row = wait_for("a shard with a checkpoint", self.begun)
        return {
            "APPLICATION": APPLICATION, "STREAM": STREAM, "LETTER": self.letter,
            "ADMIN": self.workers[0].address(), "WORKER": row["leaseOwner"]["S"], "SHARD": row["leaseKey"]["S"],
            "SEQUENCE_NUMBER": row["checkpoint"]["S"],
        }

    def run(self, line):
        """Runs a command as a shell would, with the variables of the runbooks; says what went wrong."""
        self.restore()
        env = {**self.env, **self.variables(), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euc", line], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180
        )
        if done.returncode != 0:
            return f"status {done.returncode}\n{done.stdout}{done.stderr}"
        return None if done.stdout.strip() or done.stderr.strip() else "it says nothing"


def about_commands():
    wanted = {}
    for name, text in runbooks().items():
        for line in commands(text):
            if line.split()[0] in ON_A_FLEET:
                # -f: an answer that is an error is a failure.
                wanted.setdefault(line.replace("curl -s ", "curl -sf "), []).append(name)
    with tempfile.TemporaryDirectory() as folder, ended() as running:
        folder = pathlib.Path(folder)
        (folder / "bin").mkdir()
        (folder / "bin" / "sluicegate").symlink_to(pathlib.Path(PROGRAM).resolve())
        fleet = Fleet(folder, running)
        for line, names in wanted.items():
            wrong = fleet.run(line)
            print(f"{'no' if wrong else 'ok'}: {line}")
            if wrong:
                yield f"{', '.join(names)}: {line}: {wrong}"


# ---- Commands for AWS and for a cluster ----

def about_typed(program, broken):
    try:
        wrong = Aws().wrong if program == "aws" else wrong_kubectl
    except ImportError as error:
        print(f"{error.name} is not there, which has the models of the services")
        sys.exit(3)
    if broken:
        yield from (f"not noticed: {line}" for line in BROKEN[program] if not wrong(line))
        return
    for line, names in typed(program).items():
        found = wrong(line)
        if found:
            yield f"{names}: {line}: {found}"


def typed(program):
    """The commands of a program that people are told to type, and where."""
    found = {}
    for name, text in (runbooks() | {TROUBLE.name: TROUBLE.read_text()}).items():
        for line in commands(text):
            if line.split()[0] == program:
                found.setdefault(line, []).append(name)
    assert found, f"no {program} command was found"
    return {line: ", ".join(names) for line, names in found.items()}


def about_emulated(broken):
    with tempfile.TemporaryDirectory() as folder, ended() as running:
        tried = emulated.Emulated(pathlib.Path(folder), running, APPLICATION, STREAM)
        yield from about_tried("aws", tried, emulated.WITHOUT_EFFECT if broken else None)


def about_cluster(broken):
    if not shutil.which("kubectl"):
        print("kubectl is not there")
        sys.exit(3)
    deployment = json.loads(pathlib.Path(sys.argv[2]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        tried = cluster.Kubectl(pathlib.Path(folder), deployment, "streams")
        yield from about_tried("kubectl", tried, cluster.WITHOUT_EFFECT if broken else None)


def about_tried(program, tried, mistakes):
    if mistakes is not None:
        yield from (f"not noticed: {line}" for line in mistakes if not tried.wrong(line))
        return
    for line, names in typed(program).items():
        wrong = tried.wrong(line)
        print(f"{'no' if wrong else 'ok'}: {line}")
        if wrong:
            yield f"{names}: {line}: {wrong}"


def main():
    about = {
        "alerts": lambda: [*about_alerts(), *about_variables()],
        "commands": about_commands,
        "aws": lambda: about_typed("aws", "--broken" in sys.argv),
        "emulated": lambda: about_emulated("--broken" in sys.argv),
        "cluster": lambda: about_cluster("--broken" in sys.argv),
        "kubectl": lambda: about_typed("kubectl", "--broken" in sys.argv),
    }
    found = list(about[sys.argv[1]]())
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
