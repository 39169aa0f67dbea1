"""Plays the scenario, and holds what was called against what the template's policies allow, both ways.

A call that is not allowed would be refused in production. A right that nothing uses is one too many. What `sluicegate check`
prints as a worker's policy, and what it tries with --preflight, must be the same again.
"""

import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))

from processes import Backend, command, ended
from recorder import Recorder
from scenario import APPLICATION, STREAM, Scenario
from template import PSEUDO, Template


def allowed(statements):
    """What a policy allows: (service, operation, ARN of the table or stream)."""
    many = lambda value: [value] if isinstance(value, str) else value
    for statement in statements:
        assert statement["Effect"] == "Allow", statement
        for action in many(statement["Action"]):
            for arn in many(statement["Resource"]):
                yield *action.split(":"), arn


def by_name(rights):
    """The same without all of the ARN but the name, which is what a call tells."""
    return {(service, operation, arn.split("/", 1)[1]) for service, operation, arn in rights}


def differences(template, calls):
    """A line for each call that is not allowed, and for each right that was not used."""
    lines = []
    for policy in template.of_type("AWS::IAM::ManagedPolicy"):
        may, did = by_name(allowed(template.statements(policy))), calls.get(policy, set())
        lines += [f"{policy}: not allowed, but called: {call}" for call in sorted(did - may, key=str)]
        lines += [f"{policy}: allowed, but never called: {call}" for call in sorted(may - did, key=str)]
    return lines


def printed_differences(template, env):
    """Where `sluicegate check --policy` says something else than the template."""
    done = command([
        "check", "--policy", "--stream", STREAM, "--application", APPLICATION, "--account", PSEUDO["AWS::AccountId"],
    ], env)
    if done.returncode != 0:
        return [f"check --policy: {done.stderr}"]
    printed = set(allowed(json.loads(done.stdout)["Statement"]))
    wanted = set(allowed(template.statements("WorkerPolicy")))
    return [f"check --policy differs from the template: {right}" for right in sorted(printed ^ wanted)]


def play(template):
    with tempfile.TemporaryDirectory() as folder, ended() as running:
        folder = pathlib.Path(folder)
        backend = Backend(folder)
        running.append(backend.process)
        recorder = Recorder(backend.kinesis_url, backend.dynamodb_url)
        try:
            scenario = Scenario(folder, backend, recorder, running, template)
            for step in ("prepare", "workers", "dead_letter", "reshard", "reader", "operator", "preflight"):
                try:
                    getattr(scenario, step)()
                except Exception as error:
                    logs = "".join(f"--- {log.name}\n{log.read_text()[-4000:]}" for log in sorted(folder.glob("*.log")))
                    raise RuntimeError(f"in step {step}: {error}\n{logs}") from error
            calls = {caller: set(calls) for caller, calls in recorder.calls.items()}
            return calls, printed_differences(template, backend.environment())
        finally:
            recorder.close()


def main():
    template = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main")
    calls, printed = play(template)
    tried = calls.pop("preflight")
    for caller in sorted(calls):
        for service, operation, name in sorted(calls[caller], key=str):
            print(f"{caller:<15} {service}:{operation} {name}")
    found = differences(template, calls)
    for call in sorted(tried ^ calls["WorkerPolicy"], key=str):
        printed.append(f"check --preflight and the calls of workers differ: {call}")
    print("\n".join(found + printed))
    # Each way of the comparison finds something where there is something to find.
    for policy in calls:
        one = next(iter(calls[policy]))
        assert len(differences(template, {**calls, policy: calls[policy] - {one}})) == len(found) + 1
        assert len(differences(template, {**calls, policy: calls[policy] | {("s3", "GetObject", "x")}})) == len(found) + 1
    return 1 if found or printed else 0


if __name__ == "__main__":
    sys.exit(main())
