"""How many records may be in flight, and how long a rebalance waits for them. No IO; the clock is the caller's.

A record is in flight from its delivery by the poll thread until every output is durable. ``InFlight`` counts such
records and their bytes, caps intake, and is shared by the poll thread, which adds, and the release thread, which takes
away: it has a lock, and ``wait`` is the one method here that blocks. ``RevokeBudget`` learns from the times in flight
how long a revocation is worth waiting.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from consumer.config.inputs import ByInput

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from consumer.events import Partition, SourceRecord


STALL_SECONDS = 1.0
"""How long intake waits at a full cap before partitions are paused. A pause discards the client's prefetch, which is
then fetched again, so a short one is waited out; the wait is far below max.poll.interval.ms (300 s)."""


class Room(NamedTuple):
    """What intake may do now."""

    full: frozenset[str]
    """Inputs to pause: at their cap for longer than a stall may take, and not yet back at their low mark."""
    stall: bool
    """Whether a topic that is not paused is at its cap: take nothing, and ask again soon."""
    records: int
    """How many records may be taken, of whatever topics that are not paused; at least 1."""


_ASSIGNMENT = attrgetter("topic", "partition", "epoch")


@dataclass(slots=True, eq=False)
class _Tally:
    """What one assignment of a partition of ``topic`` has in flight."""

    topic: _Topic
    events: int = 0
    bytes: int = 0

    def add(self, events: int, size: int) -> None:
        topic = self.topic
        self.events += events
        self.bytes += size
        topic.events += events
        topic.bytes += size


@dataclass(slots=True, eq=False)
class _Topic:
    """What one input topic has in flight."""

    events: int = 0
    bytes: int = 0
    limit: int | None = None
    """Most records, in a trial."""
    full_since: float | None = None
    paused: bool = False

    def decide(self, now: float, events: int, size: int, stall_seconds: float) -> Literal["admit", "stall", "pause"]:
        """What to do at ``now``, with caps of ``events`` records and ``size`` bytes."""
        if self.full_since is None and self.events < events and self.bytes < size:
            return "admit"  # nearly always
        high_events, low_events = _marks(events)
        high_bytes, low_bytes = _marks(size)
        if self.paused:
            if self.events > low_events or self.bytes > low_bytes:
                return "pause"
            self.paused = False
            self.full_since = None
            return "admit"
        if self.full_since is None:
            self.full_since = now
        elif self.events <= high_events and self.bytes <= high_bytes:
            self.full_since = None
            return "admit"
        if now - self.full_since < stall_seconds:
            return "stall"
        self.paused = True
        return "pause"


class InFlight:
    """Records and bytes that are delivered and not yet durable. Every method may be called from any thread.

    The caps gate intake only: a record larger than the cap is still admitted as the only one, or it would never be
    read.

    Of several inputs each has a share of its own (the topics of a pattern have one together), and half of each cap is
    for whoever comes first. So a topic whose records cannot go on (its output is refused, its registry is away) takes
    that half and its own share at most: the others go on with theirs, and all together never exceed the caps.
    """

    def __init__(self, events: int, size: int, budget: RevokeBudget, topics: Collection[str]) -> None:
        """Cap of ``events`` records and of ``size`` bytes; ValueError when either is below 1."""
        if events < 1 or size < 1:
            raise ValueError(
                f"limits.in_flight_events ({events}) and limits.in_flight_bytes ({size}) must be at least 1."
            )
        self._changed = threading.Condition()
        self._events, self._bytes = _Shares(events, len(topics)), _Shares(size, len(topics))
        self._topics = ByInput(topics, lambda _: _Topic())
        self._budget = budget
        self.stall_seconds = STALL_SECONDS
        self._of: dict[tuple[str, int, int], _Tally] = {}
        """By topic, partition and epoch."""

    @property
    def events(self) -> int:
        """Records in flight."""
        return sum(topic.events for topic in self._topics.of.values())

    @property
    def bytes(self) -> int:
        """Bytes of the records in flight: keys, values and headers."""
        return sum(topic.bytes for topic in self._topics.of.values())

    def limit(self, topic: str, events: int | None) -> None:
        """Have at most ``events`` records of ``topic`` in flight, for a trial; None: as many as its share allows."""
        with self._changed:
            self._topics[topic].limit = events
            self._changed.notify()

    def admit(self, records: Iterable[SourceRecord]) -> None:
        """Count these records as in flight."""
        with self._changed:
            for place, some in groupby(records, _ASSIGNMENT):
                sizes = [record.size for record in some]
                if (tally := self._of.get(place)) is None:
                    tally = self._of[place] = _Tally(self._topics[place[0]])
                tally.add(len(sizes), sum(sizes))

    def durable(self, records: Sequence[SourceRecord], now: float) -> None:
        """Count these records, which are durable at ``now`` (monotonic seconds), as in flight no more.

        Records whose assignment was forgotten are not counted again.
        """
        with self._changed:
            for place, some in groupby(records, _ASSIGNMENT):
                if (tally := self._of.get(place)) is not None:
                    sizes = [record.size for record in some]
                    tally.add(-len(sizes), -sum(sizes))
            self._budget.observe([now - record.fetched_at for record in records])
            self._changed.notify()

    def forget(self, ended: Mapping[Partition, int]) -> bool:
        """Stop counting what these ended assignments had in flight; returns whether that was nothing."""
        with self._changed:
            nothing = True
            for partition, epoch in ended.items():
                if (tally := self._of.pop((*partition, epoch), None)) is not None:
                    nothing = nothing and not tally.events
                    tally.add(-tally.events, -tally.bytes)
            return nothing

    def intake(self, now: float, paused: Collection[str] = ()) -> Room:
        """What to do at ``now`` (monotonic seconds), while these topics are paused, for whatever reason.

        Bytes are judged by the mean size of what the topic has in flight.
        """
        with self._changed:
            topics = self._topics.of
            lent_events = lent_bytes = 0
            for topic in topics.values():
                lent_events += self._events.lent(topic.events)
                lent_bytes += self._bytes.lent(topic.bytes)
            full, stall, free = [], False, math.inf
            for name, topic in topics.items():
                if name in paused and not topic.paused:
                    topic.full_since = None  # it takes none, so nothing has to wait for it
                    continue
                events = self._events.cap(topic.events, lent_events)
                if topic.limit is not None and topic.limit < events:
                    events = topic.limit
                size = self._bytes.cap(topic.bytes, lent_bytes)
                # A trial of one topic must not hold up the others, and its few records are soon fetched again.
                patient = topic.limit is None or len(topics) == 1
                decision = topic.decide(now, events, size, self.stall_seconds if patient else 0.0)
                if decision == "pause":
                    full.append(name)
                    continue
                stall = stall or decision == "stall"
                if events - topic.events < free:
                    free = events - topic.events
                if topic.bytes and (fit := (size - topic.bytes) * topic.events // topic.bytes) < free:
                    free = fit
            return Room(frozenset(full), stall, 1 if free == math.inf else max(1, int(free)))

    def revoke_seconds(self) -> float:
        """How long a revocation may wait now for records that are not at a standstill."""
        with self._changed:
            return self._budget.seconds()

    def wait(self, seconds: float) -> None:
        """Wait until records became durable or a limit changed, at most ``seconds``."""
        with self._changed:
            self._changed.wait(seconds)


class _Shares:
    """How one cap is divided: half of it evenly among the topics, each of which has at least 1; the rest is lent."""

    def __init__(self, cap: int, topics: int) -> None:
        self._own = max(1, cap // (2 * topics))
        self._common = max(0, cap - topics * self._own)

    def lent(self, used: int) -> int:
        """How much of the common half a topic has that uses so much."""
        return used - self._own if used > self._own else 0

    def cap(self, used: int, lent: int) -> int:
        """What a topic may use that uses ``used`` now, while ``lent`` of the common half is lent, to it and others."""
        left = self._common - lent + self.lent(used)
        return self._own + left if left > 0 else self._own


def _marks(cap: int) -> tuple[int, int]:
    """Levels at which intake starts again: after a stall, and after a pause.

    After a stall a little below the cap, so that records are taken several at a time; after a pause half of it, so that
    the refilled prefetch is used.
    """
    high = cap - max(1, cap // 64)
    return high, min(high, cap // 2)


FLOOR_SECONDS = 1.0
"""Least wait: enough for a late delivery report; less would not make a rebalance faster, which takes as long by
itself."""

UNKNOWN_SECONDS = 10.0
"""The wait before there are ``ENOUGH_SAMPLES``."""

SAFETY = 2.0
QUANTILE = 0.95
"""The quantile of the times in flight that is waited for. The few records beyond it are stuck and not worth a wait."""

SAMPLES = 512
ENOUGH_SAMPLES = 20
"""The fewest samples of which one lies beyond the quantile."""

STANDSTILL = frozenset({"outage", "deployment_fault", "output"})
"""Reasons of a pause during which nothing of the topic becomes durable: there is nothing to wait for."""


def stands_still(topic: str, paused: Mapping[str, Collection[str]]) -> bool:
    """Whether nothing of ``topic`` becomes durable now; ``paused`` has the topics of every reason."""
    return any(topic in paused.get(reason, ()) for reason in STANDSTILL)


class RevokeBudget:
    """How long a rebalance waits for records in flight before it leaves them to the partitions' next owner.

    What becomes durable in that time is processed once; the rest is processed again by the next owner. The whole group
    waits with us, so the wait is an estimate: ``SAFETY`` times the time within which nearly all recent records
    (``QUANTILE``) went from delivery to durable. Pure; not thread-safe.
    """

    def __init__(self, ceiling_seconds: float) -> None:
        """Never more than ``ceiling_seconds``; raises ValueError for a negative one."""
        if ceiling_seconds < 0:
            raise ValueError(f"The longest wait of a revocation ({ceiling_seconds} s) cannot be negative.")
        self._ceiling = ceiling_seconds
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def observe(self, seconds: Iterable[float]) -> None:
        """Add the times, in seconds, from delivery to durable."""
        self._samples.extend(seconds)

    def seconds(self) -> float:
        """How long to wait now."""
        expected = UNKNOWN_SECONDS
        if len(self._samples) >= ENOUGH_SAMPLES:
            # Sorted only here: rebalances are rare, records are not.
            expected = SAFETY * sorted(self._samples)[math.ceil(QUANTILE * len(self._samples)) - 1]
        return min(self._ceiling, max(FLOOR_SECONDS, expected))
