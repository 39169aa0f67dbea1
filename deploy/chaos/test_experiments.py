"""The experiments: what an API server takes, what they hit, and that each says what it is for."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import jsonschema
import yaml
from charts import render

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FILES = sorted(HERE.glob("*.yaml"))
# The least that there has to be: one is killed, one is cut off from its leases, one does not run.
NEEDED = {"worker-kill", "dynamodb-partition", "worker-starved"}


def experiments():
    return {file.stem: yaml.safe_load(file.read_text()) for file in FILES}


def said(experiment, what):
    return experiment["metadata"]["annotations"][f"sluicegate/{what}"]


def problems(experiment):
    group, version = experiment["apiVersion"].split("/")
    schema = ROOT / "deploy/schemas" / f"{experiment['kind'].lower()}.{group}.{version}.json"
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
    return [error.message for error in validator.iter_errors(experiment)]


class Experiments(unittest.TestCase):
    def test_they_fit_the_strict_schemas_of_chaos_mesh(self):
        self.assertLessEqual(NEEDED, set(experiments()))
        for name, experiment in experiments().items():
            with self.subTest(experiment=name):
                self.assertEqual(problems(experiment), [])

    def test_a_misspelt_field_would_be_noticed(self):
        for name, experiment in experiments().items():
            with self.subTest(experiment=name):
                experiment["spec"]["directon"] = "to"
                self.assertNotEqual(problems(experiment), [])

    def test_each_says_what_is_expected_when_to_stop_and_what_plays_it_locally(self):
        for name, experiment in experiments().items():
            with self.subTest(experiment=name):
                self.assertEqual(experiment["metadata"]["name"], f"sluicegate-{name}")
                for what in ("hypothesis", "expect", "abort", "local-twin"):
                    self.assertTrue(said(experiment, what).strip(), what)

    def test_every_local_twin_is_there(self):
        targets = set(re.findall(r"^([a-z][a-z ]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
        targets = {target for line in targets for target in line.split()}
        for name, experiment in experiments().items():
            with self.subTest(experiment=name):
                make, target, *variables = said(experiment, "local-twin").split()
                self.assertEqual(make, "make")
                self.assertIn(target, targets)
                for variable in variables:
                    self.assertRegex(variable, r"^[A-Z_]+=[0-9]+$")

    def test_every_condition_is_a_query(self):
        if not shutil.which("promtool"):
            self.skipTest("promtool is not there (Debian: prometheus)")
        rules = [
            {"alert": name.title().replace("-", "") + what.title(), "expr": said(experiment, what)}
            for name, experiment in experiments().items()
            for what in ("abort", "expect")
        ]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rules.yaml"
            file.write_text(yaml.safe_dump({"groups": [{"name": "chaos", "rules": rules}]}))
            done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(f"{len(rules)} rules found", done.stdout)

    def test_they_hit_the_pods_of_the_chart_and_nothing_else(self):
        labels = render()["Deployment"]["spec"]["template"]["metadata"]["labels"]
        for name, experiment in experiments().items():
            with self.subTest(experiment=name):
                spec = experiment["spec"]
                for selector in [spec["selector"]] + ([spec["target"]["selector"]] if "target" in spec else []):
                    self.assertEqual(selector["namespaces"], ["sluicegate"])
                    self.assertTrue(selector["labelSelectors"])
                    self.assertLessEqual(selector["labelSelectors"].items(), labels.items())

    def test_every_fault_ends_by_itself(self):
        for name, experiment in experiments().items():
            with self.subTest(experiment=name):
                if experiment["spec"].get("action") != "pod-kill":
                    self.assertRegex(experiment["spec"]["duration"], r"^[0-9]+(s|m)$", name)

    def test_a_network_fault_to_aws_is_laid_on_what_goes_out(self):
        # Chaos Mesh can hold up what comes from an external target no other way.
        for name, experiment in experiments().items():
            with self.subTest(experiment=name):
                if "externalTargets" in experiment["spec"]:
                    self.assertEqual(experiment["spec"]["direction"], "to")

    def test_a_worker_that_leaves_gets_the_time_that_the_chart_gives_it(self):
        grace = render()["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        self.assertEqual(experiments()["worker-leaves"]["spec"]["gracePeriod"], grace)
        self.assertEqual(experiments()["worker-kill"]["spec"]["gracePeriod"], 0)

    def test_the_page_lists_all_of_them(self):
        listed = re.findall(r"^\| \[([a-z-]+)\]\(([a-z-]+)\.yaml\) \|.*\| `(make [^`]+)` \|$", (HERE / "README.md").read_text(), re.M)
        self.assertEqual([(name, link) for name, link, _ in listed], [(file.stem, file.stem) for file in FILES])
        for name, _, twin in listed:
            self.assertEqual(twin, said(experiments()[name], "local-twin"))
