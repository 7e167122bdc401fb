"""Policies that batch by fixed rules, the one that the project ships, and ``LengthCut``, which it shipped before.

Each sends at most ``calls`` calls at a time, first come first served unless it says otherwise, stays within the cap on
tokens, and drops nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.simulator.simulate import MAX_TOKENS
from bench.simulator.trace import WEIGHTS

from consumer.batching import policy
from consumer.batching.policy import Batch, CallTimes, Decision, LeastTime
from consumer.batching.queue import LANE, PADDED_LENGTHS, LengthQueue, padded_length

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bench.simulator.simulate import Call

    from consumer.batching.policy import CallCost, ReleaseReason
    from consumer.batching.queue import Pending


def batch_of(windows: Sequence[Pending], reason: ReleaseReason = "idle") -> Batch:
    """One call, padded to the longest."""
    return Batch(tuple(windows), padded_length(max(window.length for window in windows)), reason)


def fitting(queue: deque[Pending], rows: int, tokens: int = MAX_TOKENS) -> int:
    """How many windows from the front share a call of at most ``rows`` rows and ``tokens`` padded tokens; one fits."""
    longest = count = 0
    for window in queue:
        longest = max(longest, window.length)
        if count == rows or (count and padded_length(longest) * (count + 1) > tokens):
            break
        count += 1
    return count


class LengthCut:
    """The project's own until November 2026: batches of similar length under a token budget.

    An idle server gets whatever waits at once. A busy one, below its limit of calls in flight, gets a batch only when
    the budget is full or the most urgent window has lingered: waiting then costs nothing, since the server is busy.
    """

    LINGER_SECONDS = 0.02
    # A batch may hold up to this share of padding. Above it a second, tighter call costs less than the padding.
    MAX_PADDING = 0.25

    def __init__(self, max_tokens: int, max_in_flight: int) -> None:
        """``max_tokens`` bounds rows x padded length of one call, ``max_in_flight`` the calls."""
        self.max_tokens = max_tokens
        self.max_in_flight = max_in_flight
        self._queue = LengthQueue()

    def add(self, window: Pending) -> None:
        """Queue it; it knows no lanes."""
        self._queue.add(replace(window, lane=LANE))

    def answered(self, call: Call, now: float) -> None:
        """Fixed rules learn nothing."""

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """Choose what to send at ``now`` beside the calls in flight."""
        batches: list[Batch] = []
        queue, in_flight = self._queue, len(calls)
        while in_flight < self.max_in_flight and (urgent := queue.most_urgent()) is not None:
            low, high, rows = self._span(queue, urgent)
            reason: ReleaseReason = "idle"
            if in_flight:
                due = urgent.enqueued + self.LINGER_SECONDS
                if (rows + 1) * high > self.max_tokens:
                    reason = "full"
                elif now >= due:
                    reason = "linger"
                else:
                    return Decision(tuple(batches), due)
            batches.append(Batch(self._cut(queue, urgent, low, high, rows), high, reason))
            in_flight += 1
        return Decision(tuple(batches), None)

    def _span(self, queue: LengthQueue, urgent: Pending) -> tuple[int, int, int]:
        """Padded lengths (lowest, highest) around the most urgent window, and the rows that fit in the budget."""
        counts = dict(queue.counts())
        at = PADDED_LENGTHS.index(padded_length(urgent.length))
        low = high = at
        rows = min(counts[PADDED_LENGTHS[at]], max(1, self.max_tokens // PADDED_LENGTHS[at]))
        useful = rows * PADDED_LENGTHS[at]
        while True:
            best: tuple[float, int, int, int, int] | None = None
            for new_low, new_high in ((low - 1, high), (low, high + 1)):
                if new_low < 0 or new_high >= len(PADDED_LENGTHS):
                    continue
                added = PADDED_LENGTHS[new_low if new_low < low else new_high]
                rows_left = self.max_tokens // PADDED_LENGTHS[new_high] - rows
                if rows_left <= 0:
                    continue
                more = min(counts.get(added, 0), rows_left)
                padding = 1 - (useful + more * added) / ((rows + more) * PADDED_LENGTHS[new_high])
                if padding <= self.MAX_PADDING and (best is None or padding < best[0]):
                    best = (padding, new_low, new_high, rows + more, useful + more * added)
            if best is None:
                # Lengths at the end of the range without a window do not count: the batch is padded to its longest row.
                while high > at and PADDED_LENGTHS[high] not in counts:
                    high -= 1
                return PADDED_LENGTHS[low], PADDED_LENGTHS[high], rows
            _, low, high, rows, useful = best

    @staticmethod
    def _cut(queue: LengthQueue, urgent: Pending, low: int, high: int, rows: int) -> tuple[Pending, ...]:
        """Take the urgent window's own length first, then its neighbours from the longest down."""
        own = padded_length(urgent.length)
        taken = queue.take(own, rows)
        for length in reversed(PADDED_LENGTHS):
            if low <= length <= high and length != own:
                taken += queue.take(length, rows - len(taken))
        return tuple(taken)


