"""The dispatcher of a shadow run."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
import virtual_time
from dispatcher_harness import KNOWN_GOOD, Observer, StubClient, all_answers, assert_answered, window

from consumer.batching.policy import LeastTime
from consumer.config.task_files import load_tasks
from consumer.config.tree import Config
from consumer.delivery.shadow_plan import Pace, PlannedRange
from consumer.events import Outcome, Partition, SourceRecord
from consumer.exit_codes import EXIT_INTERRUPTED, EXIT_OK
from consumer.worker.event_processor import EventProcessor
from consumer.worker.lifecycle import Worker
from consumer.worker.shadow_parts import ShadowParts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window
    from consumer.serving.protocol import Answer

MARKS = list(range(100, 140))


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_share_bounds_the_time_that_calls_take_of_a_model_server(share: float) -> None:
    """Calls take two seconds each: with a tenth of the time one leaves every 20 s at most, with all of it every 2 s."""
    client = SlowClient()

    async def main() -> float:
        clock = asyncio.get_running_loop().time
        dispatcher = ShadowParts({}, None, share).dispatcher(
            {"one:1": client}, LeastTime(160, 1), window(KNOWN_GOOD), "m", Observer(), lambda *_: None, clock
        )
        pump = asyncio.create_task(dispatcher.pump())
        began = clock()
        assert_answered(MARKS, await all_answers(dispatcher, MARKS))
        pump.cancel()
        return clock() - began

    seconds = virtual_time.run(main())
    assert len(client.calls) >= 4
    assert SlowClient.SECONDS * (len(client.calls) - 1) <= share * seconds
    if share == 1:
        assert seconds == pytest.approx(SlowClient.SECONDS * len(client.calls))


def test_a_first_signal_after_the_end_of_the_range_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run drains already; it ends well, and only another signal ends it at once."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    config, parts = Config(), ShadowParts({}, None)
    worker = Worker(config, load_tasks(config.tasks_dirs), "w", [], parts=parts)
    parts.stopping.set()
    worker._signalled(signal.SIGTERM)
    assert (ended, worker._exit) == ([], EXIT_OK)
    worker._signalled(signal.SIGTERM)
    assert ended == [EXIT_INTERRUPTED]


def test_a_drain_does_not_wait_for_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record a minute: the others wait for their turn, and go on at once when the worker is to end."""

    async def done(_: object, record: SourceRecord) -> Outcome:
        ended[record.offset] = asyncio.get_running_loop().time()
        return Outcome("dropped")

    monkeypatch.setattr(EventProcessor, "__init__", lambda *_: None)
    monkeypatch.setattr(EventProcessor, "process", done)
    ended: dict[int, float] = {}

    async def main() -> None:
        parts = ShadowParts({Partition("in", 0): PlannedRange(0, 9, {})}, Pace(1 / 60))
        processor = parts.event_processor()
        running = [asyncio.create_task(processor.process(a_record(offset))) for offset in range(4)]
        await asyncio.sleep(100)
        parts.stopping.set()
        await asyncio.gather(*running)

    virtual_time.run(main())
    assert ended == {0: 0, 1: 60, 2: 100, 3: 100}


def a_record(offset: int) -> SourceRecord:
    return SourceRecord("in", 0, offset, 0, None, b"{}", (), None, 0.0)


class SlowClient(StubClient):
    """Each call takes two seconds."""

    SECONDS = 2.0

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        await asyncio.sleep(self.SECONDS)
        return await super().predict(windows, padded_length, timeout)
