"""How much text may be under extraction at once.

What is in flight is bounded in records and bytes; the windows of a record take far more memory than its bytes do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHARACTERS = 1_000_000
"""A review of 50,000 characters was measured to hold 8.3 MiB of windows and offsets per task: about 170 bytes a
character, so this is some 170 MB. 2,000 usual reviews of 100 characters with three tasks each are 600,000."""


class Room:
    """Characters of text times tasks. One event loop's; first come, first served, so that a long text gets its turn."""

    def __init__(self, characters: int = CHARACTERS) -> None:
        self._size = self._free = characters
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, characters: int) -> AsyncIterator[None]:
        """Wait for room and hold it. A text larger than all the room takes all of it."""
        characters = min(characters, self._size)
        if self._waiting or characters > self._free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((characters, turn))
            try:
                await turn
            except asyncio.CancelledError:
                # It may have had its turn already; and those behind it must not wait for one that has left.
                self._give_back(0 if turn.cancelled() else characters)
                raise
        else:
            self._free -= characters
        try:
            yield
        finally:
            self._give_back(characters)

    def _give_back(self, characters: int) -> None:
        self._free += characters
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if wanted > self._free:
                return
            self._waiting.popleft()
            self._free -= wanted
            turn.set_result(None)
