"""Flow of one output topic: what waits, how much may be under way at once, when to try again after a refusal.

Brokers refuse a whole batch when it is larger than the topic allows, or when one record in it is, and librdkafka fails
every record of it (its issue 488). So a refused record proves nothing until it was refused alone: after a refusal the
window sends one record by itself and, as long as that goes well, twice as many at each step. The same probing follows
any other error, so a topic that is missing or forbidden sees one record every few seconds, not the whole backlog.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

UNBOUNDED = 1 << 13
"""A window this large no longer limits anything: more than one batch of librdkafka's holds at 1 KB a record."""

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 10.0

SendT = TypeVar("SendT")


class SendWindow(Generic[SendT]):
    """Waiting outputs of one topic, in order of release, and the window within which they leave."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, SendT]] = []
        self._window = UNBOUNDED
        self._acknowledged = 0
        self._not_before = 0.0
        self.under_way = 0
        """Outputs handed to the producer and not yet reported."""
        self.failures = 0
        """Refusals in a row, other than for size."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, number: int, send: SendT) -> None:
        """Let ``send`` wait; ``number`` is its place in the order of release, kept when it is put back."""
        heapq.heappush(self._waiting, (number, send))

    def open(self, now: float) -> bool:
        """Whether one more may leave at ``now`` (monotonic seconds)."""
        limited = self._window < UNBOUNDED and self.under_way >= self._window
        return bool(self._waiting) and not limited and now >= self._not_before

    def take(self) -> tuple[int, SendT]:
        """The next one in order. It is under way only once ``sent`` was called."""
        return heapq.heappop(self._waiting)

    def sent(self) -> bool:
        """One left. True when it is alone: then, and only then, does a refusal speak of this very record."""
        self.under_way += 1
        return self._window == 1

    def acknowledged(self) -> None:
        """One that was under way is durable."""
        self.under_way -= 1
        self.failures = 0
        if self._window < UNBOUNDED:
            self._acknowledged += 1
            if self._acknowledged >= self._window:
                self._window *= 2
                self._acknowledged = 0

    def too_large_alone(self) -> None:
        """One that was under way by itself was refused for its size; the next one may follow."""
        self.under_way -= 1

    def too_large_together(self) -> None:
        """One that was under way with others was refused for the size of their batch."""
        self.under_way -= 1
        self._narrow()

    def failed(self, now: float, *, was_under_way: bool) -> float:
        """One was refused for another reason. Returns the seconds until the next try."""
        if was_under_way:
            self.under_way -= 1
        self._narrow()
        if now < self._not_before:
            return self._not_before - now  # one of the same volley: it is no further try
        delay = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self._not_before = now + delay
        return delay

    def forgive(self) -> None:
        """Nothing waits and nothing is under way: there is nothing left to fail, or to probe with."""
        self.failures = 0
        self._not_before = 0.0

    def _narrow(self) -> None:
        self._window = 1
        self._acknowledged = 0
