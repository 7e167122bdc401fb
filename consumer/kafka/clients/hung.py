"""Ends a worker one of whose Kafka threads never comes back from a call of its client.

librdkafka's calls have deadlines, which its own threads keep: with 2.16 adding offsets to a transaction was seen not to
return for minutes, after brokers were killed one by one. That one call is waited for from outside (pending_call); for
any other nothing can be thrown into the thread, and what is left is to end the process, whose successor reads again
what is not committed.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from consumer.kafka.clients.failed import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOOK_SECONDS = 1.0


class Turning:
    """One thread, by the time at which its loop last came round."""

    def __init__(self, name: str, turned_at: Callable[[], float], limit: float) -> None:
        """It hangs when it stays within one turn for more than ``limit`` seconds."""
        self.name = name
        self.limit = limit
        self._turned_at = turned_at
        self._turn = turned_at()
        self._still = 0.0

    def hangs(self, passed: float) -> bool:
        """To be asked all the time, with the seconds since the last time.

        No more than twice ``LOOK_SECONDS`` of them count: a process that was stopped or starved did not turn either.
        """
        turn = self._turned_at()
        self._still = 0.0 if turn != self._turn else self._still + min(passed, 2 * LOOK_SECONDS)
        self._turn = turn
        return self._still > self.limit


class HangWatch:
    """Looks at ``threads`` and tells ``on_fatal``, once, of one that hangs."""

    def __init__(
        self,
        threads: Sequence[Turning],
        on_fatal: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threads = threads
        self._on_fatal = on_fatal
        self._clock = clock
        self._ended = threading.Event()
        self._looked_at = clock()
        self.thread = threading.Thread(target=self._run, name="rexstream-hang-watch", daemon=True)

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS) and not self.look():
            pass

    def look(self) -> bool:
        """Whether one hangs; ``on_fatal`` knows then."""
        now = self._clock()
        passed, self._looked_at = now - self._looked_at, now
        # A list, so that each is asked every time.
        if hanging := [each for each in self._threads if each.hangs(passed)]:
            each = hanging[0]
            self._on_fatal(
                ClientFailed(
                    f"The {each.name} thread has not come back from its Kafka client for {each.limit:.0f} s. Start "
                    "the worker again; what is not committed is read again."
                )
            )
        return bool(hanging)
