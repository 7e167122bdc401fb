"""When to give up a window in whose calls the model server crashes. Pure, clock injected.

A window that crashes the server looks like an outage: its call breaks off, and the health probe right after it fails
too. Any other window sees the same whenever the server crashes for another reason. So a crash counts against a window
only

a) when it was alone in flight: no other window, not even of another call;
b) when a health probe, padded to its length, was answered immediately before;
c) when its call broke off, as it does when the process at the other end ends: a call that ran out of time, or an error
   of the server's load, is no evidence of a crash;
d) when, since the server last went away, it was seen alive for long enough without the window: ``UPTIME_CALLS`` and
   ``UPTIME_SECONDS`` at least, and ``UPTIME_SHARE`` times as long in calls as the window's own broken call lasted.

If the server goes away at any other moment, the count of every window starts anew. An isolated call, which has its own
count, is no such moment, or two poison windows would reset each other's counts for ever. After ``CRASHES`` in a row the
window is poison, but the last one counts only if the server answered a real window since it was last away: a server
that crashes in every call has no poison window, it is broken.

False positives: a server that crashes at random, and often enough to matter, does so in the window's call or, nine
times in ten, in the time (d) before it. So five in a row come about once in 9^5 = 59,000 series of crashes, and only if
it lives about as long as one call takes: with calls of 0.1 s against 2 s of (d) it is once in 20^5.

Cost: one poison window in a batch of n crashes the server at most log2(n) + 7 times: twice before any window is
isolated, log2(n) times until it is alone, which does not count yet (no window that is probably harmless should wait for
(d)), and ``CRASHES`` times. Crashes of other causes, such as another worker's poison window, add to it.

Most calls that break off do so by chance: a server is restarted, a proxy loses one call of twenty. Their windows must
not pay for it. So a group is sent again as it was, then isolated (``SUSPECTED_AFTER``, ``UNSEEN_AFTER``), and only a
window that was ``proven`` to be alone when the server ended is held for longer than a few seconds.

``CrashEvidence`` is the record of a window, carried by its group (``serving.dispatch.batch``); ``ServerUptime`` is
what all calls of a worker show of the server, fed by ``serving.dispatch.calls``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable


CRASHES = 5
UPTIME_CALLS = 10
UPTIME_SECONDS = 2.0
UPTIME_SHARE = 8.0
SUSPECTED_AFTER = 2
UNSEEN_AFTER = 6
"""Broken calls in a row after which a group is isolated: ``SUSPECTED_AFTER`` when the server was away after the last of
them, ``UNSEEN_AFTER`` when it answered on. Most calls that break off did so by chance, and pass when they are sent
again; isolation costs the other windows half of the server."""
PROVEN_ALONE = 5
"""Isolated calls that must break off while the server answers on, as one with replicas does, to prove what one absence
of the server proves."""
AWAY_SECONDS = 1.0
"""A server that does not answer for so long has ended; a shorter failure may be one of the network."""
UNPROVEN_PAUSE = (UPTIME_SECONDS, UPTIME_SECONDS + 0.75)
"""Seconds, from and to, between two isolated tries of a window until it is proven that the server ends in its calls."""
LONGEST_PAUSE = 60.0
"""The same afterwards, unless its own calls are so long that (d) takes longer."""
UNANSWERED_PAUSE = 300.0
"""The same while its next crash would be the last, but for a real window that was answered: a worker without other
windows crashes a server that may be broken at most this often."""

BROKEN_OFF = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED"})
"""Status names of a call whose connection ended under it, directly or behind a proxy."""

_PAUSES = Backoff(3.0, 15.0)


@dataclass(slots=True)
class ServerUptime:
    """How long the model server was seen alive since it last went away, in calls for windows and in health probes.

    A server that crashes at random does so in proportion to time, in a window's calls as in any other. So a crash in a
    window's call is evidence only compared with the time that the server lived without the window. That time is taken
    from calls in flight, overlapping ones once: between two calls a server may crash and be back unseen.
    """

    watched: bool = True
    """Whether answers must be counted. ``failed`` sets it; the dispatcher clears it after an answer to a real window
    while no window is isolated and nothing has failed, since the counts start anew with the next failure anyway."""
    up_since: float | None = None
    """The first answer after it went away; None while it is away, or before it ever answered."""
    away_seconds: float = 0.0
    """How long it was away the last time."""
    in_flight_seconds: float = 0.0
    """Seconds with a call in flight that was answered, since ``up_since``; and such calls, and windows of events."""
    calls: int = 0
    real_windows: int = 0
    unrelated_crashes: int = 0
    """How often it went away, ever, other than in an isolated call."""
    crashes_in_a_row: int = 0
    """How often it went away without an answer to a real window in between."""
    last_answer: float = 0.0
    """When the last call was answered, and how many seconds that call took."""
    last_seconds: float = 0.0
    _counted_until: float = 0.0
    _went_away: float | None = None

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
            self.crashes_in_a_row = 0
        self.last_answer, self.last_seconds = now, now - started

    def failed(self, now: float, *, isolated: bool) -> None:
        """A call broke off. While the server is away, further ones belong to the same crash."""
        self.watched = True
        if self.up_since is None:
            return
        self.up_since, self._went_away = None, now
        self.crashes_in_a_row += 1
        self.unrelated_crashes += not isolated


@dataclass(slots=True)
class CrashEvidence:
    """The record of one window, or of some that are still together."""

    crashes: int = 0
    """Crashes in a row that count."""
    alone: int = 0
    """Isolated calls that broke off, whether they count or not."""
    broken: int = 0
    """Calls in a row that broke off, isolated or not, those of the groups it was part of included."""
    proven: bool = False
    """Whether it was alone in flight when the server went away: only then are the pauses between its tries long."""
    longest: float = 0.0
    """Seconds that its longest broken call lasted."""
    cleared: int = 0
    """How often in a row the server ended without it."""
    given_up: bool = False
    """Whether another version that the same server serves gave it up, with evidence of its own. No other crash clears
    it then: that may be the other version's next poison window. And the last crash counts without a real window that
    was answered: there may be none here, as all events are the other version's."""
    _seen: int | None = None
    """The server's ``unrelated_crashes`` as of the latest ``notice_unrelated``; None before the window was isolated."""
    _counts: bool = False
    """Whether a crash in the call that is being made counts."""
    _pause: float = UPTIME_SECONDS

    def notice_unrelated(self, uptime: ServerUptime) -> bool:
        """Whether the server went away, since this was called before, at a moment that clears this window."""
        seen, self._seen = self._seen, uptime.unrelated_crashes
        if seen is None or seen == self._seen:
            return False
        if not self.given_up:
            self.crashes = 0
        self.cleared += uptime.away_seconds >= AWAY_SECONDS
        return True

    def draw_pause(self, uptime: ServerUptime, uniform: Callable[[float, float], float]) -> None:
        """Draw how long the server must be up before the next try.

        Random, or a server that crashes at fixed times after its start might always do so in the same window's call.
        Longer with each crash of another cause, so that the other cause is dealt with first, such as another worker's
        poison window. And at least as long as the server was away, so that other windows have half of the time.
        """
        least = max(_PAUSES.longest(self.cleared), min(uptime.away_seconds, LONGEST_PAUSE), UPTIME_SHARE * self.longest)
        self._pause = uniform(least, 2 * least)

    def ready_at(self, uptime: ServerUptime) -> float:
        """When the server will have been up for long enough; infinite while it is away."""
        if uptime.up_since is None:
            return math.inf
        return uptime.up_since + (self._pause if self._may_count(uptime) else max(UNANSWERED_PAUSE, self._pause))

    def needs_uptime(self, uptime: ServerUptime) -> bool:
        """Whether the server must still be seen alive in calls without this window (d)."""
        return uptime.up_since is None or uptime.calls < UPTIME_CALLS or self.needs_time_in_calls(uptime)

    def needs_time_in_calls(self, uptime: ServerUptime) -> bool:
        """Whether that takes more than a few short calls."""
        return uptime.in_flight_seconds < UPTIME_SHARE * self.longest

    def sent_isolated(self, uptime: ServerUptime, now: float) -> None:
        """It is sent now, alone (a), a health probe having been answered just before (b)."""
        self.notice_unrelated(uptime)
        up = uptime.up_since is not None and now - uptime.up_since >= UPTIME_SECONDS
        self._counts = up and self._may_count(uptime) and not self.needs_uptime(uptime)

    def broke_off(self, seconds: float, *, isolated: bool) -> None:
        """A call broke off after ``seconds`` (c)."""
        self.longest = max(self.longest, seconds)
        self.broken += 1
        if isolated:
            self.alone += 1
            if self._counts:
                self.crashes += 1
                self.cleared = 0

    def server_is_back(self, *, away: bool) -> bool:
        """A health probe was answered after its call broke off; ``away`` if the server had ended meanwhile.

        Whether it must be isolated from now on.
        """
        self.proven |= self.alone > 0 and (away or self.alone >= PROVEN_ALONE)
        return self.broken >= (SUSPECTED_AFTER if away else UNSEEN_AFTER)

    def _may_count(self, uptime: ServerUptime) -> bool:
        return self.crashes < CRASHES - 1 or uptime.real_windows > 0 or self.given_up
