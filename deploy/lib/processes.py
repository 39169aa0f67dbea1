"""Starts and ends the real program for the checks: the local backend, workers, commands.

Every process that is started here is ended here, by its id, also when a check is given up (SIGTERM by `timeout`).
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3

PROGRAM = os.environ.get("SLUICEGATE_BIN", "sluicegate")
PATIENCE = 60

# As an exception it passes through `ended`.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def wait_for(what, condition, patience=PATIENCE, poll=0.1):
    """Waits until the condition holds, and returns what it returned."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"waited {patience} s for {what}")
        time.sleep(poll)


def environment(kinesis, dynamodb, **more):
    """Of a process that takes these endpoints for AWS: nothing of the caller's clouds."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SLUICEGATE_"))}
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": "check",
        "AWS_SECRET_ACCESS_KEY": "check",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_KINESIS": kinesis,
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb,
        **more,
    }


def client(service, endpoint, region="us-east-1"):
    return boto3.client(
        service, endpoint_url=endpoint, region_name=region, aws_access_key_id="check", aws_secret_access_key="check"
    )


class Process:
    """A running program whose output goes to files."""

    def __init__(self, command, log, env=None):
        self.log = pathlib.Path(log)
        self.output = self.log.with_suffix(".out")
        with open(self.log, "wb") as errors, open(self.output, "wb") as output:
            self.child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)

    def text(self):
        return self.output.read_text(errors="replace") + self.log.read_text(errors="replace")

    def search(self, pattern):
        """Waits until the output matches."""

        def found():
            match = re.search(pattern, self.text())
            if match is None and not self.alive():
                raise RuntimeError(f"ended with {self.child.returncode}:\n{self.text()}")
            return match

        return wait_for(f"{pattern!r} in {self.log}", found)

    def alive(self):
        return self.child.poll() is None

    def end(self, how=signal.SIGTERM):
        """Ends it, with force if it does not go; returns its exit code."""
        if self.alive():
            self.child.send_signal(how)
        try:
            return self.child.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()


class Backend:
    """`sluicegate local` on free ports."""

    def __init__(self, folder, *arguments):
        command = [PROGRAM, "local", "--json", "--kinesis-port", "0", "--dynamodb-port", "0", *arguments]
        self.process = Process(command, folder / "local.log")
        found = json.loads(self.process.search(r"\{.*\}")[0])
        self.kinesis_url, self.dynamodb_url = found["kinesis"], found["dynamodb"]
        self.kinesis, self.dynamodb = client("kinesis", self.kinesis_url), client("dynamodb", self.dynamodb_url)

    def faults(self, script):
        request = urllib.request.Request(f"{self.dynamodb_url}/faults", data=script.encode(), method="POST")
        urllib.request.urlopen(request, timeout=10).read()

    def environment(self, **more):
        return environment(self.kinesis_url, self.dynamodb_url, **more)


class Worker:
    """`sluicegate run` as it runs in production: without --embedded and without --create-tables."""

    def __init__(self, folder, name, env, stream, application, admin="127.0.0.1:0", **settings):
        env = {**env, **{f"SLUICEGATE_CFG_{key.upper()}": str(value) for key, value in settings.items()}}
        command = [PROGRAM, "run", "--stream", stream, "--application", application, "--admin", admin]
        self.process = Process(command, folder / f"{name}.log", env)

    def address(self):
        line = self.process.search(r".*admin server listens.*")[0]
        return re.search(r"127\.0\.0\.1:\d+", line)[0]

    def get(self, path):
        """Status and body of the admin server's answer."""
        try:
            with urllib.request.urlopen(f"http://{self.address()}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def command(arguments, env, given=None):
    """Runs a command to its end."""
    return subprocess.run(
        [PROGRAM, *arguments], env=env, input=given, stdin=None if given else subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120,
    )


def produce(lines, env, stream, *arguments):
    done = command(["produce", "--stream", stream, *arguments], env, given="".join(f"{line}\n" for line in lines))
    if done.returncode != 0:
        raise RuntimeError(f"produce: {done.stderr}")


def emulator(folder):
    """An emulator of AWS (moto) on a free port: its process and its address. It must never hold leases."""
    program = pathlib.Path(sys.executable).parent / "moto_server"
    process = Process([str(program), "-H", "127.0.0.1", "-p", "0"], folder / "emulator.log")
    return process, process.search(r"http://127\.0\.0\.1:\d+")[0]


@contextlib.contextmanager
def ended(*processes):
    """Ends all that was put on the list, the last first."""
    running = list(processes)
    try:
        yield running
    finally:
        for process in reversed(running):
            process.end()
