"""Three model servers behind one target, under ``rexstream run`` as a process: faults of one are nobody else's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
from stub_server import StubServer
from worker_run import Run, expected, ids, reviews

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Protocol

    class Broker(Protocol):
        """The fixture ``mock_broker``."""

        bootstrap: str

        def topic(self, partitions: int, label: str = ...) -> str:
            """A new topic; its name."""


class Listed(NamedTuple):
    """What a worker is pointed at."""

    target: str


@pytest.fixture
def servers() -> Iterator[Sequence[StubServer]]:
    started = [StubServer() for _ in range(3)]
    yield started
    for server in started:
        server.gate.set()
        server.stop()


@pytest.fixture
def worker(mock_broker: Broker, servers: Sequence[StubServer], tmp_path: Path) -> Iterator[Run]:
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    target = Listed("ipv4:" + ",".join(server.target for server in servers))
    run = Run(mock_broker.bootstrap, topics, target, tmp_path)  # type: ignore[arg-type]
    run.start()
    run.wait(lambda: any(line["event"] == "consuming" for line in run.lines()))
    yield run
    run.kill()


def states(worker: Run) -> dict[str, str]:
    """Of every endpoint, by address."""
    return {each["address"]: each["state"] for each in worker.get("/status")[1]["model"]["endpoints"]}


def reported(worker: Run, server: StubServer) -> list[str]:
    """What the log says of it after the start."""
    lines = [line for line in worker.lines() if line.get("address") == server.target]
    return [line["event"] for line in lines if "model server" in line["event"]][1:]


def send_until(worker: Run, sent: int, enough: Callable[[], bool]) -> int:
    """Send reviews, a few at a time so that they are many calls, from number ``sent`` on; how many were sent then."""
    while not enough():
        assert sent < 4000
        worker.send(reviews(20, sent))
        sent += 20
        time.sleep(0.05)
    return sent


def all_is_well(worker: Run, events: int) -> None:
    """Every result, no dead letter, and consumption was never paused for the model."""
    worker.wait_for_results(2 * events)
    assert ids(worker.results()) == expected(events)
    assert worker.dead_letters() == []
    assert not [line for line in worker.lines() if line["event"] == "the model server cannot be used"]
    worker.wait(lambda: worker.lag() == 0)


def test_a_server_that_dies_and_comes_back(worker: Run, servers: Sequence[StubServer]) -> None:
    """Under load: what was in its calls waits for it, the rest does not; it is said once that it went, and came."""
    sent = send_until(worker, 0, lambda: all(server.calls > 3 for server in servers))
    servers[0].stop()
    sent = send_until(worker, sent, lambda: states(worker)[servers[0].target] == "outage")
    assert worker.get("/readyz")[0] == 200
    worker.send(reviews(100, sent))
    servers[0].start()
    worker.wait(lambda: states(worker)[servers[0].target] == "ok")
    calls = servers[0].calls
    sent = send_until(worker, sent + 100, lambda: servers[0].calls >= calls + 10)  # some are health probes
    all_is_well(worker, sent)
    assert reported(worker, servers[0]) == ["a model server cannot be used", "a model server can be used"]
    assert reported(worker, servers[1]) == reported(worker, servers[2]) == []
    metrics = worker.get("/metrics")[1]
    assert f'rexstream_endpoint_state{{endpoint="{servers[0].target}",state="ok"}} 1.0' in metrics


def test_a_server_whose_model_does_not_fit(worker: Run, servers: Sequence[StubServer]) -> None:
    """It gets nothing but health probes; ready, and the others answer its windows."""

    def unfit(_: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "serving_default" not found.')

    servers[1].before = unfit
    sent = send_until(worker, 0, lambda: states(worker)[servers[1].target] == "deployment_fault")
    assert worker.get("/readyz")[0] == 200
    worker.send(reviews(100, sent))
    all_is_well(worker, sent + 100)
    status = worker.get("/status")[1]["model"]["endpoints"]
    assert "serving_default" in next(each["reason"] for each in status if each["address"] == servers[1].target)


def test_a_server_that_hangs(worker: Run, servers: Sequence[StubServer]) -> None:
    """Two calls wait for it; everything else is answered meanwhile, and they are once it goes on."""
    worker.send(reviews(100))
    worker.wait_for_results(200)
    servers[2].gate.clear()
    worker.send(reviews(300, 100))
    worker.wait(lambda: len(worker.results()) > 2 * 300)
    assert servers[2].calls > 0
    servers[2].gate.set()
    all_is_well(worker, 400)
