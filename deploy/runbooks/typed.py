"""What a runbook says to type, read and not run: `aws` is held against the models of its services, as botocore has them, and
`kubectl` against the verbs, kinds and options that runbooks need. What they do is tried in `emulated.py` and `cluster.py`."""

import re
import shlex

# Options of the program `aws` itself; how it writes its answer.
EVERYWHERE = {"--output": ("json", "text", "table", "yaml"), "--region": None, "--query": None}


class Aws:
    def __init__(self):
        import botocore.session
        import jmespath
        from botocore import xform_name

        self.session, self.jmespath = botocore.session.get_session(), jmespath
        self.dashed = lambda name: xform_name(name, "-")

    def wrong(self, line):
        """What is wrong with a command, or None."""
        words = shlex.split(line)
        if len(words) < 3 or words[1] not in self.session.get_available_services():
            return "there is no such service"
        model = self.session.get_service_model(words[1])
        name = next((name for name in model.operation_names if self.dashed(name) == words[2]), None)
        if name is None:
            return f"{words[1]} has no operation {words[2]}"
        operation = model.operation_model(name)
        members = operation.input_shape.members if operation.input_shape else {}
        by_option = {f"--{self.dashed(member)}": member for member in members}
        given = set()
        for option, said in options(words[3:]):
            if option in EVERYWHERE:
                found = self.wrong_answer(operation, option, said)
            else:
                bare = "--" + option.removeprefix("--no-") if option.startswith("--no-") else option
                member = by_option.get(option) or by_option.get(bare)
                if member is None:
                    return f"{words[2]} has no option {option}"
                given.add(member)
                found = wrong_values(members[member], said, negated=option not in by_option)
            if found:
                return f"{option}: {found}"
        missing = set(operation.input_shape.required_members if operation.input_shape else ()) - given
        return f"{words[2]} needs {sorted(missing)}" if missing else None

    def wrong_answer(self, operation, option, said):
        if len(said) != 1:
            return "it takes one value"
        if option == "--query":
            try:
                self.jmespath.compile(said[0])
            except self.jmespath.exceptions.ParseError as error:
                return str(error)
            # The names that it begins with, as far as they are plain.
            shape = operation.output_shape
            for name in re.match(r"[\w.]*", said[0])[0].split("."):
                if shape.type_name != "structure" or name not in shape.members:
                    return f"the answer has no {name}"
                shape = shape.members[name]
        elif EVERYWHERE[option] and said[0] not in EVERYWHERE[option]:
            return f"{said[0]} is none of {EVERYWHERE[option]}"
        return None


def options(words):
    """Pairs of an option and the values after it; what comes before the first has the option ''."""
    found = []
    for word in words:
        if re.match(r"--?[a-zA-Z]", word):
            option, equals, value = word.partition("=")
            found.append((option, [value] if equals else []))
        else:
            if not found:
                found.append(("", []))
            found[-1][1].append(word)
    return found


def wrong_values(shape, said, negated=False):
    if shape.type_name == "boolean":
        return "it takes no value" if said else None
    if negated:
        return "there is nothing to say no to"
    if not said:
        return "it takes a value"
    if shape.type_name == "list":
        return next(filter(None, (wrong_value(shape.member, each) for each in said)), None)
    return wrong_value(shape, said[0]) if len(said) == 1 else "it takes one value"


def wrong_value(shape, said):
    """What is wrong with a value as it is typed. What a variable stands for is not known."""
    if shape.type_name == "structure":
        for part in said.split(","):
            key, equals, value = part.partition("=")
            if not equals or key not in shape.members:
                return f"{part} is none of {sorted(shape.members)} and a value"
            found = wrong_value(shape.members[key], value)
            if found:
                return found
    if "$" in said:
        return None
    if shape.type_name in ("integer", "long") and not re.fullmatch(r"-?\d+", said):
        return f"{said} is no number"
    if shape.type_name == "string" and shape.enum and said not in shape.enum:
        return f"{said} is none of {shape.enum}"
    return None


def wrong_effect(looks, changed, said):
    """What is wrong with what a command did. One that looks must say something and change nothing, any other must change something."""
    if looks and changed:
        return "it changes something"
    if looks and not said.strip():
        return "it says nothing"
    return None if looks or changed else "it changes nothing"


