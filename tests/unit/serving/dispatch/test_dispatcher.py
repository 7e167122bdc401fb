"""The dispatcher against a model client that fails as it is told to."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from dispatcher_harness import (
    BATCH_FAULT,
    KNOWN_GOOD,
    UNAVAILABLE,
    WRONG_SIGNATURE,
    StubClient,
    all_answers,
    assert_answered,
    run,
    window,
)

from consumer.batching.policy import CallCost, CallTimeout
from consumer.resilience.call_limits import CallLimits
from consumer.resilience.crash_evidence import ServerUptime
from consumer.resilience.lone_failures import UNUSABLE_ATTEMPTS
from consumer.serving.dispatch.dispatcher import Dispatcher, State, WindowAnswer
from consumer.serving.dispatch.poison_isolation import PoisonIsolation
from consumer.serving.dispatch.rejections import RejectionReview
from consumer.serving.protocol import Answer, Failure, Relief, ServingError
from consumer.serving.refused import WindowRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window


def test_windows_share_a_call_and_each_gets_its_own_cells() -> None:
    """Many windows, one call, no mix-up."""
    client = StubClient()
    marks = list(range(100, 140))

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(client, body)
    assert len(client.calls) < 5
    assert set(client.lengths) == {16}


@pytest.mark.parametrize("rejected", [{105}, {103, 160}, {100, 101, 120, 133, 134, 150, 163}])
def test_bisection_refuses_the_rejected_and_answers_their_neighbours(rejected: set[int]) -> None:
    """k rejected windows of n cost at most 2k(log2 n + 1) calls and one check, and harm nobody else."""
    client = StubClient(lambda marks: BATCH_FAULT if rejected & set(marks) else None)
    marks = list(range(100, 164))

    async def body(dispatcher: Dispatcher) -> None:
        answers = await all_answers(dispatcher, marks)
        for mark, answer in zip(marks, answers, strict=True):
            if mark in rejected:
                assert isinstance(answer, WindowRefused)
                assert answer.reason == "BatchFault"
            else:
                assert_answered([mark], [answer])
        assert asyncio.get_running_loop().time() < 0.5, "the budget of retries is for servers that struggle"

    run(client, body)
    checks = [KNOWN_GOOD in call for call in client.calls]
    assert checks.count(True) == 1, "one check before any of them is refused"
    assert checks.count(False) <= 2 * len(rejected) * (math.log2(len(marks)) + 1)
    assert all(client.calls.count([mark]) == 2 for mark in rejected), "once more after the check"


@pytest.mark.parametrize("rejected", [set(), {103, 160}])
def test_a_defect_over_one_window_is_raised_to_it_alone(rejected: set[int]) -> None:
    """Its neighbours are answered, and the review of what the model rejects in the same batch comes to its end."""

    def fail(marks: list[int]) -> ServingError | None:
        if 105 in marks:
            raise ZeroDivisionError
        return BATCH_FAULT if rejected & set(marks) else None

    marks = list(range(100, 164))

    async def body(dispatcher: Dispatcher) -> None:
        answers = await all_answers(dispatcher, marks)
        for mark, answer in zip(marks, answers, strict=True):
            if mark == 105:
                assert isinstance(answer, ZeroDivisionError)
            elif mark in rejected:
                assert isinstance(answer, WindowRefused)
            else:
                assert_answered([mark], [answer])

    run(StubClient(fail), body)


def test_a_server_that_rejects_health_probes_refuses_nobody() -> None:
    """If everything is rejected the model is: it is a deployment fault, nothing is dead-lettered, and it heals."""
    broken = [True]

    def fail(marks: list[int]) -> ServingError | None:
        if marks == [KNOWN_GOOD] and len(client.calls) > 12:
            broken[0] = False
        return BATCH_FAULT if broken[0] else None

    client = StubClient(fail)
    states: list[State] = []
    marks = list(range(100, 108))

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(client, body, states)
    assert states == [State.DEPLOYMENT_FAULT, State.OK]


def test_an_outage_is_waited_out_and_refuses_nothing() -> None:
    """However often the server is unreachable, every window is answered in the end and the state says why it waits."""
    client = StubClient(lambda _: UNAVAILABLE if len(client.calls) < 30 else None)
    states: list[State] = []
    marks = list(range(100, 120))

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(client, body, states)
    assert states == [State.OUTAGE, State.OK]
    assert sum(KNOWN_GOOD in call for call in client.calls) > 20, "during the outage only a health probe is sent"


def test_a_deployment_fault_is_said_and_heals_by_itself() -> None:
    """A worker that cannot speak to its model stops, alerts, probes and goes on."""
    client = StubClient(lambda _: WRONG_SIGNATURE if len(client.calls) < 9 else None)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100], await all_answers(dispatcher, [100]))

    run(client, body, states)
    assert states == [State.DEPLOYMENT_FAULT, State.OK]


def test_a_window_that_fails_alone_beside_a_healthy_server_is_poison() -> None:
    """Five failures alone, with a health probe answered before and after each, are the window's own fault."""
    client = StubClient(lambda marks: UNAVAILABLE if 107 in marks else None)
    states: list[State] = []
    marks = list(range(100, 116))

    async def body(dispatcher: Dispatcher) -> None:
        answers = await all_answers(dispatcher, marks)
        refused = answers.pop(7)
        assert isinstance(refused, WindowRefused)
        assert (refused.reason, refused.attempts) == ("Poison", 5)
        assert_answered(marks[:7] + marks[8:], answers)

    run(client, body, states)
    # What a batch did is not counted against one window of it, nor what it did alone before the server was watched.
    assert client.calls.count([107]) == 7
    assert states == [], "the server was never out"