class LeastTimePolicy:
    """The project's ``LeastTime``, asked through its own ``decide`` as the dispatcher does: it knows each server."""

    def __init__(self, cost: CallCost, calls: int, servers: int = 1, max_tokens: int = MAX_TOKENS) -> None:
        """``cost`` as ``rexstream tune`` finds it, or as it is assumed without; ``calls`` are those of each server."""
        self._queue = LengthQueue(WEIGHTS)
        self._policy = LeastTime(max_tokens, calls, cost)
        self._times = [CallTimes(cost) for _ in range(servers)]
        self._lost: set[int] = set()

    def add(self, window: Pending) -> None:
        """Queue it."""
        self._queue.add(window)

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """What ``LeastTime`` says."""
        at: list[list[policy.Call]] = [[] for _ in self._times]
        for call in calls:
            at[call.batch.endpoint].append(_known(call))
        loads = [
            policy.Load(
                at[number], times, self._policy.max_tokens, self._policy.max_in_flight, number not in self._lost
            )
            for number, times in enumerate(self._times)
        ]
        return self._policy.decide(now, self._queue, loads)

    def answered(self, call: Call, now: float) -> None:
        """It learns how long calls take now."""
        self._times[call.batch.endpoint].answered(_known(call), now)

    def failed(self, call: Call) -> None:
        """Its circuit breaker opens."""
        self._lost.add(call.batch.endpoint)


def _known(call: Call) -> policy.Call:
    return policy.Call(len(call.batch.windows), call.batch.padded_length, call.sent_at)


class Fifo:
    """What the policies with one queue in order of arrival share."""

    def __init__(self, calls: int) -> None:
        """``calls`` in flight at most."""
        self._calls = calls
        self._queue: deque[Pending] = deque()

    def add(self, window: Pending) -> None:
        """Behind the others."""
        self._queue.append(window)

    def answered(self, call: Call, now: float) -> None:
        """Fixed rules learn nothing."""

    def take(self, count: int, reason: ReleaseReason = "idle") -> Batch:
        """The first windows of the queue as one call."""
        return batch_of([self._queue.popleft() for _ in range(count)], reason)


class FixedSize(Fifo):
    """So many windows, or what there is once the oldest has waited so long: Kafka consumers, TensorFlow Serving."""

    def __init__(self, rows: int, wait: float, calls: int) -> None:
        """``wait`` in seconds. With a wait of 0 it is greedy: what waits leaves as soon as a call is free."""
        super().__init__(calls)
        self._rows = rows
        self._wait = wait

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """As many as are full or due."""
        batches: list[Batch] = []
        while self._queue and len(calls) + len(batches) < self._calls:
            due = self._queue[0].enqueued + self._wait
            if len(self._queue) < self._rows and now < due:
                return Decision(tuple(batches), due)
            batches.append(self.take(fitting(self._queue, self._rows)))
        return Decision(tuple(batches), None)


