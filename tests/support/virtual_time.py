"""An event loop whose clock jumps to what is due next: hours of backoff in milliseconds, and no waits."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


LONGEST_SECONDS = 200_000.0
"""No test takes longer; an idle worker, which wakes up once a minute, would go on for ever."""


class _NothingDue(Exception):  # noqa: N818 - the state of the test
    """Everybody waits, and nothing will ever happen."""


class _Selector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.now > LONGEST_SECONDS:
            raise _NothingDue
        self.now += max(0.0, timeout)
        found: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` starts at 0 and is the clock to inject."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return float(self._virtual.now)


def run(work: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``, in virtual time. A deadlock raises at once."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
