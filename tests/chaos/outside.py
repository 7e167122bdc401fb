"""Programs of their own that belong to the suite: they are run as they are, and pass if their exit code is 0."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from chaos.scenario import Report

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Program:
    """One program and what it must come to."""

    name: str
    fault: str
    expected: str
    arguments: tuple[str, ...]
    """Of this interpreter, in the repository's root."""

    def run(self) -> Report:
        """Run it with its output on ours."""
        report = Report(self.name, "-", self.fault, self.expected)
        started = time.monotonic()
        code = subprocess.run((sys.executable, *self.arguments), cwd=ROOT, check=False).returncode
        report.seconds = round(time.monotonic() - started, 1)
        if code != 0:
            report.failures.append(f"exit code {code} of {' '.join(self.arguments)}")
        return report


PROGRAMS = (
    Program(
        "fuzz",
        "a million inputs for every decoder and the engine",
        "a result or a named refusal for each, no other exception",
        ("tests/fuzz/run.py", "--inputs", "1000000"),
    ),
    Program(
        "registry",
        "a real schema registry where one can be had",
        "wire format, registration, compatibility, evolution in both directions, outage",
        ("-m", "pytest", "-q", "tests/chaos/registry"),
    ),
)
