"""``rexstream run`` with a replay beside a live topic: the backlog does not hold up what is live."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from worker_run import Run, reviews

from consumer.serving.tensors import Expected, read_output

if TYPE_CHECKING:
    from pathlib import Path

    import grpc
    from stub_server import StubServer

ENVIRONMENT = {
    "REXSTREAM_BATCHING__LANES": "{live: 4, replay: 1}",
    "REXSTREAM_BATCHING__COST": "{fixed_seconds: 0.003}",
    "REXSTREAM_BATCHING__MAX_TOKENS": "512",
    "REXSTREAM_LIMITS__IN_FLIGHT_EVENTS": "400",
}
LONG = 300
"""Characters of the live review: its window is known by its length."""


class Broker(Protocol):
    """The fixture ``own_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.mark.broker
def test_a_live_review_is_in_the_next_call_whatever_a_replay_has_waiting(
    own_broker: Broker, server: StubServer, tmp_path: Path, runs: list[Run]
) -> None:
    """Three thousand records, as many in flight as may be, and two calls under way that do not end."""
    import numpy as np

    calls: list[int] = []
    go_on = threading.Semaphore(0)
    held = threading.Event()

    def before(request: Any, _: grpc.ServicerContext) -> None:
        rows = request.inputs["input_ids"].tensor_shape.dim[0].size
        lengths = read_output(request.inputs, "length", Expected(np.int32, (rows, 1)))
        calls.append(int(lengths.max()))
        if held.is_set():
            go_on.acquire()

    server.before = before
    live, replay, out, dead = (own_broker.topic(2, label) for label in ("live", "replay", "out", "dead"))
    routes = [
        {"input": live, "tasks": ["sentiment"], "output": out},
        {"input": replay, "tasks": ["sentiment"], "output": out, "lane": "replay"},
    ]
    run = Run(own_broker.bootstrap, (live, out, dead), server, tmp_path, routes=routes, environment=ENVIRONMENT)
    runs.append(run)

    def waiting() -> int:
        """Windows, once none came or went for a second."""
        windows = [-1, -2, -3]
        while len(set(windows[-3:])) > 1:
            time.sleep(0.5)
            windows.append(run.get("/status")[1]["in_flight"]["windows"])
        return windows[-1]

    run.send(reviews(3000), replay)
    run.start()
    run.wait(lambda: len(calls) > 2)
    held.set()
    try:
        run.wait(lambda: run.get("/status")[1]["paused_topics"].get("backpressure") == [replay])
        replayed = waiting()
        assert replayed > 100, "half of its 300 at least: intake that was paused goes on below that"
        run.send([("k", json.dumps({"event_id": "l", "text": "好" * LONG}).encode())], live)
        run.wait(lambda: waiting() == replayed + 1)
        begun = len(calls)
        go_on.release()
        run.wait(lambda: len(calls) > begun)
        assert calls[begun] > LONG
        assert max(calls[:begun]) < LONG
    finally:
        held.clear()
        go_on.release(1000)
    run.wait(lambda: run.lag(replay) == run.lag(live) == 0)
    metrics = run.get("/metrics")[1]
    assert 'rexstream_lane_tokens_total{lane="live"}' in metrics
    assert 'rexstream_lane_wait_seconds_count{lane="replay"}' in metrics
    assert 'stage="hold"' not in metrics, "intake never waited for the replay to come below its bounds"
    assert run.end() == 0
