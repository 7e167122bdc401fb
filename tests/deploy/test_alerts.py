"""Alerts fire from real faults: a worker, its model server and its input go wrong under a real Prometheus.

The shipped expressions with seconds for minutes, since nobody waits ten minutes here; promtool's unit tests have the
real times. These need more than a fault of seconds and have those tests only: RexstreamLagGrows, RexstreamLagUnknown,
RexstreamDefect, RexstreamNotCommitted, RexstreamRestarts, RexstreamCertificateExpires, RexstreamVersionsDiffer,
RexstreamCanaryFellBack and RexstreamModelVersionsDisagree.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from deploy.broker import TOPICS, embedded_broker
from deploy.chart import ALERTS
from deploy.prometheus_server import Prometheus, at
from stub_server import StubServer
from worker_run import Run, reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class World:
    """One worker, its model server, and Prometheus with hasty rules."""

    def __init__(self, worker: Run, server: StubServer, prometheus: Prometheus) -> None:
        self.worker, self.server, self.prometheus = worker, server, prometheus

    def fires(self, alert: str, fault: Callable[[], object] = lambda: None, **labels: str) -> None:
        """Wait until it does, with these labels; ``fault`` is done twice a second until then."""
        wanted = "".join(f',{name}="{value}"' for name, value in labels.items())
        query = f'count(ALERTS{{alertname="{alert}",alertstate="firing"{wanted}}})'
        deadline = time.monotonic() + 60
        while self.prometheus.value(query) != 1:
            assert time.monotonic() < deadline, f"{alert} does not fire: {self.prometheus.get('alerts')}"
            fault()
            time.sleep(0.5)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("alerts")
    text = ALERTS.read_text("utf-8")
    hasty = re.sub(r"\[\d+[mh]\]", "[8s]", re.sub(r"for: \d+[mh]", "for: 1s", text))
    assert hasty.count("[8s]") > 5
    rules = folder / "alerts.yaml"
    rules.write_text(hasty, encoding="utf-8")
    server = StubServer()
    with embedded_broker() as bootstrap:
        pattern = {"input": "^nothing\\..*$", "tasks": ["sentiment"], "output": TOPICS[1]}
        known = {"input": TOPICS[0], "tasks": ["sentiment"], "output": TOPICS[1]}
        worker = Run(bootstrap, TOPICS, server, folder, routes=[known, pattern])
        worker.start()
        worker.wait(lambda: any(line["event"] == "consuming" for line in worker.lines()))
        prometheus = Prometheus(folder, at(worker.http.removeprefix("http://")), rules)
        yield World(worker, server, prometheus)
        prometheus.close()
        worker.kill()
        server.stop()


def test_a_pattern_that_matches_nothing(world: World) -> None:
    """From the start, and nothing else fires for a worker that is well."""
    world.prometheus.until("count(rexstream_build_info)", 1)
    world.fires("RexstreamNothingToRead")
    assert world.prometheus.value('count(ALERTS{alertstate="firing"})') == 1


def test_reviews_that_come_late(world: World) -> None:
    """Those of a minute ago, again and again."""
    producer = Producer({"bootstrap.servers": world.worker.bootstrap})

    def late() -> None:
        for key, value in reviews(5):
            producer.produce(TOPICS[0], value, key, timestamp=int(time.time() * 1000) - 60_000)
        assert producer.flush(30) == 0

    world.fires("RexstreamSlow", late)


def test_a_producer_that_writes_no_json(world: World) -> None:
    """For the topic that they came to."""
    world.fires("RexstreamDeadLetters", lambda: world.worker.send([*reviews(5), ("k", b"{")]), topic=TOPICS[0])


def test_a_model_server_that_is_gone(world: World) -> None:
    """The server, its calls, the pause, and that nothing is processed: one page each."""
    world.server.away(away=True)
    world.worker.send(reviews(20))
    world.fires("RexstreamModelServerOut", endpoint=world.server.target)
    world.fires("RexstreamModelServerFails", code="UNAVAILABLE")
    world.fires("RexstreamPaused", topic=TOPICS[0], reason="outage")
    world.fires("RexstreamStuck", topic=TOPICS[0])
    world.server.away(away=False)
    world.prometheus.until('count(ALERTS{alertname="RexstreamPaused",alertstate="firing"}) or vector(0)', 0)


def test_no_worker_is_left(world: World) -> None:
    """It has ended, and no other is scraped."""
    world.worker.end()
    world.fires("RexstreamNoWorker")
