"""A model that refuses most real windows while it answers health probes, under ``rexstream run`` as a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from worker_run import Run, expected, ids, reviews

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


# Of the probe window, the shortest of all.
PROBE_TOKENS = 16


def refuse_real_windows(request: Any, context: grpc.ServicerContext) -> None:
    """As an operation with a table too short would: INVALID_ARGUMENT for every call with more than that in it."""
    if request.inputs["input_ids"].tensor_shape.dim[1].size > PROBE_TOKENS:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "indices[0,3] = 17 is not in [0, 16)")


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Run]:
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    run = Run(mock_broker.bootstrap, topics, server, tmp_path)
    yield run
    run.kill()


@pytest.mark.parametrize("answered_before", [32, 0])
def test_64_rejected_of_64_stop_the_worker_and_none_is_dead_lettered(
    worker: Run, server: StubServer, answered_before: int
) -> None:
    """Not ready, paused, asking again; once the model is repaired it goes on by itself with every result."""
    worker.start()
    worker.wait(lambda: any(line["event"] == "consuming" for line in worker.lines()))
    if answered_before:
        worker.send(reviews(answered_before))
        worker.wait_for_results(2 * answered_before)
    server.before = refuse_real_windows
    # Held at the gate, so that a model that never answered anything is reviewed on full batches, not on single events.
    server.gate.clear()
    worker.send(reviews(64, answered_before))
    worker.wait(lambda: worker.get("/status")[1]["in_flight"]["events"] == 64)
    server.gate.set()
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["deployment_fault"])
    status, body = worker.get("/readyz")
    assert status == 503
    assert body["reasons"] == ["the model does not fit this worker, see the log"]
    assert worker.get("/livez")[0] == 200
    calls = server.calls
    worker.wait(lambda: server.calls > calls + 4)
    assert len(worker.results()) == 2 * answered_before
    assert worker.dead_letters() == []

    server.before = lambda *_: None
    worker.wait_for_results(2 * (64 + answered_before))
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    worker.wait(lambda: worker.get("/status")[1]["paused"] == [])
    assert "rexstream_breaker_state{endpoint" in worker.get("/metrics")[1]
    assert worker.dead_letters() == []
    assert ids(worker.results()) == expected(64 + answered_before)
    worker.wait(lambda: worker.lag() == 0)
    assert any(line.get("state") == "deployment_fault" for line in worker.lines())
