"""A folder that looks like a checkout, in which tests run the commands of the documents."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from house.documents import ROOT

if TYPE_CHECKING:
    from pathlib import Path


class Place(NamedTuple):
    """The folder, and the environment of its commands."""

    folder: Path
    environment: dict[str, str]

    def run(self, command: str, seconds: float = 170) -> str:
        """What a command of a shell prints."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, command: str, log: Path) -> subprocess.Popen[str]:
        """A command that goes on; the shell is replaced by it."""
        return subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )


def checkout(folder: Path) -> Place:
    """``folder`` with deploy, examples, schemas and ``.venv/bin/rexstream``, which is also found by its name."""
    for name in ("deploy", "examples", "schemas"):
        (folder / name).symlink_to(ROOT / name)
    program = folder / ".venv/bin/rexstream"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m consumer "$@"\n')
    program.chmod(0o755)
    found = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return Place(folder, {**os.environ, "REXSTREAM": str(program), "PYTHONPATH": str(ROOT), "PATH": found})
