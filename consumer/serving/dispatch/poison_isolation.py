"""Windows in whose calls the model server crashed: each is sent again with no other call in flight.

So a crash can only be counted against that window. The dispatcher hands such groups in (``add``) and, only while
``active``, calls ``send_next`` before each round of sending and ``watch`` after it. ``resilience.crash_evidence``
decides which crashes count against a window.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from consumer.resilience.crash_evidence import AWAY_SECONDS, UNPROVEN_PAUSE
from consumer.serving.protocol import Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from consumer.extraction.window import Window
    from consumer.serving.dispatch.batch import Entry, Group
    from consumer.serving.dispatch.calls import ModelCalls
    from consumer.serving.dispatch.outage import OutageRecovery

LONGEST_ABSENCE = 1.0
"""When the server is back, other windows have it to themselves before an isolated one is tried, for as long as it was
away: at most ``LONGEST_ABSENCE`` seconds, and not at all if it was away for less than ``AWAY_SECONDS``."""

BUSY_PAUSE = 1.0
"""Seconds until the next health probe after a busy server refused one."""

PROBE_PAUSE = 0.15
WATCH_PAUSE = 1.0
"""Seconds between two health probes while nothing else is answered: ``PROBE_PAUSE`` until there were enough of them,
then ``WATCH_PAUSE``, which is shorter than a restart, so that no crash is missed."""

SHORTEST_PAUSE = 0.01
"""Least seconds between two probes after a window's long call, which demands much time in calls: then a probe follows
as soon as one call's duration has passed."""


