"""A real nginx with the shipped configuration in front of model servers."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deploy.chart import ROOT
from deploy.tools import free_port, tool

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIGURATION = ROOT / "deploy" / "nginx" / "nginx.conf"


class Upstream(Protocol):
    """Whatever is behind it: a stub in the test's process, one that dies, a process."""

    @property
    def target(self) -> str:
        """host:port."""


class Nginx:
    """nginx in the foreground, with the shipped configuration but for addresses and folders."""

    def __init__(self, folder: Path, servers: Sequence[Upstream]) -> None:
        self.folder = folder
        self.port = free_port()
        self.configure(servers)
        self._log = (folder / "stderr").open("w")
        self.process = subprocess.Popen(self._command("-g", "daemon off;"), stderr=self._log)
        deadline = time.monotonic() + 30
        while not (folder / "nginx.pid").exists():
            assert self.process.poll() is None, (folder / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _command(self, *arguments: str) -> list[str]:
        return [
            tool("nginx"),
            "-p",
            str(self.folder),
            "-e",
            "stderr",
            "-c",
            str(self.folder / "nginx.conf"),
            *arguments,
        ]

    def configure(self, servers: Sequence[Upstream]) -> None:
        """Write the configuration with these servers in the place of the three that compose has."""
        text = CONFIGURATION.read_text("utf-8").replace("/tmp/", f"{self.folder}/")
        lines = [line for line in text.splitlines() if re.search(r"server tf-serving-\d:8500 ", line)]
        assert len(lines) == 3
        ours = [re.sub(r"tf-serving-\d:8500", server.target, lines[0]) for server in servers]
        text = text.replace("\n".join(lines), "\n".join(ours)).replace("listen 8500", f"listen 127.0.0.1:{self.port}")
        # The smallest number that serves: on a machine with many cores each would have connections of its own.
        (self.folder / "nginx.conf").write_text(text.replace("worker_processes auto", "worker_processes 1"))

    def reload(self) -> None:
        """Take a changed configuration; returns when only processes that have it take new connections."""
        before = self._serving()
        subprocess.run(self._command("-s", "reload"), check=True, capture_output=True)
        deadline = time.monotonic() + 30
        while not (now := self._serving()) or now & before:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _serving(self) -> set[int]:
        """Worker processes of nginx that are not shutting down."""
        found = set()
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{child}/cmdline").read_text()
                if "worker process" in title and "shutting down" not in title:
                    found.add(int(child))
        return found

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self._log.close()
