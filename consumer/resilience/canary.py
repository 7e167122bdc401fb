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

HUNG_SECONDS, COLD_SECONDS = 5.0, 10.0
"""No call of the canary's hangs before it was under way for so long; for ``COLD_SECONDS`` as long as it has answered
fewer than ``FEWEST_CALLS``. A pause of the server, or a busy network, is shorter; so are the first calls of a model
that was not warmed up, seconds on an accelerator, unless it compiles each shape: that takes up to 11 s."""

RETURN_SECONDS = 3.0
"""A canary that is out, as after a crash of the server that both versions are on, may come back so much later than the
stable version: so long the next health probe and the next try of the connection take."""

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


def hung_after(
    slower: float,
    cost: float,
    *,
    answered: int,
    stable_rates: Sequence[float],
    stable_seconds: Sequence[float],
    stable_under_way: Sequence[float],
) -> float:
    """After so many seconds a call to the canary that should take ``cost`` seconds hangs, if the stable one answers.

    ``slower`` times as long as all but the slowest twentieth of the stable version's last calls took
    (``stable_seconds``, of whatever size, since a small call may wait behind a large one), as any of them has been
    under way (``stable_under_way``), or as they usually take for that size (``stable_rates``), whichever is longest;
    and never less than ``HUNG_SECONDS``. ``answered``: calls of the canary.
    """
    usual = cost * (median(stable_rates) if stable_rates else 1.0)
    least = HUNG_SECONDS if answered >= FEWEST_CALLS else COLD_SECONDS
    slowest = sorted(stable_seconds)[-1 - len(stable_seconds) // 20 :][:1]
    return max(least, slower * max([usual, *slowest, *stable_under_way]))


class CanaryFallback:
    """Whether events of the canary's share must go to the stable version, and why.

    ``slow`` and ``refused`` last until ``reset``: whatever is wrong with the canary, sending it more events would show
    it again, to the events' cost. ``unavailable`` ends by itself, since its own health probes show when it can be used.
    A call that hangs is ``unavailable`` the first time; what hangs again, although its health probes were answered in
    between, is ``slow``.
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
        self._has_hung = False
        self._missed_since: float | None = None

    def reset(self) -> None:
        """Somebody changed the canary: begin anew."""
        self.reason, self.detail, self._back_at = None, "", None
        self._ended = self._refused = 0.0
        self._has_hung, self._missed_since = False, None

    def hangs(self, detail: str) -> None:
        """A call of it hangs, and the stable version answers on."""
        if self.reason is None:
            self.reason, self.detail = "slow" if self._has_hung else "unavailable", detail
            self._back_at, self._has_hung = None, True

    def ended(self, *, refused: str, ended_servers: bool = False) -> None:
        """An event of the canary's ended; ``refused``: why it had no result there, and the stable version gave one.

        One is enough if the server ``ended_servers`` in its calls: the stable version is on the same one.
        """
        self._ended += 1
        self._refused += bool(refused)
        self._why = refused or self._why
        many = self._refused >= FEWEST_REFUSED and self._refused > MOST_REFUSED * self._ended
        if self.reason is None and (many or ended_servers):
            self.reason = "refused"
            self.detail = (
                f"{self._refused:.0f} of its last {self._ended:.0f} events had no result there, and the stable version "
                f"gave one; the last one: {self._why}"
            )
        if self._ended >= REMEMBERED:
            self._ended, self._refused = self._ended / 2, self._refused / 2

    def look(
        self,
        now: float,
        *,
        unusable: str,
        stable_usable: bool,
        rates: Sequence[float],
        stable_rates: Sequence[float],
        patience: float = 0.0,
        uncertain: bool = False,
    ) -> None:
        """See how it is at ``now`` (seconds of a clock).

        ``unusable``: why the canary cannot be used, empty while it can. That counts only while the stable version can
        be used: what hits both is no fault of the canary. ``rates``: how many times what it should take each of the
        last calls took. ``patience``: so many seconds it may be missed. ``uncertain``: a call of it hangs, or a failed
        one may have been chance: it loses nothing for it, and gets nothing back.
        """
        if self.reason in ("slow", "refused"):
            return
        if not (unusable and stable_usable):
            self._missed_since = None
        elif self._missed_since is None:
            self._missed_since = now
        if unusable:
            self._back_at = None
            if self.reason is None and self._missed_since is not None and now - self._missed_since >= patience:
                self.reason, self.detail = "unavailable", unusable
        elif self.reason == "unavailable":
            if uncertain:
                self._back_at = None
            elif self._back_at is None:
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
