"""The circuit breaker before the model server. Pure: every method that needs the time takes ``now`` in seconds.

Owned by ``serving.dispatch.outage``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from consumer.resilience.backoff import Backoff

BreakerState = Literal["closed", "open", "half_open"]


class CircuitBreaker:
    """Closed: windows are sent. Open: nothing is sent. Half open: one health probe is sent, and its outcome decides.

    ``closed -> open`` when a call failed for a reason that may not be its windows; ``open -> half_open`` when the pause
    is over; from there ``closed`` when the probe was answered, else ``open`` again with a longer pause.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self.state: BreakerState = "closed"
        self.try_at = 0.0
        """When the next probe may be made; meaningful while open."""

    def open(self, now: float) -> None:
        """A call failed while closed, or the probe of half open did."""
        self._failures = 0 if self.state == "closed" else self._failures + 1
        self.state = "open"
        self.try_at = now + self._backoff.pause(self._failures)

    def half_open(self, now: float) -> None:
        """One probe is made now. Raises ValueError when it is too early, or another one has not ended."""
        if self.state != "open" or now < self.try_at:
            raise ValueError(f"the breaker is {self.state} and takes its next call at {self.try_at}, not at {now}")
        self.state = "half_open"

    def close(self) -> None:
        """The probe was answered."""
        self.state = "closed"
