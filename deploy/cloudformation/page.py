"""Runs what docs/eks.md says to type to AWS, in its order, by the real `aws` against an emulator: from nothing to tables, and back.

What it says to type to Docker, to a cluster and to a worker is left out here, and the add-on of EKS, which the emulator lacks.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "lib"))

from processes import client, emulator, ended

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "eks.md"
LEFT_OUT = re.compile(r"^(helm|docker|kubectl|curl|aws eks) |\| docker ")
TABLES = {"orders", "orders-workers", "orders-events", "orders-dead-letters"}


def script():
    """The commands of the page, one after the other."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if not LEFT_OUT.search(line)]


def run(lines, url):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SLUICEGATE_"))}
    env = kept | {
        "PATH": f"{pathlib.Path(sys.executable).parent}:{kept['PATH']}", "AWS_PAGER": "",
        "AWS_ACCESS_KEY_ID": "check", "AWS_SECRET_ACCESS_KEY": "check", "AWS_ENDPOINT_URL": url,
        # Version 1 of the program, which is what can be installed here, does not know AWS_REGION.
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(lines)], env=env, cwd=PAGE.parents[1], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def main():
    lines = script()
    (end,) = [number for number, line in enumerate(lines) if "delete-stack" in line]
    exports = [line for line in lines if line.startswith("export ")]
    with tempfile.TemporaryDirectory() as folder:
        process, url = emulator(pathlib.Path(folder))
        with ended(process):
            of = lambda service: client(service, url, "eu-central-1")
            of("eks").create_cluster(name="main", roleArn="arn:aws:iam::123456789012:role/eks", resourcesVpcConfig={})
            said = run(lines[:end], url)
            assert re.search(r"^\d+\.\d+\.\d+\.\d+/\d+", said, re.MULTILINE), f"no prefix of DynamoDB: {said}"
            dynamodb, kinesis = of("dynamodb"), of("kinesis")
            assert set(dynamodb.list_tables()["TableNames"]) == TABLES, dynamodb.list_tables()
            assert kinesis.list_streams()["StreamNames"] == ["orders-stream"]
            # The emulator would delete what the template retains, and fails on its protection: the stack stays.
            run(exports + lines[end + 1:], url)
            assert dynamodb.list_tables()["TableNames"] == [] and kinesis.list_streams()["StreamNames"] == []
    return 0


if __name__ == "__main__":
    sys.exit(main())
