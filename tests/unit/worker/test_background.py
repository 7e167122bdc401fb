"""What runs beside a worker's main task: background tasks, work that a stop cuts short, and signals."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from consumer.worker import background
from consumer.worker.background import BackgroundTasks, finished_before, signals_handled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def fail() -> None:
    raise KeyError("a defect")


async def come_to_its_end() -> None:
    await asyncio.sleep(0)


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def test_a_background_task_that_fails_is_reported_and_a_cancelled_one_is_not() -> None:
    """Whatever ends early must end the worker; its end cancels the rest."""

    async def main() -> list[str]:
        failures: list[str] = []
        tasks = BackgroundTasks(lambda error: failures.append(type(error).__name__))
        tasks.start(fail())
        tasks.start(wait_for_ever())
        await asyncio.sleep(0.01)
        tasks.cancel()
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return failures

    assert asyncio.run(main()) == ["KeyError"]


@pytest.mark.parametrize(
    ("work", "stops", "finished"),
    [(come_to_its_end, False, True), (come_to_its_end, True, False), (wait_for_ever, True, False)],
)
def test_work_finishes_before_a_stop_or_is_cancelled(
    work: Callable[[], Coroutine[None, None, None]], stops: bool, finished: bool
) -> None:
    """Work that a stop overtook counts as unfinished also when it came to its end; nothing is left running."""

    async def main() -> bool:
        stop = asyncio.Event()
        if stops:
            asyncio.get_running_loop().call_soon(stop.set)
        result = await asyncio.wait_for(finished_before(stop, work()), 10)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    assert asyncio.run(main()) is finished


def test_what_the_work_raises_is_raised() -> None:
    """And the wait for the stop is over."""

    async def main() -> None:
        with pytest.raises(KeyError):
            await finished_before(asyncio.Event(), fail())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """``timeout 4h rexstream …`` sends it to the process, and then to the group that this is in."""
    monkeypatch.setattr(background, "ECHO_SECONDS", 60.0)
    seen: queue.SimpleQueue[signal.Signals] = queue.SimpleQueue()
    with signals_handled({signal.SIGUSR1: seen.put, signal.SIGUSR2: seen.put}):
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        assert [seen.get(timeout=10) for _ in range(2)] == [signal.SIGUSR1, signal.SIGUSR2]


def test_signals_are_handled_on_a_thread_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that raises costs no later signal."""
    monkeypatch.setattr(background, "ECHO_SECONDS", 0.0)
    seen: queue.SimpleQueue[tuple[signal.Signals, bool]] = queue.SimpleQueue()

    def handle(number: signal.Signals) -> None:
        seen.put((number, threading.current_thread() is threading.main_thread()))
        raise RuntimeError("a defect of the handler")

    def unrelated(*_: object) -> None:
        """Some other handler in Python, whose signal arrives on the same way."""

    before = signal.getsignal(signal.SIGUSR1)
    other = signal.signal(signal.SIGUSR2, unrelated)
    try:
        with signals_handled({signal.SIGUSR1: handle}):
            os.kill(os.getpid(), signal.SIGUSR2)
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGUSR1)
                assert seen.get(timeout=10) == (signal.SIGUSR1, False)
        assert signal.getsignal(signal.SIGUSR1) == before
    finally:
        signal.signal(signal.SIGUSR2, other)
