"""The budget of memory: its bound, its order, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.events import Partition, Place, SourceRecord
from consumer.worker.task_runner import DECODED, EVENT_BYTES, WorkBudget

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from consumer.events import Work

ROOM = 4 * EVENT_BYTES
"""Three events fit, and a quarter is left for what was admitted."""


def record(offset: int, partition: int = 0, value: bytes = b"", epoch: int = 1) -> SourceRecord:
    return SourceRecord("in", partition, offset, epoch, None, value, (), 1000, 0.0)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(bounded())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def admitted(budget: WorkBudget) -> list[int]:
    return sorted(each.place.offset for works in budget.queue.works.values() for each in works.values())


def test_events_are_admitted_in_order_of_arrival_as_far_as_there_is_room() -> None:
    """A small one that came later does not overtake a large one, which waits until it is the oldest."""

    async def main() -> None:
        budget = WorkBudget(ROOM)
        first = await budget.enter(0, record(0))
        large = asyncio.create_task(budget.enter(1, record(1, value=bytes(2 * ROOM // DECODED))))
        small = asyncio.create_task(budget.enter(2, record(2)))
        await settled()
        assert admitted(budget) == [0]
        budget.leave(first)
        await settled()
        assert admitted(budget) == [1]  # alone, and more than the budget
        budget.leave(await large)
        assert (await small).place.offset == 2
        budget.leave(await small)
        assert budget.queue.free == ROOM

    run(main())


def test_a_value_that_is_too_large_to_be_decoded_needs_no_room_for_that() -> None:
    """It becomes a dead letter, and keeps nobody waiting."""

    async def main() -> None:
        budget = WorkBudget(ROOM)
        works = [await budget.enter(number, record(number, value=bytes(ROOM)), 0) for number in range(3)]
        assert sum(work.granted for work in works) == 3 * EVENT_BYTES

    run(main())


def test_results_that_wait_keep_their_room_until_they_are_durable() -> None:
    """From another thread, as the release thread says so."""

    async def main() -> None:
        budget = WorkBudget(ROOM)
        budget.keep(await budget.enter(0, record(0)), ROOM)
        waits = asyncio.create_task(budget.enter(1, record(1)))
        await settled()
        assert not waits.done()
        threading.Thread(target=budget.durable, args=(record(0),)).start()
        budget.leave(await waits)
        assert budget.queue.free == ROOM

    run(main())


def test_a_revocation_gives_back_what_its_epoch_held() -> None:
    """Whether it was under extraction, processed, or waiting; a late ``durable`` and ``leave`` count for nothing."""

    async def main() -> None:
        budget = WorkBudget(ROOM)
        budget.keep(await budget.enter(0, record(0, epoch=4)), ROOM)
        waits = asyncio.create_task(budget.enter(1, record(1, epoch=4)))
        other = asyncio.create_task(budget.enter(2, record(0, epoch=7, partition=2)))
        await settled()
        waits.cancel()
        budget.queue.revoke({Partition("in", 0): 4})
        budget.leave(await other)
        budget.durable(record(0, epoch=4))
        budget._take_back()
        assert budget.queue.free == ROOM
        assert budget.queue.works == {}
        assert budget.queue.waiting == []

    run(main())


def test_what_is_taken_after_the_revocation_is_given_back() -> None:
    """With several variants an extraction is a task of its own, which may go on until that of its event has ended."""

    async def main() -> None:
        budget = WorkBudget(ROOM)
        work = await budget.enter(0, record(0))
        budget.queue.revoke({Partition("in", 0): 1})
        assert budget.take(work, ROOM // 4)
        budget.leave(work)
        assert budget.queue.free == ROOM

    run(main())


def test_whoever_was_overtaken_while_the_registry_was_asked_goes_on() -> None:
    """Later results of its partition wait for its own, and hold all there is: it enters in any case."""

    async def main() -> None:
        budget = WorkBudget(ROOM)
        for number in (1, 2):
            budget.keep(await budget.enter(number, record(number)), ROOM // 2)
        late = await budget.enter(0, record(0))
        assert not budget.take(late, ROOM)
        await budget.queue.wait(late)  # and it may grow
        stays = asyncio.create_task(budget.enter(4, record(4)))
        await settled()
        assert not stays.done()
        stays.cancel()

    run(main())


def test_an_admitted_event_that_grows_comes_before_new_ones_and_stops_the_others() -> None:
    """While one waits no other takes more, in order of arrival."""

    async def main() -> None:
        budget = WorkBudget(ROOM)
        works = [await budget.enter(number, record(number)) for number in range(3)]
        order: list[str] = []

        async def grow(name: str, work: Work, size: int) -> None:
            if not budget.take(work, size):
                await budget.queue.wait(work)
            order.append(name)

        tasks = [asyncio.create_task(grow("second", works[1], 3 * EVENT_BYTES))]
        await settled()
        tasks.append(asyncio.create_task(grow("third", works[2], 0)))
        tasks.append(asyncio.create_task(budget.enter(3, record(3))))  # type: ignore[arg-type]
        await settled()
        assert order == []
        await grow("first", works[0], ROOM)
        assert order == ["first"]  # the oldest, beyond the budget
        budget.leave(works[0])
        await settled()
        assert order == ["first", "second", "third"]
        assert not tasks[2].done()
        for work in works:
            budget.leave(work)
        await asyncio.gather(*tasks)
        assert budget.queue.growing == 0

    run(main())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_never_more_than_the_budget_and_one_event_and_everyone_ends(seed: int) -> None:
    """Events of all sizes in four partitions, released in order; some wait for the registry, some are cancelled.

    Each that the registry kept until younger ones were admitted may have been the oldest beside them.
    """
    chance = random.Random(seed)
    has_registry = seed % 2 == 0
    most = 2 * ROOM
    durable: list[int] = []

    async def main() -> None:
        budget = WorkBudget(ROOM)
        processed: dict[int, set[int]] = {number: set() for number in range(4)}
        gone: set[int] = set()
        late = 0

        def release() -> None:
            for number in range(100):
                if number in gone:
                    continue
                earlier = (each for each in range(number % 4, number, 4))
                if number in processed[number % 4] and all(each in gone for each in earlier):
                    gone.add(number)
                    durable.append(number)
                    budget.durable(record(number, number % 4))

        async def event(number: int) -> None:
            nonlocal late
            size = chance.choice((0, 10, ROOM // DECODED // 4, ROOM // DECODED))
            try:
                if has_registry and chance.random() < 0.2:
                    for _ in range(chance.randrange(40)):
                        await asyncio.sleep(0)
                late += any(number < each.number for works in budget.queue.works.values() for each in works.values())
                work = await budget.enter(number, record(number, number % 4, bytes(size)))
                for _ in range(chance.randrange(4)):
                    if not budget.take(work, chance.choice((0, 100, EVENT_BYTES, ROOM // 4))):
                        await budget.queue.wait(work)
                    assert -budget.queue.free <= most * (1 + late)
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                budget.keep(work, chance.choice((100, EVENT_BYTES)))
                processed[number % 4].add(number)
            except asyncio.CancelledError:
                place = Place.of(record(number, number % 4))
                budget._drop(place[:2], place.offset)
                budget.queue.serve()
                gone.add(number)
            release()

        tasks = [asyncio.create_task(event(number)) for number in range(100)]
        await settled()
        for task in chance.sample(tasks, 10):
            task.cancel()
        await asyncio.gather(*tasks)
        release()
        budget._take_back()
        assert budget.queue.free == ROOM
        assert budget.queue.works == {}
        assert budget.queue.growing == 0

    run(main())
    assert len(durable) >= 90
    for partition in range(4):
        mine = [number for number in durable if number % 4 == partition]
        assert mine == sorted(mine)
