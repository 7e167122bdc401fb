"""The simulator of batching policies (``tests/bench/simulator``): its arithmetic, its rules, and what a policy sees."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from bench.simulator.contenders import CONTENDERS, cheapest, in_words, run_once, training_costs
from bench.simulator.rivals import FixedSize, LengthCut, batch_of
from bench.simulator.scenarios import SCENARIOS, TINY
from bench.simulator.server import GPU, Profile, Server, Slowdown, measured
from bench.simulator.simulate import (
    CALL_SECONDS,
    DELAY,
    EVENT_TOKENS,
    MAX_CALLS,
    MAX_TOKENS,
    ROW_SECONDS,
    Call,
    Client,
    Lost,
    PolicyError,
    Servers,
    Simulation,
)
from bench.simulator.trace import (
    REPLAY,
    Event,
    Reviews,
    arrivals,
    one_level,
    read_lengths,
    steady,
)
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.call_cost import Cell
from consumer.batching.policy import Batch, Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from bench.simulator.scenarios import Scenario

    from consumer.batching.queue import Pending

LENGTHS = read_lengths()
SECOND = Profile("a second a call", fixed=1.0, token=0.0, square=0.0, noise=0.0, straggler_share=0.0)
SHARED = replace(SECOND, sharing=True)


def ends(server: Server, arrivals: Sequence[tuple[float, float]]) -> dict[int, float]:
    """When the calls end that arrive at these times with so many seconds of work, numbered from 0."""
    waiting = list(enumerate(arrivals))
    found: dict[int, float] = {}
    while waiting or len(server):
        at = min(server.next_change(), waiting[0][1][0] if waiting else math.inf)
        found.update(dict.fromkeys(server.advance(at), at))
        while waiting and waiting[0][1][0] <= at:
            number, (_, work) = waiting.pop(0)
            server.arrive_with(at, number, work)
    return found


def server(profile: Profile, slow: Slowdown | None = None) -> Server:
    return Server(profile, random.Random(1), slow)


class Spy:
    """A policy that writes down what another one is given, and decides what that one decides."""

    def __init__(self, policy: LengthCut | FixedSize) -> None:
        self.policy = policy
        self.seen: list[tuple[float, Pending]] = []
        self.calls: list[Batch] = []
        self.most_tokens = self.tokens = 0
        self.trips: list[float] = []

    def add(self, window: Pending) -> None:
        self.tokens += window.length
        self.most_tokens = max(self.most_tokens, self.tokens)
        self.seen.append((window.enqueued, window))
        self.policy.add(window)

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        decision = self.policy.decide(now, calls)
        self.calls += decision.batches
        return decision

    def answered(self, call: Call, now: float) -> None:
        self.tokens -= sum(window.length for window in call.batch.windows)
        self.trips.append(now - call.sent_at)
        self.policy.answered(call, now)


class Wrong:
    """A policy that does with its windows what it is told to."""

    def __init__(self, decision: Callable[[float, list[Pending]], Decision]) -> None:
        self.windows: list[Pending] = []
        self.decision = decision

    def add(self, window: Pending) -> None:
        self.windows.append(window)

    def decide(self, now: float, calls: Collection[Call]) -> Decision:  # noqa: ARG002
        return self.decision(now, self.windows)

    def answered(self, call: Call, now: float) -> None:
        pass


# -- servers --------------------------------------------------------------------------------------------------------


def test_calls_of_a_fifo_server_wait_for_each_other() -> None:
    """By hand: 0 to 1; the second arrives at 0.5 and begins at 1; the third finds nobody."""
    assert ends(server(SECOND), [(0.0, 1.0), (0.5, 2.0), (4.0, 0.5)]) == pytest.approx({0: 1.0, 1: 3.0, 2: 4.5})


def test_calls_of_a_sharing_server_advance_together() -> None:
    """By hand: alone until 0.5, then each at half the speed until the first is done, then alone again."""
    assert ends(server(SHARED), [(0.0, 1.0), (0.5, 1.0)]) == pytest.approx({0: 1.5, 1: 2.0})
    assert ends(server(SHARED), [(0.0, 3.0), (0.0, 1.0), (0.0, 2.0)]) == pytest.approx({1: 3.0, 2: 5.0, 0: 6.0})


@pytest.mark.parametrize("profile", [SECOND, SHARED])
def test_a_slow_server_works_at_half_the_speed_for_that_time(profile: Profile) -> None:
    """By hand: one second of work until 1, half of one until 2, the other half by 2.5."""
    slow = Slowdown(1.0, 2.0, 2.0)
    assert ends(server(profile, slow), [(0.0, 2.0)]) == pytest.approx({0: 2.5})
    assert ends(server(profile, slow), [(1.0, 0.25), (3.0, 1.0)]) == pytest.approx({0: 1.5, 1: 4.0})


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 2)), min_size=1, max_size=12))
def test_both_kinds_of_server_are_busy_equally_long(calls: list[tuple[float, float]]) -> None:
    """Sharing changes who waits, not the work: the last call ends at the same time."""
    ordered = sorted(calls)
    fifo, shared = server(SECOND), server(SHARED)
    assert max(ends(fifo, ordered).values()) == pytest.approx(max(ends(shared, ordered).values()), abs=1e-6)
    assert fifo.busy == pytest.approx(shared.busy, abs=1e-6)
    assert fifo.busy == pytest.approx(sum(work for _, work in calls), abs=1e-6)


def test_the_time_of_a_call_is_the_formula() -> None:
    """a + b B L + c B L**2, and never below the floor."""
    profile = Profile("by hand", fixed=1.0, token=0.1, square=0.01, floor=5.0)
    assert profile.seconds(2, 10) == pytest.approx(1 + 0.1 * 20 + 0.01 * 200)
    assert profile.seconds(1, 10) == pytest.approx(5.0)


# -- one run --------------------------------------------------------------------------------------------------------


def test_a_lone_window_takes_preparation_network_and_service() -> None:
    """Nothing is counted twice and nothing left out; the policy sees the whole round trip."""
    spy = Spy(LengthCut(MAX_TOKENS, 2))
    outcome = Simulation(Servers(profile=SECOND), [Event(3.0, ((40,),))], spy, 1).run()
    expected = CALL_SECONDS + ROW_SECONDS + 2 * DELAY + 1.0
    assert outcome.latencies == pytest.approx((expected,))
    assert spy.trips == pytest.approx([expected])
    assert (outcome.windows, outcome.calls, outcome.useful_tokens, outcome.padded_tokens) == (1, 1, 40, 40)


def test_the_mean_latency_is_that_of_queueing_theory() -> None:
    """One window a call, Poisson arrivals, constant service of a second, 70 % busy: M/D/1 waits 0.7 / (2 x 0.3) s."""
    moments = arrivals(20_000, 0.7, steady, 1)
    events = [Event(at, ((40,),)) for at in moments]
    outcome = Simulation(Servers(profile=SECOND), events, FixedSize(1, 0.0, MAX_CALLS), 1).run()
    load = len(moments) / moments[-1]
    expected = 1 + load / (2 * (1 - load)) + CALL_SECONDS + ROW_SECONDS + 2 * DELAY
    assert statistics.fmean(outcome.latencies) == pytest.approx(expected, rel=0.05)


def test_windows_of_a_level_arrive_after_the_answers_of_the_one_before() -> None:
    """The deeper windows of an event are unknown before."""
    spy = Spy(FixedSize(1, 0.0, 1))
    outcome = Simulation(Servers(profile=SECOND), [Event(0.0, ((40, 40), (100, 90), (8,)))], spy, 1).run()
    assert [window.level for _, window in spy.seen] == [0, 0, 1, 1, 2]
    answered = list(itertools.accumulate(spy.trips))
    moments = [at for at, _ in spy.seen]
    assert moments == pytest.approx([0.0, 0.0, answered[1], answered[1], answered[3]])
    assert outcome.latencies == pytest.approx((answered[4],))


def test_one_event_has_a_bounded_number_of_tokens_at_the_policy() -> None:
    """As in the worker; what it sends beyond its share is less urgent than the events that come then."""
    spy = Spy(LengthCut(MAX_TOKENS, 2))
    outcome = Simulation(Servers(profile=SECOND), [Event(0.0, ((512,) * 300,))], spy, 1).run()
    assert outcome.windows == 300
    assert EVENT_TOKENS <= spy.most_tokens < EVENT_TOKENS + 512
    assert spy.seen[0][1].deadline == 1.0
    late, last = spy.seen[-1]
    assert late + 1.0 < last.deadline < late + 1.0 + EVENT_TOKENS / MAX_TOKENS


def test_nothing_of_a_large_event_waits_when_all_is_answered() -> None:
    """Also in a lane, and with a policy that knows none: what waits of its lane is behind which its windows are due."""
    simulation = Simulation(
        Servers(profile=SECOND), [Event(0.0, ((512,) * 300,), lane=REPLAY)], LengthCut(MAX_TOKENS, 2), 1
    )
    simulation.run()
    assert set(simulation._over_share.values()) == {0}


def test_calls_of_a_lost_server_are_repeated_on_the_others() -> None:
    """Its windows are handed to the policy again, and each is answered once."""
    spy = Spy(FixedSize(1, 0.0, 4))
    servers = Servers(profile=SECOND, count=2, lost=Lost(1.5, 1))
    outcome = Simulation(servers, [Event(0.0, ((40,) * 6,))], spy, 1).run()
    assert outcome.windows == 6
    assert len(spy.seen) > 6
    assert len({window.id for _, window in spy.seen}) == 6


def test_calls_of_other_clients_take_their_share_of_the_server() -> None:
    """What is left of it drains a backlog that much slower."""

    def seconds(others: float) -> float:
        servers = Servers(profile=GPU, others=others)
        return Simulation(servers, [Event(0.0, ((128,),))] * 1500, LengthCut(MAX_TOKENS, 2), 1).run().seconds

    assert seconds(0.5) / seconds(0.0) == pytest.approx(2.0, rel=0.3)


# -- every policy in every scenario -------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_policy_answers_every_window_once(scenario: Scenario) -> None:
    """Nothing is dropped, doubled or above a cap, with any setting of the quick run; the same seed gives the same."""
    servers, events = scenario.build(LENGTHS, TINY, 1, training=False)
    for contender in CONTENDERS:
        for values in contender.quick:
            outcome = run_once(contender, values, servers, events, 1)
            assert outcome.windows == sum(len(level) for event in events for level in event.levels)
            assert len(outcome.latencies) + len(outcome.large_latencies) == len(events)
            assert min(outcome.latencies + outcome.large_latencies) > 0
            assert 0 <= outcome.padding < 1
        assert outcome == run_once(contender, values, servers, events, 1)


def test_a_seed_changes_the_trace_and_training_has_traces_of_its_own() -> None:
    """What a policy was tuned on is not what it is reported on, whatever the seed."""
    scenario = SCENARIOS[0]
    traces = [
        scenario.build(LENGTHS, TINY, seed, training=training)[1] for seed in (1, 2) for training in (False, True)
    ]
    assert scenario.build(LENGTHS, TINY, 1, training=False)[1] == traces[0]
    for one, other in itertools.combinations(traces, 2):
        assert one != other


def test_training_and_report_draw_from_different_reviews() -> None:
    """Every other review is for training."""
    reviews = Reviews((10, 20, 10, 20), one_level)
    assert set(reviews.draw(50, 1, training=True)) == {((18,),)}
    assert set(reviews.draw(50, 1, training=False)) == {((28,),)}


def test_tuning_takes_the_setting_that_costs_least() -> None:
    """Small calls waste a server with a high floor."""
    (contender,) = (one for one in CONTENDERS if one.name == "greedy")
    (scenario,) = (one for one in SCENARIOS if one.name.startswith("high floor"))
    servers, events = scenario.build(LENGTHS, TINY, 1, training=True)
    costs = training_costs(contender, servers, events, 1, drain=True, full=False)
    assert len(costs) == len(contender.settings(full=False)) < len(contender.settings(full=True))
    assert contender.quick[cheapest([costs])]["rows"] in (32, 128)
    assert cheapest([[1.0, 3.0], [4.0, 2.0]]) == 0
    assert cheapest([[100.0, 110.0], [2.0, 1.0]]) == 1, "each trace counts alike"
    assert in_words({"rows": 128, "wait": 0.02}) == "rows=128 wait=0.02"


# -- policies that break the rules ----------------------------------------------------------------------------------


def too_many_tokens(_: float, waiting: list[Pending]) -> Decision:
    return Decision((Batch(tuple(waiting), 512, "full"),), None)


def too_many_calls(_: float, waiting: list[Pending]) -> Decision:
    return Decision(tuple(batch_of([one]) for one in waiting[: MAX_CALLS + 1]), None)


def the_same_twice(_: float, waiting: list[Pending]) -> Decision:
    return Decision((batch_of(waiting[:1]), batch_of(waiting[:1])), None)


def cut_off(_: float, waiting: list[Pending]) -> Decision:
    return Decision((Batch(tuple(waiting[:1]), 8, "idle"),), None)


def no_such_length(_: float, waiting: list[Pending]) -> Decision:
    return Decision((Batch(tuple(waiting[:1]), 41, "idle"),), None)


def nothing_inside(_: float, waiting: list[Pending]) -> Decision:  # noqa: ARG001
    return Decision((Batch((), 40, "idle"),), None)


def never(_: float, waiting: list[Pending]) -> Decision:  # noqa: ARG001
    return Decision((), None)


def at_once(now: float, waiting: list[Pending]) -> Decision:  # noqa: ARG001
    return Decision((), now)


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (too_many_tokens, "40 x 512 tokens, more than 16384"),
        (too_many_calls, "beside 4 in flight"),
        (the_same_twice, "window 1 was sent and does not wait"),
        (cut_off, "a window of 40 tokens in a call padded to 8"),
        (no_such_length, "a call of 1 windows padded to 41 tokens"),
        (nothing_inside, "a call of 0 windows"),
        (never, "40 windows wait and nothing is going to send them"),
        (at_once, "wants to be asked again at 0.0"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_caught(
    decision: Callable[[float, list[Pending]], Decision], message: str
) -> None:
    """No table is printed of a policy that cheats."""
    with pytest.raises(PolicyError, match=message):
        Simulation(Servers(profile=SECOND), [Event(0.0, ((40,) * 40,))], Wrong(decision), 1).run()


def test_a_measured_server_replays_the_calls_of_the_nearest_shape() -> None:
    """And takes other shapes in the proportion of the cost that was fitted to all of them."""
    profile = measured([Cell(1, 32, (0.032,)), Cell(8, 64, (0.5, 0.6)), Cell(1, 512, (0.512,))], sharing=True)
    assert profile.sharing
    assert profile.seconds(1, 32) == pytest.approx(0.032)
    assert sorted({profile.drawn(8, 64, random.Random(seed)) for seed in range(20)}) == pytest.approx([0.5, 0.6])
    assert profile.seconds(7, 64) == pytest.approx(0.55 * 7 / 8, rel=0.02)
    assert profile.seconds(1, 448) == pytest.approx(0.512 * 448 / 512, rel=0.02)


def test_a_client_has_its_own_limits_and_times() -> None:
    """Those of the worker that is simulated."""
    events = [Event(0.0, ((256,), (256,)))]
    outcome = Simulation(
        Servers(profile=SECOND), events, LengthCut(512, 2), 1, Client(delay=0.25, call_seconds=0.1)
    ).run()
    assert outcome.latencies == pytest.approx([2 * (1.6 + ROW_SECONDS)])
    both = [Event(0.0, ((256, 256),))]
    with pytest.raises(PolicyError, match="more than 300"):
        Simulation(Servers(profile=SECOND), both, LengthCut(512, 2), 1, Client(max_tokens=300)).run()
