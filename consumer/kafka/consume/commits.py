"""Offsets on their way to the coordinator: one commit at a time, so that none overtakes a later one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.delivery.partition import Partition

ANSWER_SECONDS = 60.0
"""A commit without an answer for this long is given up and repeated: librdkafka answers within socket.timeout.ms."""

RETRY_SECONDS = 1.0


class Commits:
    """The offsets wanted, per partition and epoch, and those in flight. Pure; the poll thread owns it."""

    def __init__(self) -> None:
        self._wanted: dict[Partition, tuple[int, int]] = {}
        self._in_flight: dict[Partition, tuple[int, int]] = {}
        # Also when all that was in flight has left meanwhile: its answer must not be taken for that to the next commit.
        self._unanswered = False
        self._sent_at = 0.0
        self._not_before = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted and nothing in flight."""
        return not self._wanted and not self._in_flight

    def want(self, partition: Partition, epoch: int, offset: int) -> None:
        """Commit ``offset`` when possible; within an epoch an offset never replaces a higher one."""
        known = self._wanted.get(partition)
        if known is None or known < (epoch, offset):
            self._wanted[partition] = (epoch, offset)

    def take(self, epochs: Mapping[Partition, int], now: float) -> dict[Partition, int]:
        """Offsets to commit now: only of current epochs, nothing while a commit is in flight or soon after a failure.

        Offsets of other epochs are forgotten.
        """
        if not self._wanted or now < self._not_before or (self._unanswered and now < self._sent_at + ANSWER_SECONDS):
            return {}
        for partition, wanted in self._in_flight.items():
            self.want(partition, *wanted)
        self._in_flight = {p: wanted for p, wanted in self._wanted.items() if epochs.get(p) == wanted[0]}
        self._wanted = {}
        self._unanswered = bool(self._in_flight)
        self._sent_at = now
        return {partition: offset for partition, (_, offset) in self._in_flight.items()}

    def answered(self, *, failed: bool, now: float) -> None:
        """The commit in flight ended. When it ``failed``, even in part, all of it is wanted again, in a second."""
        if failed:
            for partition, wanted in self._in_flight.items():
                self.want(partition, *wanted)
            self._not_before = now + RETRY_SECONDS
        self._in_flight = {}
        self._unanswered = False

    def leave(self, epochs: Mapping[Partition, int]) -> dict[Partition, int]:
        """Offsets of assignments that end, for a last synchronous commit: wanted or not yet answered."""
        last: dict[Partition, int] = {}
        for partition, epoch in epochs.items():
            known = [w for w in (self._wanted.pop(partition, None), self._in_flight.pop(partition, None)) if w]
            offsets = [offset for of_epoch, offset in known if of_epoch == epoch]
            if offsets:
                last[partition] = max(offsets)
        return last
