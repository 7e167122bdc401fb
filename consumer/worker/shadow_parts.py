"""The parts of a worker that re-extracts a range of a topic: it passes over what lies outside the range, at a pace.

Its model calls are few and small, with pauses between them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from consumer.batching.sparing import Sparing
from consumer.events import Outcome, Partition
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.worker.event_processor import EventProcessor
from consumer.worker.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.batching.policy import LeastTime
    from consumer.delivery.shadow_plan import Pace, PlannedRange
    from consumer.events import SourceRecord
    from consumer.serving.protocol import ModelClient


class ShadowParts(Parts):
    """Those of a worker of a shadow run."""

    def __init__(self, plan: Mapping[Partition, PlannedRange], pace: Pace | None, share: float = 1.0) -> None:
        """``plan``: what to read of each partition; of one that is missing, nothing. ``share``: of the model servers'
        time, 1 for all of it.
        """
        super().__init__()
        self._plan = plan
        self._pace = pace
        self._share = share

    def dispatcher(  # type: ignore[override]
        self, clients: Mapping[str, ModelClient], policy: LeastTime, *of_any: Any, **by_name: Any
    ) -> Dispatcher:
        """In place of ``Dispatcher``, with the same arguments."""
        return Dispatcher(clients, policy if self._share == 1 else Sparing(policy, self._share), *of_any, **by_name)

    def event_processor(self, *of_any: Any, **by_name: Any) -> RangeProcessor:  # type: ignore[override]
        """In place of ``EventProcessor``, with the same arguments."""
        processor = RangeProcessor(*of_any, **by_name)
        processor.plan, processor.pace, processor.stopping = self._plan, self._pace, self.stopping
        return processor


class RangeProcessor(EventProcessor):
    """Turns the records of a range into outcomes."""

    plan: Mapping[Partition, PlannedRange]
    pace: Pace | None
    stopping: asyncio.Event

    async def process(self, record: SourceRecord) -> Outcome:
        """As EventProcessor; ``dropped`` for a record outside the range.

        It gets those before it where brokers forgot the group's offsets.
        """
        planned = self.plan.get(Partition.of(record))
        if planned is None or not planned.start <= record.offset < planned.end:
            return Outcome("dropped")
        if self.pace is not None and (seconds := self.pace.wait(asyncio.get_running_loop().time())) > 0:
            # A drain would wait with it; few records are in flight at a rate.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)
        return await super().process(record)
