"""A real Prometheus scrapes a real worker, and gives answers to what is asked of it."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deploy.broker import TOPICS, embedded_broker
from deploy.chart import ALERTS, queries
from deploy.tools import free_port, tool
from stub_server import StubServer
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOB = "rexstream/rexstream-worker"
"""The job that the chart's PodMonitor gives: triggers select by it."""


class Prometheus:
    """Scrapes one address every second under the labels of the chart, with the shipped rules."""

    def __init__(self, folder: Path, target: str) -> None:
        self.port = free_port()
        scrape = {
            "job_name": JOB,
            "scrape_interval": "1s",
            "static_configs": [{"targets": [target], "labels": {"namespace": "rexstream"}}],
        }
        (folder / "prometheus.yml").write_text(
            yaml.safe_dump(
                {"global": {"evaluation_interval": "1s"}, "rule_files": [str(ALERTS)], "scrape_configs": [scrape]}
            )
        )
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


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with embedded_broker() as address:
        yield address


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    running = StubServer()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def prometheus(bootstrap: str, server: StubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus beside a worker that has processed 100 reviews, two of which are no JSON."""
    folder = tmp_path_factory.mktemp("prometheus")
    worker = Run(bootstrap, TOPICS, server, folder)
    worker.start()
    running = Prometheus(folder, worker.http.removeprefix("http://"))
    texts = (f'{{"text": "屏幕清晰 {number}"}}'.encode() if number % 50 else b"{" for number in range(100))
    worker.send([(str(number), text) for number, text in enumerate(texts)])
    running.until("sum(rexstream_events_total)", 100)
    yield running
    running.close()
    worker.end()


def test_a_worker_is_scraped(prometheus: Prometheus) -> None:
    """As a target that is up, with the metrics of what it did."""
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.value('sum(rexstream_events_total{outcome="dead_letter"})') == 2
    assert (prometheus.value("sum(rexstream_model_call_seconds_count)") or 0) > 0


@pytest.mark.parametrize("place", queries())
def test_prometheus_answers_every_query(prometheus: Prometheus, place: str) -> None:
    """Dashboards, alerts and triggers: no type, label or matching that it refuses."""
    variables = {"$job": ".*", "$topic": ".*", "$server": ".*", "$node": ".*"}
    query = queries()[place]
    for name, value in variables.items():
        query = query.replace(name, value)
    prometheus.get("query", query=query)


def test_the_shipped_rules_are_loaded_and_healthy(prometheus: Prometheus) -> None:
    """Each is evaluated without an error, and no alert is pending for a worker that is well."""
    (group,) = prometheus.get("rules")["groups"]
    assert len(group["rules"]) >= 14
    assert {rule["health"] for rule in group["rules"]} == {"ok"}


def test_an_outage_holds_the_count_of_workers(prometheus: Prometheus, server: StubServer) -> None:
    """The triggers' queries for real: one worker, no hold; a hold with the model server away; none when it is back."""
    hold, workers = queries()["ScaledObject worker 1"], queries()["ScaledObject worker 2"]
    assert prometheus.value(workers) == 1
    prometheus.until(hold, 0)
    server.stop()
    prometheus.until(hold, 1)
    prometheus.until('count(ALERTS{alertname="RexstreamPaused",alertstate="pending",reason="outage"})', 1)
    server.start()
    prometheus.until(hold, 0)
    calls = prometheus.value(queries()["ScaledObject model 0"])
    assert calls is not None
    assert calls >= 0
