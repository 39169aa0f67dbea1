"""Deploys the template to an emulator, and starts a worker on tables as the emulator describes them.

The emulator holds no leases: its conditional writes are no locks. It only says what the template makes. The same tables
are then made in the local backend, where a worker starts without the right to make any. The emulator passes over the
alarms and the Pod Identity association: those are linted, not deployed.
"""

import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))

from processes import Backend, Worker, client, command, emulator, ended, produce, wait_for
from template import PATH, Template

APPLICATION, STREAM = "orders", "orders-stream"
KEYS = {
    "orders": [("leaseKey", "HASH", "S")],
    "orders-workers": [("fleet", "HASH", "S"), ("workerId", "RANGE", "S")],
    "orders-events": [("pk", "HASH", "S"), ("sk", "RANGE", "S")],
    "orders-dead-letters": [("pk", "HASH", "S"), ("sk", "RANGE", "S")],
}
EXPIRY = {"orders": None, "orders-workers": "expires", "orders-events": "t", "orders-dead-letters": None}


class Stack:
    """The template, deployed once."""

    def __init__(self, url, name, **parameters):
        self.url, self.name = url, name
        given = {"ApplicationName": APPLICATION, "StreamName": STREAM, "ClusterName": "main", **parameters}
        self.cloudformation = client("cloudformation", url)
        self.cloudformation.create_stack(
            StackName=name, TemplateBody=PATH.read_text(), Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        )
        stack = self.cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def tables(self):
        dynamodb = client("dynamodb", self.url)
        for name in KEYS:
            yield name, dynamodb.describe_table(TableName=name)["Table"]

    def trust(self):
        role = self.outputs["WorkerRoleArn"].rsplit("/", 1)[1]
        return client("iam", self.url).get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]


def check_tables(stack):
    for name, table in stack.tables():
        types = {a["AttributeName"]: a["AttributeType"] for a in table["AttributeDefinitions"]}
        keys = [(k["AttributeName"], k["KeyType"], types[k["AttributeName"]]) for k in table["KeySchema"]]
        assert keys == KEYS[name], (name, keys)
        assert table["DeletionProtectionEnabled"], name
    check_by_reading()


def check_by_reading():
    """What the emulator does not take from the template."""
    template = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main")
    assert template.resource("WorkerRole")["ManagedPolicyArns"] == ["<WorkerPolicy>"]
    for kind in ("AWS::DynamoDB::Table", "AWS::Kinesis::Stream"):
        for name in template.of_type(kind):
            resource = template.raw["Resources"][name]
            # A first deploy that fails leaves nothing in the way of the next.
            assert resource["DeletionPolicy"] == "RetainExceptOnCreate", name
            assert resource["UpdateReplacePolicy"] == "Retain", name
    for name in template.of_type("AWS::DynamoDB::Table"):
        table = template.resource(name)
        assert table["SSESpecification"] == {"SSEEnabled": True}, name
        assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}, name
        assert template.create_table(name)[1] == EXPIRY[table["TableName"]], name
    for name in template.of_type("AWS::CloudWatch::Alarm"):
        check_alarm(name, template.resource(name))


def check_alarm(name, alarm):
    """An alarm on a metric of DynamoDB ignores what is missing, and would stay as it is: an expression has to fill it."""
    assert alarm.get("Namespace") != "AWS/DynamoDB", name
    metrics = alarm.get("Metrics", [])
    expressions = " ".join(metric.get("Expression", "") for metric in metrics)
    for metric in metrics:
        of = metric.get("MetricStat", {}).get("Metric", {})
        if of.get("Namespace") == "AWS/DynamoDB":
            assert f"FILL({metric['Id']}, 0)" in expressions, (name, metric["Id"])
            assert of["Dimensions"][0]["Value"] in KEYS, (name, of)
            # The last minute may be filled before it is there.
            assert alarm["EvaluationPeriods"] > 1, name
    assert len([metric for metric in metrics if metric.get("ReturnData", True)]) == (1 if metrics else 0), name


