"""What values the chart takes, and what it refuses."""

import json
import math
import subprocess
import sys
import unittest

from charts import CHART, DROP, Refused, engines, values, values_files

# What is changed in values that are good; what the refusal must name.
REFUSED_BY_SCHEMA = [
    ({"replica": 3}, "replica"),
    ({"networkPolicy__enable": True}, "enable"),
    ({"settings__failover_tme": "10s"}, "failover_tme"),
    ({"settings__drain_timeout": "25"}, "drain_timeout"),
    ({"settings__drain_timeout": 25}, "drain_timeout"),
    ({"settings__failover_time": "1m 30s"}, "failover_time"),
    ({"settings__buffer_bytes": "128MB"}, "buffer_bytes"),
    ({"settings__max_in_flight": 13}, "max_in_flight"),
    ({"settings__write_budget_wcu": -1}, "write_budget_wcu"),
    ({"settings__write_budget_wcu": "none"}, "write_budget_wcu"),
    ({"settings__log_format": "yaml"}, "log_format"),
    ({"settings__initial_position": "EARLIEST"}, "initial_position"),
    ({"stream": "arn:aws:dynamodb:eu-central-1:123456789012:table/flights"}, "stream"),
    ({"application": "a b"}, "application"),
    ({"tables__analytics": "a/b"}, "analytics"),
    ({"aws__region": "Frankfurt"}, "region"),
    ({"aws__identity": "keys"}, "identity"),
    ({"aws__identity": "irsa", "aws__roleArn": "flights-worker"}, "roleArn"),
    ({"image__tag": "latest"}, "tag"),
    ({"image__digest": "sha256:0123"}, "digest"),
    ({"image__pullPolicy": "Sometimes"}, "pullPolicy"),
    ({"replicas": 0}, "replicas"),
    ({"replicas": "3"}, "replicas"),
    ({"resources__limits__cpu": "1"}, "cpu"),
    ({"resources__limits__memory": "512M"}, "memory"),
    ({"admin__port": 80}, "port"),
    ({"admin__token": "0123456789abcdef"}, "token"),
    ({"settings__admin_token": "0123456789abcdef"}, "admin_token"),
    ({"stop__gracePeriodSeconds": 20}, "gracePeriodSeconds"),
    ({"probes__liveness__failureThreshold": 0}, "failureThreshold"),
    ({"probes__liveness__path": "/readyz"}, "path"),
    ({"topologySpread__zone": "Maybe"}, "zone"),
    ({"networkPolicy__flavor": "calico"}, "flavor"),
    ({"networkPolicy__awsCidrs": []}, "awsCidrs"),
    ({"networkPolicy__awsCidrs": ["everywhere"]}, "awsCidrs"),
    ({"podMonitor__renderMode": "sometimes"}, "renderMode"),
    ({"podMonitor__sampleLimit": 10}, "sampleLimit"),
    ({"prometheusRule__runbookBaseUrl": "wiki/runbooks"}, "runbookBaseUrl"),
    ({"prometheusRule__runbookBaseUrl": "https://git.example/a: b"}, "runbookBaseUrl"),
    ({"prometheusRule__runbookBaseUrl": "https://git.example/a #b"}, "runbookBaseUrl"),
    ({"autoscaling__mode": "hpa"}, "mode"),
    ({"autoscaling__minReplicas": 0}, "minReplicas"),
    ({"autoscaling__freshnessTargetSeconds": 300}, "freshnessTargetSeconds"),
    ({"extraEnv": [{"name": "SLUICEGATE_CFG_SEED", "value": "1"}]}, "extraEnv"),
]

