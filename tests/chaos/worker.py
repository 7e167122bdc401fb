"""``rexstream run`` as a process that a scenario starts, signals and looks at from outside."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import yaml
from chaos.processes import end, spawn
from chaos.scenario import Failed

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# A proxy that the environment names cannot reach this machine's loopback.
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))

TODAYS = (sys.executable, "-m", "consumer")

EXIT_SECONDS = 90.0
"""How long a worker may take to end: its grace period, its watchdog, and a busy machine."""


class Worker:
    """One worker process. Its log outlives it, for whoever looks into a failed run."""

    def __init__(
        self,
        number: int,
        config: Mapping[str, Any],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = TODAYS,
    ) -> None:
        """``program`` is the ``rexstream`` to run, of another release or this one."""
        self.number = number
        self.log = folder / f"worker-{number}.log"
        self.config = folder / f"worker-{number}.yaml"
        """The file of its configuration."""
        self._program = tuple(program)
        self.config.write_text(yaml.safe_dump(dict(config)))
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._http: str | None = None
        self.stopped = False
        """Whether it is under SIGSTOP."""
        self.made_with: dict[str, Any] = {}
        """How to make another one like it."""
        self.dismissed = False
        """Whether the scenario has ended it, or has seen that it ended."""

    def start(self) -> None:
        """Start and return at once."""
        arguments = [*self._program, "run", "--config", str(self.config)]
        self._process = spawn(arguments, self.log, self._environment)

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, stopped or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.stopped = number == signal.SIGSTOP

    def kill(self) -> None:
        """SIGKILL; gone when this returns."""
        self.dismissed = True
        if self._process is not None:
            end(self._process)

    def wait(self, seconds: float = EXIT_SECONDS) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(seconds)

    def drain(self) -> int:
        """SIGTERM; the exit code. A process that is still starting is waited for: it knows no signals yet."""
        self.dismissed = True
        deadline = time.monotonic() + EXIT_SECONDS
        while self.running and not self.get("/livez")[0] and time.monotonic() < deadline:
            time.sleep(0.05)
        self.signal(signal.SIGTERM)
        return self.wait()

    def lines(self) -> list[dict[str, Any]]:
        """Every complete line of its log."""
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.rpartition("\n")[0].splitlines() if line.startswith("{")]

    def said(self, words: str) -> bool:
        """Whether a line of its log holds ``words``."""
        return words in self.log.read_text()

    def get(self, path: str) -> tuple[int, Any]:
        """Status and body of its HTTP endpoint; (0, None) while it cannot be reached."""
        if self._http is None:
            self._http = next((f"http://{x['address']}" for x in self.lines() if x.get("event") == "http"), None)
        if self._http is None or not self.running or self.stopped:
            return 0, None
        try:
            with _LOOPBACK.open(self._http + path, timeout=10) as response:
                status, body = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read().decode()
        except OSError:
            return 0, None
        return status, body if path == "/metrics" else json.loads(body)

    @property
    def ready(self) -> bool:
        """Whether it has joined, its model is there and it can publish."""
        return self.get("/readyz")[0] == 200

    @property
    def paused(self) -> list[str]:
        """Why it does not consume; empty when it does."""
        _, status = self.get("/status")
        return [] if status is None else list(status["paused"])

    @property
    def assignment(self) -> int:
        """How many partitions it has."""
        _, status = self.get("/status")
        return 0 if status is None else len(status["assignment"])

    @property
    def in_flight(self) -> int:
        """Events that it took and that are not durable yet."""
        _, status = self.get("/status")
        return 0 if status is None else int(status["in_flight"]["events"])

    def resident_bytes(self) -> int:
        """VmRSS."""
        return self._proc_status("VmRSS") * 1024

    def threads(self) -> int:
        """Threads of the process."""
        return self._proc_status("Threads")

    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _proc_status(self, name: str) -> int:
        with open(f"/proc/{self.pid}/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

    def wait_until_ready(self, seconds: float = 120.0) -> None:
        """Raises Failed, with the end of the log, when it ends first or is not ready in time."""
        deadline = time.monotonic() + seconds
        while not self.ready:
            if not self.running or time.monotonic() > deadline:
                state = "is not ready" if self.running else f"ended with exit code {self.exit_code}"
                raise Failed(f"worker {self.number} {state}; its log ends: {self.log.read_text()[-800:]}")
            time.sleep(0.1)
