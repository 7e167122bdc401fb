"""What a worker does with records that arrive around a revocation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from stub_server import write_bundle

from consumer.config.task_files import load_tasks
from consumer.config.tree import Config, ModelConfig
from consumer.events import Outcome, Partition, SourceRecord
from consumer.worker.lifecycle import Worker

if TYPE_CHECKING:
    from pathlib import Path

P, Q = Partition("in", 0), Partition("in", 1)


class Everything:
    """A pipeline that answers at once, and the runtime that hears of it."""

    def __init__(self) -> None:
        self.finished: list[tuple[int, int]] = []

    async def process(self, record: SourceRecord) -> Outcome:  # noqa: ARG002
        return Outcome("dropped")

    def processed(self, record: SourceRecord, outcome: Outcome) -> None:  # noqa: ARG002
        self.finished.append((record.partition, record.epoch))


def worker(folder: Path) -> Worker:
    return Worker(Config(model=ModelConfig(bundle=str(write_bundle(folder)))), load_tasks(), "w")


def record(partition: Partition, epoch: int) -> SourceRecord:
    return SourceRecord(partition.topic, partition.number, 0, epoch, None, b"{}", (), None, 0.0)


def test_records_of_ended_epochs_are_not_started(tmp_path: Path) -> None:
    """Those of the assignment that came after, and of other partitions, are."""

    async def main() -> list[tuple[int, int]]:
        it, both = worker(tmp_path), Everything()
        there: Any = both
        intake: asyncio.Queue[SourceRecord] = asyncio.Queue()
        for each in (record(P, 3), record(P, 5), record(Q, 4), record(P, 7)):
            intake.put_nowait(each)
        it._drop({P: 5})
        it._drop({P: 3})
        admitting = asyncio.create_task(it._admit(intake, there, there))
        async with asyncio.timeout(10):
            while len(both.finished) < 2 or not intake.empty():
                await asyncio.sleep(0)
        admitting.cancel()
        return both.finished

    assert asyncio.run(main()) == [(1, 4), (0, 7)]


def test_what_is_kept_of_ended_epochs_does_not_grow_with_rebalances(tmp_path: Path) -> None:
    """A group that rebalances for months costs a member one number a partition."""

    async def main() -> int:
        it = worker(tmp_path)
        for epoch in range(1, 1001):
            it._drop({P: 2 * epoch, Q: 2 * epoch + 1})
        return len(it._ended)

    assert asyncio.run(main()) == 2
