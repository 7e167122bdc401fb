"""How far a shadow run is: log lines, a bar on a terminal, and the end of its worker when all is done."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException

from consumer.cli.progress import counter
from consumer.delivery.shadow_plan import progress
from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.shadow_plan import Deleted, PlannedRange, Progress
    from consumer.events import Partition
    from consumer.kafka.tools.shadow_group import ShadowGroup

_log: Any = structlog.stdlib.get_logger("consumer.cli.shadow")

LOOK_SECONDS = 1.0
LINE_SECONDS = 10.0
"""Seconds between two lines of progress."""
KEEP_SECONDS = 3600.0
"""The plan is committed again so often: brokers forget offsets of an empty group after a week by default."""


class ShadowWatch(threading.Thread):
    """Shows how far the group is, and ends the worker once the whole range is done."""

    def __init__(
        self, group: ShadowGroup, plan: Mapping[Partition, PlannedRange], deleted: Deleted, end: Callable[[], object]
    ) -> None:
        """``end()`` has the worker drain and end, unless it does already."""
        super().__init__(name="shadow-watch", daemon=True)
        self._group = group
        self._plan = plan
        self._deleted = deleted
        self._end = end
        self.ended = threading.Event()

    def run(self) -> None:
        """Until all is done, or ``ended`` is set."""
        with counter("records", progress(self._plan, {}).total) as advance:
            self._watch(advance)
        if not self.ended.is_set():
            self._end()

    def _watch(self, advance: Callable[[int], None]) -> None:
        first: tuple[float, int] | None = None
        line_at = warn_at = 0.0
        keep_at = time.monotonic() + KEEP_SECONDS
        while not self.ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            try:
                found = progress(self._plan, committed(self._group, self._plan, self._deleted))
                if now >= keep_at:
                    self._group.keep(self._plan)
                    keep_at = now + KEEP_SECONDS
            except (ClusterUnreachable, TopicUnusable, KafkaException) as error:
                if now >= warn_at:
                    _log.warning("how far the run is cannot be seen now", reason=str(error))
                    warn_at = now + LINE_SECONDS
                continue
            advance(found.done)
            first = first or (now, found.done)
            if now >= line_at or found.is_complete:
                _log.info("shadow", **_shown(found, now - first[0], found.done - first[1]))
                line_at = now + LINE_SECONDS
            if found.is_complete:
                return


def committed(group: ShadowGroup, plan: Mapping[Partition, PlannedRange], deleted: Deleted) -> Mapping[Partition, int]:
    """How far the group is; counts what was deleted from the input since the last look."""
    first = group.positions(plan, None, end=False)
    found = group.committed(plan)
    deleted.look(found, first)
    return found


def _shown(found: Progress, seconds: float, done: int) -> dict[str, Any]:
    rate = done / seconds if seconds > 0 else 0.0
    left = round((found.total - found.done) / rate) if rate else None
    return {"done": found.done, "total": found.total, "records_per_second": round(rate, 1), "seconds_left": left}
