"""The bound on text under extraction."""

from __future__ import annotations

import asyncio
import random

from consumer.worker.task_runner import TextBudget


def test_never_more_than_the_budget_and_everyone_is_served() -> None:
    """Texts of all sizes, some larger than the budget, some cancelled: the bound holds and nobody waits for ever."""

    async def main() -> None:
        budget, used, most, done = TextBudget(100), 0, 0, 0
        chance = random.Random(5)

        async def extract(size: int) -> None:
            nonlocal used, most, done
            async with budget.taken(size):
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
        async with asyncio.timeout(1), budget.taken(100):
            assert used == 0

    asyncio.run(main())


def test_a_large_text_is_not_overtaken_for_ever() -> None:
    """Small texts that come later wait behind a large one that waits for it."""

    async def main() -> list[str]:
        budget, order = TextBudget(10), []

        async def extract(name: str, size: int) -> None:
            async with budget.taken(size):
                order.append(name)
                await asyncio.sleep(0)

        await asyncio.gather(extract("first", 6), extract("large", 10), extract("small", 1))
        return order

    assert asyncio.run(main()) == ["first", "large", "small"]


def test_one_that_leaves_the_queue_holds_up_nobody() -> None:
    """A revoked partition's long text, cancelled while it waits, lets those behind it go on."""

    async def main() -> None:
        budget = TextBudget(10)
        async with budget.taken(4):
            large = asyncio.create_task(_take(budget, 10))
            await asyncio.sleep(0)
            small = asyncio.create_task(_take(budget, 3))
            await asyncio.sleep(0)
            assert not small.done()
            large.cancel()
            async with asyncio.timeout(1):
                await small

    asyncio.run(main())


async def _take(budget: TextBudget, characters: int) -> None:
    async with budget.taken(characters):
        await asyncio.sleep(0)
