"""A program in the background with its output in a file; it dies with the thread that started it, and that is ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from apache_kafka import DIE_WITH_PARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Process:
    """Starts at once. ``log`` has its standard output and standard error."""

    def __init__(self, log: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.name = log.stem
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", DIE_WITH_PARENT, *command],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=log.parent,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.exit_code is None:
            self._process.send_signal(number)

    def end(self, seconds: float = 10) -> int:
        """SIGTERM, and SIGKILL ``seconds`` later. The exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def until(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for ``ready``. Raises RuntimeError with the end of the log when it ends first, or takes too long."""
        deadline = time.monotonic() + seconds
        while self.exit_code is not None or not ready():
            if self.exit_code is not None or time.monotonic() > deadline:
                said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} is not ready (exit code {self.exit_code}); it said:\n{said}")
            time.sleep(0.1)
