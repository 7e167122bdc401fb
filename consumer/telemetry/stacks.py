"""Stacks of every thread and every asyncio task as log lines: what a worker that hangs is doing.

``SIGUSR1`` asks for them, and the Kafka runtime's watchdog before it ends a worker. A stack shows code, never values.
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


def dump(reason: str, loop: asyncio.AbstractEventLoop) -> None:
    """Log one line for each thread and for each task of ``loop``. From any thread, also while the loop hangs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        stack = "".join(traceback.format_stack(frame))
        _log.warning("stack of a thread", reason=reason, thread=names.get(ident, str(ident)), stack=stack)
    for task in asyncio.all_tasks(loop):
        _log.warning("stack of an asyncio task", reason=reason, asyncio_task=task.get_name(), stack=_stack_of(task))


def _stack_of(task: asyncio.Task[Any]) -> str:
    """Where the task's coroutine waits, and in it the one that it awaits, and so on."""
    frames: list[FrameType] = []
    waiting: Any = task.get_coro()
    while (frame := getattr(waiting, "cr_frame", None)) is not None:
        frames.append(frame)
        waiting = waiting.cr_await
    return "".join("".join(traceback.format_stack(frame, 1)) for frame in frames)
