"""The batching policy, with plain numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.batching.policy import Call, CallCost, CallTimes, LeastTime, Load, split
from consumer.batching.queue import PADDED_LENGTHS, LengthQueue, Pending, padded_length

if TYPE_CHECKING:
    from collections.abc import Iterator

lengths = st.integers(1, 512)


def queue_of(*windows: Pending) -> LengthQueue:
    queue = LengthQueue()
    for window in windows:
        queue.add(window)
    return queue


def pending(id: int, length: int, deadline: float = 0.0, level: int = 0, enqueued: float = 0.0) -> Pending:  # noqa: A002
    return Pending(id, length, deadline, level, enqueued)


def call(rows: int, length: int, sent_at: float) -> Call:
    return Call(rows, length, sent_at)


def one(*calls: Call, tokens: int = 16_384, most: int = 2, times: CallTimes | None = None) -> list[Load]:
    """One endpoint with these calls in flight."""
    return [Load(calls, times or CallTimes(SLOW), tokens, most)]


SLOW = CallCost(floor=0.0, fixed=0.1, per_token=1e-4, per_pair=0.0)
"""A call costs as much as a thousand tokens."""
FAST = CallCost(floor=0.0, fixed=1e-4, per_token=1e-7, per_pair=0.0)
"""Calls are over before the next one could be there."""


def test_an_idle_server_gets_a_lone_window_at_once() -> None:
    """Nothing is gained by waiting when the server has nothing to do."""
    decision = LeastTime(16_384, 2).decide(0.0, queue_of(pending(1, 40)), one())
    (batch,) = decision.batches
    assert [w.id for w in batch.windows] == [1]
    assert batch.padded_length == 40
    assert batch.reason == "idle"


def test_a_busy_server_gets_the_next_call_shortly_before_it_is_free() -> None:
    """Until then the call can grow; it is on its way when the one before it ends."""
    policy = LeastTime(16_384, 2, SLOW)
    queue = queue_of(pending(1, 40, enqueued=5.0))
    in_flight = one(call(10, 100, 5.0))
    early = policy.decide(5.0, queue, in_flight)
    assert early.batches == ()
    assert early.wake_at == pytest.approx(5.2 - policy.prepare_seconds(1))
    assert early.wake_at is not None
    (batch,) = policy.decide(early.wake_at, queue, in_flight).batches
    assert batch.reason == "free"


def test_a_call_of_many_windows_leaves_earlier() -> None:
    """Writing a thousand takes as long as a server may take for them, and it would wait meanwhile."""
    policy = LeastTime(16_384, 2, SLOW)
    for waiting, rows in ((500, 500), (900, 900)):
        queue = queue_of(*(pending(number, 16) for number in range(waiting)))
        wake_at = policy.decide(0.0, queue, one(call(10, 1600, 0.0))).wake_at
        assert wake_at == pytest.approx(SLOW.seconds(10, 1600) - 0.005 - rows * 4e-5)


def test_when_the_server_is_free_follows_how_long_calls_take_now() -> None:
    """A server that other clients use as well needs longer than its cost says."""
    policy, times = LeastTime(16_384, 2, SLOW), CallTimes(SLOW)
    now = 0.0
    for _ in range(50):
        times.answered(call(10, 100, now), now + 0.6)
        now += 0.6
    endpoint = one(call(10, 100, now), times=times)
    wake_at = policy.decide(now, queue_of(pending(1, 40, enqueued=now)), endpoint).wake_at
    assert wake_at == pytest.approx(now + 0.6 - policy.prepare_seconds(1), abs=1e-3)


def test_a_call_that_waited_behind_another_is_measured_from_that_ones_answer() -> None:
    """Else a queue at the server would look like a slow server."""
    times = CallTimes(SLOW)
    times.answered(call(10, 100, 0.0), 0.2)
    times.answered(call(10, 100, 0.0), 0.4)
    assert times.factor == pytest.approx(1.0)


@pytest.mark.parametrize(("took", "factor"), [(1000.0, 1.2), (0.0, 0.9)])
def test_one_call_that_took_very_long_or_no_time_does_not_make_all_look_so(took: float, factor: float) -> None:
    """It counts as twice what was expected, or as half."""
    times = CallTimes(SLOW)
    times.answered(call(10, 100, 0.0), took)
    assert times.factor == pytest.approx(factor)


@pytest.mark.parametrize("slower", [1e-3, 20.0, 100.0])
def test_calls_that_all_take_very_long_are_expected_to(slower: float) -> None:
    """However far from the cost, within some tens of calls."""
    times = CallTimes(SLOW)
    for number in range(100):
        times.answered(call(10, 100, 0.2 * slower * number), 0.2 * slower * (number + 1))
    assert times.factor == pytest.approx(slower, rel=0.01)


def test_calls_that_take_no_time_by_the_clock_leave_a_factor() -> None:
    """It is divided by."""
    times = CallTimes(SLOW)
    for _ in range(10_000):
        times.answered(call(10, 100, 0.0), 0.0)
    assert times.factor > 0


def test_beside_short_calls_a_window_waits_for_company_and_then_lingers_no_longer() -> None:
    """A second call would only be in the way of the first one's answer."""
    policy = LeastTime(16_384, 2, FAST)
    queue = queue_of(pending(1, 40, enqueued=5.0))
    in_flight = one(call(10, 100, 5.0), times=CallTimes(FAST))
    early = policy.decide(5.0, queue, in_flight)
    assert early.batches == ()
    assert early.wake_at == 5.0 + policy.LINGER_SECONDS
    (batch,) = policy.decide(early.wake_at, queue, in_flight).batches
    assert batch.reason == "linger"


