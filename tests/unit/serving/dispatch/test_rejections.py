"""A model that answers a health probe and refuses real ones: the deployment is at fault, not the events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from dispatcher_harness import (
    BATCH_FAULT,
    KNOWN_GOOD,
    UNAVAILABLE,
    StubClient,
    all_answers,
    assert_answered,
    run,
    until,
    window,
)

from consumer.resilience.rejection_quorum import QUORUM
from consumer.serving.dispatch.dispatcher import Dispatcher, State, WindowAnswer
from consumer.serving.protocol import Answer, Failure, ServingError
from consumer.serving.refused import WindowRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window

MARKS = range(100, 164)


class Breaks(StubClient):
    """Refuses ``rejected`` windows until it is repaired."""

    def __init__(self, rejected: Sequence[int] | range = (), error: ServingError = BATCH_FAULT) -> None:
        super().__init__(lambda marks: self.error if self.rejected.intersection(marks) else None)
        self.rejected = set(rejected)
        self.error = error


@pytest.mark.parametrize("rejected", [range(100, 164), range(100, 133), range(131, 164)])
def test_a_batch_of_which_most_windows_are_rejected_refuses_nobody(rejected: range) -> None:
    """64 and 33 of 64: nothing is dead-lettered, the state says why, and it goes on by itself once it is repaired."""
    client = Breaks(rejected)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        answers = asyncio.create_task(all_answers(dispatcher, MARKS))
        await until(State.DEPLOYMENT_FAULT, dispatcher)
        calls = len(client.calls)
        await asyncio.sleep(3600)
        assert dispatcher.waiting == len(rejected)
        assert not answers.done()
        assert len(client.calls) - calls < 2 * 3600, "less than one health probe a second, with one rejected window"
        assert {len(call) for call in client.calls[calls:]} == {1}
        client.rejected.clear()
        await until(State.OK, dispatcher)
        assert_answered(MARKS, await answers)

    run(client, body, states)
    assert states == [State.DEPLOYMENT_FAULT, State.OK]


def test_a_model_that_is_repaired_before_the_check_refuses_nobody() -> None:
    """The refusal of a moment ago says nothing about the model that answers the check now: it is asked again."""
    client = StubClient(lambda _: None if any(KNOWN_GOOD in call for call in client.calls) else BATCH_FAULT)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100, 101], await all_answers(dispatcher, [100, 101]))

    run(client, body)


def test_truly_bad_windows_beside_a_fault_are_refused_after_it() -> None:
    """What is still refused once the model is repaired is a minority, and bad input."""
    client = Breaks(MARKS)

    async def body(dispatcher: Dispatcher) -> None:
        task = asyncio.create_task(all_answers(dispatcher, MARKS))
        await until(State.DEPLOYMENT_FAULT, dispatcher)
        client.rejected = {100, 107, 163}
        answers = await task
        for mark, answer in zip(MARKS, answers, strict=True):
            if mark in client.rejected:
                assert isinstance(answer, WindowRefused)
                assert answer.reason == "BatchFault"
                assert answer.failing_seconds >= 0
                assert answer.model_version == "1"
            else:
                assert_answered([mark], [answer])

    run(client, body)


@pytest.mark.parametrize("count", [1, 2, QUORUM - 1])
def test_a_small_batch_of_bad_windows_is_bad_input(count: int) -> None:
    """A worker does not stop for one bad event that happens to be alone."""
    marks = range(100, 100 + count)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        assert all(isinstance(answer, WindowRefused) for answer in await all_answers(dispatcher, marks))

    run(Breaks(marks), body, states)
    assert states == []


def test_one_event_of_many_windows_is_bad_input() -> None:
    """However many windows a long review or a bad schema has, it is one event."""
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        futures = [dispatcher.submit(window(mark), 0.0, 0, ("topic", 0, 7)) for mark in MARKS]
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(answer, WindowRefused) for answer in answers)

    run(Breaks(MARKS), body, states)
    assert states == []


def test_a_model_that_never_answered_is_found_out_at_low_load() -> None:
    """Batches of one, one after the other: four are refused before it is certain, and the rest waits."""
    client = Breaks(MARKS)

    async def body(dispatcher: Dispatcher) -> None:
        for mark in range(100, 99 + QUORUM):
            assert isinstance((await all_answers(dispatcher, [mark]))[0], WindowRefused)
        last = dispatcher.submit(window(150), 0.0, 0)
        await until(State.DEPLOYMENT_FAULT, dispatcher)
        await asyncio.sleep(600)
        assert not last.done()
        client.rejected.clear()
        assert isinstance(await last, WindowAnswer)
        # What it refused before it was repaired counts no more.
        client.rejected = {200, 201}
        assert all(isinstance(answer, WindowRefused) for answer in await all_answers(dispatcher, [200, 201]))
        await until(State.OK, dispatcher)

    run(client, body)


@pytest.mark.parametrize("error", [BATCH_FAULT, UNAVAILABLE, ServingError(Failure.DEPLOYMENT, "ANSWER", "not finite")])
def test_a_model_that_breaks_refuses_nobody_at_low_load(error: ServingError) -> None:
    """It is asked for a window that it answered before: at the first window that fails, the fault is plain."""
    client = Breaks(error=error)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(MARKS, await all_answers(dispatcher, MARKS))
        client.rejected = set(range(100, 1000))
        waiting = dispatcher.submit(window(500), 0.0, 0)
        while not states:
            await asyncio.sleep(1)
        await asyncio.sleep(600)
        assert not waiting.done()
        client.rejected.clear()
        assert isinstance(await waiting, WindowAnswer)
        assert_answered(MARKS, await all_answers(dispatcher, MARKS))

    run(client, body, states)
    assert states == [State.OUTAGE if error is UNAVAILABLE else State.DEPLOYMENT_FAULT, State.OK]


def test_a_model_that_lost_its_long_windows_refuses_none_of_them() -> None:
    """A tenth of the windows fails, all of them long: a window of that length was answered before, and now is not."""
    client = StubClient()
    states: list[State] = []
    long = range(200, 206)

    async def body(dispatcher: Dispatcher) -> None:
        async def all_lengths() -> None:
            short = asyncio.create_task(all_answers(dispatcher, MARKS))
            futures = [dispatcher.submit(window(mark, 400), 0.0, 0) for mark in long]
            assert_answered(long, await asyncio.gather(*futures))
            assert_answered(MARKS, await short)

        await all_lengths()
        client.fail = lambda marks: BATCH_FAULT if set(long).intersection(marks) else None
        again = asyncio.create_task(all_lengths())
        await until(State.DEPLOYMENT_FAULT, dispatcher)
        client.fail = lambda _: None
        await again

    run(client, body, states)
    assert states == [State.DEPLOYMENT_FAULT, State.OK]


def test_rejected_windows_whose_partition_was_revoked_hold_nobody_up() -> None:
    """When nobody waits for them any more, there is nothing that could be dead-lettered wrongly."""
    client = Breaks(MARKS)

    async def body(dispatcher: Dispatcher) -> None:
        futures = [dispatcher.submit(window(mark), 0.0, 0) for mark in MARKS]
        await until(State.DEPLOYMENT_FAULT, dispatcher)
        for future in futures:
            future.cancel()
        await until(State.OK, dispatcher)
        assert_answered([500], await all_answers(dispatcher, [500]))

    run(client, body)


def test_a_decision_waits_for_the_batches_in_flight() -> None:
    """The first window of a burst leaves alone; what becomes of the batch behind it is known before it is refused."""

    class Slow(Breaks):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            await asyncio.sleep(1)
            return await super().predict(windows, padded_length, timeout)

    client = Slow(MARKS)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        first = dispatcher.submit(window(100), 0.0, 0)
        await asyncio.sleep(0.5)
        rest = asyncio.create_task(all_answers(dispatcher, MARKS[1:]))
        await until(State.DEPLOYMENT_FAULT, dispatcher)
        assert not first.done()
        client.rejected.clear()
        assert_answered([100], [await first])
        assert_answered(MARKS[1:], await rest)

    run(client, body, states)
    assert client.calls[0] == [100]
    assert states == [State.DEPLOYMENT_FAULT, State.OK]


def test_bad_events_among_good_ones_do_not_stop_the_worker() -> None:
    """What is answered between them counts for the model, however many bad events there are in the long run."""
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        async with asyncio.timeout(600):
            for mark in MARKS:
                assert isinstance((await all_answers(dispatcher, [mark]))[0], WindowRefused)
                assert_answered([500, 501], await all_answers(dispatcher, [500, 501]))

    run(Breaks(MARKS), body, states)
    assert states == []


def test_windows_given_up_long_ago_count_no_more_once_others_are_answered() -> None:
    """Also where the decision fell while the call that it waited for was the only one: its answer came too early."""
    unusable, slow, bad = range(100, 104), 200, range(300, 302)
    broken = ServingError(Failure.DEPLOYMENT, "ANSWER", "not finite")

    class Client(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            await asyncio.sleep(12.0 if slow in (int(w.input_ids[0]) for w in windows) else 0.01)
            return await super().predict(windows, padded_length, timeout)

    def fail(marks: list[int]) -> ServingError | None:
        if set(marks) & set(unusable):
            return broken
        return BATCH_FAULT if set(marks) & set(bad) else None

    async def body(dispatcher: Dispatcher) -> None:
        first = [
            asyncio.ensure_future(dispatcher.submit(window(mark, 512), 0.0, 0, ("in", 0, mark))) for mark in unusable
        ]
        while not all(future.done() for future in first):
            await dispatcher.submit(window(slow, 8), 0.0, 0, ("in", 1, 0))
        reasons = [getattr(future.exception(), "reason", None) for future in first]
        assert reasons == ["UnusableAnswer"] * len(first)
        await asyncio.gather(*(dispatcher.submit(window(5, 100), 0.0, 0, ("in", 2, n)) for n in range(1000)))
        second = await asyncio.gather(
            *(dispatcher.submit(window(mark, mark), 0.0, 0, ("in", 3, mark)) for mark in bad), return_exceptions=True
        )
        assert [getattr(error, "reason", error) for error in second] == ["BatchFault"] * len(bad)

    states: list[State] = []
    run(Client(fail), body, states, max_tokens=512, max_in_flight=8)
    assert State.DEPLOYMENT_FAULT not in states[-2:]
