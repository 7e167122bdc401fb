"""A real Prometheus that scrapes workers."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import yaml
from deploy.chart import ALERTS
from deploy.tools import free_port, tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JOB = "rexstream/rexstream-worker"
"""The job that the chart's PodMonitor gives: triggers select by it."""


def at(*addresses: str) -> dict[str, Any]:
    """These addresses as targets, in the chart's namespace."""
    return {"static_configs": [{"targets": list(addresses), "labels": {"namespace": "rexstream"}}]}


class Prometheus:
    """Scrapes workers every second under the job of the chart's PodMonitor, with the shipped rules or others."""

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Any] | None = None,
        rules: Path = ALERTS,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        """``targets``: a discovery of Prometheus', such as ``static_configs``, which gives the label ``namespace``.

        With a ``configuration`` of Prometheus it goes by that alone.
        """
        self.port = free_port()
        scrape = {"job_name": JOB, "scrape_interval": "1s", **(targets or {})}
        own = {"global": {"evaluation_interval": "1s"}, "rule_files": [str(rules)], "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration or own))
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stderr=self._log,
            cwd=folder,
        )

    def get(self, path: str, **parameters: str) -> Any:
        """``data`` of an answer of the HTTP API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as response:
            return json.loads(response.read())["data"]

    def value(self, query: str) -> float | None:
        """The only number that a query gives now, or None."""
        result = self.get("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None

    def until(self, query: str, wanted: float, seconds: float = 60) -> None:
        """Wait for a query to give a number."""
        deadline = time.monotonic() + seconds
        found = None
        while found != wanted:
            assert time.monotonic() < deadline, f"{query} is {found}"
            time.sleep(0.5)
            try:
                found = self.value(query)
            except OSError:
                assert self._process.poll() is None, "Prometheus has ended"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
