"""Which windows share a call to the model server, when it leaves, and how long it may take.

Pure; clocks are injected. The dispatcher owns one ``LengthQueue`` and one ``LeastTime`` and calls ``LeastTime.decide``
with its endpoints whenever something happened.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from consumer.batching.queue import padded_length

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from consumer.batching.queue import LengthQueue, Pending


def full_rows(max_tokens: int, length: int) -> int:
    """Windows of a padded length that a call of at most ``max_tokens`` padded tokens holds; one in any case."""
    return max(1, max_tokens // length)


ReleaseReason = Literal["idle", "full", "free", "linger", "retry"]
"""Why a batch leaves. ``retry`` is the dispatcher's: windows of a call that failed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows to send together, padded to ``padded_length`` tokens, to the endpoint of that place in the sequence."""

    windows: tuple[Pending, ...]
    padded_length: int
    reason: ReleaseReason
    endpoint: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Batches to send now, and the clock time at which to ask again when nothing else happens (None: never)."""

    batches: tuple[Batch, ...]
    wake_at: float | None


class Call(NamedTuple):
    """A call in flight: ``rows`` windows padded to ``length`` tokens, sent at ``sent_at`` (seconds of the clock)."""

    rows: int
    length: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class CallCost:
    """The seconds of a call of B rows padded to L tokens: t(B, L) = max(f, a + b * B * L + c * B * L^2).

    ``call_cost`` fits it to measured calls. No coefficient is negative, so more work never costs less.
    """

    floor: float
    """f, in seconds: what no call is faster than, as the small calls of an accelerator show it."""
    fixed: float
    """a, in seconds: what every call costs."""
    per_token: float
    """b, in seconds a padded token: products with weights."""
    per_pair: float
    """c, in seconds a pair of padded tokens of one row: attention."""
    error: float = 0.0
    """Where it was fitted: the median of what it is off by, as a share of what was measured."""

    def seconds(self, rows: int, length: int) -> float:
        """Seconds of a call of ``rows`` windows padded to ``length`` tokens."""
        return max(self.floor, self.fixed + (self.per_token + self.per_pair * length) * rows * length)

    def worthwhile_tokens(self) -> int:
        """Padded tokens of a call of which a tenth of the time, or less, is what every call costs."""
        return int(10 * max(self.floor, self.fixed) / (self.per_token or 1e-9)) + 512


ASSUMED = CallCost(floor=0.0, fixed=0.003, per_token=8e-6, per_pair=1e-8)
"""Where nothing was measured: an accelerator. Only the proportions decide who shares a call. Here one costs as much as
375 tokens; on a CPU it may be 40, on a large accelerator a thousand."""


class CallTimes:
    """What calls cost by their shape, and how much longer they take now: other clients, or a server that is slower."""

    SHARE = 0.2
    """Of the newest call in how much longer calls take; it counts as ``MOST`` times what is expected, at most, and as a
    ``MOST``-th at least."""
    MOST = 2.0

    def __init__(self, cost: CallCost) -> None:
        self.cost = cost
        self.factor = 1.0
        self.answered_at = 0.0

    def answered(self, call: Call, now: float) -> None:
        """A call was answered at ``now``. If others were before it, it is measured from the answer before its own."""
        took = (now - max(call.sent_at, self.answered_at)) / self.cost.seconds(call.rows, call.length)
        expected = self.factor
        # A clock may show no time at all, and a factor of 0 would say nothing about the next call.
        self.factor += self.SHARE * (min(self.MOST * expected, max(expected / self.MOST, took, 1e-9)) - expected)
        self.answered_at = now

    def seconds(self, rows: int, length: int) -> float:
        """What a call is expected to take."""
        return self.factor * self.cost.seconds(rows, length)

    def free_at(self, calls: Iterable[Call], servers: int) -> float:
        """When the first of ``servers`` is expected to have nothing to do; each takes the next call when it is free."""
        free = [self.answered_at] * servers
        for call in calls:
            heapq.heapreplace(free, max(free[0], call.sent_at) + self.seconds(call.rows, call.length))
        return free[0]


SLOWER: Final = 2.0
"""An endpoint may be so many times as slow as the fastest before it gets smaller calls."""


FORGET_SECONDS: Final = 10.0
"""After so long without an answer an endpoint's slowness counts for nothing: it may be over, and a call shows it."""


