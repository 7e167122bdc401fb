"""A real Prometheus scrapes a real worker, and gives answers to what is asked of it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from deploy.broker import TOPICS, embedded_broker
from deploy.chart import DASHBOARDS, queries
from deploy.prometheus_server import Prometheus, at
from stub_server import StubServer
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator


def for_all(query: str) -> str:
    """Of every job, topic, server and node."""
    for name in ("$job", "$topic", "$server", "$node"):
        query = query.replace(name, ".*")
    return query


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
    running = Prometheus(folder, at(worker.http.removeprefix("http://")))
    texts = (f'{{"text": "屏幕清晰 {number}"}}'.encode() if number % 50 else b"{" for number in range(100))
    worker.send([(str(number), text) for number, text in enumerate(texts)])
    running.until("sum(rexstream_events_total)", 100)
    running.until("min(count_over_time(rexstream_batch_release_total[1m])) >= bool 3", 1)  # enough for a rate
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
    prometheus.get("query", query=for_all(queries()[place]))


EMPTY = re.compile(r"\b[Ee]mpty (while|where|without|before|in) ")
"""In a panel's description: when it shows nothing, and that this is no fault."""


@pytest.mark.parametrize("place", [each for each in queries() if ".json " in each])
def test_a_panel_that_shows_nothing_says_why(prometheus: Prometheus, place: str) -> None:
    """Every query of a panel gives something while a worker is well, or the panel says when it does not."""
    file, title = re.fullmatch(r"(\S+\.json) (.*) \w", place).groups()  # type: ignore[union-attr]
    (path,) = (each for each in DASHBOARDS if each.name == file)
    panel = next(each for each in json.loads(path.read_text("utf-8"))["panels"] if each["title"] == title)
    if not EMPTY.search(panel["description"]):
        found = prometheus.get("query", query=for_all(queries()[place]))["result"]
        assert found, f"{place} is empty for a worker that is well, and its panel does not say when"
        assert {each["value"][1] for each in found} != {"NaN"}, place


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
