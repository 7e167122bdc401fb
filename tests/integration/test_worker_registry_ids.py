"""``rexstream run`` as a process whose Schema Registry fails on one schema, or does not know it yet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from avro_values import NEWER, OLDER, REVIEWS, framed, messages, send
from registry_double import RegistryDouble
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stub_server import StubServer

OLDER_ID, NEWER_ID = 7, 70_000


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    double.schemas = {OLDER_ID: OLDER}
    yield double
    double.stop()


@pytest.fixture
def worker(mock_broker: Any, server: StubServer, registry: RegistryDouble, tmp_path: Path) -> Iterator[Run]:
    """A worker of an Avro topic and of a JSON topic, ``more``; both have their results in one topic, as JSON."""
    topics = (mock_broker.topic(1, "in"), mock_broker.topic(1, "out"), mock_broker.topic(1, "dead"))
    route = {"input": topics[0], "format": "avro", "tasks": ["sentiment"], "output": topics[1]}
    routes = [route, {**route, "input": mock_broker.topic(1, "more"), "format": "json"}]
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, routes=routes, registry=registry.url)
    yield run
    run.kill()


def done(worker: Run) -> list[str]:
    return sorted(
        json.loads(message.value() or b"")["event_id"] for message in messages(worker.bootstrap, worker.output)
    )


def asked(registry: RegistryDouble, number: int) -> int:
    return registry.requests.count(f"/schemas/ids/{number}")


@pytest.mark.parametrize("status", [500, 503])
def test_one_schema_that_the_registry_fails_on_stops_no_other(
    worker: Run, registry: RegistryDouble, status: int
) -> None:
    """Other ids of the same topic go on, other topics do, the worker is ready. Mended, its records are done."""
    registry.schemas[NEWER_ID] = NEWER
    registry.answers[f"/schemas/ids/{NEWER_ID}"] = (status, {"error_code": 50001, "message": "storage"})
    worker.start()
    more = worker.routes[1]["input"]
    broken = [framed(NEWER_ID, NEWER, event_id=f"broken{n}", text=REVIEWS[n]) for n in range(3)]
    known = [framed(OLDER_ID, OLDER, event_id=f"known{n}", text=REVIEWS[n]) for n in range(3)]
    send(worker.bootstrap, worker.input, [*broken, *known])
    worker.wait(lambda: asked(registry, NEWER_ID) >= 3)
    # Of another key than theirs, whose order it would have to keep.
    worker.send([("another", framed(OLDER_ID, OLDER, event_id="known3", text=REVIEWS[3]))])
    send(worker.bootstrap, more, [json.dumps({"event_id": "plain", "text": REVIEWS[4]}).encode()])
    worker.wait(lambda: done(worker) == ["known0", "known1", "known2", "known3", "plain"])
    assert worker.get("/readyz") == (200, {"ok": True, "reasons": []})
    assert worker.get("/status")[1]["paused"] == []
    assert worker.lag() == 7, "what waits is not committed, and nothing behind it"
    assert any(line.get("waiting_for") == f"schema {NEWER_ID}" for line in worker.lines() if line["level"] == "error")
    registry.answers.clear()
    worker.wait(lambda: done(worker)[:3] == ["broken0", "broken1", "broken2"])
    worker.wait(lambda: worker.lag() == 0)
    assert worker.dead_letters() == []


def test_a_schema_that_the_registry_knows_a_moment_later_makes_no_dead_letter(
    worker: Run, registry: RegistryDouble
) -> None:
    """One node of it lags behind the one where the producer registered."""
    worker.start()
    send(worker.bootstrap, worker.input, [framed(NEWER_ID, NEWER, event_id="new", text=REVIEWS[0])])
    worker.wait(lambda: asked(registry, NEWER_ID) >= 2)
    assert worker.get("/readyz")[0] == 200
    registry.schemas[NEWER_ID] = NEWER
    worker.wait(lambda: done(worker) == ["new"])
    worker.wait(lambda: worker.lag() == 0)
    assert worker.dead_letters() == []
