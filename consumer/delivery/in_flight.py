"""The records in flight, as both threads of the edge see them: one adds, the other takes away, both may wait."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from consumer.delivery.admission import Admission, Verdict
    from consumer.delivery.partition import Partition
    from consumer.delivery.revoke_budget import RevokeBudget
    from consumer.events import SourceRecord


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

    def finished(self, records: Iterable[tuple[Partition, int, int]], seconds: Iterable[float]) -> None:
        """These (partition, epoch, bytes) are durable, and were in flight for ``seconds``."""
        with self._changed:
            for partition, epoch, size in records:
                self._admission.finished(partition, epoch, size)
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
