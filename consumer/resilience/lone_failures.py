"""When a window that keeps failing alone, beside a server that answers others, is to be given up. Pure.

Calls that break off are judged elsewhere (``crash_evidence``): here the server told why it
failed, or was there all the time.
"""

from __future__ import annotations

from dataclasses import dataclass

POISON_ATTEMPTS = 5
"""Failures alone, each with a known-good window answered before and after, that make a window poison."""

UNUSABLE_ATTEMPTS = 20
"""The same for answers that cannot be used (not finite, of a wrong shape). With the pauses between them this is more
than two minutes, in which a deployment that is being mended heals; after it, one window must not hold its partition."""


@dataclass(slots=True)
class LoneFailures:
    """The record of one window, or of some that are still together."""

    tries: int = 0
    attempts: int = 0
    """Failures in a row that count, all of one code."""
    _code: str = ""

    def failed_alone(self, code: str, *, deadline_final: bool) -> str | None:
        """Note a failure alone beside a healthy server; the reason to give the window up, or None to try again.

        ``code`` is the status. What says something about the server's load rather than the window never counts:
        RESOURCE_EXHAUSTED, and a deadline that could still be longer (``deadline_final`` false). Nor do refusals that
        the deployment must mend, which arrive here only while it changes.
        """
        self.tries += 1
        limits = {"ANSWER": UNUSABLE_ATTEMPTS, "RESOURCE_EXHAUSTED": None}
        limit = limits.get(code, POISON_ATTEMPTS)
        if limit is None or code in _DEPLOYMENT or (code == "DEADLINE_EXCEEDED" and not deadline_final):
            return None
        if code != self._code:
            self._code, self.attempts = code, 0
        self.attempts += 1
        if self.attempts < limit:
            return None
        return "UnusableAnswer" if code == "ANSWER" else "Poison"

    def outage(self) -> None:
        """The server failed a known-good window too: nothing is known about this one."""
        self.tries = self.attempts = 0

    def pause(self, first: float, limit: float) -> float:
        """Seconds until the next try: doubling from ``first`` up to ``limit``."""
        return float(min(limit, first * 2 ** min(max(self.tries - 1, 0), 20)))


_DEPLOYMENT = frozenset(
    {"CONTRACT", "FAILED_PRECONDITION", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT"}
)
