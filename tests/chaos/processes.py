"""Processes that a scenario may kill, stop and start again, and that never outlive the runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TESTS = Path(__file__).resolve().parents[1]
TESTS_PATH = f"{_TESTS}{os.pathsep}{_TESTS / 'support'}"
"""PYTHONPATH of processes that run modules of this suite."""

# SIGKILL, which ends a stopped process as well. It outlives the exec; the kernel sends it when the *thread* that
# started the process ends, so the runner starts everything on its main thread.
_DIE_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
os.execvp(sys.argv[1], sys.argv[1:])
"""


def spawn(
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    piped: bool = False,
    cwd: Path | None = None,
) -> subprocess.Popen[str]:
    """Start ``arguments`` with its output appended to ``log``; ``piped`` keeps stdin and stdout for a dialogue."""
    with log.open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-c", _DIE_WITH_PARENT, *arguments],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            text=True,
            # A Ctrl-C at the terminal is the runner's to handle.
            start_new_session=True,
        )


def end(process: subprocess.Popen[str]) -> None:
    """SIGKILL, also for one that is stopped; gone when this returns."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
