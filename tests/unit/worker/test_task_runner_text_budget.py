"""The bound on text under extraction."""

from __future__ import annotations

import asyncio
import random

from consumer.worker.task_runner import TextBudget


def test_never_more_than_the_room_and_everyone_gets_a_turn() -> None:
    """Many texts of all sizes, some larger than the room, some cancelled: the bound holds and nobody waits for ever."""

    async def main() -> None:
        room, used, most, done = TextBudget(100), 0, 0, 0
        chance = random.Random(5)

        async def extract(size: int) -> None:
            nonlocal used, most, done
            async with room.taken(size):
                used += min(size, 100)
                most = max(most, used)
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                used -= min(size, 100)
            done += 1

        tasks = [asyncio.create_task(extract(chance.choice((1, 10, 60, 100, 500)))) for _ in range(400)]
        await asyncio.sleep(0)
        for task in tasks[50::7]:
            task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert done + sum(task.cancelled() for task in tasks) == 400
        assert done > 300
        assert most == 100
        async with asyncio.timeout(1), room.taken(100):
            assert used == 0

    asyncio.run(main())


def test_a_large_text_is_not_overtaken_for_ever() -> None:
    """Small texts that come later wait behind a large one that waits for room."""

    async def main() -> list[str]:
        room, order = TextBudget(10), []

        async def extract(name: str, size: int) -> None:
            async with room.taken(size):
                order.append(name)
                await asyncio.sleep(0)

        await asyncio.gather(extract("first", 6), extract("large", 10), extract("small", 1))
        return order

    assert asyncio.run(main()) == ["first", "large", "small"]


def test_one_that_leaves_the_queue_holds_up_nobody() -> None:
    """A revoked partition's long text, cancelled while it waits, lets those behind it go on."""

    async def main() -> None:
        room = TextBudget(10)
        async with room.taken(4):
            large = asyncio.create_task(_take(room, 10))
            await asyncio.sleep(0)
            small = asyncio.create_task(_take(room, 3))
            await asyncio.sleep(0)
            assert not small.done()
            large.cancel()
            async with asyncio.timeout(1):
                await small

    asyncio.run(main())


async def _take(room: TextBudget, characters: int) -> None:
    async with room.taken(characters):
        await asyncio.sleep(0)
