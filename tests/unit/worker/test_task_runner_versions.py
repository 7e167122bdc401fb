"""Model servers that serve two versions: all tasks of an event are answered by the one that answered first."""

from __future__ import annotations

import asyncio

import virtual_time
from stub_model import StubModel, engine

from consumer.batching.policy import LeastTime
from consumer.batching.queue import LANE, EventShare, padded_length
from consumer.events import SourceRecord
from consumer.extraction.task import Task
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.telemetry.metrics import Metrics
from consumer.worker.task_runner import TaskRunner, WorkBudget

ENGINE = engine()
TASKS = [Task(name, "extract", {"物": {kind: None}}) for name, kind in (("a", "优点"), ("b", "缺点"), ("c", "价格"))]


def test_the_tasks_of_an_event_stay_together_while_two_versions_are_served() -> None:
    """Side by side they begin at different servers; whoever was answered second begins again at the first one's."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        one, two = StubModel(), StubModel()
        two.version = "2"
        probe, metrics, budget = ENGINE.known_good_window(), Metrics(), WorkBudget(200_000_000)
        dispatcher = Dispatcher(
            {"one:1": one, "two:1": two}, LeastTime(512, 1), probe, "stub", metrics, lambda *_: None, clock
        )
        share = EventShare(512, 1.0, 1.0)
        runner = TaskRunner(
            ENGINE, dispatcher, {"in": budget}, event_tokens=2048, share=share, over_share=lambda: None, clock=clock
        )
        pump = asyncio.create_task(dispatcher.pump())
        seen, restarts = [], 0

        async def event(number: int) -> None:
            nonlocal restarts
            work = await budget.enter(number, SourceRecord("in", 0, number, 1, None, b"", (), 1000, 0.0))
            found = await asyncio.gather(*(runner.infer(f"好用的物 {number}" * 9, task, work) for task in TASKS))
            seen.append({each.model.version for each in found})
            restarts += sum(each.restarts for each in found)
            budget.leave(work)

        async with asyncio.timeout(60):
            await asyncio.gather(*map(event, range(60)))
        pump.cancel()
        assert all(len(versions) == 1 for versions in seen)
        assert set.union(*seen) == {"1", "2"}
        assert restarts > 0

    virtual_time.run(main())


def test_large_events_wait_in_one_line_while_two_versions_are_served() -> None:
    """Whichever version began them, and whether or not it is still there."""

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        one, two = StubModel(), StubModel()
        two.version = "2"
        window = ENGINE.known_good_window()
        dispatcher = Dispatcher(
            {"one:1": one, "two:1": two}, LeastTime(512, 1), window, "stub", Metrics(), lambda *_: None, clock
        )
        pump = asyncio.create_task(dispatcher.pump())
        async with asyncio.timeout(60):
            while len(dispatcher.pinned.versions) < 2:
                await dispatcher.submit(window, clock(), 0)
            asked = [dispatcher.submit(window, 1e9, 0, over_share=True, version=each) for each in "1122?"]
            assert dispatcher.over_share == {LANE: 5 * padded_length(window.length)}
            two.version = "1"
            await asyncio.gather(*asked)
        pump.cancel()
        assert dispatcher.over_share == {LANE: 0}

    virtual_time.run(main())
