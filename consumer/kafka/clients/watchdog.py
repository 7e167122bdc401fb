"""Kafka clients that hang or get stuck: found from outside, since librdkafka does not report it.

``Watchdog`` ends a worker one of whose Kafka threads never comes back from a call of its client. librdkafka's calls
have deadlines, which its own threads keep: with 2.16 adding offsets to a transaction was seen not to return for
minutes, after brokers were killed one by one. That one call is waited for on a thread of its own (``PendingCall``); for
any other nothing can be thrown into the thread, and what is left is to end the process, whose successor reads again
what is not committed.

``StuckClientDetector`` finds a client that gets no answer while brokers answer a new one. The poll thread and the
publishers own one each.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from consumer.kafka.clients.errors import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOOK_SECONDS = 1.0


@dataclass(eq=False)
class WatchedThread:
    """A thread that has a loop, and the time of the loop's latest round."""

    name: str
    last_round: Callable[[], float]
    """Returns the monotonic seconds of the latest round."""
    limit: float
    """It hangs when it stays within one round for more than so many seconds."""

    def __post_init__(self) -> None:
        self.seen = self.last_round()
        self.still = 0.0
        """Seconds since ``last_round`` changed, without those in which the whole process was stopped."""


class Watchdog:
    """Checks ``threads`` every second. When one hangs: calls ``on_hang`` with the reason, then ``on_fatal``; ends."""

    def __init__(
        self,
        threads: Sequence[WatchedThread],
        on_hang: Callable[[str], None],
        on_fatal: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_hang`` is for what must be written down while the thread still hangs: stacks."""
        self._threads = threads
        self._on_hang = on_hang
        self._on_fatal = on_fatal
        self._clock = clock
        self._ended = threading.Event()
        self._looked_at = clock()
        self.thread = threading.Thread(target=self._run, name="rexstream-watchdog", daemon=True)
        self.end = self._ended.set
        """``end()``: stop watching."""

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS) and not self.look():
            pass

    def look(self) -> bool:
        """Whether a thread hangs; ``on_fatal`` was called then."""
        now = self._clock()
        # No more than this counts: in a process that was stopped or starved no thread ran.
        passed = min(now - self._looked_at, 2 * LOOK_SECONDS)
        self._looked_at = now
        for each in self._threads:
            seen = each.last_round()
            each.still = each.still + passed if seen == each.seen else 0.0
            each.seen = seen
        hanging = next((each for each in self._threads if each.still > each.limit), None)
        if hanging is not None:
            what = f"The {hanging.name} thread has not come back from its Kafka client for {hanging.limit:.0f} s."
            try:
                self._on_hang(what)
            finally:  # a worker that hangs ends, whatever becomes of the log
                self._on_fatal(ClientFailed(f"{what} Start the worker again; what is not committed is read again."))
        return hanging is not None


STALL_LOOK_SECONDS = 5.0
QUIET_SECONDS = 5.0
"""A client that got something done within this time is not checked."""

STALLED_SECONDS = 20.0
"""Brokers must have answered other clients for so long: most clients recover by themselves in about ten seconds."""

OWN_SECONDS = 3.0
"""Longest wait for an answer to the client that is checked; its thread does nothing else meanwhile. A new client has as
long for more than one round trip, so slow brokers are not taken for a stuck client."""


class StuckClientDetector:
    """Detects a stuck client: it gets no answer for ``STALLED_SECONDS``, while a new client does.

    Seen with librdkafka 2.16, after an only broker was restarted or hung for 20 s: clients that looked for no
    coordinator any more, or had no connection and made none, while the broker answered everybody else. Nothing but a
    new client helps then; where brokers are away it does not.
    """

    def __init__(
        self,
        own: Callable[[], object] | None,
        others: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``own()`` makes a request through the client and raises KafkaException when no broker answers.

        Without it the client is taken to get no answer whenever it is looked at. ``others()`` returns whether brokers
        answer a new client.
        """
        self._own = own
        self._others = others
        self._clock = clock
        self._since = math.inf
        self.look_at = -math.inf
        """``look`` has nothing to do before this time (monotonic seconds), so it need not be called."""
        self.worked_at = clock()
        """When the client last got something done (monotonic seconds): for its owner to set."""

    def look(self) -> bool:
        """Whether to give the client up. To be called while the client gets nothing done; may be called often.

        Waits up to ``OWN_SECONDS``, and for ``others``, every ``STALL_LOOK_SECONDS``.
        """
        now = self._clock()
        self.look_at = max(self.look_at, self.worked_at + QUIET_SECONDS)
        if now < self.look_at:
            return False
        self.look_at = now + STALL_LOOK_SECONDS
        answers = False
        if self._own is not None:
            with suppress(KafkaException):
                self._own()
                answers = True
        if answers or not self._others():
            self._since = math.inf
        elif self._since == math.inf or self._since <= self.worked_at:
            self._since = now
        return now - self._since >= STALLED_SECONDS


class PendingCall:
    """A call of a Kafka client that may never return, on a thread of its own; begins at once.

    The thread is a daemon: a call that never returns does not keep the process alive, but its client is never freed.
    """

    def __init__(self, call: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._future: Future[object] = Future()
        threading.Thread(target=self._run, args=(call,), name="rexstream-call", daemon=True).start()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._started

    def returned(self, timeout: float) -> bool:
        """Whether it returned, or raised, within the next ``timeout`` seconds."""
        return bool(wait((self._future,), timeout).done)

    def result(self) -> None:
        """Raises what the call raised. To be called once it has returned."""
        self._future.result()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            self._future.set_result(call())
        except BaseException as error:  # whatever it is, the thread that waits must have it
            self._future.set_exception(error)
