"""Who is next: shares of lanes, and what an event is ahead of others with."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from bench.simulator.rivals import LeastTimePolicy
from bench.simulator.server import Profile
from bench.simulator.simulate import Servers, Simulation
from bench.simulator.trace import Event
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.batching.policy import ASSUMED, Call, CallCost, CallTimes, LeastTime, Load
from consumer.batching.queue import LANE, EventShare, LengthQueue, Pending, by_lane, padded_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumer.batching.policy import Decision

FULL = 16_384
LARGE = 3_584
"""Windows of an event of 200 KB."""


def pending(number: int, length: int, lane: str, deadline: float = 0.0, enqueued: float = 0.0) -> Pending:
    return Pending(number, length, deadline, 0, enqueued, lane)


def queue_of(weights: dict[str, float], windows: Iterable[Pending]) -> LengthQueue:
    queue = LengthQueue(weights)
    for window in windows:
        queue.add(window)
    return queue


def decided(policy: LeastTime, queue: LengthQueue, now: float = 0.0) -> Decision:
    """For one idle server."""
    idle = Load([], CallTimes(policy.cost), policy.max_tokens, policy.max_in_flight)
    return policy.decide(now, queue, [idle])


@pytest.mark.parametrize("rows", [8, 20], ids=["some", "all"])
def test_the_most_urgent_are_taken_first(rows: int) -> None:
    """Of a length, whether some of its windows are taken or all; the queue knows how many are left."""
    order = random.Random(1).sample(range(20), 20)
    queue = queue_of({"live": 1.0}, (pending(n, 40, "live", deadline=float(n)) for n in order))
    queue.turn(FULL)
    assert [window.id for window in queue.take(40, rows)] == list(range(rows))
    assert len(queue) == 20 - rows == sum(count for _, count in queue.counts())


# -- lanes --------------------------------------------------------------------------------------------------------


def test_windows_of_all_lanes_share_a_call_while_one_holds_them() -> None:
    """Nobody has to wait, so there is nothing to divide; the most urgent of all is in it."""
    windows = [pending(n, 40, "live" if n % 2 else "replay", deadline=float(n)) for n in range(20)]
    (batch,) = decided(LeastTime(FULL, 1), queue_of({"live": 4.0, "replay": 1.0}, windows)).batches
    assert [window.id for window in batch.windows] == list(range(20))


def test_lanes_have_their_shares_of_the_smaller_calls_of_a_server_that_ran_out_of_memory() -> None:
    """However urgent the backlog is: a call holds less than what waits."""
    queue = queue_of({"live": 4.0, "replay": 1.0}, (pending(n, 512, "replay") for n in range(20)))
    policy, sent = LeastTime(FULL, 1), list[str]()
    for number in range(100, 110):
        queue.add(pending(number, 512, "live", deadline=9.0))
    for _ in range(10):
        (batch,) = policy.decide(0.0, queue, [Load([], CallTimes(ASSUMED), 512, 1)]).batches
        sent += [window.lane for window in batch.windows]
    assert Counter(sent) == {"live": 8, "replay": 2}


def test_lanes_share_a_call_of_the_server_that_holds_all_beside_one_that_ran_out_of_memory() -> None:
    """Whose calls are small: that is no reason for two calls where one will do."""
    windows = [pending(n, 512, "live" if n % 2 else "replay") for n in range(4)]
    queue, times = queue_of({"live": 4.0, "replay": 1.0}, windows), CallTimes(ASSUMED)
    small = Load([Call(1, 512, 0.0)], times, 512, 1)
    (batch,) = LeastTime(FULL, 1).decide(0.0, queue, [small, Load([], times, FULL, 1)]).batches
    assert len(batch.windows) == 4


def test_live_windows_leave_before_a_backlog_of_another_lane() -> None:
    """However urgent that is, and without it in their call."""
    backlog = [pending(n, 40, "replay", deadline=-1.0) for n in range(5000)]
    queue = queue_of({"live": 4.0, "replay": 1.0}, backlog)
    policy = LeastTime(FULL, 1)
    for _ in range(5):
        decided(policy, queue)
    for n in range(3):
        queue.add(pending(9000 + n, 40, "live"))
    lanes = [by_lane(decided(policy, queue).batches[0].windows, 0.0) for _ in range(2)]
    assert {"live": (3, 0.0)} in lanes


def test_a_lane_that_had_nothing_to_send_has_saved_up_nothing() -> None:
    """After a thousand calls of the other it gets its share from then on, and no more."""
    queue = queue_of({"a": 1.0, "b": 1.0}, (pending(n, 512, "a") for n in range(32 * 1000)))
    policy = LeastTime(FULL, 1)
    for _ in range(800):
        decided(policy, queue)
    for n in range(32 * 100):
        queue.add(pending(10**6 + n, 512, "b"))
    turns = Counter(decided(policy, queue).batches[0].windows[0].lane for _ in range(20))
    assert turns == {"a": 10, "b": 10}


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(1, 512)), min_size=1, max_size=60)


@pytest.mark.no_cover  # simulates for long; others run the same lines
@settings(deadline=None, max_examples=200)
@example(
    {"a": 1.0, "b": 0.5, "c": 1.0},
    [("a", 1, 1), ("a", 0, 1), ("a", 0, 1), ("a", 0, 1), ("b", 24, 256), ("c", 45, 135), ("b", 9, 128), ("b", 31, 50)],
    512,
    337,
)
@given(
    st.fixed_dictionaries({lane: st.sampled_from([0.5, 1.0, 4.0, 10.0]) for lane in "abc"}),
    steps,
    st.integers(512, 4096),
    st.integers(0, 999),
)
def test_each_lane_gets_its_share_to_within_a_call(
    weights: dict[str, float], arrivals: list[tuple[str, int, int]], max_tokens: int, seed: int
) -> None:
    """Of any two lanes, over any stretch in which both wait and a call does not hold all; and nothing is lost."""
    chance = random.Random(seed)
    queue, policy = LengthQueue(weights), LeastTime(max_tokens, 1)
    numbers, sent, waiting = itertools.count(), list[int](), Counter[str]()
    used = dict.fromkeys(weights, 0.0)
    extremes: dict[tuple[str, str], tuple[float, float]] = {}

    def look() -> None:
        for a, b in itertools.combinations(sorted(weights), 2):
            if not (waiting[a] and waiting[b]) or waiting.total() <= max_tokens:
                extremes.pop((a, b), None)
                continue
            ahead = used[a] - used[b]
            low, high = extremes.get((a, b), (math.inf, -math.inf))
            extremes[a, b] = low, high = min(low, ahead), max(high, ahead)
            assert high - low <= (max_tokens / weights[a] + max_tokens / weights[b]) * (1 + 1e-9)

    script = list(arrivals)
    while script or len(queue):
        if script:
            lane, count, longest = script.pop()
            for _ in range(count):
                length = chance.randint(1, longest)
                queue.add(pending(next(numbers), length, lane, deadline=chance.random()))
                waiting[lane] += padded_length(length)
        if not len(queue):
            continue
        look()
        is_contended = waiting.total() > max_tokens
        (batch,) = decided(policy, queue).batches
        if is_contended and sum(tokens > 0 for tokens in waiting.values()) > 1:
            assert len({window.lane for window in batch.windows}) == 1
        for window in batch.windows:
            sent.append(window.id)
            waiting[window.lane] -= padded_length(window.length)
            used[window.lane] += padded_length(window.length) / weights[window.lane]
        look()
    assert sorted(sent) == list(range(next(numbers)))


def test_rows_and_waits_are_counted_by_lane() -> None:
    """For the metrics: how many, and the longest wait."""
    windows = (pending(1, 8, "a", enqueued=3.0), pending(2, 8, "b", enqueued=4.0), pending(3, 8, "a", enqueued=1.0))
    assert by_lane(windows, 5.0) == {"a": (2, 4.0), "b": (1, 1.0)}


# -- one event ----------------------------------------------------------------------------------------------------


def served(seconds: float, events: list[Event]) -> tuple[list[float], tuple[float, ...]]:
    """Latencies of ordinary events and of the others, where a full call takes so many seconds."""
    profile = Profile("even", fixed=0.0, token=seconds / FULL, square=0.0, noise=0.0, straggler_share=0.0)
    outcome = Simulation(Servers(profile=profile), events, LeastTimePolicy(ASSUMED, 2), 1).run()
    return sorted(outcome.latencies), outcome.large_latencies


@pytest.mark.no_cover  # simulates for long; others run the same lines
@settings(deadline=None, max_examples=25)
@given(st.floats(0.02, 1.5), st.floats(0.0, 20.0), st.integers(1, 2))
def test_reviews_that_come_after_a_large_event_wait_for_less_than_two_calls_of_it(
    seconds: float, after: float, levels: int
) -> None:
    """Whenever they come while it is under way, and whatever a call takes: two hundred at once, of one level or two."""
    large = Event(0.0, ((512,) * LARGE,), ordinary=False)
    reviews = [Event(after, ((40 + n % 40,),) * levels) for n in range(200)]
    alone, _ = served(seconds, reviews)
    beside, (whole,) = served(seconds, [large, *reviews])
    assert beside[-1] - alone[-1] < 2 * seconds + 0.05
    assert whole < 1.25 * LARGE / 32 * seconds + alone[-1] + 1.5


@pytest.mark.parametrize("after", [2.5, 4.0, 6.0])
def test_reviews_that_come_after_many_large_events_wait_for_few_calls_more_than_the_first_of_each(after: float) -> None:
    """Ten at once, each with ten full calls: however many they are, what is beyond the first one waits in one line."""
    seconds = 0.2
    reviews = [Event(after, ((40 + n % 40,),) * 2) for n in range(200)]
    alone, _ = served(seconds, reviews)
    large = [Event(n / 1000, ((512,) * 320,), ordinary=False) for n in range(10)]
    beside, _ = served(seconds, [*large, *reviews])
    assert beside[-1] - alone[-1] < max(0.0, 10 * seconds - after) + 2 * seconds + 0.05


def test_a_large_event_ends_under_more_reviews_than_can_be_answered() -> None:
    """Each of its windows has a deadline for good, and those of new reviews come to lie behind it; there are always as
    many as may be in flight."""
    share, policy, queue = EventShare(2048, 1.0, 1.0), LeastTime(2048, 1), LengthQueue()
    numbers, large = itertools.count(), set[int]()
    left, sent, waiting = 400, 0, 0
    for step in range(20_000):
        now = step / 10
        while len(queue) - waiting // 512 < 400:
            queue.add(Pending(next(numbers), 512, now + 1.0, 0, now))
        while left and waiting < 3 * 2048:
            over = share.is_over(sent)
            number = next(numbers)
            large.add(number)
            deadline = share.deadline(1.0, now, waiting, 400, queue.over_share[LANE]) if over else 1.0
            queue.add(Pending(number, 512, deadline, 0, now, over_share=over))
            left, sent, waiting = left - 1, sent + 512, waiting + 512
        (batch,) = decided(policy, queue, now).batches
        answered = large.intersection(window.id for window in batch.windows)
        large -= answered
        waiting -= 512 * len(answered)
        if not large and not left:
            return
    pytest.fail(f"{left + len(large)} windows were never sent")


@pytest.mark.parametrize(("sent", "over"), [(0, False), (2047, False), (2048, True)])
def test_an_event_has_one_full_call_by_its_own_deadline(sent: int, over: bool) -> None:
    """Ordinary events never notice that there is a share."""
    assert EventShare(2048, 1.0, 1.0).is_over(sent) is over


def test_what_is_over_the_share_is_due_a_turn_later_for_each_call_that_waits() -> None:
    """From now on where the event's own deadline has passed."""
    share = EventShare(2048, objective=1.0, call=2.0)
    assert share.deadline(5.0, 0.0, 0, 400, 0) == 5.0
    assert share.deadline(5.0, 50.0, 1024, 400, 0) == 52.0
    assert share.deadline(5.0, 50.0, 1024, 400, 2048) == 53.0


