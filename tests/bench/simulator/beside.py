"""A live worker and a shadow run that share a model server, in simulated time.

Both have the worker's own policies; the server computes what is in flight side by side (processor sharing), as
TensorFlow does on a CPU. Windows, levels and arrivals are those of ``trace``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.simulator.trace import arrivals, read_lengths, steady, two_levels

from consumer.batching.policy import Call, CallCost, CallTimes, LeastTime, Load, full_rows
from consumer.batching.queue import LengthQueue, Pending, padded_length
from consumer.batching.sparing import Sparing, share_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.simulator.trace import Levels

    from consumer.batching.policy import Batch

NOISE: Final = 0.05
"""Of what calls take: the deviation of its logarithm."""
ROUND_TRIP: Final = 0.001
SHADOW_EVENTS: Final = 32
"""In flight, as ``consumer.config.shadow`` bounds them."""
TEXTS: Final = 400
DUE: Final = 1.0


class Beside(NamedTuple):
    """One run: the live events' latencies in order of size, in seconds, and the shadow's events a second."""

    latencies: list[float]
    shadow_rate: float


@dataclass(eq=False)
class _Event:
    levels: Levels
    at: float
    level: int = 0
    left: int = 0


@dataclass(eq=False)
class _InFlight:
    batch: Batch
    call: Call
    work: float
    """Seconds of a server that does nothing else."""


class _Client:
    """A worker: its queue, its policy and its calls."""

    def __init__(self, policy: LeastTime, most: int, on_done: Callable[[_Client, _Event, float], None]) -> None:
        self.policy, self.most, self.on_done = policy, most, on_done
        self.queue = LengthQueue()
        self.times = CallTimes(policy.cost)
        self.calls: list[_InFlight] = []
        self.waiting: dict[int, _Event] = {}
        self._last = 0

    def add(self, event: _Event, now: float) -> None:
        """The windows of its level."""
        event.left = len(event.levels[event.level])
        for length in event.levels[event.level]:
            self._last += 1
            self.waiting[self._last] = event
            self.queue.add(Pending(self._last, length, event.at + DUE, event.level, now))

    def send(self, now: float, rng: random.Random) -> float | None:
        """What may leave; when to ask again."""
        load = Load([each.call for each in self.calls], self.times, self.policy.max_tokens, self.most)
        decision = self.policy.decide(now, self.queue, [load])
        for batch in decision.batches:
            call = Call(len(batch.windows), batch.padded_length, now)
            work = self.times.cost.seconds(call.rows, call.length) * rng.lognormvariate(0, NOISE) + ROUND_TRIP
            self.calls.append(_InFlight(batch, call, work))
        return decision.wake_at

    def answered(self, one: _InFlight, now: float) -> None:
        """Its windows, and so perhaps their events."""
        self.calls.remove(one)
        self.times.answered(one.call, now)
        for window in one.batch.windows:
            event = self.waiting.pop(window.id)
            event.left -= 1
            if not event.left:
                event.level += 1
                if event.level < len(event.levels):
                    self.add(event, now)
                else:
                    self.on_done(self, event, now)


def packed_rate(texts: Sequence[Levels], cost: CallCost, max_tokens: int) -> float:
    """Events a second in full calls, each of one length."""
    lengths = [padded_length(length) for text in texts for level in text for length in level]
    rows = {length: full_rows(max_tokens, length) for length in set(lengths)}
    return len(texts) / sum(cost.seconds(rows[length], length) / rows[length] for length in lengths)


def beside(load: float, share: float | None, seed: int, seconds: float, cost: CallCost, max_tokens: int) -> Beside:
    """Live events at a share of ``packed_rate`` for ``seconds``; a shadow run with that ``share``, None for none."""
    rng, lengths = random.Random(seed), read_lengths()
    texts = [two_levels(rng.choice(lengths), rng) for _ in range(TEXTS)]
    rate = load * packed_rate(texts, cost, max_tokens)
    moments = arrivals(round(rate * seconds), rate, steady, seed)
    latencies: list[float] = []
    shadowed = 0

    def again(client: _Client, _: _Event | None, now: float) -> None:
        nonlocal shadowed
        shadowed += 1
        client.add(_Event(rng.choice(texts), now), now)

    live = _Client(LeastTime(max_tokens, 2, cost), 2, lambda _, event, now: latencies.append(now - event.at))
    clients = [live]
    if share is not None:
        policy = LeastTime(share_tokens(share, max_tokens), 1, cost)
        clients.append(_Client(policy if share == 1 else Sparing(policy, share), 1, again))
        for _ in range(SHADOW_EVENTS):
            again(clients[1], None, 0.0)
    now, number = 0.0, 0
    while len(latencies) < len(moments):
        wakes = [client.send(now, rng) for client in clients]
        calls = [(client, one) for client in clients for one in client.calls]
        times = [max(wake, now + 1e-6) for wake in wakes if wake is not None]
        times += moments[number : number + 1]
        times += [now + min(one.work for _, one in calls) * len(calls)] if calls else []
        before, now = now, min(times)
        for client, one in calls:
            one.work -= (now - before) / len(calls)
            if one.work <= 1e-9:
                client.answered(one, now)
        while number < len(moments) and moments[number] <= now:
            live.add(_Event(texts[number % TEXTS], moments[number]), moments[number])
            number += 1
    return Beside(sorted(latencies), (shadowed - SHADOW_EVENTS) / now if shadowed else 0.0)