class TokenBudget(Fifo):
    """As many as fit under a budget of padded tokens, when a call is free. The rule of text-embeddings-inference."""

    def __init__(self, tokens: int, calls: int) -> None:
        """``tokens``: rows x padded length."""
        super().__init__(calls)
        self._tokens = tokens

    def decide(self, now: float, calls: Collection[Call]) -> Decision:  # noqa: ARG002 - it never waits
        """Fill the calls that are free."""
        batches: list[Batch] = []
        while self._queue and len(calls) + len(batches) < self._calls:
            batches.append(self.take(fitting(self._queue, MAX_TOKENS, self._tokens)))
        return Decision(tuple(batches), None)


class LengthBuckets:
    """A queue for each range of lengths, sent when it holds enough tokens or its oldest window has waited so long.

    Apache Beam's ``bucket_boundaries`` with ``max_batch_weight`` and ``max_batch_duration``. Of several that are ready,
    the one with the oldest window goes first.
    """

    def __init__(self, boundaries: Sequence[int], tokens: int, wait: float, calls: int) -> None:
        """``boundaries`` are the longest lengths of the ranges, the last range has no end; ``wait`` in seconds."""
        self._boundaries = tuple(boundaries)
        self._buckets: list[deque[Pending]] = [deque() for _ in range(len(self._boundaries) + 1)]
        self._weights = [0] * len(self._buckets)
        self._tokens = tokens
        self._wait = wait
        self._calls = calls

    def add(self, window: Pending) -> None:
        """To the windows of its range."""
        place = bisect_left(self._boundaries, window.length)
        self._buckets[place].append(window)
        self._weights[place] += window.length

    def answered(self, call: Call, now: float) -> None:
        """Fixed rules learn nothing."""

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """Send the ranges that are full or due, the oldest first."""
        batches: list[Batch] = []
        while len(calls) + len(batches) < self._calls:
            filled = [(bucket[0].enqueued, place) for place, bucket in enumerate(self._buckets) if bucket]
            ready = [
                (at, place) for at, place in filled if self._weights[place] >= self._tokens or now >= at + self._wait
            ]
            if not ready:
                wake_at = min(filled)[0] + self._wait if filled else None
                return Decision(tuple(batches), wake_at)
            place = min(ready)[1]
            bucket = self._buckets[place]
            taken = [bucket.popleft() for _ in range(fitting(bucket, MAX_TOKENS, self._tokens))]
            self._weights[place] -= sum(window.length for window in taken)
            batches.append(batch_of(taken))
        return Decision(tuple(batches), None)


class SortedWindow:
    """Sorts the oldest windows by length and sends a run of neighbours that contains the oldest of all.

    The run grows on the side where the next length is closer, within a budget of padded tokens.
    """

    def __init__(self, tokens: int, look: int, calls: int) -> None:
        """``look``: so many of the oldest windows are considered."""
        self._tokens = tokens
        self._look = look
        self._calls = calls
        self._queue: list[Pending] = []

    def add(self, window: Pending) -> None:
        """Behind the others."""
        self._queue.append(window)

    def answered(self, call: Call, now: float) -> None:
        """Fixed rules learn nothing."""

    def decide(self, now: float, calls: Collection[Call]) -> Decision:  # noqa: ARG002 - it never waits
        """Fill the calls that are free."""
        batches: list[Batch] = []
        while self._queue and len(calls) + len(batches) < self._calls:
            batches.append(self._run())
        return Decision(tuple(batches), None)

    def _run(self) -> Batch:
        seen = self._queue[: self._look]
        order = sorted(range(len(seen)), key=lambda place: (seen[place].length, place))
        low = high = order.index(0)
        while True:
            longest = padded_length(seen[order[high]].length)
            left = right = None
            if low > 0 and (high - low + 2) * longest <= self._tokens:
                left = seen[order[low]].length - seen[order[low - 1]].length
            if high + 1 < len(order):
                longer = seen[order[high + 1]].length
                if (high - low + 2) * padded_length(longer) <= self._tokens:
                    right = longer - seen[order[high]].length
            if left is not None and (right is None or left <= right):
                low -= 1
            elif right is not None:
                high += 1
            else:
                break
        taken = set(order[low : high + 1])
        self._queue = [window for place, window in enumerate(seen) if place not in taken] + self._queue[self._look :]
        return batch_of([seen[place] for place in sorted(taken)])
