"""How much may be in flight: counters with caps. Pure; the clock is the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from consumer.delivery.partition import Partition

Verdict = Literal["admit", "stall", "pause", "resume"]

STALL_SECONDS = 1.0
"""How long intake only waits before partitions are paused. Pausing throws the client's prefetch away and fetches it
again, so short fullness is waited out; the wait is far below max.poll.interval.ms (300 s)."""


class Admission:
    """Records and bytes that are delivered and not yet durable. Caps gate intake only.

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

    def finished(self, partition: Partition, epoch: int, size: int) -> None:
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
