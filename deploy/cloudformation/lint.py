"""Lints every policy of the template: `lint.py`; and shows that the linter would find something: `lint.py --broken`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))

import parliament

from template import Template, policy_documents


def findings(document):
    return [f"{finding.issue}: {finding.detail}" for finding in parliament.analyze_policy_string(document).findings]


def main():
    template = Template(ApplicationName="orders", StreamName="orders", ClusterName="main")
    documents = list(policy_documents(template))
    if "--broken" in sys.argv:
        # An action that cannot be used on a table, and one that does not exist.
        documents = [
            (name, document.replace("dynamodb:PutItem", "dynamodb:PutItems").replace("kinesis:ListShards", "kinesis:SubscribeToShard"))
            for name, document in documents
        ]
        found = [finding for _, document in documents for finding in findings(document)]
        return 0 if len(found) >= 2 else 1
    found = [(name, finding) for name, document in documents for finding in findings(document)]
    for name, finding in found:
        print(f"{name}: {finding}")
    return 1 if found or len(documents) < 4 else 0


if __name__ == "__main__":
    sys.exit(main())
