"""How much may be in flight: counters with caps. Pure; the clock is the caller's."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from consumer.events import Partition, SourceRecord


Verdict = Literal["admit", "stall", "pause", "resume"]

STALL_SECONDS = 1.0
"""How long intake only waits before partitions are paused. Pausing throws the client's prefetch away and fetches it
again, so short fullness is waited out; the wait is far below max.poll.interval.ms (300 s)."""


class Admission:
    """Records and bytes that are delivered and not yet durable. CallLimits gate intake only.

    ``admit``: take more. ``stall``: full, wait. ``pause``: full for longer than the stall allows; said until the low
    mark is reached, then once ``resume``. A record larger than the cap is still admitted when there is room for a
    first one, or it would never be read.
    """

    def __init__(self, events: int, size: int, stall_seconds: float = STALL_SECONDS) -> None:
        """Cap of ``events`` records and of ``size`` bytes; ValueError when either is below 1."""
        if events < 1 or size < 1:
            raise ValueError(
                f"limits.in_flight_events ({events}) and limits.in_flight_bytes ({size}) must be at least 1."
            )
        self._configured_events = events
        self._cap_bytes = size
        self._high_bytes, self._low_bytes = _marks(size)
        self.limit(None)
        self._stall_seconds = stall_seconds
        self._of: dict[tuple[Partition, int], list[int]] = {}
        self._full_since: float | None = None
        self._paused = False
        self.events = 0
        self.bytes = 0

    def limit(self, events: int | None) -> None:
        """Have at most ``events`` records in flight, for a trial; None: as many as configured, never more than that."""
        self._cap_events = self._configured_events if events is None else min(events, self._configured_events)
        self._high_events, self._low_events = _marks(self._cap_events)

    def admit(self, partition: Partition, epoch: int, size: int) -> None:
        """Count one delivered record of ``size`` bytes."""
        tally = self._of.setdefault((partition, epoch), [0, 0])
        tally[0] += 1
        tally[1] += size
        self.events += 1
        self.bytes += size

    def durable(self, partition: Partition, epoch: int, size: int) -> None:
        """A record is durable; ignored when its assignment was forgotten."""
        tally = self._of.get((partition, epoch))
        if tally is None:
            return
        tally[0] -= 1
        tally[1] -= size
        self.events -= 1
        self.bytes -= size

    def forget(self, partition: Partition, epoch: int) -> None:
        """An assignment ended: what it had in flight no longer counts."""
        events, size = self._of.pop((partition, epoch), (0, 0))
        self.events -= events
        self.bytes -= size

    def room(self) -> int:
        """Records that may be taken now, at least 1: bytes are judged by the mean size of what is in flight."""
        by_events = self._cap_events - self.events
        by_bytes = by_events
        if self.events and self.bytes:
            by_bytes = (self._cap_bytes - self.bytes) * self.events // self.bytes
        return max(1, min(by_events, by_bytes))

    def verdict(self, now: float) -> Verdict:
        """What intake must do at ``now`` (monotonic seconds)."""
        if self._paused:
            if self.events > self._low_events or self.bytes > self._low_bytes:
                return "pause"
            self._paused = False
            self._full_since = None
            return "resume"
        if self._full_since is None:
            if self.events < self._cap_events and self.bytes < self._cap_bytes:
                return "admit"
            self._full_since = now
        elif self.events <= self._high_events and self.bytes <= self._high_bytes:
            self._full_since = None
            return "admit"
        if now - self._full_since < self._stall_seconds:
            return "stall"
        self._paused = True
        return "pause"


def _marks(cap: int) -> tuple[int, int]:
    """Where intake that was full starts again, and where after a pause.

    A little below the cap, so that records come in handfuls and not singly; half of it, so that the refilled prefetch
    is used.
    """
    high = cap - max(1, cap // 64)
    return high, min(high, cap // 2)


# How long a rebalance waits for records in flight before it leaves them to the partitions' next owner.
#
# What finishes in that time is done once; what does not is done twice. The group waits with us, so the wait follows
# what is to be expected: nearly all records of late took so long, and these were on their way already.

FLOOR_SECONDS = 1.0
"""Enough for a delivery report and a hiccup; less would not make a rebalance, which takes as long by itself, faster."""

UNKNOWN_SECONDS = 10.0
"""Before enough records have finished to tell."""

SAFETY = 2.0
QUANTILE = 0.95
"""Of the times in flight. The few beyond it are the stuck ones, which nobody should wait for."""

SAMPLES = 512
ENOUGH_SAMPLES = 20
"""The fewest of which one may lie beyond the quantile."""

STANDSTILL = frozenset({"outage", "deployment_fault", "output"})
"""Reasons of a pause during which nothing finishes: there is nothing to wait for."""


class RevokeBudget:
    """Watches how long records are in flight, from delivery until every output is durable. Pure; not thread-safe."""

    def __init__(self, ceiling_seconds: float) -> None:
        """Never more than ``ceiling_seconds``; raises ValueError for a negative one."""
        if ceiling_seconds < 0:
            raise ValueError(f"The longest wait of a revocation ({ceiling_seconds} s) cannot be negative.")
        self._ceiling = ceiling_seconds
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def observe(self, seconds: Iterable[float]) -> None:
        """Records became durable, so many seconds after they were delivered."""
        self._samples.extend(seconds)

    def seconds(self, paused: Collection[str]) -> float:
        """How long to wait now, while consumption is ``paused`` for these reasons."""
        if not STANDSTILL.isdisjoint(paused):
            return 0.0
        return min(self._ceiling, max(FLOOR_SECONDS, self._expected()))

    def _expected(self) -> float:
        if len(self._samples) < ENOUGH_SAMPLES:
            return UNKNOWN_SECONDS
        # Sorted only here: rebalances are rare, records are not.
        return SAFETY * sorted(self._samples)[math.ceil(QUANTILE * len(self._samples)) - 1]


# The records in flight, as both threads of the runtime see them: one adds, the other takes away, both may wait.


class InFlight:
    """Admission and the budget of revocations behind one lock. Every method may be called from any thread."""

    def __init__(self, admission: Admission, budget: RevokeBudget) -> None:
        self._admission = admission
        self._budget = budget
        self._changed = threading.Condition()

    @property
    def count(self) -> tuple[int, int]:
        """Records and bytes delivered and not yet durable."""
        with self._changed:
            return self._admission.events, self._admission.bytes

    def verdict(self, now: float) -> tuple[Verdict, int]:
        """What intake must do at ``now`` (monotonic seconds), and how many records it may take."""
        with self._changed:
            return self._admission.verdict(now), self._admission.room()

    def limit(self, records: int | None) -> None:
        """Have at most so many records in flight; None: as many as configured."""
        with self._changed:
            self._admission.limit(records)
            self._changed.notify()

    def admit(self, records: Iterable[tuple[Partition, SourceRecord]]) -> None:
        """These were delivered."""
        with self._changed:
            for partition, record in records:
                self._admission.admit(partition, record.epoch, record.size)

    def durable(self, records: Iterable[tuple[Partition, int, int]], seconds: Iterable[float]) -> None:
        """These (partition, epoch, bytes) are durable, and were in flight for ``seconds``."""
        with self._changed:
            for partition, epoch, size in records:
                self._admission.durable(partition, epoch, size)
            self._budget.observe(seconds)
            self._changed.notify()

    def forget(self, ended: Mapping[Partition, int]) -> bool:
        """These assignments ended. Whether nothing of them was in flight."""
        with self._changed:
            before = self._admission.events
            for partition, epoch in ended.items():
                self._admission.forget(partition, epoch)
            return self._admission.events == before

    def budget(self, paused: Collection[str]) -> float:
        """Seconds that a revocation may wait now, while consumption is ``paused`` for these reasons."""
        with self._changed:
            return self._budget.seconds(paused)

    def wake(self) -> None:
        """End the ``wait`` of another thread."""
        with self._changed:
            self._changed.notify()

    def wait(self, seconds: float) -> None:
        """Until something changed, at most ``seconds``."""
        with self._changed:
            self._changed.wait(seconds)