def test_as_many_servers_as_calls_in_flight_allow_are_used_at_once() -> None:
    """Two calls in flight for each: six of them are three servers, and none waits for another."""
    policy = LeastTime(16_384, 6, SLOW)
    queue = queue_of(pending(1, 40))
    in_flight: list[Call] = []
    for number in range(3):
        (batch,) = policy.decide(float(number) / 100, queue, one(*in_flight, most=6)).batches
        assert batch.reason == "idle"
        in_flight.append(call(10, 100, number / 100))
        queue.add(pending(number + 2, 40))
    decision = policy.decide(0.03, queue, one(*in_flight, most=6))
    assert decision.batches == ()
    assert decision.wake_at == pytest.approx(0.2 - policy.prepare_seconds(1))


def test_a_busy_server_gets_a_full_batch_at_once() -> None:
    """A batch that cannot grow has nothing to wait for."""
    queue = queue_of(*(pending(i, 512) for i in range(5)))
    (batch,) = LeastTime(1024, 2, SLOW).decide(0.0, queue, one(call(2, 512, 0.0), tokens=1024)).batches
    assert batch.reason == "full"
    assert len(batch.windows) == 2


def test_nothing_is_sent_above_the_limit_of_calls_in_flight() -> None:
    """A server at its limit waits for an answer, not for the clock."""
    queue = queue_of(*(pending(i, 100) for i in range(50)))
    decision = LeastTime(512, 2).decide(0.0, queue, one(*[call(5, 100, 0.0)] * 2, tokens=512))
    assert decision.batches == ()
    assert decision.wake_at is None
    assert len(queue) == 50


def test_the_most_urgent_window_is_always_in_the_next_batch() -> None:
    """A long window that is due is not starved by many short ones."""
    queue = queue_of(*(pending(i, 24, deadline=9.0) for i in range(500)), pending(999, 500, deadline=1.0))
    (batch,) = LeastTime(16_384, 1).decide(0.0, queue, one(most=1)).batches
    assert 999 in {w.id for w in batch.windows}
    assert batch.padded_length == 512
    assert len(batch.windows) == 1, "short windows would be nearly all padding beside it"


@pytest.mark.parametrize(("fixed", "rows"), [(0.11, 16), (0.09, 8)])
def test_a_neighbour_joins_while_its_padding_costs_less_than_half_a_call(fixed: float, rows: int) -> None:
    """Eight windows of 40 tokens beside eight of 104: 512 tokens of padding, or half of 1,100 or 900."""
    windows = [pending(i, 40 if i < 8 else 104) for i in range(16)]
    (batch,) = LeastTime(16_384, 1, replace(SLOW, fixed=fixed)).decide(0.0, queue_of(*windows), one(most=1)).batches
    assert len(batch.windows) == rows


