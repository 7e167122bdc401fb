"""Which events a canary answers, and when all of them go back to the stable version. Pure: the time is passed in.

Owned by ``worker.variant_router``.
"""

from __future__ import annotations

import hashlib
from statistics import median
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

FallbackReason = Literal["unavailable", "slow", "refused"]
"""It cannot be used; its calls take too long; it refuses what the stable version answers."""

BACK_SECONDS = 10.0
"""A canary that was unavailable gets its share again when it could be used for so long without a break."""

FEWEST_CALLS = 20
"""Calls of each side before they are compared: a median of fewer says little."""

MOST_REFUSED = 0.02
FEWEST_REFUSED = 3
"""More than this share of the canary's events, and so many of them, refused by the canary and answered by the stable
version, are a fault of the canary. A single one may be chance: a window that met a server at a bad moment."""

REMEMBERED = 1000
"""After so many events of the canary the counts of ended and refused ones are halved, so that the past fades."""


def place_of(key: bytes) -> float:
    """Where a key lies between 0 and 1, below 1: with a share above it, its events are the canary's.

    The same in every worker and after every restart, and even for keys that are numbers in a row.
    """
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest()) / 2**48


class CanaryFallback:
    """Whether events of the canary's share must go to the stable version, and why.

    ``slow`` and ``refused`` last until ``reset``: whatever is wrong with the canary, sending it more events would show
    it again, to the events' cost. ``unavailable`` ends by itself, since its own health probes show when it can be used.
    """

    def __init__(self, slower: float) -> None:
        """``slower``: how many times as long as the stable version's its calls may take."""
        self.slower = slower
        self.reason: FallbackReason | None = None
        self.detail = ""
        """The figures behind ``reason``, for people."""
        self._back_at: float | None = None
        self._ended = self._refused = 0.0
        self._why = ""

    def reset(self) -> None:
        """Somebody changed the canary: begin anew."""
        self.reason, self.detail, self._back_at = None, "", None
        self._ended = self._refused = 0.0

    def ended(self, *, refused: str) -> None:
        """An event of the canary's ended; ``refused``: why it had no result there, and the stable version gave one."""
        self._ended += 1
        self._refused += bool(refused)
        self._why = refused or self._why
        if self.reason is None and self._refused >= FEWEST_REFUSED and self._refused > MOST_REFUSED * self._ended:
            self.reason = "refused"
            self.detail = (
                f"{self._refused:.0f} of its last {self._ended:.0f} events had no result there, and the stable version "
                f"gave one; the last one: {self._why}"
            )
        if self._ended >= REMEMBERED:
            self._ended, self._refused = self._ended / 2, self._refused / 2

    def look(
        self, now: float, *, unusable: str, stable_usable: bool, rates: Sequence[float], stable_rates: Sequence[float]
    ) -> None:
        """See how it is at ``now`` (seconds of a clock).

        ``unusable``: why the canary cannot be used, empty while it can. That counts only while the stable version can
        be used: what hits both is no fault of the canary. ``rates``: how many times what it should take each of the
        last calls took.
        """
        if self.reason in ("slow", "refused"):
            return
        if unusable:
            self._back_at = None
            if self.reason is None and stable_usable:
                self.reason, self.detail = "unavailable", unusable
        elif self.reason == "unavailable":
            if self._back_at is None:
                self._back_at = now + BACK_SECONDS
            elif now >= self._back_at:
                self.reason, self.detail, self._back_at = None, "", None
        if self.reason is None and min(len(rates), len(stable_rates)) >= FEWEST_CALLS:
            ours, theirs = median(rates), median(stable_rates)
            if ours > self.slower * theirs:
                self.reason = "slow"
                self.detail = (
                    f"its calls take {ours / theirs:.1f} times as long for their size as those of the stable version, "
                    f"model.canary.slower is {self.slower:g}"
                )
