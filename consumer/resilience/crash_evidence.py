"""When a window in whose calls the model server goes away is to be given up. Pure, clock injected.

A window that kills the server looks like an outage: its call breaks off, and the known-good window right after it fails
too. Innocent windows see the same whenever the server dies of something else. So a crash counts against a window only

a) when it was alone in flight: no other window, not even of another call;
b) when the known-good window, padded to its length, was answered immediately before;
c) when its call broke off, as it does when the process at the other end ends: a call that ran out of time, or a server
   that complained of its load, says nothing of the kind;
d) when, since the server last went away, it lived through enough without the window: ``CONTROL_CALLS`` and
   ``CONTROL_SECONDS`` at least, and ``CONTROL_SHARE`` times as long in calls as the window's own broken call lasted.

If the server goes away at any other moment, the count of every window starts anew; only a suspect alone in flight,
which has its own count, is no such moment, or two killers would clear each other for ever. After ``CRASHES`` in a row
the window is poison, but the last one counts only if the control held a real window: a server that dies of all of them
has no poison, it is broken.

How sure is that? A server that dies at random and often enough to matter meets the window's call or, nine times in ten,
its control first. So five in a row come about once in 9^5 = 59,000 series of crashes, each of them minutes long, and
only if it lives about as long as one call takes: with calls of 0.1 s against 3 s of control it is once in 30^5.

How often does the server die? Of one killer in a batch of n windows, at most log2(n) + 6 times: once before anybody is
suspected, log2(n) times until it is alone, which does not count yet (nobody should wait for a control who is probably
innocent), and ``CRASHES`` times. Deaths by somebody else's hand, another worker's killer say, add to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


CRASHES = 5
CONTROL_CALLS = 10
CONTROL_SECONDS = 3.0
CONTROL_SHARE = 8.0
LONGEST_PAUSE = 60.0
"""Seconds between two tries of a window, unless its own calls are so long that (d) takes longer."""
UNPROVED_PAUSE = 300.0
"""The same while its next crash would be the last, but for a real window that was answered: a worker without any other
work kills a server that is perhaps broken at this rate."""

BROKEN_OFF = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED"})
"""Status names of a call whose connection ended under it, directly or behind a proxy."""


@dataclass(slots=True)
class CrashEvidence:
    """The record of one window, or of some that are still together."""

    crashes: int = 0
    """That count, in a row."""
    alone: int = 0
    """Calls of its own that broke off, whether they count or not."""
    longest: float = 0.0
    """Seconds that its longest broken call lasted."""
    cleared: int = 0
    """How often in a row the server went away without it."""
    _strangers: int = 0
    _controlled: bool = False
    _pause: float = field(default=CONTROL_SECONDS)

    def parted(self) -> CrashEvidence:
        """For a half of these windows: what the crowd did says nothing about one of it, but how long its call took."""
        return CrashEvidence(longest=self.longest)

    def begin(self, exposure: ServerUptime) -> None:
        """From here on the server is watched for it."""
        self._strangers = exposure.strangers

    def outside(self, exposure: ServerUptime) -> None:
        """Notice whether the server went away at a moment that clears this window."""
        if exposure.strangers != self._strangers:
            self._strangers = exposure.strangers
            self.crashes = 0
            self.cleared += 1

    def rest(self, exposure: ServerUptime, uniform: Callable[[float, float], float]) -> None:
        """Settle how long the server must be up before the next try.

        Random, or a server that dies at fixed times after its start might always meet the same window. Longer with
        each time that the server died of something else: then whatever else it is gets the next turns, such as another
        worker with a killer of its own. And as long as the server was away, so that others have half of the time.
        """
        least = max(CONTROL_SECONDS * 2 ** min(self.cleared, 20), exposure.away_seconds)
        least = max(min(least, LONGEST_PAUSE), CONTROL_SHARE * self.longest)
        self._pause = uniform(least, 2 * least)

    def ready_at(self, exposure: ServerUptime) -> float | None:
        """When the server will have been up for long enough; None while it is away."""
        if exposure.up_since is None:
            return None
        return exposure.up_since + (self._pause if self._proved(exposure) else max(UNPROVED_PAUSE, self._pause))

    def needs_exposure(self, exposure: ServerUptime) -> bool:
        """Whether the server has still to show, in calls without this window, that it lives."""
        return exposure.up_since is None or exposure.calls < CONTROL_CALLS or self.needs_time_in_calls(exposure)

    def needs_time_in_calls(self, exposure: ServerUptime) -> bool:
        """Whether that takes more than a few short calls."""
        return exposure.in_flight_seconds < CONTROL_SHARE * self.longest

    def tried(self, exposure: ServerUptime, now: float) -> None:
        """It is sent now, alone (a), the known-good window having been answered just before (b)."""
        self.outside(exposure)
        up = exposure.up_since is not None and now - exposure.up_since >= CONTROL_SECONDS
        self._controlled = up and self._proved(exposure) and not self.needs_exposure(exposure)

    def broke_off(self, seconds: float, *, alone: bool) -> None:
        """A call broke off after ``seconds`` (c); ``alone``: the one of this try."""
        self.longest = max(self.longest, seconds)
        if not alone:
            return
        self.alone += 1
        if self._controlled:
            self.crashes += 1
            self.cleared = 0

    def ended_otherwise(self) -> None:
        """The call of this try failed in a way that is no crash."""
        self.crashes = 0

    def _proved(self, exposure: ServerUptime) -> bool:
        return self.crashes < CRASHES - 1 or exposure.real_windows > 0

    @property
    def poison(self) -> bool:
        """Whether it is to be given up."""
        return self.crashes >= CRASHES


# What the model server was seen to live through since it last went away. Pure, clock injected.


class ServerUptime:
    """Watches every call that ends, whoever made it.

    A server that dies at random moments dies in proportion to the time it is watched: beside any window, and as well
    beside none. So a death beside a window says something only against the time that the server lived without it. That
    time is taken from calls in flight, overlapping ones once: between two calls a server may die and be back unseen.
    """

    def __init__(self) -> None:
        self.up_since: float | None = None
        """The first answer after it went away; None while it is away, or before it ever answered."""
        self.away_seconds = 0.0
        """How long it was away the last time."""
        self.in_flight_seconds = 0.0
        self.calls = 0
        self.real_windows = 0
        """Windows of events that it answered, since it came back as the two above."""
        self.strangers = 0
        """How often it went away, ever, other than in a call that a suspect had for itself."""
        self.barren = 0
        """How often in a row it went away without an answer to a real window in between."""
        self.last_answer = 0.0
        """When, and ``last_seconds`` how long the call took."""
        self.last_seconds = 0.0
        self._counted_until = 0.0
        self._went_away: float | None = None

    def answered(self, started: float, now: float, real_windows: int) -> None:
        """A call that began at ``started`` was answered, with ``real_windows`` of events in it."""
        if self.up_since is None:
            self.up_since = self._counted_until = now
            self.away_seconds = 0.0 if self._went_away is None else now - self._went_away
            self.in_flight_seconds = 0.0
            self.calls = self.real_windows = 0
        self.in_flight_seconds += max(0.0, now - max(started, self._counted_until))
        self._counted_until = max(now, self._counted_until)
        self.calls += 1
        self.real_windows += real_windows
        if real_windows:
            self.barren = 0
        self.last_answer, self.last_seconds = now, now - started

    def failed(self, now: float, *, suspect_alone: bool) -> None:
        """A call broke off. While the server is away, that is still the same time that it went away."""
        if self.up_since is None:
            return
        self.up_since, self._went_away = None, now
        self.barren += 1
        self.strangers += not suspect_alone