def test_what_full_calls_of_a_length_leave_over_joins_others() -> None:
    """Eleven windows of 48 tokens are a full call of ten, and one that may join the urgent one of 40."""
    windows = [pending(0, 40, deadline=-1.0), *(pending(i, 48) for i in range(1, 12))]
    first, second = LeastTime(480, 2, SLOW).decide(0.0, queue_of(*windows), one(tokens=480)).batches
    assert [len(batch.windows) for batch in (first, second)] == [2, 10]
    assert (first.windows[0].id, first.padded_length) == (0, 48)


def test_started_events_come_before_new_ones_of_the_same_deadline() -> None:
    """A deeper level wins a tie, so that work in progress is finished first."""
    queue = queue_of(pending(1, 512, level=0), pending(2, 512, level=1))
    (batch,) = LeastTime(512, 1).decide(0.0, queue, one(tokens=512, most=1)).batches
    assert [w.id for w in batch.windows] == [2]


costs = st.builds(
    CallCost,
    floor=st.sampled_from([0.0, 0.05]),
    fixed=st.sampled_from([0.0, 1e-3, 0.1]),
    per_token=st.sampled_from([1e-6, 1e-4]),
    per_pair=st.sampled_from([0.0, 1e-7]),
)


@settings(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=200), st.integers(512, 8192), st.integers(1, 3), costs)
def test_every_window_is_sent_once_inside_the_budget(
    all_lengths: list[int], max_tokens: int, max_in_flight: int, cost: CallCost
) -> None:
    """Whatever waits: no window is lost or doubled, no batch is over the budget, and none is too short for a row."""
    policy = LeastTime(max_tokens, max_in_flight, cost)
    queue = queue_of(*(pending(i, n, deadline=float(i % 7)) for i, n in enumerate(all_lengths)))
    seen: list[int] = []
    now = 0.0
    while len(queue):
        urgent = queue.most_urgent()
        assert urgent is not None
        decision = policy.decide(now, queue, one(tokens=max_tokens, most=max_in_flight, times=CallTimes(cost)))
        assert decision.batches, "an idle server and a waiting window always make a batch"
        assert urgent.id in {w.id for w in decision.batches[0].windows}
        for batch in decision.batches:
            assert len(batch.windows) * batch.padded_length <= max_tokens
            assert batch.padded_length == padded_length(max(w.length for w in batch.windows))
            seen += [w.id for w in batch.windows]
        now += 1.0
    assert sorted(seen) == list(range(len(all_lengths)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PADDED_LENGTHS), st.integers(1, 8)), min_size=1, max_size=7), costs)
def test_no_other_division_takes_less_time(found: list[tuple[int, int]], cost: CallCost) -> None:
    """Compared with all divisions into neighbours."""
    groups = sorted(dict(found).items())
    most = 4096

    def total(calls: list[tuple[int, int]]) -> float:
        return sum(cost.seconds(sum(rows for _, rows in groups[a : b + 1]), groups[b][0]) for a, b in calls)

    def divisions(begin: int) -> Iterator[list[tuple[int, int]]]:
        if begin == len(groups):
            yield []
        for end in range(begin, len(groups)):
            if end == begin or sum(rows for _, rows in groups[begin : end + 1]) * groups[end][0] <= most:
                yield from ([(begin, end), *rest] for rest in divisions(end + 1))

    calls = split(groups, cost, most)
    assert sorted(number for a, b in calls for number in range(a, b + 1)) == list(range(len(groups)))
    assert total(calls) == pytest.approx(min(map(total, divisions(0))))


@settings(deadline=None)
@given(lengths)
def test_a_padded_length_fits_and_wastes_little(length: int) -> None:
    """Rounding up costs fewer than 8 tokens up to 128 and fewer than 32 above, never more than 512 in all."""
    padded = padded_length(length)
    assert length <= padded <= 512
    assert padded - length < (8 if length <= 128 else 32)
    assert padded in PADDED_LENGTHS
