"""An outage of the model server, of any kind and length: nothing is refused, and everything is answered after it."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.serving.dispatch.dispatcher import Dispatcher, State
from consumer.serving.protocol import Answer, Failure, Relief, ServingError
from consumer.serving.refused import WindowRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window

FAILURES = {
    code: ServingError(Failure.TRANSIENT, code, "")
    for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNKNOWN", "CANCELLED")
} | {
    "quota": ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "quota"),
    "busy": ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "", Relief.FEWER_IN_FLIGHT),
    "out of memory": ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "OOM", Relief.SMALLER_MEMORY),
    "message too large": ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "", Relief.FEWER_BYTES),
    "batch fault": BATCH_FAULT,
    "contract": ServingError(Failure.DEPLOYMENT, "CONTRACT", ""),
    "garbage": ServingError(Failure.DEPLOYMENT, "ANSWER", "not finite"),
}


class Server(StubClient):
    """What happens to a call depends on when it is made: ``phases`` are (what, seconds), and after them all is well.

    ``hang`` keeps the call until its timeout. A failure comes after ``seconds`` of the call's time, as it does in life.
    """

    def __init__(self, phases: Sequence[tuple[str, float]], seconds: float = 0.01) -> None:
        super().__init__()
        self.phases = phases
        self.seconds = seconds
        self.at_once = self.most_at_once = 0

    def mode(self) -> str:
        now = asyncio.get_running_loop().time()
        for what, lasts in self.phases:
            now -= lasts
            if now < 0:
                return what
        return "answers"

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        mode = self.mode()
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(timeout if mode == "hang" else self.seconds)
        finally:
            self.at_once -= 1
        if mode == "hang":
            raise FAILURES["DEADLINE_EXCEEDED"]
        if mode in FAILURES:
            self.calls.append([int(w.input_ids[0]) for w in windows])
            raise FAILURES[mode]
        return await super().predict(windows, padded_length, timeout)


BROKEN = ("batch fault", "contract", "garbage")
modes = st.sampled_from([*(code for code in FAILURES if code not in BROKEN), "hang"])
lengths = st.floats(0.001, 600.0)


@settings(max_examples=60, deadline=None)
@given(
    # Four outages at most: their ends are moments at which one call fails and a probe right after it is answered, and
    # five of those on the same window, alone in its call, are what makes it poison by definition.
    st.lists(st.tuples(modes, lengths, st.floats(0.0, 100.0)), max_size=4),
    # And one broken model, since a window that is refused before and after a good answer is bad input by definition.
    st.tuples(st.sampled_from(BROKEN), lengths, st.floats(0.0, 100.0), st.integers(0, 4)),
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.0, 300.0)), min_size=1, max_size=5),
)
def test_nothing_is_refused_by_a_server_that_is_out(
    outages: list[tuple[str, float, float]],
    broken: tuple[str, float, float, int],
    arrivals: list[tuple[int, float]],
) -> None:
    """Any failures for any time, windows that arrive whenever they do: all of them are answered in the end."""
    outages.insert(broken[3], broken[:3])
    phases = [phase for what, lasts, well in outages for phase in ((what, lasts), ("answers", well))]

    async def body(dispatcher: Dispatcher) -> None:
        tasks, first = [], 100
        for count, later in arrivals:
            marks = range(first, first + count)
            tasks.append((marks, asyncio.create_task(all_answers(dispatcher, marks))))
            first += count
            await asyncio.sleep(later)
        for marks, task in tasks:
            assert_answered(marks, await task)

    run(Server(phases), body)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_window_is_refused_while_health_probes_fail(data: st.DataObject) -> None:
    """Every call may fail as it likes: nobody is refused who did not fail beside a healthy server."""
    healed = 400.0

    class Erratic(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            await asyncio.sleep(0.01)
            if asyncio.get_running_loop().time() < healed:
                marks = [int(w.input_ids[0]) for w in windows]
                if KNOWN_GOOD in marks:
                    raise FAILURES[data.draw(st.sampled_from([*FAILURES]))]
                what = data.draw(st.sampled_from([*FAILURES, "answers", "answers"]))
                if what != "answers":
                    raise FAILURES[what]
            return await super().predict(windows, padded_length, timeout)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(range(100, 116), await all_answers(dispatcher, range(100, 116)))

    run(Erratic(), body)


@pytest.mark.parametrize("what", [*FAILURES, "hang"])
def test_hours_without_a_server(what: str) -> None:
    """It is asked one call at a time, about every second, and finds every window where it was left."""
    server = Server([(what, 6000.0)])
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        task = asyncio.create_task(all_answers(dispatcher, range(100, 164)))
        await asyncio.sleep(1000)
        calls, server.most_at_once = len(server.calls), 0
        await asyncio.sleep(4000)
        # A probe without an answer is made again beside the one that waits for it.
        assert server.most_at_once == (2 if what == "hang" else 1)
        assert len(server.calls) - calls < 4000
        assert not task.done()
        assert_answered(range(100, 164), await task)

    run(server, body, states)
    # A busy server is no outage; the rest is one, until it answers.
    fault = State.DEPLOYMENT_FAULT if what in BROKEN else State.OUTAGE
    assert states == ([] if what == "busy" else [fault, State.OK])


def test_an_outage_between_them_takes_back_the_failures_before_it() -> None:
    """Four failures beside a healthy server, an outage, four more: nobody has seen five in a row."""
    tried = 0
    probed = False

    def fail(marks: list[int]) -> ServingError | None:
        nonlocal tried, probed
        if marks == [100]:
            tried += 1
            probed = False
            return UNAVAILABLE if tried < 10 else None
        first, probed = not probed, True
        return UNAVAILABLE if tried == 5 and first else None

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100], await all_answers(dispatcher, [100]))

    run(StubClient(fail), body)
    assert tried == 10


def test_nobody_is_refused_once_another_call_failed() -> None:
    """The answer to the check came before the outage, so it proves nothing any more; it is reviewed again after it."""
    healed = 5.0

    class Failing(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            marks = [int(w.input_ids[0]) for w in windows]
            await asyncio.sleep(0.02 if marks == [200] else 0.1)
            if 0.25 < asyncio.get_running_loop().time() < healed and marks != [100]:
                raise UNAVAILABLE
            return await super().predict(windows, padded_length, timeout)

    client = Failing(lambda marks: BATCH_FAULT if 100 in marks else None)

    async def body(dispatcher: Dispatcher) -> None:
        rejected = dispatcher.submit(window(100), 0.0, 0)
        await asyncio.sleep(0.25)
        assert client.calls == [[100], [KNOWN_GOOD]], "it is asked for once more now"
        good = dispatcher.submit(window(200), 0.0, 0)
        await asyncio.sleep(healed - 0.3)
        assert client.calls == [[100], [KNOWN_GOOD], [100]]
        assert not rejected.done()
        with pytest.raises(WindowRefused):
            await rejected
        assert_answered([200], [await good])

    run(client, body)


def test_the_breaker_goes_through_half_open() -> None:
    """Each try of an open breaker is seen, and the last one closes it."""
    observer = run(Server([("UNAVAILABLE", 10.0)]), lambda dispatcher: dispatcher.health_probe())
    states = observer.breaker_states
    assert states[0] == "open"
    assert states[1:-1:2] == ["half_open"] * (len(states) // 2)
    assert states[2:-1:2] == ["open"] * (len(states) // 2 - 1)
    assert states[-2:] == ["half_open", "closed"]
    assert len(states) > 6


def test_after_an_outage_one_call_goes_first() -> None:
    """Every worker comes back at this moment; nobody slams the server with all that has waited."""
    server = Server([("UNAVAILABLE", 60.0)], seconds=1.0)
    together: list[int] = []

    async def body(dispatcher: Dispatcher) -> None:
        tasks = [dispatcher.submit(window(mark, length), 0.0, 0) for mark in range(100, 140) for length in (16, 300)]
        await until(State.OUTAGE, dispatcher)
        while not tasks[0].done():
            together.append(server.at_once)
            await asyncio.sleep(0.1)
        together.append(-1)
        while not all(task.done() for task in tasks):
            together.append(server.at_once)
            await asyncio.sleep(0.1)

    run(server, body, max_tokens=1024, max_in_flight=4)
    seen = [count for count in together if count > 0]
    first_of_two = next(at for at, count in enumerate(seen) if count > 1)
    assert first_of_two >= 9, "one second, the time of one call"
    assert seen[first_of_two] <= 3, "two calls, and perhaps the health probe that ends the outage's state"
    assert max(seen) == 4


def test_a_server_that_fails_every_call_once_gets_no_storm_of_retries() -> None:
    """Retries are a tenth of the calls, and one a second; every window is answered all the same."""

    class Flaky(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            await asyncio.sleep(0.01)
            if len(windows) == 4:
                self.calls.append([int(w.input_ids[0]) for w in windows])
                raise UNAVAILABLE
            return await super().predict(windows, padded_length, timeout)

    client = Flaky()
    fresh = 200

    async def body(dispatcher: Dispatcher) -> None:
        answers = []
        for first in range(100, 100 + 4 * fresh, 4):
            answers.append(asyncio.create_task(all_answers(dispatcher, range(first, first + 4))))
            await asyncio.sleep(0.2)
        real = [call for call in client.calls if KNOWN_GOOD not in call]
        sent_first = [call for call in real if len(call) == 4]
        seconds = asyncio.get_running_loop().time()
        assert len(sent_first) > 100
        assert len(real) - len(sent_first) <= 10 + 0.1 * len(sent_first) + seconds + 1
        for number, task in enumerate(answers):
            assert_answered(range(100 + 4 * number, 104 + 4 * number), await task)

    run(client, body)
