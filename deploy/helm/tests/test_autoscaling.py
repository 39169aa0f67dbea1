"""What the fleet is scaled by: the queries are asked of Prometheus' own engine, the rest is Kubernetes' arithmetic."""

import math
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml
from charts import render

TARGET = 90
LABELS = '{job="streams/flights-sluicegate",instance="%s"}'


def trigger(name, **changes):
    triggers = render(name="keda", **changes)["ScaledObject"]["spec"]["triggers"]
    (found,) = [each for each in triggers if each["name"] == name]
    return found


def asked(query, series):
    """What Prometheus answers to a query two minutes after these series began: None for nothing."""
    for answer in (None, 0, 30, TARGET, 300, 96):
        samples = [] if answer is None else [{"value": answer}]
        test = {
            "rule_files": [],
            "tests": [
                {
                    "interval": "15s",
                    "input_series": [{"series": name, "values": f"{value}x8"} for name, value in series.items()],
                    "promql_expr_test": [{"expr": query, "eval_time": "2m", "exp_samples": samples}],
                }
            ],
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "test.yaml"
            file.write_text(yaml.safe_dump(test))
            done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return answer
    raise AssertionError(f"none of the answers: {done.stdout}{done.stderr}")


def fleet(freshness, limited, cut=()):
    """Series of workers that all see the same freshness, each limited by the table (1) or not (0); some do not reach their
    tables."""
    series = {}
    for number, value in enumerate(limited):
        worker = LABELS % f"flights-{number}"
        series[f"sluicegate_fleet_freshness_max_seconds{worker}"] = f"{freshness}+0"
        series[f"sluicegate_write_limited{worker}"] = f"{value}+0"
        series[f"sluicegate_heartbeats_total{worker}"] = "90+0" if number in cut else "90+4"
    return series


def replicas(current, value):
    """What a HorizontalPodAutoscaler makes of a metric of the type Value; changes within a tenth are none."""
    ratio = value / TARGET
    return current if abs(ratio - 1) <= 0.1 else math.ceil(current * ratio)


class Freshness(unittest.TestCase):
    def setUp(self):
        if not shutil.which("promtool"):
            self.skipTest("promtool is not there (Debian: prometheus)")
        self.trigger = trigger("freshness")
        self.query = self.trigger["metadata"]["query"]

    def test_late_events_bring_workers(self):
        value = asked(self.query, fleet(300, [0, 0, 0]))
        self.assertEqual(value, 300)
        self.assertEqual(replicas(3, value), 10)

    def test_a_fleet_in_time_may_shrink(self):
        value = asked(self.query, fleet(30, [0, 0, 0]))
        self.assertEqual(value, 30)
        self.assertEqual(replicas(3, value), 1)

    def test_while_the_table_is_the_limit_of_one_worker_the_fleet_stays_as_it_is(self):
        for freshness in (0, 30, 300):
            value = asked(self.query, fleet(freshness, [0, 1, 0]))
            self.assertEqual(value, TARGET, freshness)
            self.assertEqual(replicas(7, value), 7)

    def test_a_limit_that_comes_and_goes_counts_for_two_minutes(self):
        series = fleet(300, [0])
        series[f"sluicegate_write_limited{LABELS % 'flights-0'}"] = "1 0+0"
        self.assertEqual(asked(self.query, series), TARGET)

    def test_while_nobody_reaches_the_tables_the_fleet_stays_as_it_is(self):
        self.assertEqual(asked(self.query, fleet(300, [0, 0, 0], cut=(0, 1, 2))), TARGET)

    def test_a_worker_that_is_cut_off_does_not_speak_for_the_fleet(self):
        series = fleet(30, [0, 0, 0], cut=(2,))
        series[f"sluicegate_fleet_freshness_max_seconds{LABELS % 'flights-2'}"] = "300+0"
        self.assertEqual(asked(self.query, series), 30)

    def test_no_data_is_no_answer_and_another_fleet_is_no_data(self):
        self.assertIsNone(asked(self.query, {'up{job="streams/flights-sluicegate"}': "1+0"}))
        others = {name.replace("flights", "orders"): value for name, value in fleet(300, [0]).items()}
        self.assertIsNone(asked(self.query, others))

    def test_who_does_not_say_whether_the_table_is_the_limit_changes_nothing(self):
        silent = {name: value for name, value in fleet(300, [0]).items() if "limited" not in name}
        self.assertEqual(asked(self.query, silent), TARGET)


class Rules(unittest.TestCase):
    def test_the_answer_is_compared_as_a_whole_and_not_by_worker(self):
        self.assertEqual(trigger("freshness")["metricType"], "Value")
        self.assertEqual(trigger("freshness")["metadata"]["threshold"], str(TARGET))

    def test_a_number_of_shards_is_divided_among_workers(self):
        shards = trigger("shards")
        self.assertEqual((shards["metricType"], shards["metadata"]["threshold"]), ("AverageValue", "40"))
        names = [each["name"] for each in render(name="keda", autoscaling__shardsPerWorker=0)["ScaledObject"]["spec"]["triggers"]]
        self.assertEqual(names, ["freshness"])

    def test_without_prometheus_the_fleet_does_not_shrink(self):
        spec = render(name="keda")["ScaledObject"]["spec"]
        self.assertNotIn("fallback", spec, "older KEDA refuses it; an autoscaler without a number changes nothing")
        for each in spec["triggers"]:
            self.assertEqual(each["metadata"]["ignoreNullValues"], "false")

    def test_a_fleet_shrinks_slowly_and_never_to_nothing(self):
        spec = render(name="keda")["ScaledObject"]["spec"]
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        self.assertGreaterEqual(down["stabilizationWindowSeconds"], 600)
        self.assertEqual(down["policies"], [{"type": "Pods", "value": 1, "periodSeconds": 120}])
        self.assertEqual((spec["minReplicaCount"], spec["maxReplicaCount"]), (3, 32))
        self.assertNotIn("idleReplicaCount", spec)

    def test_it_scales_the_deployment_of_this_release(self):
        manifests = render(name="keda")
        self.assertEqual(
            manifests["ScaledObject"]["spec"]["scaleTargetRef"]["name"], manifests["Deployment"]["metadata"]["name"]
        )