@pytest.mark.parametrize(("windows", "deadline"), [(5, 6.0), (8, 6.0), (9, 52.5)])
def test_an_event_that_is_computed_within_the_objective_keeps_its_place(windows: int, deadline: float) -> None:
    """An objective later, whatever else comes; eight windows are two calls of half a second each."""
    share = EventShare(2048, objective=1.0, call=0.5)
    assert share.deadline(5.0, 50.5, 1024 + 1024, windows, 0) == deadline


def test_equally_large_events_end_one_after_the_other() -> None:
    """By turns all of them would end when the last one does."""
    found, _ = served(ASSUMED.seconds(32, 512), [Event(n / 1000, ((512,) * 140,)) for n in range(12)])
    assert found[5] < 0.65 * found[-1]
    assert found[0] < 0.35 * found[-1]


@settings(deadline=None, max_examples=25)
@given(st.floats(0.0, 2.0), st.integers(33, 145))
def test_reviews_wait_for_an_event_that_is_computed_within_the_objective_no_longer_than_that(
    after: float, windows: int
) -> None:
    """However often it is ahead of them, it has no more to do."""
    seconds = ASSUMED.seconds(32, 512)
    reviews = [Event(after, ((40 + n % 40,),) * 2) for n in range(200)]
    alone, _ = served(seconds, reviews)
    beside, _ = served(seconds, [Event(0.0, ((512,) * windows,), ordinary=False), *reviews])
    assert beside[-1] - alone[-1] < 1.0 + 0.2


