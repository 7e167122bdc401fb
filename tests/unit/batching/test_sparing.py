"""Few small calls with pauses, beside workers that use the same model servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.policy import Call, CallCost, CallTimes, LeastTime, Load
from consumer.batching.queue import LengthQueue, Pending
from consumer.batching.sparing import LONGEST, Pauses, Sparing, share_tokens

COST = CallCost(floor=0.1, fixed=0.0, per_token=0.0, per_pair=0.0)
"""A tenth of a second, whatever is in a call."""

shares = st.floats(0.01, 0.99)
seconds = st.floats(0.001, 10.0)


class Server:
    """What a dispatcher would tell the policy of some endpoints that answer when they are told to."""

    def __init__(self, policy: LeastTime, endpoints: int = 1, windows: int = 60) -> None:
        self.policy = policy
        self.queue = LengthQueue()
        for number in range(windows):
            self.queue.add(Pending(number, 100, 0.0, 0, 0.0))
        self.times = [CallTimes(COST) for _ in range(endpoints)]
        self.calls: list[list[Call]] = [[] for _ in range(endpoints)]

    def decide(self, now: float) -> float | None:
        loads = [Load(calls, times, 100, 1) for calls, times in zip(self.calls, self.times, strict=True)]
        decision = self.policy.decide(now, self.queue, loads)
        for batch in decision.batches:
            self.calls[batch.endpoint].append(Call(len(batch.windows), batch.padded_length, now))
        return decision.wake_at

    def answer(self, now: float) -> int:
        """Of the endpoint that has a call; its place."""
        (place,) = (number for number, calls in enumerate(self.calls) if calls)
        self.times[place].answered(self.calls[place].pop(), now)
        return place


def sparing(share: float = 0.1) -> Sparing:
    return Sparing(LeastTime(100, 1, COST), share)


@given(shares, st.integers(1, 3), st.lists(seconds, min_size=1, max_size=50))
def test_it_has_one_call_and_never_more_than_its_share_of_the_time(
    share: float, endpoints: int, took: list[float]
) -> None:
    """At all endpoints together, however long each call takes; and it goes on in bounded time."""
    server, now = Server(sparing(share), endpoints), 1.0
    for each in took:
        began = now
        assert server.decide(now) is None
        assert sum(map(len, server.calls)) == 1
        assert server.decide(now + each / 2) is None
        assert sum(map(len, server.calls)) == 1
        now += each
        server.answer(now)
        wake_at = server.decide(now)
        assert wake_at is not None
        assert sum(map(len, server.calls)) == 0
        assert each <= share * (wake_at - began) * (1 + 1e-6)
        assert wake_at - now <= max(each, LONGEST * 0.1) * (1 - share) / share * (1 + 1e-6)
        now = wake_at


def test_calls_that_meet_others_make_pauses_longer_and_others_shorter_again() -> None:
    """To a bound: live workers that are never idle must not stop a run for good."""
    pauses = Pauses(0.1)
    assert pauses.after(0.1, 0.1) == pytest.approx(0.9)
    grown = [pauses.after(0.2, 0.1) for _ in range(6)]
    assert grown == pytest.approx([3.6, 7.2, 14.4, 27.0, 27.0, 27.0])
    shrunk = [pauses.after(0.1, 0.1) for _ in range(6)]
    assert shrunk == pytest.approx([13.5, 6.75, 3.375, 1.6875, 0.9, 0.9])


def test_calls_that_are_faster_than_their_cost_show_what_a_call_takes_alone() -> None:
    """A cost that was measured beside live workers is too high, and one that was not measured is an accelerator's."""
    pauses = Pauses(0.5)
    assert pauses.after(0.1, 1.0) == pytest.approx(0.1)
    assert pauses.after(0.2, 1.0) == pytest.approx(0.4)
    assert pauses.after(0.4, 1.0) == pytest.approx(0.8)
    assert [pauses.after(0.4, 1.0) for _ in range(3)][-1] == pytest.approx(LONGEST * 0.1)


def test_a_call_that_failed_or_was_withdrawn_says_nothing_about_others() -> None:
    """It took a second for a tenth: a server that is away is not busy. The share is kept."""
    server = Server(sparing(0.5))
    server.decide(1.0)
    server.calls = [[]]
    assert server.decide(2.0) == pytest.approx(3.0)
    server.decide(3.0)
    server.answer(3.1)
    assert server.decide(3.1) == pytest.approx(3.2)


def test_endpoints_take_turns() -> None:
    """One that is slower than others gets its calls, too: each has workers of its own to spare."""
    server, now, found = Server(sparing(0.5), endpoints=3), 1.0, []
    for _ in range(6):
        server.decide(now)
        found.append(server.answer(now + 0.1))
        now = server.decide(now + 0.1) or now
    assert found == [0, 1, 2, 0, 1, 2]


def test_what_the_dispatcher_measures_reaches_the_policy_that_others_read() -> None:
    """A worker's shares of events follow the cost of the policy that it made itself."""
    policy = LeastTime(100, 1, COST)
    measured = CallCost(floor=0.0, fixed=1.0, per_token=0.0, per_pair=0.0)
    Sparing(policy, 0.1).cost = measured
    assert policy.cost is measured


@pytest.mark.parametrize(("share", "most", "tokens"), [(0.1, 16_384, 1638), (0.1, 4096, 512), (1.0, 4096, 4096)])
def test_a_call_is_a_share_of_a_full_one(share: float, most: int, tokens: int) -> None:
    """At least a window of the largest size, which is what the configuration allows."""
    assert share_tokens(share, most) == tokens
