"""Reads the CloudFormation template as values: parameters, conditions and references resolved."""

import json
import pathlib
import re

import yaml

PATH = pathlib.Path(__file__).parent.parent / "cloudformation" / "sluicegate.yaml"
PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
}
NOTHING = object()


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms, each read as its long form."""


def _short_form(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if suffix == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {"Ref" if suffix == "Ref" else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", _short_form)


class Template:
    """The template with these parameters; the others have their defaults."""

    def __init__(self, **parameters):
        self.raw = yaml.load(PATH.read_text(), Loader)
        defaults = {name: p.get("Default") for name, p in self.raw["Parameters"].items()}
        self.parameters = {**defaults, **parameters}

    def resource(self, name):
        return self.resolve(self.raw["Resources"][name]["Properties"])

    def of_type(self, kind):
        return [name for name, r in self.raw["Resources"].items() if r["Type"] == kind]

    def statements(self, policy):
        """The statements of a managed policy, actions and resources as sorted lists."""
        document = self.resource(policy)["PolicyDocument"]
        many = lambda value: sorted([value] if isinstance(value, str) else value)
        return [
            {**s, "Action": many(s["Action"]), "Resource": many(s["Resource"])}
            for s in document["Statement"]
        ]

    def create_table(self, name):
        """The arguments of CreateTable, and the attribute of the time to live, if there is one."""
        table = self.resource(name)
        wanted = ("TableName", "BillingMode", "AttributeDefinitions", "KeySchema", "ProvisionedThroughput")
        arguments = {key: table[key] for key in wanted if key in table}
        return arguments, table.get("TimeToLiveSpecification", {}).get("AttributeName")

    # What follows knows the functions that the template uses, and refuses others.

    def resolve(self, value):
        if isinstance(value, list):
            return [r for r in map(self.resolve, value) if r is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (key, argument), = value.items()
            if key == "Ref":
                return self._ref(argument)
            if key == "Fn::GetAtt":
                return self._attribute(*argument)
            if key == "Fn::Sub":
                return re.sub(r"\$\{([^}]+)\}", lambda match: str(self._ref(match[1])), argument)
            if key == "Fn::If":
                return self.resolve(argument[1] if self.condition(argument[0]) else argument[2])
            if key.startswith("Fn::"):
                raise ValueError(f"unknown function {key}")
        resolved = {key: self.resolve(v) for key, v in value.items()}
        return {key: v for key, v in resolved.items() if v is not NOTHING}

    def condition(self, name):
        return self._holds(self.raw["Conditions"][name])

    def _holds(self, condition):
        (function, arguments), = condition.items()
        if function == "Fn::Equals":
            left, right = map(self.resolve, arguments)
            return left == right
        if function == "Fn::Not":
            return not self._holds(arguments[0])
        raise ValueError(f"unknown condition {function}")

    def _ref(self, name):
        if name == "AWS::NoValue":
            return NOTHING
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return self.parameters[name]
        resource = self.raw["Resources"][name]
        if resource["Type"] == "AWS::DynamoDB::Table":
            return self.resolve(resource["Properties"]["TableName"])
        return f"<{name}>"

    def _attribute(self, name, attribute):
        if self.raw["Resources"][name]["Type"] == "AWS::DynamoDB::Table" and attribute == "Arn":
            return self.resolve({"Fn::Sub": f"arn:${{AWS::Partition}}:dynamodb:${{AWS::Region}}:${{AWS::AccountId}}:table/${{{name}}}"})
        return f"<{name}.{attribute}>"


def policy_documents(template):
    """Every policy of the template as JSON text, by name, for a linter."""
    for name in template.of_type("AWS::IAM::ManagedPolicy"):
        yield name, json.dumps(template.resource(name)["PolicyDocument"])
