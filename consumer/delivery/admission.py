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
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from consumer.events import Partition


Intake = Literal["admit", "stall", "pause", "resume"]

STALL_SECONDS = 1.0
"""How long intake waits at a full cap before partitions are paused. A pause discards the client's prefetch, which is
then fetched again, so a short one is waited out; the wait is far below max.poll.interval.ms (300 s)."""


class InFlight:
    """Records and bytes that are delivered and not yet durable. Every method may be called from any thread.

    The caps gate intake only: a record larger than the cap is still admitted as the only one, or it would never be
    read.
    """

    def __init__(self, events: int, size: int, budget: RevokeBudget) -> None:
        """Cap of ``events`` records and of ``size`` bytes; ValueError when either is below 1."""
        if events < 1 or size < 1:
            raise ValueError(
                f"limits.in_flight_events ({events}) and limits.in_flight_bytes ({size}) must be at least 1."
            )
        self._changed = threading.Condition()
        self._configured_events = events
        self._cap_bytes = size
        self._high_bytes, self._low_bytes = _marks(size)
        self._budget = budget
        self.stall_seconds = STALL_SECONDS
        self._of: dict[tuple[Partition, int], list[int]] = {}
        self._full_since: float | None = None
        self._paused = False
        self.events = 0
        """Records in flight."""
        self.bytes = 0
        """Bytes of the records in flight: keys, values and header values."""
        self.limit(None)

    def limit(self, events: int | None) -> None:
        """Have at most ``events`` records in flight, for a trial; None: as many as configured, never more than that."""
        with self._changed:
            self._cap_events = self._configured_events if events is None else min(events, self._configured_events)
            self._high_events, self._low_events = _marks(self._cap_events)
            self._changed.notify()

    def admit(self, records: Iterable[tuple[Partition, int, int]]) -> None:
        """Count these (partition, epoch, bytes) as in flight."""
        with self._changed:
            for partition, epoch, size in records:
                self._add(self._of.setdefault((partition, epoch), [0, 0]), 1, size)

    def durable(self, records: Iterable[tuple[Partition, int, int]], seconds: Iterable[float] = ()) -> None:
        """Count these (partition, epoch, bytes) as durable; each was in flight for its ``seconds``.

        Records whose assignment was forgotten are not counted again.
        """
        with self._changed:
            for partition, epoch, size in records:
                if tally := self._of.get((partition, epoch)):
                    self._add(tally, -1, -size)
            self._budget.observe(seconds)
            self._changed.notify()

    def forget(self, ended: Mapping[Partition, int]) -> bool:
        """Stop counting what these ended assignments had in flight; returns whether that was nothing."""
        with self._changed:
            left = [self._of.pop(assignment, (0, 0)) for assignment in ended.items()]
            events = sum(events for events, _ in left)
            self.events -= events
            self.bytes -= sum(size for _, size in left)
            return events == 0

    def intake(self, now: float) -> tuple[Intake, int]:
        """What to do at ``now`` (monotonic seconds), and how many records may be taken, at least 1.

        ``admit``: take more. ``stall``: full, wait. ``pause``: full for longer than the stall allows; returned until
        the low mark is reached, then once ``resume``. Bytes are judged by the mean size of what is in flight.
        """
        with self._changed:
            free = self._cap_events - self.events
            if self.events and self.bytes:
                free = min(free, (self._cap_bytes - self.bytes) * self.events // self.bytes)
            return self._decide(now), max(1, free)

    def revoke_seconds(self, paused: Collection[str]) -> float:
        """How long a revocation may wait now, while consumption is ``paused`` for these reasons."""
        with self._changed:
            return self._budget.seconds(paused)

    def wait(self, seconds: float) -> None:
        """Wait until records became durable or the limit changed, at most ``seconds``."""
        with self._changed:
            self._changed.wait(seconds)

    def _add(self, tally: list[int], events: int, size: int) -> None:
        tally[0] += events
        tally[1] += size
        self.events += events
        self.bytes += size

    def _decide(self, now: float) -> Intake:
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
        if now - self._full_since < self.stall_seconds:
            return "stall"
        self._paused = True
        return "pause"


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
"""Reasons of a pause during which nothing becomes durable: there is nothing to wait for."""


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

    def seconds(self, paused: Collection[str]) -> float:
        """How long to wait now, while consumption is ``paused`` for these reasons."""
        if not STANDSTILL.isdisjoint(paused):
            return 0.0
        expected = UNKNOWN_SECONDS
        if len(self._samples) >= ENOUGH_SAMPLES:
            # Sorted only here: rebalances are rare, records are not.
            expected = SAFETY * sorted(self._samples)[math.ceil(QUANTILE * len(self._samples)) - 1]
        return min(self._ceiling, max(FLOOR_SECONDS, expected))
