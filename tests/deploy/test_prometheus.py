"""A real Prometheus scrapes a real worker, and gives answers to what is asked of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from deploy.chart import ROOT, queries
from deploy.prometheus_server import Prometheus
from stub_server import StubServer
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    """An embedded broker in a process of its own."""
    broker = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/integration/mock_broker.py"), "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert broker.stdin is not None
    assert broker.stdout is not None
    address = broker.stdout.readline().strip()
    for name in ("reviews.raw", "reviews.extracted", "reviews.dead"):
        broker.stdin.write(f"topic {name} 4\n")
        broker.stdin.flush()
        assert broker.stdout.readline() == "done\n"
    yield address
    broker.stdin.close()
    broker.wait(10)


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    running = StubServer()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def prometheus(bootstrap: str, server: StubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus beside a worker that has processed 100 reviews, two of which are no JSON."""
    folder = tmp_path_factory.mktemp("prometheus")
    worker = Run(bootstrap, ("reviews.raw", "reviews.extracted", "reviews.dead"), server, folder)
    worker.start()
    target = worker.http.removeprefix("http://")
    running = Prometheus(folder, {"static_configs": [{"targets": [target], "labels": {"namespace": "rexstream"}}]})
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