# A verb, the kinds that it is used with (none: it selects by label), its options and whether they have a value.
SELECTOR, NAMESPACE = {"-l": True}, ("-n", "--namespace")
KUBECTL = {
    ("get",): (("pods", "deployment"), SELECTOR | {"-o": True}),
    ("describe",): (("pods", "deployment"), SELECTOR),
    ("logs",): ((), SELECTOR | {"--tail": True, "--prefix": False, "--previous": False, "--since": True}),
    ("scale",): (("deployment",), {"--replicas": True}),
    ("rollout", "status"): (("deployment",), {"--timeout": True}),
    ("rollout", "undo"): (("deployment",), {}),
    ("exec",): (("deployment",), {}),
    ("port-forward",): (("deployment",), {}),
}


def wrong_kubectl(line):
    """What is wrong with a command, or None."""
    words = shlex.split(line)[1:]
    if len(words) < 3 or words[0] not in NAMESPACE or words[1] != "$NAMESPACE":
        return "it does not begin with -n $NAMESPACE"
    words = words[2:]
    verb = next((verb for verb in KUBECTL if tuple(words[: len(verb)]) == verb), None)
    if verb is None:
        return f"no such verb is known: {' '.join(words[:2])}"
    kinds, known = KUBECTL[verb]
    words = words[len(verb):]
    # What runs in the pod, or the port.
    if verb in (("exec",), ("port-forward",)):
        if not re.fullmatch(r"-- /sluicegate .+|\d+(:\d+)?", " ".join(words[1:])):
            return f"{' '.join(words[1:])} is not what {verb[0]} takes"
        words = words[:1]
    selected = named = False
    for option, said in options(words):
        if option == "" or option in known and not known[option]:
            named_here = said
        elif option in known:
            if not said:
                return f"{option} takes a value"
            named_here, selected = said[1:], selected or option == "-l"
        else:
            return f"{verb[0]} has no option {option}, or it is not in the list"
        for what in named_here:
            kind, slash, name = what.partition("/")
            if named or kind not in kinds:
                return f"{verb[0]} does not take {what}"
            named, selected = True, selected or bool(slash and name)
    if kinds and not named:
        return f"{verb[0]} of what?"
    return None if selected else f"{verb[0]} of which?"


# Mistakes that have to be found.
BROKEN = {
    "aws": [
        "aws kinesys describe-stream-summary --stream-name $STREAM",
        "aws kinesis increase-retention --stream-name $STREAM --retention-period-hours $HOURS",
        "aws kinesis increase-stream-retention-period --stream-name $STREAM --retention-hours $HOURS",
        "aws kinesis increase-stream-retention-period --stream-name $STREAM --retention-period-hours week",
        "aws kinesis increase-stream-retention-period --stream-name $STREAM",
        "aws kinesis split-shard --stream-name $STREAM --shard-to-split $SHARD",
        "aws kinesis update-shard-count --stream-name $STREAM --target-shard-count 16 --scaling-type EVENLY",
        "aws kinesis describe-stream-summary --stream-name $STREAM --query StreamDescription.RetentionPeriodHours",
        "aws kinesis describe-stream-summary --stream-name $STREAM --query 'StreamDescriptionSummary['",
        "aws dynamodb update-table --table-name t --warm-throughput WriteUnits=8000",
        "aws dynamodb update-table --table-name t --no-deletion-protection",
        "aws dynamodb describe-table --table-name",
    ],
    "kubectl": [
        "kubectl get pods -l app.kubernetes.io/name=sluicegate",
        "kubectl -n sluicegate get pods -l app.kubernetes.io/name=sluicegate",
        "kubectl -n $NAMESPACE list pods -l app.kubernetes.io/name=sluicegate",
        "kubectl -n $NAMESPACE get pod-list -l app.kubernetes.io/name=sluicegate",
        "kubectl -n $NAMESPACE get pods",
        "kubectl -n $NAMESPACE scale deployment --replicas=8",
        "kubectl -n $NAMESPACE scale deployment/$DEPLOYMENT --replica=8",
        "kubectl -n $NAMESPACE logs --tail=50",
        "kubectl -n $NAMESPACE rollout deployment/$DEPLOYMENT",
        "kubectl -n $NAMESPACE exec deployment/$DEPLOYMENT leases list",
    ],
}
