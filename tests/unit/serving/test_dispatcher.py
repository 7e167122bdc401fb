"""The dispatcher against a model client that fails as it is told to."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from consumer.batching.policy import LengthCut
from consumer.extraction.window import Cells, Window
from consumer.serving.dispatcher import Dispatcher, State, WindowAnswer, WindowRefused
from consumer.serving.protocol import Answer, Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

KNOWN_GOOD = 1
BATCH_FAULT = ServingError(Failure.BATCH_FAULT, "INVALID_ARGUMENT", "indices[0] is out of range")
UNAVAILABLE = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "connection refused")
WRONG_SIGNATURE = ServingError(Failure.DEPLOYMENT, "FAILED_PRECONDITION", "no such signature")


def window(mark: int, length: int = 16) -> Window:
    """A window that is known by its first token."""
    ids = np.zeros(length, dtype=np.int32)
    ids[0] = mark
    return Window(ids, ids, ids, 4)


class StubClient:
    """Answers every window with one cell whose row is the window's mark, unless ``fail`` says otherwise."""

    def __init__(self, fail: Callable[[list[int]], ServingError | None] = lambda _: None) -> None:
        self.fail = fail
        self.calls: list[list[int]] = []
        self.lengths: list[int] = []

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        marks = [int(w.input_ids[0]) for w in windows]
        self.calls.append(marks)
        self.lengths.append(padded_length)
        assert timeout > 0
        await asyncio.sleep(0)
        error = self.fail(marks)
        if error is not None:
            raise error
        return Answer(tuple(Cells.of({(m, 0): 1.0}) for m in marks), "m", "1", "serving_default", 0.001)

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


class Observer:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def batch_sent(self, rows: int, useful_tokens: int, padded_tokens: int, reason: str) -> None:
        assert 0 < rows <= useful_tokens <= padded_tokens
        assert reason

    def model_called(self, model: str, version: str, code: str, seconds: float) -> None:  # noqa: ARG002
        self.codes.append(code)

    def model_retried(self) -> None:
        self.codes.append("again")

    def in_flight_windows(self, windows: int) -> None:
        assert windows >= 0

    def windows_overflowed(self, windows: int) -> None:
        assert windows


def run(
    client: StubClient,
    body: Callable[[Dispatcher], Awaitable[None]],
    states: list[State] | None = None,
    max_tokens: int = 16_384,
) -> None:
    """Run ``body`` beside a dispatcher that backs off in milliseconds."""

    async def main() -> None:
        def on_state(state: State, error: ServingError | None) -> None:
            assert (state is State.OK) == (error is None)
            if states is not None:
                states.append(state)

        dispatcher = Dispatcher(client, LengthCut(max_tokens, 2), window(KNOWN_GOOD), "m", Observer(), on_state)
        dispatcher.BACKOFF_FIRST = 0.001
        dispatcher.BACKOFF_LIMIT = 0.01
        pump = asyncio.create_task(dispatcher.pump())
        try:
            async with asyncio.timeout(20):
                await body(dispatcher)
            assert dispatcher.waiting == 0
        finally:
            pump.cancel()

    asyncio.run(main())


async def all_answers(dispatcher: Dispatcher, marks: Sequence[int]) -> list[WindowAnswer | BaseException]:
    return await asyncio.gather(
        *(dispatcher.submit(window(m), deadline=0.0, level=0) for m in marks), return_exceptions=True
    )


def assert_answered(marks: Sequence[int], answers: Sequence[WindowAnswer | BaseException]) -> None:
    for mark, answer in zip(marks, answers, strict=True):
        assert isinstance(answer, WindowAnswer), answer
        assert answer.cells.rows.tolist() == [mark]


def test_windows_share_a_call_and_each_gets_its_own_cells() -> None:
    """Many windows, one call, no mix-up."""
    client = StubClient()
    marks = list(range(100, 140))

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(marks, await all_answers(dispatcher, marks))

    run(client, body)
    assert len(client.calls) < 5
    assert set(client.lengths) == {16}


@pytest.mark.parametrize("guilty", [{105}, {103, 160}, {100, 101, 120, 133, 134, 150, 163}])
def test_bisection_refuses_the_guilty_and_answers_their_neighbours(guilty: set[int]) -> None:
    """k guilty windows of n cost at most 2k(log2 n + 1) calls beside the known-good checks, and harm nobody else."""
    client = StubClient(lambda marks: BATCH_FAULT if guilty & set(marks) else None)
    marks = list(range(100, 164))

    async def body(dispatcher: Dispatcher) -> None:
        answers = await all_answers(dispatcher, marks)
        for mark, answer in zip(marks, answers, strict=True):
            if mark in guilty:
                assert isinstance(answer, WindowRefused)
                assert answer.reason == "BatchFault"
            else:
                assert_answered([mark], [answer])

    run(client, body)
    bisecting = [marks for marks in client.calls if marks != [KNOWN_GOOD]]
    assert len(bisecting) <= 2 * len(guilty) * (math.log2(len(marks)) + 1)


def test_a_server_that_refuses_the_known_good_window_refuses_nobody() -> None:
    """If everything is guilty the model is: it is a deployment fault, nothing is dead-lettered, and it heals."""
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
    assert sum(KNOWN_GOOD in call for call in client.calls) > 20, "during the outage only the known-good window is sent"


def test_a_deployment_fault_is_said_and_heals_by_itself() -> None:
    """A worker that cannot speak to its model stops, alerts, probes and goes on."""
    client = StubClient(lambda _: WRONG_SIGNATURE if len(client.calls) < 4 else None)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100], await all_answers(dispatcher, [100]))

    run(client, body, states)
    assert states == [State.DEPLOYMENT_FAULT, State.OK]


def test_a_window_that_fails_alone_beside_a_healthy_server_is_poison() -> None:
    """Five failures alone, with a known-good window answered before and after each, are the window's own fault."""
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
    assert client.calls.count([107]) == 5, "what a batch did is not counted against one window of it"
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
        assert (refused.reason, refused.attempts) == ("UnusableAnswer", 20)
        assert_answered([100, 102], answers)

    run(client, body, states)
    assert states == []


def test_a_deployment_fault_of_one_window_never_makes_it_poison() -> None:
    """What the deployment must mend is tried until it is mended, however often that is."""
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