class PoisonIsolation:
    """The isolated groups: which is tried next, and when. Other windows are sent between the tries.

    Groups of several, and windows that were not alone yet, are tried soon; a window that was proved to be alone in
    flight when the server ended waits until the server was seen alive without it for long enough.
    """

    def __init__(
        self,
        calls: ModelCalls,
        recovery: OutageRecovery,
        uniform: Callable[[float, float], float],
        spawn: Callable[[Coroutine[Any, Any, None], Iterable[Entry]], None],
        send: Callable[[Group], Coroutine[Any, Any, None]],
    ) -> None:
        """``spawn`` runs a task beside the pump, ``send`` makes the isolated call of a group."""
        self._calls = calls
        self._uptime = calls.uptime
        self._recovery = recovery
        self._uniform = uniform
        self._spawn = spawn
        self._send = send
        self._clock = calls.clock
        self.active = False
        """Whether a window is isolated; while none is, ``send_next`` and ``watch`` need not be called."""
        self._groups: list[Group] = []
        self._trying = self._probing = False
        self._draining_since: float | None = None
        self._others_until = 0.0
        self._busy_until = 0.0

    @property
    def waiting(self) -> int:
        """Windows that wait here."""
        return sum(len(group.entries) for group in self._groups)

    def still_waiting(self) -> bool:
        """Whether somebody waits for one of these windows."""
        return self._trying or any(group.still_waiting() for group in self._groups)

    def suspects(self) -> list[Group]:
        """The isolated groups, but for one that is being tried."""
        return list(self._groups)

    def take_suspect(self, group: Group) -> None:
        """Take out one of ``suspects``."""
        self._groups.remove(group)

    def add(self, group: Group, pause: float) -> None:
        """Try it in ``pause`` seconds at the earliest."""
        self.active = group.isolated = True
        group.crash.notice_unrelated(self._uptime)
        group.crash.draw_pause(self._uptime, self._uniform)
        if group.crash.alone and not group.crash.proven:
            pause = max(pause, self._uniform(*UNPROVEN_PAUSE))
        group.not_before = self._clock() + max(pause, self._least_pause())
        self._groups.append(group)

    def send_next(self, *, idle: bool) -> bool:
        """Send the group that is due if ``idle``, that is, if no other call is in flight.

        Returns whether one is due or being tried: then nothing else may be sent.
        """
        if self._trying:
            return True
        group = self._due()
        if group is None:
            self._draining_since = None
            self.active = bool(self._groups)
            return False
        began = self._clock() if self._draining_since is None else self._draining_since
        self._draining_since = began
        if idle and not self._probing:
            self._groups.remove(group)
            self._trying = True
            self._draining_since = None
            self._spawn(self._try(group, began), group.entries)
        return True

    def watch(self) -> float | None:
        """Make a health probe if one is due; when to look again if nothing else happens, None for never."""
        now = self._clock()
        probe_at = self._probe_at()
        if probe_at <= now and not self._probing:
            self._probing = True
            self._spawn(self._probe(), ())
        not_yet = max(self._others_until, self._busy_until)
        times = [probe_at, *(max(self._ready_at(group), not_yet) for group in self._groups)]
        return min((time for time in times if now < time < math.inf), default=None)

    def take_crashed_alone(self) -> list[Entry]:
        """Take out every window whose isolated call broke off."""
        alone = [group for group in self._groups if group.crash.alone]
        self._groups = [group for group in self._groups if not group.crash.alone]
        return [entry for group in alone for entry in group.entries]

    def _due(self) -> Group | None:
        """The group to try now, as soon as nothing else is in flight."""
        for group in self._groups:
            group.entries = [entry for entry in group.entries if not entry.future.done()]
        self._groups = [group for group in self._groups if group.entries]
        for group in self._groups:
            if group.crash.notice_unrelated(self._uptime):
                group.crash.draw_pause(self._uptime, self._uniform)
        now = self._clock()
        if now < max(self._others_until, self._busy_until):
            return None
        ready = [
            group
            for group in self._groups
            if self._ready_at(group) <= now and not (group.crash.proven and group.crash.needs_uptime(self._uptime))
        ]
        # The largest first, since its success releases most windows. When the server has crashed twice and answered
        # nothing in between, the smallest: then it probably crashes of all of them, which lone windows show.
        sign = 1 if self._uptime.crashes_in_a_row > 1 else -1
        return min(ready, key=lambda group: (group.crash.alone, sign * len(group.entries)), default=None)

    def _ready_at(self, group: Group) -> float:
        if group.crash.proven:
            return max(group.not_before, group.crash.ready_at(self._uptime))
        up = self._uptime.up_since
        return max(group.not_before, math.inf if up is None else up + self._least_pause())

    def _least_pause(self) -> float:
        away = self._uptime.away_seconds
        return 0.0 if away < AWAY_SECONDS else min(LONGEST_ABSENCE, away)

    async def _try(self, group: Group, began: float) -> None:
        """Call the model with one group and no other call in flight, right after a health probe.

        No other window was sent since ``began``. Afterwards the others are sent for as long as they were held up.
        """
        try:
            self._calls.begin(group, group.length)
            if await self._answered(self._calls.probe(group.length), length=group.length):
                group.crash.sent_isolated(self._uptime, self._clock())
                await self._send(group)
            else:
                del self._calls.in_flight[group]
                self.add(group, 0.0)
        finally:
            self._trying = False
            now = self._clock()
            self._others_until = now + (now - began)

    def _probe_at(self) -> float:
        """When to make a health probe; infinite when no window needs one. An answer to any other call counts as one."""
        alone = [group for group in self._groups if group.crash.alone]
        if not alone:
            return math.inf
        if any(group.crash.needs_time_in_calls(self._uptime) for group in alone):
            pause = min(PROBE_PAUSE, max(SHORTEST_PAUSE, self._uptime.last_seconds))
        else:
            pause = PROBE_PAUSE if any(group.crash.needs_uptime(self._uptime) for group in alone) else WATCH_PAUSE
        return max(self._uptime.last_answer + pause, self._busy_until)

    async def _probe(self) -> None:
        """Make a health probe without the isolated windows, first with a canary: evidence that the server lives."""
        try:
            length = max((group.length for group in self._groups), default=0)
            canary = self._calls.canary(length)
            if canary is None or await self._answered(self._calls.probe_with(canary), canary):
                await self._answered(self._calls.probe(length), length=length)
        finally:
            self._probing = False

    async def _answered(
        self, probe: Coroutine[Any, Any, None], canary: Window | None = None, *, length: int = 0
    ) -> bool:
        """Whether the server answers a health probe; if not, no window that was in flight is the cause."""
        try:
            await probe
        except ServingError as error:
            if error.relief is Relief.FEWER_IN_FLIGHT:
                self._busy_until = self._clock() + BUSY_PAUSE
            else:
                self._recovery.stop(error, [], canary, length=length)
            return False
        return True
