"""Which of several model servers gets the next batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.batching.policy import Call, CallCost, CallTimes, Decision, LeastTime, Load
from consumer.batching.queue import LengthQueue, Pending

COST = CallCost(floor=0.0, fixed=0.1, per_token=1e-4, per_pair=0.0)
"""A call costs as much as a thousand tokens."""
POLICY = LeastTime(16_384, 2, COST)
WEIGHTS = {"live": 4.0, "replay": 1.0}


def queue_of(*lengths: int) -> LengthQueue:
    queue = LengthQueue()
    for number, length in enumerate(lengths):
        queue.add(Pending(number, length, float(number % 5), 0, 0.0))
    return queue


def times(factor: float = 1.0, answered_at: float = 0.0) -> CallTimes:
    found = CallTimes(COST)
    found.factor, found.answered_at = factor, answered_at
    return found


def load(*calls: Call, factor: float = 1.0, answered_at: float = 0.0, takes_windows: bool = True) -> Load:
    return Load(calls, times(factor, answered_at), 16_384, 2, takes_windows)


def test_an_idle_endpoint_gets_what_waits_at_once() -> None:
    """Though a busy one would be free in a moment."""
    nearly_free = load(Call(1, 40, 0.0))
    (batch,) = POLICY.decide(0.1, queue_of(40), [nearly_free, load()]).batches
    assert (batch.endpoint, batch.reason) == (1, "idle")


@pytest.mark.parametrize(
    ("fixed", "rows"),
    [
        pytest.param(0.01, [10, 10, 10], id="a call costs little: each endpoint has a third"),
        pytest.param(0.1, [20, 10], id="a call costs as much as two windows: not a tenth of a smaller call"),
    ],
)
def test_less_than_a_full_call_is_divided_among_idle_endpoints(fixed: float, rows: list[int]) -> None:
    policy = LeastTime(16_384, 2, CallCost(floor=0.0, fixed=fixed, per_token=1e-4, per_pair=0.0))
    decision = policy.decide(0.0, queue_of(*[512] * 30), [load(), load(), load()])
    assert [len(batch.windows) for batch in decision.batches] == rows
    assert len({batch.endpoint for batch in decision.batches}) == len(rows)


def test_an_endpoint_that_is_much_slower_makes_no_calls_smaller_while_it_is_idle() -> None:
    (batch,) = POLICY.decide(0.0, queue_of(*[512] * 30), [load(), load(factor=4.0)]).batches[:1]
    assert (len(batch.windows), batch.endpoint) == (30, 0)


def test_an_idle_slow_endpoint_is_left_idle_while_a_busy_fast_one_answers_sooner() -> None:
    """And helps where more waits than the fast one's next call holds, or where that one hangs or has no place."""
    fast, slow = load(Call(1, 40, 0.0)), load(factor=4.0)
    decision = POLICY.decide(0.05, queue_of(40), [fast, slow])
    assert decision.batches == ()
    assert decision.wake_at == pytest.approx(0.104 - POLICY.prepare_seconds(1))
    assert POLICY.decide(0.05, queue_of(*[400] * 41), [fast, slow]).batches[0].endpoint == 1
    assert POLICY.decide(0.2, queue_of(40), [fast, slow]).batches[0].endpoint == 1
    no_place = load(Call(1, 40, 0.0), Call(1, 40, 0.0))
    assert POLICY.decide(0.05, queue_of(40), [no_place, slow]).batches[0].endpoint == 1


def test_an_endpoint_that_was_slow_is_tried_again() -> None:
    """Nothing else would show that it is as fast as the other one by now."""
    (batch,) = POLICY.decide(20.0, queue_of(40), [load(answered_at=19.0), load(factor=4.0, answered_at=9.0)]).batches
    assert batch.endpoint == 1


def test_of_idle_endpoints_the_faster_one_is_taken_and_of_equal_ones_the_one_that_rested() -> None:
    """So that none is left untried, and a slow one is used when the others are busy."""
    (batch,) = POLICY.decide(
        9.0, queue_of(40), [load(factor=2.0), load(answered_at=8.0), load(answered_at=7.0)]
    ).batches
    assert batch.endpoint == 2
    (batch,) = POLICY.decide(9.0, queue_of(40), [load(factor=2.0), load(answered_at=8.0)]).batches
    assert batch.endpoint == 1


def test_of_busy_endpoints_the_one_that_will_have_answered_first_is_waited_for() -> None:
    """It is free at 0.5 and slow: what it begins then ends later than what the other one begins at 0.6."""
    slow, fast = load(Call(1, 100, 0.06), factor=4.0), load(Call(10, 400, 0.1))
    decision = POLICY.decide(0.1, queue_of(400, 400), [slow, fast])
    assert decision.batches == ()
    assert decision.wake_at == pytest.approx(0.1 + 0.5 - POLICY.prepare_seconds(2))


def test_of_a_backlog_only_the_next_call_counts() -> None:
    """The slower one begins at 0.2 and takes 2.5 s for a full call, the other one begins at 1.7 and takes 1.7 s."""
    slower, faster = load(Call(1, 40, 0.0), factor=1.5), load(Call(39, 416, 0.0))
    (batch, *_) = POLICY.decide(0.0, queue_of(*[400] * 99), [faster, slower]).batches
    assert (batch.endpoint, len(batch.windows)) == (1, 39)


def test_an_endpoint_that_hangs_is_not_taken_for_one_that_is_about_to_be_free() -> None:
    """Its call is overdue for longer than another one needs."""
    hangs, works = load(Call(1, 100, 0.0)), load(Call(10, 100, 19.9), Call(10, 100, 19.9), answered_at=19.9)
    full = queue_of(*[400] * 60)
    assert POLICY.decide(20.0, full, [hangs, works]) == Decision((), None), "the answer of the other one is waited for"
    (batch,) = POLICY.decide(20.0, full, [hangs, load(Call(10, 100, 19.9), answered_at=19.9)]).batches
    assert batch.endpoint == 1


