"""A helper ends with the process that started it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# The helper holds the write end of a pipe open and never closes it: reading the pipe to its end waits for its death.
HELPER = """
import sys, threading
from consumer.local import processes
processes.POLL_SECONDS = 0.01 if {portable} else 1e6
if {portable}:
    sys.platform = "elsewhere"
processes.exit_with_parent()
print("up", flush=True)
threading.Event().wait()
"""
PARENT = """
import os, subprocess, sys
helper = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, pass_fds=[int(sys.argv[2])])
assert helper.stdout.readline().strip() == b"up"
print(helper.pid, flush=True)
os.kill(os.getpid(), {signal})
"""

KERNEL = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel signals a parent's death")


@pytest.mark.parametrize("portable", [pytest.param(False, id="kernel", marks=KERNEL), pytest.param(True, id="polling")])
@pytest.mark.parametrize("signal", [9, 15])
def test_a_helper_does_not_outlive_its_parent(portable: bool, signal: int) -> None:
    """However the parent dies, the helper dies too, with the kernel's help or without."""
    read_end, write_end = os.pipe()
    command = [sys.executable, "-c", PARENT.format(signal=signal), HELPER.format(portable=portable), str(write_end)]
    parent = subprocess.run(command, pass_fds=[write_end], cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert parent.returncode == -signal
    os.close(write_end)
    ended, _, _ = select.select([read_end], [], [], 30)
    if not ended:
        os.kill(int(parent.stdout), 9)
    assert ended
    assert os.read(read_end, 1) == b""
    os.close(read_end)
