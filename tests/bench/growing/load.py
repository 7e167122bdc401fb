"""One worker by how far behind it is, and by how many partitions it has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.growing.reviews import sample_reviews

from consumer.batching.policy import CallCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.growing.stage import Stage

SLOW: Final = CallCost(floor=0.0, fixed=0.02, per_token=1e-5, per_pair=0.0)
"""Some 700 events a second: a lag of 10,000 and more is still there when the memory is read."""
INSTANT: Final = CallCost(floor=0.0, fixed=1e-4, per_token=0.0, per_pair=0.0)
LAG_PARTITIONS: Final = 6
EVENTS: Final = 8_000
"""Of each run over partitions."""
ROUNDS: Final = 2
IDLE_SECONDS: Final = 4.0


class Behind(NamedTuple):
    """A worker with a lag."""

    lag: int
    resident_mib: float


class Spread(NamedTuple):
    """A worker with so many partitions."""

    partitions: int
    join_seconds: float
    """From the start of the process until all partitions are its own."""
    events_per_second: float
    cpu_ms_per_event: float
    idle_cores: float
    """CPU seconds a second when everything is done."""
    resident_mib: float


def behind(stage: Stage, lags: Sequence[int], seconds: float) -> list[Behind]:
    """The largest resident set of a new worker after ``seconds`` of work, for each lag; they grow."""
    (address,) = stage.servers(1, SLOW)
    topics = stage.topics(LAG_PARTITIONS)
    found, sent = [], 0
    for lag in lags:
        stage.fill(topics, sample_reviews(), lag - sent, sent)
        sent = lag
        done = stage.results(topics)
        with stage.worker(topics, address, f"lag-{lag}", SLOW) as worker:
            stage.wait_for_results(topics, done + 1, worker)
            time.sleep(seconds)
            found.append(Behind(lag, worker.resident_mib()))
    return found


def spread(stage: Stage, partitions: Sequence[int]) -> list[Spread]:
    """A worker for each number of partitions, ``ROUNDS`` times in turn; of each the one that took the least CPU."""
    (address,) = stage.servers(1, INSTANT)
    rounds = [[_spread(stage, address, number) for number in partitions] for _ in range(ROUNDS)]
    return [min(runs, key=lambda run: run.cpu_ms_per_event) for runs in zip(*rounds, strict=True)]


def _spread(stage: Stage, address: str, partitions: int) -> Spread:
    """On a full topic, with an instant model server."""
    topics = stage.topics(partitions)
    stage.fill(topics, sample_reviews(), EVENTS)
    with stage.worker(topics, address, topics.input, INSTANT) as worker:
        stage.wait_for_shares(topics.input, [partitions], worker)
        joined = time.monotonic()
        stage.wait_for_results(topics, EVENTS // 10, worker)
        began, cpu, done = time.monotonic(), worker.cpu_seconds(), stage.results(topics)
        stage.wait_for_results(topics, EVENTS, worker)
        ended = time.monotonic()
        used, idle_from = worker.cpu_seconds() - cpu, worker.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        return Spread(
            partitions,
            joined - worker.started_at,
            (EVENTS - done) / (ended - began),
            used / (EVENTS - done) * 1000,
            (worker.cpu_seconds() - idle_from) / IDLE_SECONDS,
            worker.resident_mib(),
        )