def test_an_endpoint_that_is_much_slower_gets_calls_that_are_over_as_soon() -> None:
    """As twice a full call of the fastest: who is in one waits for all of it. A little slower changes nothing."""
    busy = load(Call(1, 40, 0.0))
    for factor, rows in ((2.0, 39), (20.0, 3), (1e6, 1)):
        (batch, *_) = POLICY.decide(0.0, queue_of(*[400] * 99), [busy, load(factor=factor)]).batches
        assert (batch.endpoint, len(batch.windows)) == (1, rows)
    (batch, *_) = POLICY.decide(0.0, queue_of(*[400] * 99), [load(factor=20.0)]).batches
    assert len(batch.windows) == 39, "alone it is the fastest"


def test_without_an_endpoint_that_takes_windows_they_wait() -> None:
    """For as long as that takes: nothing wakes the policy but a change."""
    queue = queue_of(40)
    assert POLICY.decide(0.0, queue, [load(takes_windows=False)]) == Decision((), None)
    assert POLICY.decide(0.0, queue, []) == Decision((), None)
    assert len(queue) == 1


@dataclass
class World:
    """Endpoints that answer in order, each at its own speed, or never take windows."""

    tokens: list[int]
    most: list[int]
    takes: list[bool]
    factors: list[float]
    cost: CallCost
    now: float = 0.0
    calls: list[list[Call]] = field(default_factory=list)
    known: list[CallTimes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = [[] for _ in self.tokens]
        self.known = [CallTimes(self.cost) for _ in self.tokens]

    def loads(self) -> list[Load]:
        return [Load(*each) for each in zip(self.calls, self.known, self.tokens, self.most, self.takes, strict=True)]

    def answer_first(self) -> float:
        """The call that ends first ends; when."""
        ends = [
            (self.known[n].answered_at + self.factors[n] * self.cost.seconds(calls[0].rows, calls[0].length), n)
            for n, calls in enumerate(self.calls)
            if calls
        ]
        _, number = min(ends)
        return self.end(number)

    def end(self, number: int) -> float:
        call = self.calls[number].pop(0)
        self.now = max(self.now, call.sent_at) + self.factors[number] * self.cost.seconds(call.rows, call.length)
        self.known[number].answered(call, self.now)
        return self.now


worlds = st.integers(1, 4).flatmap(
    lambda count: st.builds(
        World,
        tokens=st.lists(st.integers(512, 8192), min_size=count, max_size=count),
        most=st.lists(st.integers(1, 5), min_size=count, max_size=count),
        takes=st.lists(st.booleans(), min_size=count, max_size=count),
        factors=st.lists(st.sampled_from([0.3, 1.0, 3.0]), min_size=count, max_size=count),
        cost=st.sampled_from([COST, CallCost(0.05, 1e-3, 1e-6, 1e-7), CallCost(0.0, 1e-5, 1e-8, 0.0)]),
    )
)


@settings(deadline=None, max_examples=200)
@given(
    worlds,
    st.lists(st.tuples(st.integers(1, 512), st.sampled_from(sorted(WEIGHTS)), st.booleans()), min_size=1, max_size=120),
)
def test_every_window_is_sent_once_inside_the_caps_of_an_endpoint_that_takes_windows(
    world: World, windows: list[tuple[int, str, bool]]
) -> None:
    """Terminates, drops nothing, starves nothing, leaves no endpoint idle, and decides alike in a like situation."""
    queue, twin = LengthQueue(WEIGHTS), LengthQueue(WEIGHTS)
    for number, (length, lane, over_share) in enumerate(windows):
        window = Pending(number, length, float(number % 5), 0, 0.0, lane, over_share)
        queue.add(window)
        twin.add(window)
    seen: list[int] = []
    most = max((tokens for tokens, takes in zip(world.tokens, world.takes, strict=True) if takes), default=0)
    for _ in range(10 * len(windows) + 10):
        waiting, urgent = len(queue), queue.turn(most)
        decision = policy_of(world).decide(world.now, queue, world.loads())
        assert decision == policy_of(world).decide(world.now, twin, world.loads())
        assert waiting == len(queue) + sum(len(batch.windows) for batch in decision.batches)
        if decision.batches and urgent is not None:
            assert urgent.id in {window.id for window in decision.batches[0].windows}
        for batch in decision.batches:
            number, rows = batch.endpoint, len(batch.windows)
            assert world.takes[number]
            assert rows == 1 or rows * batch.padded_length <= world.tokens[number]
            assert len({window.over_share for window in batch.windows}) == 1
            world.calls[number].append(Call(rows, batch.padded_length, world.now))
            assert len(world.calls[number]) <= world.most[number]
            seen += [window.id for window in batch.windows]
        if len(queue):
            idle = [n for n, calls in enumerate(world.calls) if world.takes[n] and not calls]
            fits = sum(length * count for length, count in queue.counts()) <= max(world.tokens)
            sooner = decision.wake_at is not None and fits and any(world.calls)
            assert not idle or sooner, "one is left idle only if what waits fits in the next call of another"
        if decision.wake_at is not None:
            assert decision.wake_at > world.now
            world.now = decision.wake_at
        elif any(world.calls):
            world.answer_first()
        else:
            break
    assert sorted(seen) == (list(range(len(windows))) if any(world.takes) else [])
    assert not any(world.takes) or queue.over_share == dict.fromkeys(WEIGHTS, 0)


def policy_of(world: World) -> LeastTime:
    return LeastTime(max(world.tokens), max(world.most), world.cost)
