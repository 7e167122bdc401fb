"""Every thread's and every asyncio task's stack, in the log: what a worker does when it hangs, or on request.

The worker calls ``dump`` before the watchdog ends it, and on SIGUSR1. Stacks name files, lines and functions only: no
local variables, so no review text.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from types import FrameType

_log = structlog.stdlib.get_logger(__name__)


def dump(reason: str, loop: asyncio.AbstractEventLoop | None) -> None:
    """Log the stack of every thread, and of every task of ``loop`` where there is one. From any thread.

    One line each, with the fields ``reason``, ``thread`` or ``asyncio_task``, and ``stack``: a list of "file:line
    function", the outermost call first.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = [_place(each, line) for each, line in traceback.walk_stack(frame)]
        _log.warning("stack of a thread", reason=reason, thread=names.get(ident, str(ident)), stack=stack[::-1])
    try:
        tasks = asyncio.all_tasks(loop) if loop is not None else ()
    except RuntimeError:
        # The set changed at every one of asyncio's 1000 tries to copy it: so the loop is not what hangs.
        _log.warning("the stacks of tasks are unknown: tasks come and go too fast", reason=reason)
        return
    for task in tasks:
        _log.warning("stack of a task", reason=reason, asyncio_task=task.get_name(), stack=_awaiting(task.get_coro()))


def _awaiting(coroutine: Any) -> list[str]:
    """Where ``coroutine`` waits, and what it awaits in turn; ``Task.get_stack`` has only the first of these."""
    stack = []
    while (frame := getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)) is not None:
        stack.append(_place(frame, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return stack


def _place(frame: FrameType, line: int) -> str:
    return f"{frame.f_code.co_filename}:{line} {frame.f_code.co_qualname}"