def test_windows_that_fail_alone_now_and_then_are_all_answered() -> None:
    """A batch that fails down to its single windows makes no poison of the first failure of each."""
    failed: set[int] = set()

    def fail(marks: list[int]) -> ServingError | None:
        if marks == [KNOWN_GOOD]:
            return None
        if len(marks) == 1 and marks[0] in failed:
            return None
        failed.update(marks if len(marks) == 1 else ())
        return UNAVAILABLE

    client = StubClient(fail)
    marks = list(range(100, 132))

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(client, body)
    assert failed == set(marks)


def test_a_busy_server_is_no_outage_and_makes_no_poison() -> None:
    """Out of threads, as other clients of the server make it: fewer calls, later, and nothing else."""
    busy = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "Server Threadpool Exhausted", Relief.FEWER_IN_FLIGHT)
    client = StubClient(lambda _: busy if len(client.calls) % 3 else None)
    states: list[State] = []
    marks = list(range(100, 140))

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(client, body, states)
    assert states == []
    assert max(len(call) for call in client.calls) > 10, "no batch is halved for it"


def test_a_probe_that_a_busy_server_refuses_says_nothing() -> None:
    """Neither an outage nor a reason to believe that the window is good."""
    busy = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "", Relief.FEWER_IN_FLIGHT)

    def fail(marks: list[int]) -> ServingError | None:
        if marks == [KNOWN_GOOD]:
            return busy if len(client.calls) % 2 else None
        return BATCH_FAULT if 103 in marks else None

    client = StubClient(fail)
    states: list[State] = []
    marks = list(range(100, 108))

    async def body(dispatcher: Dispatcher) -> None:
        answers = await all_answers(dispatcher, marks)
        refused = answers.pop(3)
        assert isinstance(refused, WindowRefused)
        assert_answered(marks[:3] + marks[4:], answers)

    run(client, body, states)
    assert states == []


def test_one_unusable_answer_neither_stops_the_others_nor_waits_for_ever() -> None:
    """A window whose answer is never finite is given up in the end; meanwhile the worker is not out of order."""
    not_finite = ServingError(Failure.DEPLOYMENT, "ANSWER", "output 'scores' holds values that are not finite")
    client = StubClient(lambda marks: not_finite if 101 in marks else None)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        answers = await all_answers(dispatcher, [100, 101, 102])
        refused = answers.pop(1)
        assert isinstance(refused, WindowRefused)
        assert (refused.reason, refused.attempts) == ("UnusableAnswer", UNUSABLE_ATTEMPTS)
        assert_answered([100, 102], answers)

    run(client, body, states)
    assert states == []


def test_a_deployment_fault_of_one_window_never_makes_it_poison() -> None:
    """What the deployment must repair is tried until it is repaired, however often that is."""
    client = StubClient(lambda marks: WRONG_SIGNATURE if 101 in marks and len(client.calls) < 60 else None)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100, 101, 102], await all_answers(dispatcher, [100, 101, 102]))

    run(client, body)


def test_calls_that_miss_their_deadline_get_more_time_before_anyone_is_blamed() -> None:
    """A server that became slow answers small windows in time and large ones not; that is no poison."""
    late = ServingError(Failure.TRANSIENT, "DEADLINE_EXCEEDED", "")
    timeouts: list[float] = []

    class Slow(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            marks = [int(w.input_ids[0]) for w in windows]
            if marks != [KNOWN_GOOD]:
                timeouts.append(timeout)
                if len(timeouts) > 1 and timeout < 100:
                    raise late
            return await super().predict(windows, padded_length, timeout)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100], await all_answers(dispatcher, [100]))
        assert_answered([101], await all_answers(dispatcher, [101]))

    run(Slow(), body)
    assert timeouts[1] < 20
    assert timeouts[-1] >= 100


def test_a_full_call_that_hangs_is_given_up_as_soon_as_a_short_one() -> None:
    """What a call of one short window takes for its tokens says nothing about a thousand of them."""
    timeouts: list[float] = []

    class Hangs(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            if len(windows) > 100:
                timeouts.append(timeout)
            return replace(await super().predict(windows, padded_length, timeout), seconds=0.05)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100], await all_answers(dispatcher, [100]))
        marks = [*range(100, 1100)]
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(Hangs(), body)
    assert max(timeouts) < 25


