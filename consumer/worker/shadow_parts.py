"""The parts of a worker that re-extracts a range of a topic: it passes over what lies behind the range, at a pace."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from consumer.events import Outcome, Partition
from consumer.worker.event_processor import EventProcessor
from consumer.worker.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.delivery.shadow_plan import Pace
    from consumer.events import SourceRecord


class ShadowParts(Parts):
    """Those of a worker of a shadow run."""

    def __init__(self, ends: Mapping[Partition, int], pace: Pace | None) -> None:
        """``ends``: the first offset behind the range, by partition; one that is missing has nothing in it."""
        self._ends = ends
        self._pace = pace

    def event_processor(self, *of_any: Any, **by_name: Any) -> RangeProcessor:  # type: ignore[override]
        """In place of ``EventProcessor``, with the same arguments."""
        processor = RangeProcessor(*of_any, **by_name)
        processor.ends, processor.pace = self._ends, self._pace
        return processor


class RangeProcessor(EventProcessor):
    """Turns the records of a range into outcomes."""

    ends: Mapping[Partition, int]
    pace: Pace | None

    async def process(self, record: SourceRecord) -> Outcome:
        """As EventProcessor; ``dropped`` for a record behind the range, which is the live workers' own."""
        if record.offset >= self.ends.get(Partition.of(record), 0):
            return Outcome("dropped")
        if self.pace is not None and (seconds := self.pace.wait(time.monotonic())) > 0:
            await asyncio.sleep(seconds)
        return await super().process(record)
