"""Deadlines: of an event, for the order of work; and of a call, for giving up on a server that hangs."""

from __future__ import annotations

from collections import deque


def event_deadline(timestamp_ms: int | None, *, fetched_wall: float, fetched_at: float, objective: float) -> float:
    """Monotonic time (seconds) by which the event should be done.

    Its broker timestamp plus the objective. A record that was already older than the objective when it was fetched
    (restart, replay), or that claims to come from the future, counts from its fetch: its own deadline would say nothing
    but "late" about a whole backlog.
    """
    age = fetched_wall - timestamp_ms / 1000 if timestamp_ms is not None else 0.0
    if not 0 <= age <= objective:
        age = 0.0
    return fetched_at - age + objective


class CallTimeout:
    """Timeout of a model call in seconds: far above what such calls take, since a server need not stop at it.

    Five times the slowest rate of the last 100 calls, times the tokens of this one; never below ``FLOOR``, so that a
    pause of the server is not an outage, and ``CEILING`` until something has been measured. A call that misses it
    doubles it for the next ones, for a server that has become slow shows in no success; each success halves it again.
    """

    FACTOR = 5.0
    FLOOR = 10.0
    CEILING = 120.0

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=100)
        self._patience = 1.0

    def observe(self, tokens: int, seconds: float) -> None:
        """Record one successful call of ``tokens`` = rows x padded length."""
        self._rates.append(seconds / tokens)
        self._patience = max(1.0, self._patience / 2)

    def missed(self) -> None:
        """A call ran into its timeout."""
        self._patience = min(self.CEILING / self.FLOOR, self._patience * 2)

    def seconds(self, tokens: int) -> float:
        """Timeout for a call of this many tokens."""
        if not self._rates:
            return self.CEILING
        return min(self.CEILING, self._patience * max(self.FLOOR, self.FACTOR * max(self._rates) * tokens))