def test_calls_of_an_event_over_its_share_are_small_and_wait_for_the_server() -> None:
    """Who comes until then goes first, and waits for little; full calls of others leave at once."""
    cost = CallCost(floor=0.0, fixed=0.01, per_token=1e-4, per_pair=0.0)
    policy = LeastTime(FULL, 2, cost)
    assert cost.worthwhile_tokens() == 1000 + 512
    assert replace(cost, floor=0.02).worthwhile_tokens() == 2000 + 512
    large = queue_of({"live": 1.0}, (Pending(n, 512, 9.0, 0, 0.0, over_share=True) for n in range(99)))
    waits = decided(policy, large)
    assert [(batch.reason, len(batch.windows)) for batch in waits.batches] == [("idle", 2)]
    assert waits.wake_at == pytest.approx(cost.seconds(2, 512) - policy.prepare_seconds(2))
    others = decided(policy, queue_of({"live": 1.0}, (Pending(n, 512, 9.0, 0, 0.0) for n in range(99))))
    assert [(batch.reason, len(batch.windows)) for batch in others.batches] == [("full", 32)] * 2


def test_windows_over_their_share_make_no_call_of_others_longer_and_none_leave_earlier() -> None:
    """A review that comes beside a large event leaves when the server is free, alone; then the large event goes on."""
    cost = CallCost(floor=0.0, fixed=0.01, per_token=1e-4, per_pair=0.0)
    policy, queue = LeastTime(FULL, 2, cost), LengthQueue()
    for number in range(99):
        queue.add(Pending(number, 512, 9.0, 0, 0.0, over_share=True))
    queue.add(Pending(100, 512, 5.0, 0, 0.0))
    answers = [Call(32, 512, 0.0)]
    times = CallTimes(cost)
    waits = policy.decide(0.0, queue, [Load(answers, times, FULL, 2)])
    assert not waits.batches
    assert waits.wake_at == pytest.approx(cost.seconds(32, 512) - policy.prepare_seconds(1))
    (batch,) = policy.decide(2.0, queue, [Load(answers, times, FULL, 2)]).batches
    assert [window.id for window in batch.windows] == [100]
    (batch,) = policy.decide(2.0, queue, [Load(answers, times, FULL, 2)]).batches
    assert [window.over_share for window in batch.windows] == [True, True]
    assert queue.over_share == {"live": 97 * 512}
