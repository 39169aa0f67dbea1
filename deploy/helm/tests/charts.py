"""The chart as two releases of Helm render it: version 3 by its program, version 4 by its library."""

import copy
import json
import os
import subprocess
import tempfile
from pathlib import Path

import helm_python
import yaml

CHART = Path(__file__).resolve().parents[1] / "sluicegate"
RELEASE = "flights"
NAMESPACE = "streams"
KUBERNETES = "1.33.0"
CRDS = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1", "cilium.io/v2")


class Refused(Exception):
    """Helm did not render, and says why."""


def values_files():
    return sorted((CHART / "ci").glob("*-values.yaml"))


def values(name="minimal", **changes):
    """The values of a ci file, changed: settings__drain_timeout="50s" is settings.drain_timeout."""
    result = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    for path, value in changes.items():
        place = result
        *folders, last = path.split("__")
        for folder in folders:
            place = place.setdefault(folder, {})
        if value is DROP:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    return result


DROP = object()


class Helm3:
    name = "Helm 3"

    def run(self, *arguments, given):
        with tempfile.TemporaryDirectory() as home:
            file = Path(home) / "values.yaml"
            file.write_text(yaml.safe_dump(given))
            command = [os.environ["HELM3"], *arguments, "-f", str(file)]
            # Nothing of the caller's: no plug-ins, no cluster.
            done = subprocess.run(command, env={"HOME": home}, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Refused(done.stdout + done.stderr)
        return done.stdout

    def render(self, given, crds=CRDS):
        """All manifests, by kind."""
        apis = [part for crd in crds for part in ("--api-versions", crd)]
        text = self.run("template", RELEASE, str(CHART), "-n", NAMESPACE, "--kube-version", KUBERNETES, *apis, given=given)
        return by_kind(text)

    def lint(self, given):
        self.run("lint", "--strict", str(CHART), given=given)


class Helm4:
    name = "Helm 4"

    def files(self, given):
        """All rendered files by name. This Helm is told of no CRD."""
        with helm_python.Chart.load(str(CHART)) as chart:
            try:
                chart.validate_schema(given)
                return chart.render(given, name=RELEASE, namespace=NAMESPACE)
            except helm_python.HelmError as error:
                raise Refused(str(error)) from error

    def render(self, given):
        files = self.files(given)
        return by_kind("\n---\n".join(text for name, text in files.items() if name.endswith(".yaml")))

    def lint(self, given):
        report = helm_python.lint(str(CHART), given, strict=True, kube_version=f"v{KUBERNETES}")
        bad = [message for message in report["messages"] if message["severity"] >= 2]
        if bad or report["errors"]:
            raise Refused(f"{bad} {report['errors']}")


def engines():
    return [Helm3(), Helm4()] if os.environ.get("HELM3") else [Helm4()]


def by_kind(text):
    manifests = [document for document in yaml.safe_load_all(text) if document]
    result = {manifest["kind"]: manifest for manifest in manifests}
    assert len(result) == len(manifests), "two manifests of one kind: these tests tell them by kind"
    return result


def render(given=None, name="minimal", **changes):
    """All manifests by kind, by the oldest Helm that is there."""
    return engines()[0].render(given if given is not None else values(name, **changes))


def pod(manifests):
    return manifests["Deployment"]["spec"]["template"]["spec"]


def container(manifests):
    (only,) = pod(manifests)["containers"]
    return only


def environment(manifests):
    return {variable["name"]: variable.get("value") for variable in container(manifests)["env"]}


if __name__ == "__main__":
    print(json.dumps(render()["Deployment"]))
