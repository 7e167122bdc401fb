"""A model server that is half well, under ``rexstream run`` as a process: lost calls, a restart, batching, a swap."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from worker_run import TEXTS, Run, expected, ids, reviews

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Protocol

    from stub_server import StubServer

    class Broker(Protocol):
        """The fixture ``mock_broker``."""

        bootstrap: str

        def topic(self, partitions: int, label: str = ...) -> str:
            """A new topic; its name."""


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Run]:
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    run = Run(mock_broker.bootstrap, topics, server, tmp_path)
    run.start()
    run.wait(lambda: any(line["event"] == "consuming" for line in run.lines()))
    yield run
    run.kill()


def said(worker: Run, event: str) -> list[dict[str, Any]]:
    return [line for line in worker.lines() if line["event"] == event]


GONE, BACK = "the model server cannot be used", "the model server can be used again"


def test_lost_calls_neither_flap_nor_hold_anything_after_them(worker: Run, server: StubServer) -> None:
    """Three of ten for ten seconds: at most one outage is said, and all that waited is answered soon after."""
    draw = random.Random(5)

    def lose(_: Any, context: grpc.ServicerContext) -> None:
        if draw.random() < 0.3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "upstream connect error or disconnect/reset before headers")

    server.before = server.before_status = lose
    not_ready, sent, ends = 0, 0, time.monotonic() + 10
    while time.monotonic() < ends:
        worker.send(reviews(8, sent))
        sent += 8
        not_ready += worker.get("/readyz")[0] != 200
        time.sleep(0.4)
    server.before = server.before_status = lambda *_: None
    mended = time.monotonic()
    worker.wait_for_results(2 * sent)
    assert time.monotonic() - mended < 20, "a minute and more were seen, on machines that had nothing else to do"
    worker.wait(lambda: worker.lag() == 0)
    assert len(said(worker, GONE)) <= 1
    assert len(said(worker, BACK)) <= 1
    assert not_ready <= 10
    assert worker.dead_letters() == []
    assert ids(worker.results()) == expected(sent)


def test_results_come_soon_after_a_restart_of_the_server(worker: Run, server: StubServer) -> None:
    """Killed with calls in flight and gone for ten seconds; one line for the outage and one for its end."""
    worker.send(reviews(20))
    worker.wait_for_results(40)
    server.gate.clear()
    worker.send(reviews(40, 20))
    worker.wait(lambda: worker.get("/status")[1]["in_flight"]["events"] == 40)
    server.gate.set()
    server.before = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    server.stop()
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["outage"])
    assert worker.get("/readyz")[0] == 503
    time.sleep(8)
    server.before = lambda *_: None
    server.start()
    back = time.monotonic()
    worker.wait_for_results(120)
    assert time.monotonic() - back < 9, "about three seconds on an idle machine; it was more than ten"
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    assert (len(said(worker, GONE)), len(said(worker, BACK))) == (1, 1)
    assert worker.dead_letters() == []


def test_batching_on_the_server_is_said_and_forgotten_when_it_is_off(worker: Run, server: StubServer) -> None:
    """Calls of different lengths that meet fail; a health probe, which goes alone, passes. It is a deployment fault."""
    lock = threading.Lock()
    together: Any = [0, set()]

    def merge(request: Any, context: grpc.ServicerContext) -> None:
        with lock:
            together[0] += 1
            together[1].add(request.inputs["input_ids"].tensor_shape.dim[1].size)
        time.sleep(0.05)
        with lock:
            mixed = len(together[1]) > 1
            together[0] -= 1
            if not together[0]:
                together[1] = set()
        if mixed:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "Tensors with name 'input_ids' from different tasks have different shapes and padding is turned off.",
            )

    server.before = merge
    sent = 0
    while worker.get("/status")[1]["paused"] != ["deployment_fault"]:
        assert sent < 3000
        # A few at a time: what comes at once would be few calls, one after the other.
        worker.send(
            [
                (f"k{i}", json.dumps({"event_id": f"e{i}", "text": TEXTS[i % len(TEXTS)] * (1 + i % 9)}).encode())
                for i in range(sent, sent + 10)
            ]
        )
        sent += 10
        time.sleep(0.02)
    assert worker.get("/readyz")[0] == 503
    assert "--enable_batching" in said(worker, GONE)[-1]["reason"]
    time.sleep(5)
    assert len(said(worker, GONE)) == 1
    server.before = lambda *_: None
    mended = time.monotonic()
    worker.wait_for_results(2 * sent)
    assert time.monotonic() - mended < 20, "it took minutes"
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    assert len(said(worker, BACK)) == 1
    assert worker.dead_letters() == []


def test_a_model_that_was_removed_is_named_in_readyz(worker: Run, server: StubServer) -> None:
    """Though no event comes that could meet it; one lost poll is not taken for it."""
    calls: list[Any] = []

    def once(request: Any, context: grpc.ServicerContext) -> None:
        calls.append(request)
        if len(calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    server.before_status = once
    worker.wait(lambda: len(calls) > 1)
    assert worker.get("/readyz")[0] == 200
    assert said(worker, "waiting for the model") == []
    server.before_status = lambda _, context: context.abort(
        grpc.StatusCode.NOT_FOUND, "Could not find any versions of model stub"
    )
    worker.wait(lambda: worker.get("/readyz")[0] == 503)
    (reason,) = worker.get("/readyz")[1]["reasons"]
    assert "the model server has no model of that name, or has it no more" in reason
    server.before_status = lambda *_: None
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    assert len(said(worker, "waiting for the model")) == len(said(worker, "the model is available again")) == 1


def test_a_new_version_is_logged(worker: Run, server: StubServer) -> None:
    """Once, with the one that answered before."""
    worker.send(reviews(2))
    worker.wait_for_results(4)
    server.version = 2
    worker.send(reviews(2, 2))
    worker.wait(lambda: bool(said(worker, "another version of the model answers")))
    (line,) = said(worker, "another version of the model answers")
    assert (line["before"], line["version"], line["model"]) == ("1", "2", "stub")