def check_provisioned(url):
    stack = Stack(url, "provisioned", TableMode="provisioned", MaxWriteCapacity="4000", Identity="irsa", OidcProvider="oidc.example/id/1")
    modes = {name: table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED") for name, table in stack.tables()}
    assert modes.pop("orders-events") == "PROVISIONED", modes
    assert set(modes.values()) == {"PAY_PER_REQUEST"}, modes
    statement, = as_document(stack.trust())["Statement"]
    assert statement["Condition"]["StringEquals"] == {
        "oidc.example/id/1:aud": "sts.amazonaws.com",
        "oidc.example/id/1:sub": "system:serviceaccount:sluicegate:sluicegate",
    }, statement


def check_beside_kcl(url):
    """A lease table that is there already is left as it is, and workers have their rights on it."""
    dynamodb = client("dynamodb", url)
    dynamodb.create_table(
        TableName=APPLICATION, BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
    )
    stack = Stack(url, "beside-kcl", CreateLeaseTable="false")
    made = {name for name, table in stack.tables() if table["DeletionProtectionEnabled"]}
    assert made == set(KEYS) - {APPLICATION}, made
    with_its_own = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main")
    without = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main", CreateLeaseTable="false")
    for policy in with_its_own.of_type("AWS::IAM::ManagedPolicy"):
        assert without.statements(policy) == with_its_own.statements(policy), policy


def check_over_what_was_kept(url):
    """A stack is made again over the stream and the tables that one before it left."""
    kept = dict(CreateStream="false", CreateLeaseTable="false", CreateTables="false")
    Stack(url, "first")
    stack = Stack(url, "again", **kept)
    resources = stack.cloudformation.list_stack_resources(StackName="again")["StackResourceSummaries"]
    assert not {"AWS::DynamoDB::Table", "AWS::Kinesis::Stream"} & {resource["ResourceType"] for resource in resources}, resources
    assert {name for name, _ in stack.tables()} == set(KEYS)
    assert stack.outputs["AnalyticsTableName"] == f"{APPLICATION}-events", stack.outputs
    anew = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main")
    over = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main", **kept)
    for policy in anew.of_type("AWS::IAM::ManagedPolicy"):
        assert over.statements(policy) == anew.statements(policy), policy
    provisioned = Template(ApplicationName=APPLICATION, StreamName=STREAM, ClusterName="main", TableMode="provisioned", **kept)
    assert provisioned.resource("AnalyticsWriteTarget")["ResourceId"] == f"table/{APPLICATION}-events"


def as_document(policy):
    return json.loads(policy) if isinstance(policy, str) else policy


def check_on_demand(stack):
    check_tables(stack)
    statement, = as_document(stack.trust())["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}, statement
    wanted = statement["Condition"]["StringEquals"]
    assert wanted["aws:RequestTag/kubernetes-service-account"] == "sluicegate", wanted
    # The cluster of this region and account: its name alone could be another's.
    assert wanted["aws:RequestTag/eks-cluster-arn"] == "arn:aws:eks:us-east-1:123456789012:cluster/main", wanted
    described = client("kinesis", stack.url).describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    assert (described["OpenShardCount"], described["RetentionPeriodHours"]) == (4, 168), described
    return described


def copy_tables(stack, backend):
    """Makes in the local backend what the emulator describes."""
    for name, table in stack.tables():
        mode = table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
        assert mode == "PAY_PER_REQUEST", (name, mode)
        backend.dynamodb.create_table(
            TableName=name, BillingMode=mode, AttributeDefinitions=table["AttributeDefinitions"], KeySchema=table["KeySchema"]
        )


class Watchman:
    """Whether a table was made or changed after this was taken."""

    def __init__(self, dynamodb):
        self.dynamodb, self.before = dynamodb, self.now(dynamodb)

    @staticmethod
    def now(dynamodb):
        names = dynamodb.list_tables()["TableNames"]
        return {name: dynamodb.describe_table(TableName=name)["Table"]["CreationDateTime"] for name in names}

    def check(self):
        assert self.now(self.dynamodb) == self.before, "the worker made a table"


def run_on(stack, described, folder):
    """A worker on such tables stores events, and they can be read."""
    with ended() as running:
        backend = Backend(folder)
        running.append(backend.process)
        env = backend.environment()
        # What is missing is named, and nothing is made.
        lacking = Worker(folder, "lacking", env, STREAM, APPLICATION)
        assert lacking.process.child.wait(timeout=30) != 0
        assert "infrastructure template" in lacking.process.text(), lacking.process.text()
        assert backend.dynamodb.list_tables()["TableNames"] == []

        backend.kinesis.create_stream(StreamName=STREAM, ShardCount=described["OpenShardCount"])
        copy_tables(stack, backend)
        untouched = Watchman(backend.dynamodb)
        worker = Worker(folder, "worker", env, STREAM, APPLICATION, max_batch_age="1s")
        running.append(worker.process)
        produce([f'{{"customer":"c","n":{n}}}' for n in range(100)], env, STREAM, "--key", "{/customer}")

        def stored():
            assert worker.process.alive(), worker.process.text()
            read = command(["read", "--application", APPLICATION, "--key", "c"], env)
            return len(read.stdout.splitlines()) == 100

        wait_for("100 stored events", stored)
        assert worker.process.end() == 0, worker.process.text()
        untouched.check()


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        process, url = emulator(folder)
        with ended(process):
            stack = Stack(url, "on-demand")
            described = check_on_demand(stack)
            run_on(stack, described, folder)
        # Tables are retained, so that another stack of the same names needs another emulator.
        process, url = emulator(folder)
        with ended(process):
            check_provisioned(url)
        process, url = emulator(folder)
        with ended(process):
            check_beside_kcl(url)
        process, url = emulator(folder)
        with ended(process):
            check_over_what_was_kept(url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
