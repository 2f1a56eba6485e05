#!/usr/bin/env python3
"""Tests of bench/instructions, with a cargo and a valgrind that only pretend: `python3 bench/test_instructions.py`."""

import os
import subprocess
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

SCRIPT = Path(__file__).with_name("instructions")
LOADER = SourceFileLoader("instructions", str(SCRIPT))
instructions = module_from_spec(spec_from_loader("instructions", LOADER))
LOADER.exec_module(instructions)

# The "bench" is the source itself: a program that lists its cases, and what an iteration of each takes.
CARGO = """#!/bin/sh
cp gateway/benches/instructions.rs "$CARGO_TARGET_DIR.bench"
chmod +x "$CARGO_TARGET_DIR.bench"
echo '{"reason":"compiler-artifact","target":{"name":"instructions"},"executable":"'"$CARGO_TARGET_DIR.bench"'"}'
"""
VALGRIND = """#!/bin/sh
each=$("$3" --cost "$4")
echo "==1== Collected : $((5000 + each * $5))" >&2
"""


def bench(**cases):
    listed = "\n".join(cases)
    costs = "\n".join(f"{case}) echo {cost};;" for case, cost in cases.items())
    return f'#!/bin/sh\n[ "$1" = --list ] && {{ echo "{listed}"; exit; }}\ncase "$2" in\n{costs}\nesac\n'


class Comparison(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.repository = Path(directory.name, "repository")
        programs = Path(directory.name, "programs")
        programs.mkdir()
        for name, text in (("cargo", CARGO), ("valgrind", VALGRIND)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
        self.repository.mkdir()
        (self.repository / "target").mkdir()
        self.git("init", "--quiet")

    def git(self, *arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.repository, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, source):
        path = self.repository / instructions.SOURCE
        if source is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
            self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a commit")

    def compare(self, *options):
        return subprocess.run(
            [SCRIPT, *options], cwd=self.repository, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def rows(self, result):
        lines = result.stdout.splitlines()
        start = next(index for index, line in enumerate(lines) if line.startswith("instructions per iteration"))
        return [line.split() for line in lines[start + 1 :]]

    def test_start_up_does_not_count(self):
        self.commit(bench(decode=1000, filter=200, old=7))
        self.commit(bench(decode=1100, filter=190, new=8))
        result = self.compare("HEAD~1", "HEAD", "--fail-above", "15")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(
            self.rows(result),
            [
                ["decode", "1,000", "1,100", "+10.00", "%"],
                ["filter", "200", "190", "-5.00", "%"],
                ["new", "-", "8", "new"],
                ["old", "7", "-", "gone"],
            ],
        )
        self.assertEqual(self.git("worktree", "list").count("\n"), 1, "a worktree was left")

    def test_what_became_worse_decides_the_exit_code(self):
        self.commit(bench(decode=1000, filter=100))
        self.commit(bench(decode=1100, filter=50))
        result = self.compare("HEAD~1", "--fail-above", "5")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("worse by more than 5 %: decode: +10.00 %", result.stdout)
        self.assertEqual(self.compare("HEAD~1", "--fail-above", "5", "--case", "filter").returncode, 0)

    def test_a_base_without_the_bench_is_said(self):
        self.commit(None)
        self.commit(bench(decode=1000))
        result = self.compare("HEAD~1", "--fail-above", "0")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(f"HEAD~1 has no {instructions.SOURCE}", result.stdout)
        self.assertEqual(self.rows(result), [["decode", "-", "1,000", "new"]])

    def test_what_cannot_be_measured_is_an_error(self):
        self.commit(None)
        self.assertIn("nothing to measure", self.compare("HEAD").stderr)
        self.assertIn("not a commit", self.compare("nowhere").stderr)
        self.commit(bench(idle=0))
        result = self.compare("HEAD")
        self.assertEqual(result.returncode, 2)
        self.assertIn("no more instructions", result.stderr)
        self.assertIn("no case was measured", self.compare("HEAD", "--case", "other").stderr)
        self.assertEqual(self.git("worktree", "list").count("\n"), 1, "a worktree was left")

    def test_valgrind_is_named_with_the_way_to_get_it(self):
        self.commit(bench(decode=1))
        paths = Path(self.environment["PATH"].split(":")[0])
        (paths / "valgrind").unlink()
        for name in ("git", "env", "python3"):
            found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
            (paths / name).symlink_to(found)
        self.environment["PATH"] = str(paths)
        result = self.compare("HEAD")
        self.assertEqual(result.returncode, 2)
        self.assertIn("apt-get install valgrind", result.stderr)


if __name__ == "__main__":
    unittest.main()
