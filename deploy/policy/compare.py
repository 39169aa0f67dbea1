"""Plays the scenario, and holds what was called against what the template's policies allow, both ways.

A call that is not allowed would be refused in production. A right that nothing uses is one too many.
"""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))

from processes import Backend, ended
from recorder import Recorder
from scenario import APPLICATION, STREAM, Scenario
from template import Template


def allowed(template, policy):
    """What a policy allows: (service, operation, name of the table or stream)."""
    for statement in template.statements(policy):
        assert statement["Effect"] == "Allow", statement
        for action in statement["Action"]:
            for arn in statement["Resource"]:
                service, operation = action.split(":")
                yield service, operation, arn.split("/", 1)[1]


def differences(template, calls):
    """A line for each call that is not allowed, and for each right that was not used."""
    lines = []
    for policy in template.of_type("AWS::IAM::ManagedPolicy"):
        may, did = set(allowed(template, policy)), calls.get(policy, set())
        lines += [f"{policy}: not allowed, but called: {call}" for call in sorted(did - may, key=str)]
        lines += [f"{policy}: allowed, but never called: {call}" for call in sorted(may - did, key=str)]
    return lines


def play(template):
    with tempfile.TemporaryDirectory() as folder, ended() as running:
        folder = pathlib.Path(folder)
        backend = Backend(folder)
        running.append(backend.process)
        recorder = Recorder(backend.kinesis_url, backend.dynamodb_url)
        try:
            scenario = Scenario(folder, backend, recorder, running, template)
            for step in ("prepare", "workers", "dead_letter", "reshard", "reader", "operator"):
                try:
                    getattr(scenario, step)()
                except Exception as error:
                    logs = "".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in sorted(folder.glob("*.log")))
                    raise RuntimeError(f"in step {step}: {error}\n{logs}") from error
            return {caller: set(calls) for caller, calls in recorder.calls.items()}
        finally:
            recorder.close()


def main():
    template = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main")
    calls = play(template)
    for caller in sorted(calls):
        for service, operation, name in sorted(calls[caller], key=str):
            print(f"{caller:<15} {service}:{operation} {name}")
    found = differences(template, calls)
    print("\n".join(found))
    # Each way of the comparison finds something where there is something to find.
    for policy in calls:
        one = next(iter(calls[policy]))
        assert len(differences(template, {**calls, policy: calls[policy] - {one}})) == len(found) + 1
        assert len(differences(template, {**calls, policy: calls[policy] | {("s3", "GetObject", "x")}})) == len(found) + 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
