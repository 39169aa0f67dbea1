"""The chart against the program: a rendered worker is started as it is, and has to be what the manifests say."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import yaml
from charts import CHART, container, environment, pod, render, values_files

EXPERIMENTS = CHART.parents[1] / "chaos"
DOCUMENTED = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
PROGRAM = os.environ.get("SLUICEGATE_BIN")
# The build that goes into the image, if there is one: it cannot stand in for AWS, but it has to run against it.
WORKER = os.environ.get("SLUICEGATE_PRODUCTION_BIN") or PROGRAM
# Names between colons are made by the rules.
METRIC = re.compile(r"(?<![:\w])(?:sluicegate|process)_[a-z0-9_]+\b(?!:)")


def setUpModule():
    if not PROGRAM:
        raise unittest.SkipTest("there is no sluicegate (cargo build --release, or SLUICEGATE_BIN)")


def help_of(*arguments):
    return subprocess.run([WORKER, *arguments, "--help"], capture_output=True, text=True, timeout=30, check=True).stdout


def settings_in_help():
    """Name and default of every setting that the program knows."""
    text = help_of("run")
    return dict(re.findall(r"^  ([a-z_]+) \[default: (.*?)\]$", text[text.index("\nSettings,"):], re.MULTILINE))


class Settings(unittest.TestCase):
    def test_the_schema_knows_the_settings_of_the_program_and_no_others(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        in_chart = set(schema["properties"]["settings"]["properties"])
        in_program = set(settings_in_help()) - SECRET
        self.assertGreater(len(in_program), 20)
        self.assertEqual(in_chart, in_program)

    def test_defaults_that_the_templates_rely_on_are_those_of_the_program(self):
        text = (CHART / "templates/_helpers.tpl").read_text()
        assumed = dict(re.findall(r'"name" "([a-z_]+)" "default" "([^"]+)"', text))
        self.assertEqual(set(assumed), {"drain_timeout", "buffer_bytes", "failover_time", "max_batch_age"})
        known = settings_in_help()
        self.assertEqual(assumed, {name: known[name] for name in assumed})

    def test_the_program_takes_every_argument_of_the_chart(self):
        options = set(re.findall(r"--[a-z-]+", help_of("run")))
        for name in ("minimal", "full"):
            for argument in container(render(name=name))["args"][1:]:
                self.assertIn(argument.split("=")[0], options)


# A secret is no value of a chart.
SECRET = {"admin_token"}
TOKEN = "a-token-of-this-test"


class Process:
    """A program in the background, ended by its own id."""

    def __init__(self, arguments, variables, log):
        self.out, self.log = open(f"{log}.out", "wb"), open(log, "wb")
        self.process = subprocess.Popen(arguments, env=variables, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.log)

    def stop(self, within):
        """Tells it to end and waits; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.out.close()
        self.log.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def answer(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return None, ""


class Running(unittest.TestCase):
    """One worker, started with the arguments and the environment of the rendered pod."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        logs = Path(cls.folder.name)
        local = Process([PROGRAM, "local", "--kinesis-port=0", "--dynamodb-port=0", "--json"], {}, logs / "local")
        cls.addClassCleanup(local.close)
        endpoints = json.loads(until("the backend", lambda: (logs / "local.out").read_text().strip()))
        cls.aws = {
            "AWS_ENDPOINT_URL_KINESIS": endpoints["kinesis"],
            "AWS_ENDPOINT_URL_DYNAMODB": endpoints["dynamodb"],
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
        }
        produce = [PROGRAM, "produce", "--region=eu-central-1", "--stream=flights", "--create-stream=2", "--key={/a}"]
        events = "".join('{"a":%d}\n' % number for number in range(100))
        subprocess.run(produce, input=events, env=cls.aws, text=True, capture_output=True, timeout=60, check=True)

        cls.port = free_port()
        changes = {"admin__port": cls.port, "settings__max_batch_age": "200ms", "settings__log_format": "json"}
        if "admin_token" in settings_in_help():
            changes["admin__tokenSecret__name"] = "flights-admin"
        cls.manifests = render(name="minimal", **changes)
        spec = container(cls.manifests)
        given = {name: value for name, value in environment(cls.manifests).items() if value is not None}
        given |= {name: TOKEN for name in environment(cls.manifests) if name == "SLUICEGATE_CFG_ADMIN_TOKEN"}
        arguments = [each.replace("$(POD_IP)", "127.0.0.1") for each in spec["args"]]
        cls.log = logs / "worker"
        # The tables are not a matter of the chart; here they are made.
        cls.worker = Process([WORKER, *arguments, "--create-tables"], {**cls.aws, **given}, cls.log)
        cls.addClassCleanup(cls.worker.close)
        try:
            until("the worker", lambda: cls.ask("/livez")[0])
        except AssertionError as error:
            raise AssertionError(f"{error}: {cls.log.read_text()}") from error

    @classmethod
    def ask(cls, path):
        return answer(f"http://127.0.0.1:{cls.port}{path}", Authorization=f"Bearer {TOKEN}")

    def without_token(self, path):
        return answer(f"http://127.0.0.1:{self.port}{path}")[0]

    def test_1_every_probe_is_answered(self):
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container(self.manifests)[name]["httpGet"]["path"]
            with self.subTest(probe=name, path=path):
                self.assertNotEqual(self.without_token(path), 404)
                until(f"{path} is 200", lambda: self.without_token(path) == 200, 30)

    def test_2_the_nudge_is_answered_where_workers_send_it(self):
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/nudge", method="POST", headers=bearer)
        with urllib.request.urlopen(request, timeout=5) as response:
            self.assertEqual(response.status, 202)

    def test_3_every_metric_that_chart_and_experiments_name_is_exported(self):
        (endpoint,) = render(name="full")["PodMonitor"]["spec"]["podMetricsEndpoints"]
        until("events are stored", lambda: re.search(r"^sluicegate_events_stored_total 100$", self.ask(endpoint["path"])[1], re.M))
        exported = set(re.findall(r"^# TYPE (\S+)", self.ask(endpoint["path"])[1], re.MULTILINE))
        # Some appear only when something happens; the page of all metrics is kept true by a test of its own.
        documented = set(METRIC.findall(DOCUMENTED.read_text())) if DOCUMENTED.exists() else set()
        named = {name: source for source in self.sources() for name in METRIC.findall(source[1])}
        self.assertIn("sluicegate_fleet_freshness_max_seconds", named)
        missing = {}
        for name, (source, _) in named.items():
            bare = re.sub(r"_(bucket|sum|count)$", "", name)
            if not {name, bare} & (exported | documented):
                missing[name] = source
        self.assertEqual(missing, {})

    def test_4_without_the_token_nothing_is_told(self):
        if "admin_token" not in settings_in_help():
            self.skipTest("this program has no admin_token")
        self.assertEqual({self.without_token(path) for path in ("/metrics", "/fleet")}, {401})

    def sources(self):
        manifests = render(name="keda")
        for each in manifests["ScaledObject"]["spec"]["triggers"]:
            yield "ScaledObject", each["metadata"]["query"]
        for group in manifests["PrometheusRule"]["spec"]["groups"]:
            for rule in group["rules"]:
                yield "PrometheusRule", rule["expr"]
        for expression in re.findall(r'"expr": *("(?:[^"\\]|\\.)*")', manifests["ConfigMap"]["data"]["sluicegate.json"]):
            yield "dashboard", json.loads(expression)
        for file in EXPERIMENTS.glob("*.yaml"):
            said = yaml.safe_load(file.read_text())["metadata"]["annotations"]
            for what in ("abort", "expect"):
                yield file.name, said[f"sluicegate/{what}"]

    def test_5_logs_are_for_machines(self):
        lines = self.log.read_text().splitlines()
        self.assertTrue(lines)
        for line in lines:
            self.assertIn("message", json.loads(line))

    def test_6_it_ends_well_within_the_grace_period(self):
        self.assertEqual(self.worker.stop(pod(self.manifests)["terminationGracePeriodSeconds"]), 0)


class Refusals(unittest.TestCase):
    """The schema and the program agree on what a good value is."""

    def start(self, settings):
        """What the program says to settings. It has no credentials, so it ends in any case; 64 is for a bad setting."""
        variables = {**settings, "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "eu-central-1"}
        command = [WORKER, "run", "--stream=flights", "--application=flights"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_a_bad_value_is_refused_by_both(self):
        # That the schema refuses them is in test_values.
        for name, value in (("drain_timeout", "25"), ("max_in_flight", "13"), ("log_format", "yaml"), ("failover_tme", "1s")):
            with self.subTest(setting=name):
                status, said = self.start({f"SLUICEGATE_CFG_{name.upper()}": value})
                self.assertEqual(status, 64, said)
                self.assertIn(name, said)

    def test_the_program_takes_the_settings_of_every_ci_values_file(self):
        for file in values_files():
            with self.subTest(file=file.name):
                given = environment(render(name=file.name.removesuffix("-values.yaml")))
                # As Kubernetes hands it over.
                settings = {name: value.replace("$$(", "$(") for name, value in given.items() if value and name.startswith("SLUICEGATE_")}
                status, said = self.start(settings)
                self.assertEqual(status, 1, said)
                self.assertIn("no AWS credentials", said)