class Load(NamedTuple):
    """One endpoint, as far as it matters for what is sent there."""

    calls: Collection[Call]
    """In flight there, in the order in which they were sent."""
    times: CallTimes
    max_tokens: int
    max_in_flight: int
    takes_windows: bool = True

    @property
    def servers(self) -> int:
        """How many there are behind its address: of two calls in flight for each, one is computed, one under way."""
        return max(1, self.max_in_flight // 2)

    def beside(self, fastest: float) -> Load:
        """With calls so small that they take no longer than ``SLOWER`` times a full call of the endpoint whose calls
        take ``fastest`` times their cost: who is in a call of a slow endpoint waits for all of it.
        """
        share = SLOWER * fastest / self.times.factor
        return self if share >= 1 else self._replace(max_tokens=int(share * self.max_tokens))


_Placed = tuple[int, Load, list[Call]]  # its place, and its calls with the new ones


def split(groups: Sequence[tuple[int, int]], cost: CallCost, max_tokens: int) -> list[tuple[int, int]]:
    """Divide ``groups`` of windows, (padded length, rows) in order of length, into the calls of least total time.

    Each group fits into one call by itself. Returns the first and last group of every call, from the longest down.
    Dynamic programming over where calls begin, as in Razor's Edge (2026), which does it over single windows.
    """
    best, begins = [0.0], [0]
    for end, (length, _) in enumerate(groups, 1):
        rows, least, begin = 0, math.inf, end - 1
        for first in range(end - 1, -1, -1):
            rows += groups[first][1]
            if rows * length > max_tokens and first < end - 1:
                break
            total = best[first] + cost.seconds(rows, length)
            if total < least:
                least, begin = total, first
        best.append(least)
        begins.append(begin)
    calls, end = [], len(groups)
    while end:
        calls.append((begins[end], end - 1))
        end = begins[end]
    return calls


class LeastTime:
    """Batches of least total time. Takes windows out of the queue and never drops one.

    What waits is divided, in order of length, into the calls that take a server least time altogether, the fixed cost
    of each counting half: a neighbour joins while its padding costs less than that, since padding holds up who is in
    the call, and another call only who comes after it. The call with the most urgent window leaves, for the endpoint
    that is expected to have answered it first. An idle one gets it at once; a busy one when it is expected to be free,
    or when as much waits as a call can hold: until then waiting costs nothing, since the server is busy.
    While several servers are idle, what waits is divided among them, as far as the fixed cost stays about a tenth of a
    call. Windows of events over their share have small calls of their own that never leave before a server is free, so
    that whoever comes meanwhile goes first and waits for little.
    """

    PREPARE_SECONDS, PREPARE_ROW_SECONDS = 0.005, 4e-5
    """A call leaves so much earlier than a server is expected to be free, and so much more for each of its windows: it
    takes about that long to write it and to get it there."""
    FIXED_SHARE = 0.5
    """How much of the fixed cost counts when windows are divided. With all of it p99 was 4 % higher in the simulator,
    in the mean of its scenarios, and a backlog took as long."""
    LINGER_SECONDS = 0.02
    """Where calls take less than ``PREPARE_SECONDS``, another would only be in the way: a window waits for company, but
    no longer than this."""

    def __init__(self, max_tokens: int, max_in_flight: int, cost: CallCost = ASSUMED) -> None:
        """``max_tokens`` and ``max_in_flight`` are what is configured for every endpoint; ``Load`` has those of now."""
        self.max_tokens = max_tokens
        self.max_in_flight = max_in_flight
        self.cost = cost

    def decide(self, now: float, queue: LengthQueue, endpoints: Sequence[Load]) -> Decision:
        """Choose what to send at ``now`` (seconds of the injected clock) to which of the ``endpoints``."""
        batches: list[Batch] = []
        taking = [(place, load) for place, load in enumerate(endpoints) if load.takes_windows]
        fastest = min((load.times.factor for _, load in taking), default=1.0)
        loads = [(place, load.beside(fastest), list(load.calls)) for place, load in taking]
        most = max((load.max_tokens for _, load in taking), default=0)  # a server may have lowered it
        while loads and (urgent := queue.turn(most)) is not None:
            own = padded_length(urgent.length)
            place, load, calls = loads[0] if len(loads) == 1 else self._soonest(now, own, queue, loads)
            if len(calls) >= load.max_in_flight:
                break
            counts = queue.counts()
            waiting, tokens = sum(length * count for length, count in counts), load.max_tokens
            if urgent.over_share:
                tokens = min(tokens, self.cost.worthwhile_tokens())
            elif (idle := sum(self._idle(each, fastest) for each in loads)) > 1:
                tokens = min(tokens, max(self.cost.worthwhile_tokens(), math.ceil(waiting / idle)))
            reason: ReleaseReason = "idle"
            if waiting >= load.max_tokens and not urgent.over_share:
                reason = "full"
            elif len(calls) >= (servers := load.servers):
                rows = min(sum(count for _, count in counts), full_rows(tokens, own))
                due = load.times.free_at(calls, servers) - self.prepare_seconds(rows)
                reason = "free"
                if due <= calls[-1].sent_at:
                    due, reason = max(due, urgent.enqueued + self.LINGER_SECONDS), "linger"
                if due > now:
                    return Decision(tuple(batches), due)
            batch = self._batch(queue, counts, own, reason, place, tokens)
            batches.append(batch)
            calls.append(Call(len(batch.windows), batch.padded_length, now))
        return Decision(tuple(batches), None)

    @staticmethod
    def _idle(placed: _Placed, fastest: float) -> int:
        """Servers behind an endpoint that have nothing to do; none of one that is ``SLOWER`` than the fastest."""
        _, load, calls = placed
        return max(0, load.servers - len(calls)) if load.times.factor <= SLOWER * fastest else 0

    @classmethod
    def prepare_seconds(cls, rows: int) -> float:
        """From the decision on a call of so many windows until it is at the server."""
        return cls.PREPARE_SECONDS + rows * cls.PREPARE_ROW_SECONDS

    @staticmethod
    def _soonest(now: float, own: int, queue: LengthQueue, loads: Sequence[_Placed]) -> _Placed:
        """The endpoint that is expected to answer windows of padded length ``own`` first: an idle one, if there is any.

        Beside an idle one that is much slower, a busy one is waited for if it answers sooner and its next call can take
        all that waits: else help is needed, however slow. Of equal ones it is the one that has answered nothing for
        longest. One that has answered nothing for ``FORGET_SECONDS`` is taken for as fast as the others, so that none
        is left untried.
        """
        counts = queue.counts()
        rows, waiting = dict(counts)[own], sum(length * count for length, count in counts)
        fastest = min(load.times.factor for _, load, _ in loads)

        def order(placed: _Placed) -> tuple[int, float, float]:
            _, load, calls = placed
            times = load.times
            factor = times.factor if now - times.answered_at <= FORGET_SECONDS else fastest
            seconds = factor * times.cost.seconds(min(rows, full_rows(load.max_tokens, own)), own)
            if len(calls) < load.servers:
                return int(factor > SLOWER * fastest), seconds, times.answered_at
            wait = times.free_at(calls, load.servers) - now
            is_last = wait < 0 or waiting > load.max_tokens or len(calls) >= load.max_in_flight
            # One that is overdue is expected to take as long again: it may hang.
            return 2 if is_last else 1, abs(wait) + seconds, times.answered_at

        return min(loads, key=order)

    def _batch(
        self, queue: LengthQueue, counts: list[tuple[int, int]], own: int, reason: ReleaseReason, to: int, tokens: int
    ) -> Batch:
        """The call of at most ``tokens`` that the most urgent window, of padded length ``own``, is in.

        ``counts`` are the queue's, ``to`` is the endpoint's place.
        """
        most = full_rows(tokens, own)
        if dict(counts)[own] >= most:
            return Batch(tuple(queue.take(own, most)), own, reason, to)
        # Beside full calls of its own length, what is left of each length is divided.
        groups = [(length, rows) for length, count in counts if (rows := count % full_rows(tokens, length))]
        place = next(number for number, (length, _) in enumerate(groups) if length == own)
        calls = split(groups, replace(self.cost, fixed=self.FIXED_SHARE * self.cost.fixed), tokens)
        first, last = next((first, last) for first, last in calls if first <= place <= last)
        taken = queue.take(own, groups[place][1])
        for number in range(last, first - 1, -1):
            if number != place:
                taken += queue.take(*groups[number])
        return Batch(tuple(taken), groups[last][0], reason, to)


class CallTimeout:
    """Timeout of a model call in seconds: far above what such calls take, since a server may go on computing after it.

    Five times what it is expected to take: its cost, times how many times its cost the slowest of the last 100 calls to
    any endpoint took, or of the last ``OWN`` to this one: many fast ones would make all forget a slow one. (By tokens,
    a short call, which takes long for its tokens, would let a full one hang for minutes.) Never below ``FLOOR``, so
    that a pause of the server is not taken for an outage, and ``CEILING`` before the first measurement: the first calls
    after a model was loaded are slow. Each timeout doubles the next ones, since a server that has become slow gives no
    successes to measure; each success halves them again.
    """

    FACTOR = 5.0
    FLOOR = 10.0
    CEILING = 120.0
    OWN = 20

    def __init__(self, rates: deque[float]) -> None:
        """``rates``: seconds / cost of the last calls to all endpoints: one that hangs from the beginning shows it."""
        self._rates = rates
        self._own: deque[float] = deque(maxlen=self.OWN)
        self._factor = 1.0

    def observe(self, cost: float, seconds: float) -> None:
        """Record one successful call that should have taken ``cost`` seconds."""
        self._rates.append(seconds / cost)
        self._own.append(seconds / cost)
        self._factor = max(1.0, self._factor / 2)

    def missed(self) -> None:
        """A call ran into its timeout."""
        self._factor = min(self.CEILING / self.FLOOR, self._factor * 2)

    def seconds(self, cost: float) -> float:
        """Timeout for a call that should take ``cost`` seconds."""
        if not self._rates:
            return self.CEILING
        slowest = max(*self._rates, *self._own, 0.0)
        return min(self.CEILING, self._factor * max(self.FLOOR, self.FACTOR * slowest * cost))
