"""Stacks of threads and tasks, from another thread, as lines of the log."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from structlog.testing import capture_logs

from consumer.telemetry import stacks
from consumer.telemetry.logs import configure_logging
from consumer.telemetry.stacks import dump

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

SECRET = "差评，退货"


def hang(entered: threading.Event, until: threading.Event, review: str) -> None:
    entered.set()
    until.wait(30)
    assert review


def lines_about(call: Callable[[], None]) -> list[MutableMapping[str, Any]]:
    with capture_logs() as lines:
        call()
    return lines


def test_a_thread_that_hangs_shows_where() -> None:
    """The outermost call comes first; the line that waits is the last of ours."""
    entered, until = threading.Event(), threading.Event()
    thread = threading.Thread(target=hang, args=(entered, until, SECRET), name="hangs-in-a-test", daemon=True)
    thread.start()
    assert entered.wait(10)
    try:
        lines = lines_about(lambda: dump("a thread hangs", None))
    finally:
        until.set()
    assert {line["thread"] for line in lines} >= {"MainThread", "hangs-in-a-test"}
    assert {line["reason"] for line in lines} == {"a thread hangs"}
    (stack,) = [line["stack"] for line in lines if line["thread"] == "hangs-in-a-test"]
    ours = [place for place in stack if __file__ in place]
    assert len(ours) == 1
    assert ours[0].startswith(f"{__file__}:{hang.__code__.co_firstlineno + 2} ")
    assert ours[0].endswith(" hang")
    assert stack.index(ours[0]) > 0
    assert "wait" in stack[-1]
    assert SECRET not in repr(lines)


def test_a_task_shows_what_it_awaits_down_to_the_last_coroutine() -> None:
    """Asked from another thread, while the loop stands still in one of its tasks."""
    loop_hangs, until = threading.Event(), threading.Event()
    found: list[MutableMapping[str, Any]] = []

    async def inner(review: str) -> None:
        await asyncio.Event().wait()
        assert review

    async def outer() -> None:
        await inner(SECRET)

    async def main() -> None:
        waiting = asyncio.create_task(outer(), name="event 7")
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=look, args=(loop,))
        thread.start()
        loop_hangs.set()
        assert until.wait(10)
        thread.join(30)
        assert not thread.is_alive()
        waiting.cancel()

    def look(loop: asyncio.AbstractEventLoop) -> None:
        assert loop_hangs.wait(10)
        found.extend(lines_about(lambda: dump("SIGUSR1", loop)))
        until.set()

    asyncio.run(main())
    tasks = {line["asyncio_task"]: line["stack"] for line in found if "asyncio_task" in line}
    names = [place.rpartition(".")[2] for place in tasks["event 7"]]
    assert names == ["outer", "inner", "wait"]
    assert all(place.partition(" ")[0].rpartition(":")[2].isdigit() for place in tasks["event 7"])
    assert any(place.endswith(".main") for stack in tasks.values() for place in stack), "the one that runs is one too"
    assert SECRET not in repr(found)


def test_tasks_that_come_and_go_too_fast_cost_nobody_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The set of tasks belongs to the loop's thread, and may change whenever it is copied."""

    def changing(_: object) -> None:
        raise RuntimeError("Set changed size during iteration")

    monkeypatch.setattr(asyncio, "all_tasks", changing)
    loop = asyncio.new_event_loop()
    try:
        lines = lines_about(lambda: dump("why", loop))
    finally:
        loop.close()
    assert "MainThread" in {line.get("thread") for line in lines}
    assert "too fast" in lines[-1]["event"]


@pytest.mark.usefixtures("process_logging")
def test_each_stack_is_one_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everything that a worker logs."""
    stream = io.StringIO()
    configure_logging("info", "worker-7", stream)
    monkeypatch.setattr(stacks, "_log", structlog.stdlib.get_logger(stacks.__name__))  # a configured one is kept
    dump("why", None)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (main,) = [line for line in lines if line["thread"] == "MainThread"]
    assert (main["event"], main["reason"], main["worker"]) == ("stack of a thread", "why", "worker-7")
    assert all(isinstance(place, str) for place in main["stack"])
