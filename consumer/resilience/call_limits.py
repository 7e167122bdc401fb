"""Load limits that the server's errors lower, and a budget for calls that repeat others.

Pure. Clocks are injected: ``now`` is in seconds. Owned by ``serving.dispatch.dispatcher``, which does not call either
class for a success while nothing is lowered.
"""

from __future__ import annotations


class CallLimits:
    """Limits on the tokens of a call and on the calls in flight.

    An error for memory or message size lowers the tokens by 30 %, one for threads lowers the calls by one. Every minute
    without such an error gives back one call and 5 % of the configured tokens, up to what was configured. After an
    outage there is one call in flight until one was answered, then twice as many with every answer: all workers start
    again at the same moment.
    """

    SHRINK = 0.7
    RECOVER_SECONDS = 60.0
    RECOVER_SHARE = 0.05
    MIN_TOKENS = 8  # a policy sends at least one window, whatever its length

    def __init__(self, max_tokens: int, max_in_flight: int) -> None:
        """The configured limits, which are also the ceiling of recovery."""
        self._configured = (max_tokens, max_in_flight)
        self._in_flight = max_in_flight
        self._ramp = max_in_flight
        self._clean_since = 0.0
        self.max_tokens = max_tokens
        self.max_in_flight = max_in_flight
        """Calls that may be in flight now."""
        self.lowered = False
        """Whether a limit is below what was configured; while none is, ``answered`` need not be called."""

    def fewer_tokens(self, now: float) -> None:
        """The server ran out of memory, or the message was too large."""
        self.max_tokens = max(self.MIN_TOKENS, int(self.max_tokens * self.SHRINK))
        self._clean_since = now
        self._update()

    def fewer_in_flight(self, now: float) -> None:
        """The server has no thread left: smaller batches would make it worse."""
        self._in_flight = max(1, self._in_flight - 1)
        self._clean_since = now
        self._update()

    def after_outage(self) -> None:
        """Begin with one call."""
        self._ramp = 1
        self._update()

    def answered(self, now: float) -> None:
        """Call at every success while ``lowered``."""
        tokens, in_flight = self._configured
        self._ramp = min(in_flight, self._ramp * 2)
        if now - self._clean_since >= self.RECOVER_SECONDS:
            self.max_tokens = min(tokens, self.max_tokens + max(1, int(tokens * self.RECOVER_SHARE)))
            self._in_flight = min(in_flight, self._in_flight + 1)
            self._clean_since = now
        self._update()

    def _update(self) -> None:
        self.max_in_flight = min(self._in_flight, self._ramp)
        self.lowered = (self.max_tokens, self.max_in_flight) != self._configured


class RetryBudget:
    """A token bucket for retries: every first call adds a tenth of a retry. It delays retries and refuses none.

    An empty bucket still lets one retry a second through, or a worker with nothing else to send would never retry; one
    call a second overloads no server. While calls fail there are, in any span, at most ``BURST`` retries, a tenth of
    the first calls in it, and one for each of its seconds. Once ``FORGIVEN_SECONDS`` went by without a failed call, and
    a window was answered, the server is healthy, and retries no longer wait.

    A retry is paid for when it is sent. Nothing is booked ahead, so no wait outlives the failures that caused it.
    """

    SHARE = 0.1
    # About what it takes to isolate one window of a full batch (halving 512 rows), so one such fault is not slowed.
    BURST = 10.0
    RESERVE_PER_SECOND = 1.0
    FORGIVEN_SECONDS = 1.0

    def __init__(self) -> None:
        self.first_calls = 0
        """First calls (no retries) since the last retry: counted by the caller."""
        self.answered = False
        """Whether a window was answered since the last failed call: set by the caller."""
        self._retries = self.BURST
        self._as_of = 0.0
        self._failed_at = 0.0

    def failed(self, now: float) -> None:
        """A call for windows failed."""
        self.answered = False
        self._failed_at = now

    def take(self, now: float) -> float:
        """Take one retry out of the bucket and return 0; if there is none, the seconds until there will be."""
        forgiven_in = self._failed_at + self.FORGIVEN_SECONDS - now
        if self.answered and forgiven_in <= 0:
            self._retries, self._as_of, self.first_calls = self.BURST, now, 0
            return 0.0
        earned = self.SHARE * self.first_calls + max(0.0, now - self._as_of) * self.RESERVE_PER_SECOND
        self._as_of, self.first_calls = now, 0
        self._retries = min(self.BURST, self._retries + earned)
        if self._retries >= 1.0:
            self._retries -= 1.0
            return 0.0
        # At least a millisecond: rounding must not make it ask again and again at one moment.
        wait = max(0.001, (1.0 - self._retries) / self.RESERVE_PER_SECOND)
        return min(wait, forgiven_in) if self.answered else wait
