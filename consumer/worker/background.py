"""Background tasks of a worker's event loop, and the thread that handles its signals."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

ECHO_SECONDS = 0.25
"""The same signal again within this is the first one's echo, and no second: coreutils' ``timeout`` sends one to its
process and, a moment later, one to the whole group. A person, or a supervisor that means it, waits longer."""

_log = structlog.stdlib.get_logger(__name__)


class BackgroundTasks:
    """Tasks of the event loop that run until the worker ends."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        """``on_failure`` gets the exception of a task that ended with one, which is logged already."""
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside the rest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel all that still run."""
        for task in self._tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a background task failed", exc_info=error)
            self._on_failure(error)


async def finished_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether ``work`` finished before ``stop`` was set; it is cancelled otherwise. Raises what ``work`` raises."""
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    stopped.add_done_callback(lambda _: task.cancel())
    try:
        await task
    except asyncio.CancelledError:
        return False
    finally:
        stopped.cancel()
    return not stop.is_set()


@contextlib.contextmanager
def signals_handled(handlers: Mapping[signal.Signals, Callable[[signal.Signals], None]]) -> Iterator[None]:
    """Call ``handlers`` with the signal's number, on a thread of its own, for an echo not again. To be entered on the
    main thread.

    Neither ``loop.add_signal_handler`` nor a Python handler would do for a worker that hangs: the one waits for the
    event loop, the other for the main thread to come back from C. The interpreter's handler in C writes the number to
    the wakeup descriptor at once, on whatever thread it runs, and the thread that reads there needs nothing but the
    interpreter lock.
    """
    arrived, wakeup = os.pipe()
    os.set_blocking(wakeup, False)

    def read() -> None:
        last: dict[int, float] = {}
        while numbers := os.read(arrived, 64):
            for number in numbers:
                if (now := time.monotonic()) < last.get(number, -math.inf) + ECHO_SECONDS:
                    continue
                last[number] = now
                # Signals with other Python handlers arrive here as well.
                if number in handlers:
                    try:
                        handlers[signal.Signals(number)](signal.Signals(number))
                    except Exception:
                        _log.exception("a signal's handler failed", signal=signal.Signals(number).name)
        os.close(arrived)

    threading.Thread(target=read, name="rexstream-signals", daemon=True).start()
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)  # first: a handler without it would swallow its signal
    before = {number: signal.signal(number, lambda *_: None) for number in handlers}
    try:
        for number in handlers:
            signal.siginterrupt(number, False)  # no system call of a client in C fails for it
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wakeup)
