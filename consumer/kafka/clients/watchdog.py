"""Ends a worker one of whose Kafka threads never comes back from a call of its client.

librdkafka's calls have deadlines, which its own threads keep: with 2.16 adding offsets to a transaction was seen not to
return for minutes, after brokers were killed one by one. That one call is waited for from outside (pending_call); for
any other nothing can be thrown into the thread, and what is left is to end the process, whose successor reads again
what is not committed.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from consumer.kafka.clients.errors import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


LOOK_SECONDS = 1.0


class WatchedThread:
    """One thread, by the time at which its loop last came round."""

    def __init__(self, name: str, last_round: Callable[[], float], limit: float) -> None:
        """It hangs when it stays within one turn for more than ``limit`` seconds."""
        self.name = name
        self.limit = limit
        self._turned_at = last_round
        self._turn = last_round()
        self._still = 0.0

    def hangs(self, passed: float) -> bool:
        """To be asked all the time, with the seconds since the last time.

        No more than twice ``LOOK_SECONDS`` of them count: a process that was stopped or starved did not turn either.
        """
        turn = self._turned_at()
        self._still = 0.0 if turn != self._turn else self._still + min(passed, 2 * LOOK_SECONDS)
        self._turn = turn
        return self._still > self.limit


class Watchdog:
    """Looks at ``threads`` and tells ``on_fatal``, once, of one that hangs."""

    def __init__(
        self,
        threads: Sequence[WatchedThread],
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


# Tells a client that has lost its way from brokers that are away.
#
# Seen with librdkafka 2.16, after an only broker was restarted or hung for 20 s: clients that looked for no coordinator
# any more, or had no connection and made none, while the broker answered everybody else. Nothing but a new client helps
# then; where brokers are away it does not.

STALL_LOOK_SECONDS = 5.0
QUIET_SECONDS = 5.0
"""A client that got something done more recently is not looked at."""

STALLED_SECONDS = 20.0
"""Brokers must have answered others for so long: clients find back by themselves in about ten."""

OWN_SECONDS = 3.0
"""Wait for an answer to the client that is looked at; its thread does nothing else meanwhile. It is as long as a new
client has for more round trips than one: slow brokers are not held against it."""


class StuckClientDetector:
    """One client's. ``own()`` asks brokers something through it; ``others()`` says whether they answer a new client."""

    def __init__(
        self,
        own: Callable[[], object] | None,
        others: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without ``own`` the client is taken to get no answer whenever it is looked at."""
        self._own = own
        self._others = others
        self._clock = clock
        self._next = -math.inf
        self._since: float | None = None
        self._worked_at = clock()

    def works(self) -> None:
        """The client got something done."""
        self._worked_at = self._clock()
        self._since = None

    def look(self) -> bool:
        """Whether to give the client up. To be asked while it gets nothing done; may be asked often.

        Waits up to ``OWN_SECONDS``, and for ``others``, every ``STALL_LOOK_SECONDS``.
        """
        now = self._clock()
        if now < max(self._next, self._worked_at + QUIET_SECONDS):
            return False
        self._next = now + STALL_LOOK_SECONDS
        if self._answers() or not self._others():
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= STALLED_SECONDS

    def _answers(self) -> bool:
        if self._own is None:
            return False
        try:
            self._own()
        except KafkaException:
            return False
        return True


# A call of a Kafka client that may never return, on a thread of its own.


class PendingCall:
    """Begins at once. Its thread is a daemon: one that never returns keeps no process, but its client for good."""

    def __init__(self, call: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._call = call
        self._clock = clock
        self._started = clock()
        self._error: BaseException | None = None
        self._returned = threading.Event()
        threading.Thread(target=self._run, name="rexstream-call", daemon=True).start()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._started

    def returned(self, timeout: float) -> bool:
        """Whether it returned, or raised, within the next ``timeout`` seconds."""
        return self._returned.wait(timeout)

    def result(self) -> None:
        """Raises what the call raised. To be asked once it has returned."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # whatever it is, the thread that waits must have it
            self._error = error
        self._returned.set()
