"""Sends few, small calls with pauses between them, so that other workers hardly feel them at the same model servers.

Pure, as ``policy``. For a shadow run; an ordinary worker does not load this.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from consumer.batching.policy import Decision, LeastTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.batching.policy import CallCost, Load
    from consumer.batching.queue import LengthQueue

SMALLEST_TOKENS: Final = 512
"""Of a call: one window of the largest size."""
LOOK_BACK: Final = 200
"""Calls of which the fastest, for its cost, is taken for one that met no other."""
CROWDED: Final = 1.5
"""A call that took so many times as long as that one, for its cost, met others at the server."""
LONGEST: Final = 30.0
"""Pauses grow to so many times what the share asks for after a call that met no other."""


def share_tokens(share: float, max_tokens: int) -> int:
    """Padded tokens of a call at most: so much of a full one, since a call of others may have to wait for all of it."""
    return min(max_tokens, max(SMALLEST_TOKENS, int(share * max_tokens)))


class Pauses:
    """How long to wait after a call. The pause after ``took`` seconds is ``took * (1 - share) / share`` at least.

    Each call that met others doubles it, up to ``LONGEST`` times what it is without others, and each one that met none
    halves it again. The live workers' own queue cannot be seen from here; that a call was slow shows it.
    """

    def __init__(self, share: float) -> None:
        """``share``: of the model servers' time, above 0 and below 1."""
        self._per_second = (1 - share) / share
        self._slowness: deque[float] = deque(maxlen=LOOK_BACK)
        self._seconds = 0.0

    def after(self, took: float, cost: float | None) -> float:
        """Seconds to wait after a call; ``cost``: what it should have taken, None for one that was not answered."""
        least = took * self._per_second
        if cost is not None:
            slowness = took / max(cost, 1e-9)
            self._slowness.append(slowness)
            # Where the servers are never idle, no call shows what it takes alone: not more than its cost, then.
            alone = min(1.0, *self._slowness) * cost
            if took > CROWDED * alone:
                self._seconds = min(LONGEST * alone * self._per_second, 2 * max(self._seconds, least))
            else:
                self._seconds /= 2
        return max(least, self._seconds)


class Sparing(LeastTime):
    """Another policy's calls, one at a time at all endpoints together, with ``Pauses`` between them."""

    def __init__(self, policy: LeastTime, share: float) -> None:
        """``policy`` allows one call in flight to each endpoint."""
        self._policy = policy
        self._pauses = Pauses(share)
        self._not_before = 0.0
        self._sent: tuple[float, float] | None = None
        """When the call under way was sent, and what it should take, in seconds."""
        super().__init__(policy.max_tokens, policy.max_in_flight, policy.cost)

    @property
    def cost(self) -> CallCost:
        """The other policy's."""
        return self._policy.cost

    @cost.setter
    def cost(self, cost: CallCost) -> None:
        self._policy.cost = cost

    def decide(self, now: float, queue: LengthQueue, endpoints: Sequence[Load]) -> Decision:
        """As LeastTime, for the endpoint that has answered nothing for longest."""
        if any(load.calls for load in endpoints):
            return Decision((), None)
        if self._sent is not None:
            sent_at, cost = self._sent
            self._sent = None
            answered_at = max((load.times.answered_at for load in endpoints), default=0.0)
            # What was withdrawn or failed says nothing about how busy the servers are.
            ended, its = (answered_at, cost) if answered_at > sent_at else (now, None)
            self._not_before = ended + self._pauses.after(ended - sent_at, its)
        if now < self._not_before:
            return Decision((), self._not_before)
        taking = [place for place, load in enumerate(endpoints) if load.takes_windows]
        chosen = min(taking, key=lambda place: endpoints[place].times.answered_at, default=None)
        alone = [load._replace(takes_windows=place == chosen) for place, load in enumerate(endpoints)]
        decision = self._policy.decide(now, queue, alone)
        for batch in decision.batches:
            self._sent = now, self.cost.seconds(len(batch.windows), batch.padded_length)
        return decision
