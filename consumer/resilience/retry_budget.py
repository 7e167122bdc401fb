"""How many calls may be repeats, so that a struggling server does not get a storm of them. Pure, clock injected."""

from __future__ import annotations


class RetryBudget:
    """A bucket of retries: every first call earns a tenth of one. It delays retries and refuses none.

    An empty bucket is paid back at one retry a second, or a worker with nothing else to send would never repeat
    anything; one call a second is no storm for any server. In any span there are at most ``BURST`` retries, a tenth of
    the first calls in it, and one for each of its seconds.
    """

    SHARE = 0.1
    # About what it takes to isolate one window of a full batch (halving 512 rows), so one such fault is not slowed.
    BURST = 10.0
    RESERVE_PER_SECOND = 1.0

    def __init__(self) -> None:
        self._retries = self.BURST
        self._as_of: float | None = None

    def called(self) -> None:
        """A call was made that repeats nothing."""
        self._retries = min(self.BURST, self._retries + self.SHARE)

    def delay(self, now: float) -> float:
        """Book one retry: the seconds to wait before it is sent, 0 while the bucket holds any."""
        if self._as_of is not None:
            earned = max(0.0, now - self._as_of) * self.RESERVE_PER_SECOND
            self._retries = min(self.BURST, self._retries + earned)
        self._as_of = now
        self._retries -= 1
        return max(0.0, -self._retries) / self.RESERVE_PER_SECOND