KEDA = {"autoscaling__mode": "keda", "autoscaling__prometheus__serverAddress": "http://prometheus:9090"}
REFUSED_BY_RULE = [
    ({"stream": DROP}, "stream is needed"),
    ({"application": DROP}, "application is needed"),
    ({"image__repository": DROP}, "image.repository is needed"),
    ({"serviceAccount__create": False}, "serviceAccount.name is needed"),
    ({"aws__identity": "irsa"}, "give the role in aws.roleArn"),
    ({"aws__roleArn": "arn:aws:iam::123456789012:role/flights"}, "aws.roleArn is for irsa"),
    ({"stop__gracePeriodSeconds": 30, "settings__drain_timeout": "26s"}, "give 31 or more"),
    ({"stop__gracePeriodSeconds": 120, "settings__drain_timeout": "2m"}, "give 125 or more"),
    ({"settings__buffer_bytes": "256MiB"}, "need 782Mi"),
    ({"settings__buffer_bytes": "1GiB"}, "need 2894Mi"),
    ({"settings__max_leases_per_worker": 10000}, "10000 shards need 1110Mi"),
    ({"resources__requests__memory": "256Mi"}, "give both alike"),
    ({"podMonitor__interval": "31s"}, "give 30s or less"),
    ({"podMonitor__interval": "1m"}, "podMonitor.interval is 1m"),
    ({"settings__failover_time": "91s"}, "give 90s or less"),
    ({"settings__failover_time": "5m"}, "settings.failover_time is 5m"),
    ({"autoscaling__mode": "keda"}, "autoscaling.prometheus.serverAddress is needed"),
    (KEDA | {"prometheusRule__enabled": False, "settings__failover_time": "5m"}, "give 90s or less"),
    (KEDA | {"autoscaling__minReplicas": 9}, "below autoscaling.minReplicas"),
    (KEDA | {"autoscaling__freshnessTargetSeconds": 39}, "give 40 or more"),
    (KEDA | {"settings__max_batch_age": "1m"}, "give 120 or more"),
    (KEDA | {"autoscaling__renderMode": "failIfMissing"}, "autoscaling needs keda.sh/v1alpha1"),
    ({"podMonitor__renderMode": "failIfMissing"}, "podMonitor needs monitoring.coreos.com/v1"),
    ({"prometheusRule__renderMode": "failIfMissing"}, "prometheusRule needs monitoring.coreos.com/v1"),
]


# What the rules above leave.
TAKEN = [
    {"podMonitor__interval": "30s", "settings__failover_time": "90s"},
    {"podMonitor__interval": "500ms"},
    {"podMonitor__enabled": False, "podMonitor__interval": "1m"},
    {"prometheusRule__enabled": False, "settings__failover_time": "5m"},
]


def without_crds(engine, given):
    return engine.render(given, crds=()) if engine.name == "Helm 3" else engine.render(given)


class Values(unittest.TestCase):
    def refuses(self, changes, text):
        for engine in engines():
            with self.subTest(engine=engine.name, changes=changes):
                with self.assertRaises(Refused) as refused:
                    without_crds(engine, values(**changes))
                self.assertIn(text, str(refused.exception))

    def test_the_schema_is_a_schema(self):
        command = [sys.executable, "-m", "check_jsonschema", "--check-metaschema", str(CHART / "values.schema.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_schema_leaves_no_object_open(self):
        free = {"global", "affinity", "tolerations", "valueFrom"}

        def walk(name, node):
            if isinstance(node, dict):
                if node.get("type") == "object" and name not in free:
                    self.assertIn("additionalProperties", node, name)
                for key, value in node.items():
                    walk(name if key == "items" else key, value)

        walk("values", json.loads((CHART / "values.schema.json").read_text()))

    def test_every_ci_values_file_lints_without_a_warning(self):
        self.assertGreaterEqual(len(values_files()), 5)
        for engine in engines():
            for file in values_files():
                with self.subTest(engine=engine.name, file=file.name):
                    engine.lint(values(file.name.removesuffix("-values.yaml")))

    def test_both_helms_render_the_same(self):
        if len(engines()) < 2:
            self.skipTest("there is only one Helm")
        three, four = engines()
        for file in values_files():
            with self.subTest(file=file.name):
                given = values(file.name.removesuffix("-values.yaml"))
                self.assertEqual(three.render(given, crds=()), four.render(given))

    def test_what_the_schema_does_not_know_is_refused(self):
        for changes, text in REFUSED_BY_SCHEMA:
            self.refuses(changes, text)

    def test_memory_is_what_the_documented_formula_says_and_a_tenth(self):
        formula = "64 MiB + 2.5 x buffer_bytes + 64 KiB for each shard it holds"
        self.assertIn(formula, (CHART.parents[2] / "docs/batching.md").read_text())
        for buffer, shards in ((64, 100), (128, 1), (200, 500), (2048, 4000)):
            needed = math.ceil(1.1 * (64 + 2.5 * buffer + shards / 16))
            for memory, enough in ((needed + 1, True), (needed - 1, False)):
                with self.subTest(buffer=buffer, shards=shards, memory=memory):
                    text = {"cpu": "1", "memory": f"{memory}Mi"}
                    changes = {"resources": {"requests": text, "limits": {"memory": text["memory"]}}}
                    changes |= {"settings__buffer_bytes": f"{buffer}MiB", "settings__max_leases_per_worker": shards}
                    if enough:
                        engines()[0].render(values(**changes))
                    else:
                        self.refuses(changes, f"{shards} shards need")

    def test_values_that_contradict_each_other_are_refused_and_the_message_says_what_to_do(self):
        for changes, text in REFUSED_BY_RULE:
            self.refuses(changes, text)
        for changes in TAKEN:
            for engine in engines():
                with self.subTest(engine=engine.name, changes=changes):
                    self.assertIn("Deployment", without_crds(engine, values(**changes)))