def test_what_calls_took_of_another_cost_lengthens_no_timeout_once_they_are_measured() -> None:
    """An answer of two seconds was five hundred times what an accelerator takes; now it is what it should take."""
    timeouts: list[float] = []

    class Slow(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            timeouts.append(timeout)
            return replace(await super().predict(windows, padded_length, timeout), seconds=2.0)

    async def body(dispatcher: Dispatcher) -> None:
        for mark in (100, 101):
            assert_answered([mark], await all_answers(dispatcher, [mark]))
        dispatcher.costs(CallCost(floor=3.0, fixed=0.0, per_token=1e-3, per_pair=0.0))
        assert_answered([102], await all_answers(dispatcher, [102]))

    run(Slow(), body)
    assert timeouts == pytest.approx([CallTimeout.CEILING, CallTimeout.FLOOR, 15.0])


def test_a_defect_while_a_failure_is_handled_reaches_the_caller() -> None:
    """No future is left without an answer, whatever raises where."""

    def fail(marks: list[int]) -> ServingError | None:
        if marks == [KNOWN_GOOD]:
            raise ZeroDivisionError
        return BATCH_FAULT

    async def body(dispatcher: Dispatcher) -> None:
        (answer,) = await all_answers(dispatcher, [100])
        assert isinstance(answer, ZeroDivisionError)

    run(StubClient(fail), body)


def test_a_server_out_of_memory_gets_smaller_batches() -> None:
    """OOM halves nothing by guess: the token cap goes down until a batch fits."""
    oom = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "OOM when allocating", Relief.SMALLER_MEMORY)
    client = StubClient(lambda marks: oom if len(marks) > 20 else None)
    states: list[State] = []
    marks = list(range(100, 164))

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(client, body, states, max_tokens=1024)
    assert states == []


def test_a_withdrawn_window_is_not_sent() -> None:
    """The windows of a revoked partition do not cost the new owner's model time."""
    client = StubClient()

    async def body(dispatcher: Dispatcher) -> None:
        lost = dispatcher.submit(window(666), deadline=0.0, level=0)
        kept = dispatcher.submit(window(100), deadline=0.0, level=0)
        lost.cancel()
        assert_answered([100], [await kept])

    run(client, body)
    assert all(666 not in call for call in client.calls)


def test_a_defect_in_the_client_reaches_the_caller() -> None:
    """An unexpected exception is never swallowed: whoever waits for the window sees it."""

    def fail(marks: list[int]) -> ServingError | None:
        raise ZeroDivisionError(str(marks))

    async def body(dispatcher: Dispatcher) -> None:
        (answer,) = await all_answers(dispatcher, [100])
        assert isinstance(answer, ZeroDivisionError)

    run(StubClient(fail), body)


def test_a_success_calls_nothing_that_only_failures_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a real window was answered and nothing has failed, no part that reacts to failures runs."""

    def must_not_run(*_: object, **__: object) -> None:
        raise AssertionError("a success needs none of this")

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100], await all_answers(dispatcher, [100]))
        for part, names in (
            (CallLimits, ("answered",)),
            (ServerUptime, ("answered",)),
            (RejectionReview, ("answered", "leave")),
            (PoisonIsolation, ("send_next", "watch")),
        ):
            for name in names:
                monkeypatch.setattr(part, name, must_not_run)
        assert_answered(range(101, 140), await all_answers(dispatcher, range(101, 140)))

    run(StubClient(), body)


def test_a_defect_in_a_call_leaves_no_decision_waiting_for_it() -> None:
    """Half of a rejected batch is lost to a defect: the other half is decided on all the same."""

    def fail(marks: list[int]) -> ServingError | None:
        if marks == [101]:
            raise ZeroDivisionError
        return BATCH_FAULT if 100 in marks else None

    async def body(dispatcher: Dispatcher) -> None:
        alone, first, second = await all_answers(dispatcher, [500, 100, 101])
        assert isinstance(alone, WindowAnswer)
        assert isinstance(first, WindowRefused)
        assert isinstance(second, ZeroDivisionError)

    run(StubClient(fail), body)


def test_a_failed_call_counts_for_the_version_that_its_server_answered_with_last() -> None:
    """None before the first answer: what a server would have answered with, only it knows."""

    def fails(_: list[int]) -> ServingError | None:
        return UNAVAILABLE if len(client.calls) in (1, 4) else None

    client = StubClient(fails)

    async def body(dispatcher: Dispatcher) -> None:
        for mark in (7, 8, 9):
            await dispatcher.submit(window(mark), deadline=0.0, level=0)

    observer = run(client, body)
    assert [each for each in observer.versions if each[0] != "OK"] == [("UNAVAILABLE", ""), ("UNAVAILABLE", "1")]
    assert {version for code, version in observer.versions if code == "OK"} == {"1"}
