"""Events that wait for memory, in order of arrival: what happens when a ``WorkBudget`` (``task_runner``) has no room.

Whoever waits is overtaken by nobody who came later, and an admitted event that needs more comes before new ones, which
are younger. Nothing here runs as long as there is room.
"""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.events import Partition, Work


class WorkQueue:
    """Belongs to one event loop; only ``call`` may be called from other threads."""

    def __init__(self, size: int, take_back: Callable[[], None]) -> None:
        """``size`` in bytes. ``take_back`` frees what events hold that became durable; called before one is served."""
        self._size = self.free = size
        """Bytes that nobody holds. Below 0 while the oldest event has more than there was."""
        self.reserve = size // 4
        """What new events leave to those that were admitted, so that these can finish."""
        self.works: dict[tuple[tuple[str, int], int], dict[int, Work]] = {}
        """Admitted events by assignment and offset."""
        self.waiting: list[tuple[int, int, Work, asyncio.Future[None]]] = []
        """A heap: the event's number, one that makes the entry unique, who waits, and what it waits for."""
        self.growing = 0
        """How many of them were admitted and need more. The others must wait, too, before they take more."""
        self._take_back = take_back
        self._numbers = count()
        self._loop: asyncio.AbstractEventLoop | None = None
        """That of those who wait."""
        self._is_called = False

    @property
    def taken(self) -> int:
        """Bytes that events hold."""
        self._take_back()
        return self._size - self.free

    async def wait(self, work: Work) -> None:
        """Until the event may have what it accounts for. Cancelled, it may have been granted at the same moment."""
        self._loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = self._loop.create_future()
        grows = work.is_admitted
        heapq.heappush(self.waiting, (work.number, next(self._numbers), work, future))
        self.growing += grows
        self._take_back()
        self.serve()
        try:
            await future
        except asyncio.CancelledError:
            self.growing -= grows and future.cancelled()
            self.serve()
            raise

    def serve(self) -> None:
        """Let those go on who wait longest, as far as there is room, and the oldest event in any case."""
        while self.waiting:
            _, _, work, future = self.waiting[0]
            if not future.cancelled():
                more = max(0, work.used - work.granted)
                room = self.free - (0 if work.is_admitted else self.reserve)
                if more > room and not self.is_oldest(work):
                    return
                self.growing -= work.is_admitted
                self.free -= more
                work.granted += more
                work.is_admitted = True
                self.works.setdefault(work.place[:2], {})[work.place.offset] = work
                future.set_result(None)
            heapq.heappop(self.waiting)

    def revoke(self, epochs: Mapping[Partition, int]) -> None:
        """These assignments ended, and their tasks were cancelled: nothing that they hold is awaited any more."""
        for assignment in epochs.items():
            for work in self.works.pop(assignment, {}).values():
                self.free += work.granted
                work.granted = 0
        self.serve()

    def call(self) -> None:
        """Events became durable: look whether others may go on. From any thread."""
        if self._loop is not None and not self._is_called:
            self._is_called = True
            self._loop.call_soon_threadsafe(self._called)

    def _called(self) -> None:
        self._is_called = False
        self._take_back()
        self.serve()

    def is_oldest(self, work: Work) -> bool:
        """Whether no admitted event arrived before."""
        numbers = (each.number for works in self.works.values() for each in works.values())
        return work.number <= min(numbers, default=work.number)
