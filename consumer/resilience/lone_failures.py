"""When to give up a window that keeps failing alone in its call while the server answers others. Pure.

Calls that break off are counted by ``crash_evidence``; the ones here ended with the server's own error, or with a
time-out while it was there. Every group of windows of ``serving.dispatch.batch`` carries such a record.
"""

from __future__ import annotations

from dataclasses import dataclass

POISON_ATTEMPTS = 5
"""Failures alone, each with a health probe answered before and after, that make a window poison."""

UNUSABLE_ATTEMPTS = 60
"""The same for answers that cannot be used (not finite, of a wrong shape). With the pauses between them this is a
minute and a half, in which a deployment that is being repaired heals; after it, one window must not hold its
partition."""

_DEPLOYMENT = frozenset(
    {"CONTRACT", "FAILED_PRECONDITION", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT"}
)


@dataclass(slots=True)
class LoneFailures:
    """The record of one window, or of some that are still together."""

    tries: int = 0
    """Failures alone in a row, whether they count or not: the pause before the next try grows with them."""
    attempts: int = 0
    """Failures in a row that count, all of one code."""
    _code: str = ""

    def failed_alone(self, code: str, *, deadline_final: bool) -> str | None:
        """Note a failure alone in a call to a healthy server; the reason to give the window up, or None to try again.

        ``code`` is the status. Errors of the server's load never count: RESOURCE_EXHAUSTED, and a deadline that could
        still be longer (``deadline_final`` false). Nor do failures that the deployment must repair, which arrive here
        only while it changes.
        """
        self.tries += 1
        if code == "RESOURCE_EXHAUSTED" or code in _DEPLOYMENT or (code == "DEADLINE_EXCEEDED" and not deadline_final):
            return None
        if code != self._code:
            self._code, self.attempts = code, 0
        self.attempts += 1
        limit, reason = (UNUSABLE_ATTEMPTS, "UnusableAnswer") if code == "ANSWER" else (POISON_ATTEMPTS, "Poison")
        return None if self.attempts < limit else reason

    def outage(self) -> None:
        """Start the counts anew: the server failed a health probe too, so nothing is known about this window."""
        self.tries = self.attempts = 0
