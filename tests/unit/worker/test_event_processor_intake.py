"""What becomes of records that arrive around a revocation."""

from __future__ import annotations

import asyncio

from consumer.events import Outcome, Partition, SourceRecord
from consumer.worker.event_processor import Intake

P, Q = Partition("in", 0), Partition("in", 1)


def record(partition: Partition, epoch: int) -> SourceRecord:
    return SourceRecord(partition.topic, partition.number, 0, epoch, None, b"{}", (), None, 0.0)


def unexpected(error: Exception) -> None:
    raise error


async def dropped(_: SourceRecord) -> Outcome:
    return Outcome("dropped")


def test_records_of_ended_epochs_are_not_started() -> None:
    """Those of the assignment that came after, and of other partitions, are."""

    async def main() -> list[tuple[int, int]]:
        intake, done = Intake(dropped, unexpected), list[tuple[int, int]]()
        intake.add([record(P, 3), record(P, 5)])
        intake.add([record(Q, 4), record(P, 7)])
        intake.revoke({P: 5})
        intake.revoke({P: 3})
        running = asyncio.create_task(intake.run(lambda record, _: done.append((record.partition, record.epoch))))
        async with asyncio.timeout(10):
            while len(done) < 2:
                await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        running.cancel()
        return done

    assert asyncio.run(main()) == [(1, 4), (0, 7)]


def test_a_revocation_cancels_what_runs_in_its_epoch_and_nothing_else() -> None:
    """Its records are another member's now; those of other partitions and later epochs go on."""

    async def main() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        released, cancelled, done = asyncio.Event(), list[tuple[int, int]](), list[tuple[int, int]]()

        async def process(record: SourceRecord) -> Outcome:
            try:
                await released.wait()
            except asyncio.CancelledError:
                cancelled.append((record.partition, record.epoch))
                raise
            return Outcome("dropped")

        intake = Intake(process, unexpected)
        running = asyncio.create_task(intake.run(lambda record, _: done.append((record.partition, record.epoch))))
        intake.add([record(P, 3), record(P, 5), record(Q, 3)])
        async with asyncio.timeout(10):
            while not intake._running.get((Q, 3)):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            intake.revoke({P: 3})
            await asyncio.sleep(0)
            released.set()
            while len(done) < 2:
                await asyncio.sleep(0)
        running.cancel()
        return cancelled, done

    assert asyncio.run(main()) == ([(0, 3)], [(0, 5), (1, 3)])


def test_a_record_without_an_outcome_is_a_defect_and_is_not_handed_on() -> None:
    """Nothing from it on may be committed, so the worker must end."""

    async def main() -> tuple[list[str], list[SourceRecord]]:
        defects, done = list[str](), list[SourceRecord]()

        async def process(_: SourceRecord) -> Outcome:
            raise KeyError("a defect")

        intake = Intake(process, lambda error: defects.append(type(error).__name__))
        running = asyncio.create_task(intake.run(lambda record, _: done.append(record)))
        intake.add([record(P, 1)])
        async with asyncio.timeout(10):
            while not defects:
                await asyncio.sleep(0)
        running.cancel()
        return defects, done

    assert asyncio.run(main()) == (["KeyError"], [])


def test_what_is_kept_of_ended_epochs_does_not_grow_with_rebalances() -> None:
    """A group that rebalances for months costs a member one number a partition."""

    async def main() -> tuple[int, int]:
        intake = Intake(dropped, unexpected)
        for epoch in range(1, 1001):
            intake.revoke({P: 2 * epoch, Q: 2 * epoch + 1})
        return len(intake._ended), len(intake._running)

    assert asyncio.run(main()) == (2, 0)
