"""A model server as a process: it can be killed, hung, slowed down, swapped and made to answer garbage.

It is the stub server of the tests behind TensorFlow Serving's API; ``model_process.py`` is what runs in the process.
Orders go over its stdin, each acknowledged on its stdout; they survive a restart, as a real server's files do.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from chaos.processes import TESTS_PATH, end, spawn

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

START_SECONDS = 90.0


class ModelServer:
    """The server and its supervisor, which scenarios ask to ``tend`` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deaths = 0
        """How often it died by itself."""
        self._orders: dict[str, Any] = {}
        with socket.socket() as free, socket.socket() as also_free:
            for each in (free, also_free):
                each.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
            self.metrics_port: int = also_free.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None

    @property
    def target(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, in the state that the last orders left; it answers when this returns."""
        log = self.folder / "model-server.log"
        arguments = [sys.executable, "-m", "chaos.model_process", str(self.port), str(self.metrics_port)]
        self._process = spawn(arguments, log, {"PYTHONPATH": TESTS_PATH}, piped=True)
        deadline = time.monotonic() + START_SECONDS
        self._answer()
        if time.monotonic() > deadline:
            raise RuntimeError(f"the model server took more than {START_SECONDS:.0f} s to start, see {log}")
        self.order(**self._orders)

    def order(self, **orders: Any) -> None:
        """``version``, ``slow`` (a factor), ``garbage`` (``nan``, ``shape`` or None), ``mortal`` (dies of poison)."""
        self._orders |= orders
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        self._answer()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def hang(self) -> None:
        """SIGSTOP: it takes connections and calls, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def tend(self) -> None:
        """As a supervisor would: start it again when it died by itself."""
        if self._process is not None and self._process.poll() is not None:
            self.deaths += 1
            end(self._process)
            self.start()

    def _answer(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "done\n":
            raise RuntimeError(f"the model server died, see {self.folder / 'model-server.log'}")
