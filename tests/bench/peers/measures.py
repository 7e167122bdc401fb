"""What is measured of one contender: throughput, latency at a load, what a SIGKILL leaves behind, memory."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.peers.reviews import events
from bench.peers.stage import FailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.peers.contenders import Contender
    from bench.peers.stage import Process, Stage, Topics
    from confluent_kafka import Consumer

LOOK_SECONDS: Final = 0.02
LONGEST_SECONDS: Final = 75.0
"""A run that takes longer has failed: the slowest contender seen needs a third of it."""
QUIET_SECONDS: Final = 3.0
WARM: Final = 8
"""Events before the load, so that a contender has joined and made its first calls."""


class Throughput(NamedTuple):
    """Start and joining are left out."""

    events_per_second: float
    cpu_ms_per_event: float


class Latency(NamedTuple):
    """Milliseconds from an event's append to its result's, both by the broker's clock."""

    median: float
    p99: float


class Audit(NamedTuple):
    """After SIGKILLs and restarts."""

    duplicates: int
    lost: int


def throughput(stage: Stage, contender: Contender, target: str, count: int, enough: float) -> Throughput:
    """``count`` events at once to a contender that has joined and answered a few. Raises FailedError.

    A slow contender need not get to the end: it is measured for ``enough`` seconds.

    The rate is the slope of the number of results over the broker's time of each: neither batches nor a look that
    comes late on a busy machine change it.
    """
    topics = stage.topics()
    with stage.reader() as reader, stage.running(contender, topics, target) as process:
        stage.send(topics.source, events(WARM, seed=1, prefix="w"))
        done = _until(stage, reader, process, topics, WARM)
        began, cpu = time.monotonic(), process.cpu_seconds()
        stage.send(topics.source, events(count))
        finished = done
        while finished < done + count and (time.monotonic() - began < enough or finished < done + count // 10):
            _require(process, began + LONGEST_SECONDS, f"{finished - done} of {count} results")
            time.sleep(LOOK_SECONDS)
            finished = stage.written(reader, topics.output)
        cpu = process.cpu_seconds() - cpu
    times = sorted(moment for key, moment in stage.read(topics.output) if key.startswith("e"))
    if times[0] == times[-1]:
        raise FailedError(f"all of {len(times)} results came in one millisecond")
    return Throughput(rate(times), cpu / (finished - done) * 1000)


def rate(times: Sequence[int]) -> float:
    """Events a second by the milliseconds of each, in order. Raises StatisticsError when all are the same."""
    return statistics.linear_regression(times, range(len(times))).slope * 1000


def latency(stage: Stage, contender: Contender, rate: float, seconds: float) -> Latency:
    """At ``rate`` events a second, after a tenth of the time that is left out. Raises FailedError."""
    topics = stage.topics()
    count = int(rate * seconds)
    with stage.reader() as reader, stage.running(contender, topics, stage.paced) as process:
        stage.send(topics.source, events(WARM, seed=1))
        first = _until(stage, reader, process, topics, WARM)
        stage.send_paced(topics.source, events(count, prefix="t"), rate)
        _until(stage, reader, process, topics, first + count)
    sent, answered = dict(stage.read(topics.source)), dict(stage.read(topics.output))
    taken = sorted(answered[key] - sent[key] for key in sent if key.startswith("t") and int(key[1:]) >= count // 10)
    return Latency(taken[len(taken) // 2], taken[min(len(taken) - 1, int(len(taken) * 0.99))])


def killed(stage: Stage, contender: Contender, count: int) -> Audit:
    """SIGKILL after one and two thirds of the results, and a third process that does the rest. Raises FailedError."""
    topics = stage.topics()
    stage.send(topics.source, events(count))
    with stage.reader() as reader:
        for part in (1, 2):
            with stage.running(contender, topics, stage.paced) as process:
                _until(stage, reader, process, topics, part * count // 3)
        with stage.running(contender, topics, stage.paced) as process:
            _until_committed(stage, process, topics, count)
            _until_quiet(stage, reader, topics)
    found = Counter(key for key, _ in stage.read(topics.output))
    return Audit(found.total() - len(found), count - len(found))


def peak_memory(stage: Stage, contender: Contender, source: str, seconds: float) -> float:
    """Largest resident set in MB (10^6 bytes) in the first seconds on a topic that is full. Raises FailedError."""
    topics = stage.topics(source)
    most = 0
    with stage.reader() as reader, stage.running(contender, topics, stage.paced) as process:
        _until(stage, reader, process, topics, 1)
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            process.require_running()
            most = max(most, process.resident_bytes())
            time.sleep(5 * LOOK_SECONDS)
    return most / 1e6


def _until(stage: Stage, reader: Consumer, process: Process, topics: Topics, count: int) -> int:
    give_up = time.monotonic() + LONGEST_SECONDS
    while (done := stage.written(reader, topics.output)) < count:
        _require(process, give_up, f"{done} of {count} results")
        time.sleep(LOOK_SECONDS)
    return done


def _until_committed(stage: Stage, process: Process, topics: Topics, count: int) -> None:
    give_up = time.monotonic() + LONGEST_SECONDS
    while (done := stage.committed(topics)) < count:
        _require(process, give_up, f"{done} of {count} offsets committed")
        time.sleep(10 * LOOK_SECONDS)


def _until_quiet(stage: Stage, reader: Consumer, topics: Topics) -> None:
    before = -1
    while (now := stage.written(reader, topics.output)) != before:
        before = now
        time.sleep(QUIET_SECONDS)


def _require(process: Process, give_up: float, done: str) -> None:
    process.require_running()
    if time.monotonic() > give_up:
        raise FailedError(f"{done} after {LONGEST_SECONDS:.0f} s; it said: {process.last_words()}")
