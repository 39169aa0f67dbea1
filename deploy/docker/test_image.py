"""What the image is built from, and that the embedded backend is not in it."""

import os
import re
import shutil
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
PRODUCTION = os.environ.get("SLUICEGATE_PRODUCTION_BIN")
DEVELOPMENT = os.environ.get("SLUICEGATE_BIN")
# What belongs to the embedded backend and to nothing else.
EMBEDDED = {"sluicegate-local", "dynoxide-rs", "axum", "rusqlite", "libsqlite3-sys"}


def instructions(text):
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def last_stage():
    all_of_them = instructions(DOCKERFILE)
    start = max(number for number, (word, _) in enumerate(all_of_them) if word == "FROM")
    return all_of_them[start:]


class Dockerfile(unittest.TestCase):
    def test_base_images_are_arguments_pinned_by_digest(self):
        arguments = dict(text.split("=", 1) for word, text in instructions(DOCKERFILE) if word == "ARG" and "=" in text)
        for name in ("BUILDER_IMAGE", "RUNTIME_IMAGE"):
            self.assertRegex(arguments[name], r"^[^:@]+:[^:@]+@sha256:[0-9a-f]{64}$")
        bases = [text.split()[0] for word, text in instructions(DOCKERFILE) if word == "FROM"]
        self.assertEqual(bases, ["${BUILDER_IMAGE}", "${RUNTIME_IMAGE}"])

    def test_it_builds_with_the_toolchain_of_the_repository(self):
        channel = re.search(r'^channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text(), re.MULTILINE)[1]
        self.assertIn(f"/rust:{channel}-", DOCKERFILE)

    def test_the_program_is_static_locked_and_without_the_embedded_backend(self):
        (build,) = [text for word, text in instructions(DOCKERFILE) if word == "RUN"]
        for part in ("+crt-static", "--release", "--locked", "--no-default-features", "-p sluicegate-cli"):
            self.assertIn(part, build)

    def test_the_image_is_one_program_that_runs_as_nobody(self):
        stage = last_stage()
        self.assertEqual([text for word, text in stage if word == "USER"], ["65532:65532"])
        self.assertEqual(stage[-2:], [("ENTRYPOINT", '["/sluicegate"]'), ("CMD", '["--help"]')])
        self.assertFalse([word for word, _ in stage if word in {"RUN", "ADD", "VOLUME", "SHELL"}])
        (copied,) = [text for word, text in stage if word == "COPY"]
        self.assertIn("--from=build", copied)

    def test_only_sources_are_sent_to_the_builder(self):
        ignored = (ROOT / "deploy/docker/Dockerfile.dockerignore").read_text().split("\n")
        kept = {line[1:] for line in ignored if line.startswith("!")}
        self.assertIn("*", ignored)
        copied = {
            source
            for word, text in instructions(DOCKERFILE)
            if word == "COPY" and "--from" not in text
            for source in text.split()[:-1]
        }
        self.assertEqual(copied, kept)
        for source in copied:
            self.assertTrue((ROOT / source).exists(), source)

    def test_versions_agree(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        chart = (ROOT / "deploy/helm/sluicegate/Chart.yaml").read_text()
        self.assertIn(f'appVersion: "{version}"', chart)
        self.assertIn(f"ARG VERSION={version}\n", DOCKERFILE)

    def test_the_chart_calls_the_program_where_the_image_has_it(self):
        notes = (ROOT / "deploy/helm/sluicegate/templates/NOTES.txt").read_text()
        self.assertIn(" -- /sluicegate leases list", notes)


def crates(*features):
    command = ["cargo", "tree", "--locked", "-p", "sluicegate-cli", "-e", "normal", "--prefix", "none", *features]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    return {line.split()[0] for line in done.stdout.splitlines() if line.strip()}


def help_of(program, *arguments):
    return subprocess.run([program, *arguments, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout


def commands(program):
    return set(re.findall(r"^  ([a-z-]+)  ", help_of(program), re.MULTILINE))


class EmbeddedBackend(unittest.TestCase):
    def test_no_crate_of_the_embedded_backend_is_in_a_production_build(self):
        if not shutil.which("cargo"):
            self.skipTest("cargo is not there")
        self.assertEqual(crates("--no-default-features") & EMBEDDED, set())
        # So the names are right.
        self.assertEqual(crates() & EMBEDDED, EMBEDDED)

    def test_a_production_build_has_no_command_and_no_flag_of_the_embedded_backend(self):
        if not PRODUCTION:
            self.skipTest("there is no production build (SLUICEGATE_PRODUCTION_BIN, or cargo)")
        self.assertEqual(commands(PRODUCTION) & {"local", "demo"}, set())
        self.assertIn("run", commands(PRODUCTION))
        for command in commands(PRODUCTION) - {"help"}:
            self.assertNotIn("embedded", help_of(PRODUCTION, command), command)
        for command in ("local", "demo"):
            done = subprocess.run([PRODUCTION, command], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("unrecognized subcommand", done.stderr)

    def test_a_production_build_has_every_other_command(self):
        if not PRODUCTION or not DEVELOPMENT:
            self.skipTest("it takes a production build and another (SLUICEGATE_BIN)")
        self.assertEqual(commands(DEVELOPMENT) - commands(PRODUCTION), {"local", "demo"})
