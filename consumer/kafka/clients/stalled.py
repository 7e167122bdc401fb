"""Tells a client that has lost its way from brokers that are away.

Seen with librdkafka 2.16, after an only broker was restarted or hung for 20 s: clients that looked for no coordinator
any more, or had no connection and made none, while the broker answered everybody else. Nothing but a new client helps
then; where brokers are away it does not.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 5.0
QUIET_SECONDS = 5.0
"""A client that got something done more recently is not looked at."""

STALLED_SECONDS = 20.0
"""Brokers must have answered others for so long: clients find back by themselves in about ten."""

OWN_SECONDS = 3.0
"""Wait for an answer to the client that is looked at; its thread does nothing else meanwhile. It is as long as a new
client has for more round trips than one: slow brokers are not held against it."""


class Stalled:
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

        Waits up to ``OWN_SECONDS``, and for ``others``, every ``LOOK_SECONDS``.
        """
        now = self._clock()
        if now < max(self._next, self._worked_at + QUIET_SECONDS):
            return False
        self._next = now + LOOK_SECONDS
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
