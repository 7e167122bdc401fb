"""What the model server was seen to live through since it last went away. Pure, clock injected."""

from __future__ import annotations


class Exposure:
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
