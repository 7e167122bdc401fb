"""Child processes: the demo's commands, each with its output in a log file, and helpers that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class ChildError(Exception):
    """A child process ended or stayed silent when it should have become ready. The message ends with its last lines."""


class Child:
    """One ``rexstream`` command as a child process. A context manager: it never outlives its block."""

    STOP_SECONDS = 30.0

    def __init__(self, arguments: Sequence[str], log: Path, environ: dict[str, str] | None = None) -> None:
        """Start ``rexstream ARGUMENTS`` with standard output and error going to ``log``."""
        self.name = arguments[0]
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own command
                [sys.executable, "-m", "consumer", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environ or {})},
                # A Ctrl-C at the terminal is the parent's to handle: it stops the children in order.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Return when ``ready()``; raise ChildError when the process ends first or ``timeout`` seconds pass."""
        deadline = time.monotonic() + timeout
        while not ready():
            self.require_running()
            if time.monotonic() > deadline:
                raise ChildError(f"{self.name} was not ready within {timeout:.0f} s{self.last_lines()}")
            time.sleep(0.05)

    def require_running(self) -> None:
        """Raise ChildError when the process has ended."""
        if self._process.poll() is not None:
            raise ChildError(f"{self.name} ended with exit code {self._process.returncode}{self.last_lines()}")

    def stop(self) -> int:
        """SIGTERM, and SIGKILL when the process has not ended within STOP_SECONDS. Returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(self.STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def output(self) -> str:
        """All that the process has printed so far."""
        return self.log.read_text("utf-8", errors="replace")

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, indented, to follow an error message."""
        return "".join(f"\n    {line}" for line in self.output().splitlines()[-count:])


POLL_SECONDS = 0.5
"""How often a helper looks for its parent where the kernel does not signal the parent's end."""

HELPER_STOP_SECONDS = 10.0
"""Time that a helper without a parent has to end cleanly before it is killed."""

_PR_SET_PDEATHSIG = 1


def exit_with_parent() -> None:
    """Send this process SIGTERM once its parent is gone, and end it hard ``HELPER_STOP_SECONDS`` later.

    Call it first thing, before slow imports: a parent that died earlier is not noticed. On Linux the kernel sends the
    signal at once, even while Python cannot run; it does so when the *thread* that started this process ends, so start
    such helpers from a thread that lives as long as they should. Everywhere else (and where the kernel refuses) a
    daemon thread looks every ``POLL_SECONDS``.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(HELPER_STOP_SECONDS)
    os._exit(1)
