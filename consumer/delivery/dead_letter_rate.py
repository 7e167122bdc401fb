"""How many events end in dead letters, and whether consumption must pause for it. Pure; the clock is injected.

The worker's dead-letter breaker owns one for each input topic. What is counted are events, once each, when their
outputs are durable. An event with any dead letter counts as dead: a task that fails on every event fills the
dead-letter topic as fast as bad bytes do. Null values count as neither.

A pause ends with a trial: a few events more, whose share of dead letters decides whether consumption goes on in full or
pauses again, twice as long. Events that were fetched before the trial are not counted: they are what was in flight when
the pause began, and no sample of what the topic holds now.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_EVENTS = 1000
"""Events over which the rate is taken."""

MIN_EVENTS = 100
"""No rate below this many events, or a quiet topic would pause for one bad record. With 5 % of bad records, far more
than shops are known to send, more than 20 of 100 come once in some ten million windows."""

TRIAL_EVENTS = 20
"""Events of a trial; also how many records of its topic may be in flight in it."""

TRIAL_DEAD = 2
"""Dead letters that every trial allows: with 1 % of bad records one trial in a thousand has more."""

LONGEST_PAUSE = 16
"""The longest pause, in multiples of the configured one."""


EXAMPLES = 3
"""Records that are named as examples of a flood."""


class DeadLetterRate:
    """Whether consumption of one input topic flows, is paused or on trial. Not thread-safe: its breaker holds a lock.

    A good event that was fetched at or after ``counts_from``, in state ``flowing`` and with none in ``dead``, changes
    nothing but ``counted``, which the breaker then raises itself.
    """

    def __init__(self, run: int | None, rate: float | None, pause_seconds: float, clock: Callable[[], float]) -> None:
        """More than ``run`` dead events in a row are a flood, and so is a share above ``rate``; None: never."""
        self._most = math.inf if run is None else run
        self._rate = math.inf if rate is None else rate
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._allowed = TRIAL_EVENTS // 2 if rate is None else max(TRIAL_DEAD, int(rate * TRIAL_EVENTS))
        self._pauses = 0
        self._until = -math.inf
        self.counts_from = -math.inf
        """When the last trial began: events that were fetched earlier, by the clock, do not count."""
        self.state: Literal["flowing", "paused", "trial"] = "flowing"
        self.why = ""
        """What made the pause begin, in words; holds nothing of any event."""
        self.counted = 0
        """Events, good and dead, since the start, or since a trial began or ended."""
        self.dead: deque[int] = deque()
        """Which of them, as numbers from 1, are dead and in the window; ``counted`` is the last event's number."""
        self._run = 0
        self._classes: deque[tuple[str, ...]] = deque()
        """The classes of the dead letters of each event in ``dead``."""
        self._places: deque[str] = deque(maxlen=EXAMPLES)
        self.classes: dict[str, int] = {}
        """At the last pause: how many dead events of the window had a dead letter of each class, most first."""
        self.examples: tuple[str, ...] = ()
        """At the last pause: the last records with a dead letter, as ``topic-partition@offset``."""

    @property
    def seconds_left(self) -> float:
        """Seconds left of the pause; 0 when there is none."""
        return max(0.0, self._until - self._clock()) if self.state == "paused" else 0.0

    def count(self, fetched_at: float, *, dead: bool, classes: tuple[str, ...] = (), place: str = "") -> bool:
        """Count an event, fetched at ``fetched_at`` (the same clock); whether the state changed.

        ``classes`` of its dead letters and ``place``, its record, tell people what a flood is made of.
        """
        if self.state == "paused" or fetched_at < self.counts_from:
            return False
        self.counted += 1
        self._run = self._run + 1 if dead else 0
        if dead:
            self.dead.append(self.counted)
            self._classes.append(classes)
            self._places.append(place)
        while self.dead and self.dead[0] <= self.counted - WINDOW_EVENTS:
            self.dead.popleft()
            self._classes.popleft()
        failed, counted = len(self.dead), min(self.counted, WINDOW_EVENTS)
        if self._run > self._most:
            return self._pause(f"{self._run} events in a row ended in dead letters")
        if self.state == "flowing":
            if counted < MIN_EVENTS or failed <= self._rate * counted:
                return False
            return self._pause(f"{failed} of the last {counted} events ended in dead letters")
        if failed > self._allowed:
            return self._pause(f"{failed} of {counted} events of the trial ended in dead letters")
        if counted - failed < TRIAL_EVENTS - self._allowed:
            return False
        self.state = "flowing"
        self._count_anew()
        return True

    def wake(self) -> bool:
        """Begin the trial when the pause is over; whether the state changed."""
        return self.state == "paused" and self._clock() >= self._until and self.resume()

    def resume(self) -> bool:
        """Begin the trial now; False, and nothing happens, when there is no pause."""
        if self.state != "paused":
            return False
        self.state = "trial"
        self.counts_from = self._clock()
        self._count_anew()
        return True

    def _pause(self, why: str) -> bool:
        now = self._clock()
        # A flood that a trial does not show, as one of 30 %, comes back soon after; its pauses must grow as well.
        again = self.state == "trial" or now - self.counts_from < LONGEST_PAUSE * self._pause_seconds
        self._pauses = self._pauses + 1 if again else 1
        self._until = now + self._pause_seconds * min(2.0 ** min(self._pauses - 1, 30), LONGEST_PAUSE)
        self.state, self.why = "paused", why
        self.classes = dict(Counter(each for classes in self._classes for each in classes).most_common())
        self.examples = tuple(self._places)
        return True

    def _count_anew(self) -> None:
        self._run = self.counted = 0
        self.dead.clear()
        self._classes.clear()
        self._places.clear()
