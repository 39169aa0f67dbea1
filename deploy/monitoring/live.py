"""Every query of the dashboard and every metric of the rules, asked of a real Prometheus that scraped real workers.

A backend, two workers, a producer; one worker is killed, another one starts and leaves, so that there is a failover and a
handoff to show. Every query must then have an answer that is a number.
"""

import json
import pathlib
import re
import shutil
import signal
import socket
import sys
import tempfile
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))

import yaml
from lint_dashboard import PATH as DASHBOARD, concrete, expressions
from processes import Backend, Process, PROGRAM, Worker, ended, produce, wait_for
from template import Template

APPLICATION, STREAM, JOB = "orders", "orders-stream", "orders"
RULES = pathlib.Path(__file__).parent / "rules.yaml"
# Not what rules record, such as job:sluicegate_late_shards:ratio.
METRIC = re.compile(r"(?<![\w:])(?:sluicegate|process)_[a-z_]+\b")
SELECTOR = re.compile(r"(?<![\w:])((?:sluicegate|process)_[a-z_]+)(\{[^}]*\})?")
# At 150 a second, more than the play can last.
EVENTS = [json.dumps({"customer": f"c{n % 50}", "n": n, "text": "so and so " * 5}) for n in range(60_000)]


class Prometheus:
    def __init__(self, folder):
        self.targets = folder / "targets.json"
        self.targets.write_text("[]")
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": JOB, "file_sd_configs": [{"files": [str(self.targets)], "refresh_interval": "1s"}]}],
        }))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % probe.getsockname()[1]
        self.process = Process([
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={self.address}",
        ], folder / "prometheus.log")
        self.process.search("Server is ready to receive web requests")

    def scrape(self, *workers):
        self.targets.write_text(json.dumps([{"targets": [worker.address() for worker in workers]}]))

    def ask(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.load(answer)["data"]

    def values(self, expression):
        """The values of an expression, without those that are no number."""
        values = [sample["value"][1] for sample in self.ask("query", query=expression)["result"]]
        return [float(value) for value in values if value != "NaN"]

    def names(self):
        return set(self.ask("label/__name__/values"))

    def sick_rules(self):
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return [f"rule {r['name']}: {r.get('lastError')}" for r in rules if r["health"] != "ok"]


def rule_expressions():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [(rule.get("alert") or rule["record"], rule["expr"]) for group in groups for rule in group["rules"]]


def selectors():
    """What the rules select, whatever the outcome: a worker that is well has no series of what failed."""
    found = {}
    for name, expression in rule_expressions():
        for metric, matchers in SELECTOR.findall(expression):
            kept = [m for m in re.findall(r'\w+\s*[=!~]+\s*"[^"]*"', matchers) if not m.startswith("outcome")]
            found.setdefault(f"{metric}{{{', '.join(kept)}}}", name)
    return found


def unanswered(prometheus):
    """A line for each query without a number for an answer."""
    lines = []
    for title, expression in expressions(json.loads(DASHBOARD.read_text())):
        if not prometheus.values(concrete(expression, JOB, interval="5m")):
            lines.append(f"panel {title!r}: no answer to {expression}")
    for selector, rule in selectors().items():
        if not prometheus.values(f"last_over_time({selector}[10m])"):
            lines.append(f"rule {rule}: nothing is selected by {selector}")
    return lines + prometheus.sick_rules()


def absent(prometheus):
    """Names that are asked for, and that no worker exports."""
    asked = [e for _, e in expressions(json.loads(DASHBOARD.read_text())) + rule_expressions()]
    return sorted({name for e in asked for name in METRIC.findall(e)} - prometheus.names())


def worker(folder, name, backend):
    return Worker(
        folder, name, backend.environment(), STREAM, APPLICATION,
        failover_time="2s", max_batch_age="1s", idle_read_interval="200ms", write_budget_wcu=2000,
    )


def play(folder):
    with ended() as running:
        backend = Backend(folder)
        running.append(backend.process)
        backend.kinesis.create_stream(StreamName=STREAM, ShardCount=4)
        for table in Template(ApplicationName=APPLICATION).of_type("AWS::DynamoDB::Table"):
            arguments, _ = Template(ApplicationName=APPLICATION).create_table(table)
            backend.dynamodb.create_table(**arguments)
        first, second = worker(folder, "first", backend), worker(folder, "second", backend)
        running += [first.process, second.process]
        prometheus = Prometheus(folder)
        running.append(prometheus.process)
        prometheus.scrape(first, second)

        events = folder / "events.ndjson"
        events.write_text("".join(f"{event}\n" for event in EVENTS))
        source = [PROGRAM, "produce", "--stream", STREAM, "--key", "{/customer}", "--rate", "150", str(events)]
        running.append(Process(source, folder / "produce.log", backend.environment()))
        wait_for("events to be seen", lambda: any(prometheus.values(f'sluicegate_events_stored_total{{job="{JOB}"}}')))
        first.process.end(signal.SIGKILL)
        wait_for("a failover", lambda: any(prometheus.values("sluicegate_failover_gap_seconds_count")))
        third = worker(folder, "third", backend)
        running.append(third.process)
        prometheus.scrape(first, second, third)
        wait_for("leases of the third", lambda: any(prometheus.values(
            f'sluicegate_leases_held{{instance="{third.address()}"}}')))
        # Until it has seen the dead one stand still for failover_time, it may hand over to that.
        wait_for("the third to know who is dead", lambda: any(prometheus.values(
            f'sluicegate_fleet_workers{{state="silent", instance="{third.address()}"}}')) or absent(prometheus))
        # It hands over to one whose gaps have been scraped before: a rate needs two samples.
        third.process.end()
        wait_for("a handoff", lambda: any(prometheus.values(
            f'sluicegate_handoff_gap_seconds_count{{instance="{second.address()}"}}')))

        missing = absent(prometheus)
        if missing:
            return [f"no worker exports {name}" for name in missing]
        # Groups of rules are evaluated every 30 s.
        left = []
        try:
            wait_for("answers", lambda: left.__setitem__(slice(None), unanswered(prometheus)) or not left, 75, 1)
        except TimeoutError:
            pass
        fired = prometheus.ask("query", query='ALERTS{alertstate="firing"}')["result"]
        return left + [f"an alert fires on a fleet that is well: {alert['metric']}" for alert in fired]


def main():
    if shutil.which("prometheus") is None:
        print("prometheus is not there")
        return 3
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = play(pathlib.Path(folder))
        except Exception:
            for log in sorted(pathlib.Path(folder).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}")
            raise
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
