"""Windows beside which the model server went away: who is tried next, and when."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.resilience.crash_evidence import ServerUptime
    from consumer.serving.dispatch.batch import Entry, Group

BLINK = 1.0
MOST_PAUSE = 10.0
"""Seconds that the server is left to others when it came back, before a window is tried that may be innocent: as long
as it was away, up to the second, and no time if it was away for less than the first."""

BUSY_PAUSE = 1.0
"""Seconds until a question is asked again that a busy server did not take."""

CONTROL_PAUSE = 0.25
WATCH_PAUSE = 1.0
"""Seconds between two control calls while nothing else is answered: until there were enough of them, and after that, so
that the end of a server, whose restart takes longer, is not missed."""

SHORTEST_PAUSE = 0.01
"""And when the suspect's call was long, so that the server has to be watched in calls for long: what a call takes."""


class PoisonIsolation:
    """Suspects, each of which is sent again with no other call in flight: so a crash speaks of it alone.

    Others are sent between the tries. Groups of several, and windows that were not alone yet, are tried soon; a window
    whose call broke off when it was alone waits for its control (``consumer.resilience.crash_evidence``).
    """

    def __init__(
        self, exposure: ServerUptime, clock: Callable[[], float], uniform: Callable[[float, float], float]
    ) -> None:
        self._exposure = exposure
        self._clock = clock
        self._uniform = uniform
        self._groups: list[Group] = []
        self._others_until = 0.0
        self._busy_until = 0.0

    @property
    def waiting(self) -> int:
        """Windows in it."""
        return sum(len(group.entries) for group in self._groups)

    def add(self, group: Group, pause: float) -> None:
        """Try it, if it needs no control, in ``pause`` seconds at the earliest."""
        if not group.quarantined:
            group.quarantined = True
            group.crash.begin(self._exposure)
        group.crash.outside(self._exposure)
        group.crash.rest(self._exposure, self._uniform)
        group.not_before = self._clock() + max(pause, self._least_pause())
        self._groups.append(group)

    def due(self) -> Group | None:
        """Whom to try now, as soon as nothing else is in flight. It stays here until ``take``."""
        now = self._clock()
        self._groups = [group for group in self._groups if group.drop_withdrawn()]
        for group in self._groups:
            self._notice(group)
        if now < max(self._others_until, self._busy_until):
            return None
        ready = [group for group in self._groups if self._ready_at(group) <= now and not self._lacks_control(group)]
        # The largest first, since it frees most of those who wait. When the server has died twice and answered nothing
        # in between, the smallest: then it probably dies of all of them, and that shows with windows that are alone.
        sign = 1 if self._exposure.barren > 1 else -1
        return min(ready, key=lambda group: (group.crash.alone, sign * len(group.entries)), default=None)

    def take(self, group: Group) -> None:
        """It is tried now."""
        self._groups.remove(group)

    def tried(self, began: float) -> None:
        """A try that began at ``began`` is over: others have the server for as long as they had not."""
        now = self._clock()
        self._others_until = now + (now - began)

    def busy(self) -> None:
        """The server had no thread left for a control."""
        self._busy_until = self._clock() + BUSY_PAUSE

    def wake_at(self) -> float | None:
        """When to look again if nothing else happens; None for never."""
        not_yet = max(self._others_until, self._busy_until)
        times = [max(self._ready_at(group), not_yet) for group in self._groups]
        if (control := self.control_at()) is not None:
            times.append(control)
        now = self._clock()
        return min((time for time in times if now < time < math.inf), default=None)

    def control_at(self) -> float | None:
        """When to ask for a control; None when nobody needs one. Any answer to anybody is one."""
        alone = [group for group in self._groups if group.crash.alone]
        if not alone:
            return None
        if any(group.crash.needs_time_in_calls(self._exposure) for group in alone):
            pause = min(CONTROL_PAUSE, max(SHORTEST_PAUSE, self._exposure.last_seconds))
        else:
            enough = not any(group.crash.needs_exposure(self._exposure) for group in alone)
            pause = WATCH_PAUSE if enough else CONTROL_PAUSE
        return max(self._exposure.last_answer + pause, self._busy_until)

    def control_length(self) -> int:
        """Padded length that a control must have."""
        return max((group.length for group in self._groups), default=0)

    def crashed_alone(self) -> list[Entry]:
        """Take out every window whose call broke off when it was alone."""
        alone = [group for group in self._groups if group.crash.alone]
        self._groups = [group for group in self._groups if not group.crash.alone]
        return [entry for group in alone for entry in group.entries]

    def _notice(self, group: Group) -> None:
        before = group.crash.cleared
        group.crash.outside(self._exposure)
        if group.crash.cleared != before:
            group.crash.rest(self._exposure, self._uniform)

    def _lacks_control(self, group: Group) -> bool:
        return bool(group.crash.alone) and group.crash.needs_exposure(self._exposure)

    def _ready_at(self, group: Group) -> float:
        if not group.crash.alone:
            up = self._exposure.up_since
            return max(group.not_before, math.inf if up is None else up + self._least_pause())
        ready = group.crash.ready_at(self._exposure)
        return max(group.not_before, math.inf if ready is None else ready)

    def _least_pause(self) -> float:
        away = self._exposure.away_seconds
        return 0.0 if away < BLINK else min(MOST_PAUSE, away)
