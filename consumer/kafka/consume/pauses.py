"""Which partitions are paused, and why.

Resuming a partition that was not paused rewinds its position (librdkafka issues 4637 and 4686), so the exact set of
paused partitions is kept, and only those are resumed.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from consumer.delivery.partition import Partition
    from consumer.kafka.observer import EdgeObserver


class Pausable(Protocol):
    """What is needed of ``confluent_kafka.Consumer``."""

    def pause(self, partitions: list[TopicPartition]) -> None:
        """Stop fetching these."""

    def resume(self, partitions: list[TopicPartition]) -> None:
        """Fetch these again."""


class Pauses:
    """Reasons may come and go from any thread; only the poll thread applies them."""

    def __init__(self, observer: EdgeObserver) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._reasons: frozenset[str] = frozenset()
        self._paused: set[Partition] = set()

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons that stand now, in order."""
        return tuple(sorted(self._reasons))

    def want(self, reason: str) -> None:
        """Consumption must stop for ``reason``."""
        self._change(add=frozenset({reason}))

    def withdraw(self, reason: str) -> None:
        """``reason`` no longer stands."""
        self._change(remove=frozenset({reason}))

    def apply(self, consumer: Pausable, assigned: Collection[Partition]) -> None:
        """Pause all that is assigned, or resume all that was paused. The poll thread's."""
        if self._reasons:
            self.assigned(consumer, assigned)
        elif self._paused:
            consumer.resume(_partitions(self._paused))
            self._paused.clear()

    def assigned(self, consumer: Pausable, partitions: Iterable[Partition]) -> None:
        """These were assigned just now: paused at once while a reason stands. The poll thread's."""
        missing = {partition for partition in partitions if partition not in self._paused}
        if self._reasons and missing:
            consumer.pause(_partitions(missing))
            self._paused |= missing

    def gone(self, consumer: Pausable, partitions: Iterable[Partition]) -> None:
        """These are about to be unassigned. The poll thread's.

        The client keeps a pause beyond the assignment: it would lie on the partition when it comes back, known to
        nobody.
        """
        if leaving := self._paused.intersection(partitions):
            consumer.resume(_partitions(leaving))
            self._paused -= leaving

    def forget(self) -> None:
        """The client is of no use any more, and its pauses are gone with it. The poll thread's."""
        self._paused.clear()

    def _change(self, add: frozenset[str] = frozenset(), remove: frozenset[str] = frozenset()) -> None:
        with self._lock:
            reasons = (self._reasons | add) - remove
            if reasons == self._reasons:
                return
            self._reasons = reasons
            self._observer.paused(reasons)


def _partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(partition.topic, partition.number) for partition in sorted(partitions)]
