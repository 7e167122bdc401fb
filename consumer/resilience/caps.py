"""How a failing server's complaints lower the load, and how the load comes back."""

from __future__ import annotations


class Caps:
    """Token and in-flight caps of calls. Clock injected: every method takes ``now`` in seconds.

    A complaint about memory or message size takes 30 % of the tokens, one about threads takes a call in flight. Every
    clean minute gives 5 % of the tokens and one call back, up to what was configured. After an outage there is one call
    in flight until one was answered, then twice as many with every answer: all workers come back at the same moment.
    """

    SHRINK = 0.7
    RECOVER_SECONDS = 60.0
    RECOVER_SHARE = 0.05
    MIN_TOKENS = 8  # a policy sends at least one window, whatever its length

    def __init__(self, max_tokens: int, max_in_flight: int) -> None:
        """The configured caps, which are also the ceiling of recovery."""
        self._configured = (max_tokens, max_in_flight)
        self.max_tokens = max_tokens
        self._in_flight = max_in_flight
        self._ramp = max_in_flight
        self._clean_since = 0.0

    @property
    def max_in_flight(self) -> int:
        """Calls that may be in flight now."""
        return min(self._in_flight, self._ramp)

    def fewer_tokens(self, now: float) -> None:
        """The server ran out of memory, or the message was too large."""
        self.max_tokens = max(self.MIN_TOKENS, int(self.max_tokens * self.SHRINK))
        self._clean_since = now

    def fewer_in_flight(self, now: float) -> None:
        """The server has no thread left: smaller batches would make it worse."""
        self._in_flight = max(1, self._in_flight - 1)
        self._clean_since = now

    def after_outage(self) -> None:
        """Begin with one call."""
        self._ramp = 1

    def answered(self, now: float) -> None:
        """Call at every success."""
        tokens, in_flight = self._configured
        self._ramp = min(in_flight, self._ramp * 2)
        if now - self._clean_since < self.RECOVER_SECONDS:
            return
        self.max_tokens = min(tokens, self.max_tokens + max(1, int(tokens * self.RECOVER_SHARE)))
        self._in_flight = min(in_flight, self._in_flight + 1)
        self._clean_since = now
