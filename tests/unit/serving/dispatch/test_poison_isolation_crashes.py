"""A window that crashes the server is given up, and no other is; a server that dies by itself makes none poison."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
import virtual_time
from dispatcher_harness import (
    KNOWN_GOOD,
    UNAVAILABLE,
    Observer,
    StubClient,
    all_answers,
    assert_answered,
    run,
    until,
    window,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.batching.policy import LeastTime
from consumer.resilience.crash_evidence import CRASHES
from consumer.serving.dispatch.dispatcher import Dispatcher, State
from consumer.serving.protocol import Answer, Failure, Relief, ServingError
from consumer.serving.refused import WindowRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence

    from consumer.extraction.window import Window

MARKS = range(100, 164)
LATE = ServingError(Failure.TRANSIENT, "DEADLINE_EXCEEDED", "")
BUSY = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "", Relief.FEWER_IN_FLIGHT)


def most_deaths(windows: int) -> int:
    """Of one poison window in a batch of so many."""
    return math.ceil(math.log2(windows)) + CRASHES + 2


class Process(StubClient):
    """A server that ends in the calls of ``poison`` after ``lethal`` seconds, and is back ``away`` seconds later."""

    def __init__(
        self, poison: Collection[int] = (), seconds: float = 0.01, away: float = 2.0, lethal: float = 0.0
    ) -> None:
        super().__init__()
        self.poison = set(poison)
        self.seconds, self.away, self.lethal = seconds, away, lethal
        self.deaths = 0
        self.back_at = 0.0
        self._life = asyncio.Event()

    def kills(self, marks: list[int]) -> bool:
        return bool(self.poison.intersection(marks))

    def die(self, away: float | None = None) -> None:
        self.deaths += 1
        self.back_at = asyncio.get_running_loop().time() + (self.away if away is None else away)
        self._life.set()
        self._life = asyncio.Event()

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        if asyncio.get_running_loop().time() < self.back_at:
            await asyncio.sleep(0.001)
            raise UNAVAILABLE
        lethal = self.kills([int(w.input_ids[0]) for w in windows])
        life, lasts = self._life, self.lethal if lethal else self.seconds
        try:
            async with asyncio.timeout(min(timeout, lasts)):
                await life.wait()
        except TimeoutError:
            if timeout < lasts:
                if lethal:  # a server does not stop at its caller's deadline
                    self._later = asyncio.create_task(self._die_later(life, lasts - timeout))
                raise LATE from None
            if lethal:
                self.die()
        if life.is_set():
            self.calls.append([int(w.input_ids[0]) for w in windows])
            raise UNAVAILABLE
        return await super().predict(windows, padded_length, timeout)

    async def _die_later(self, life: asyncio.Event, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not life.is_set():
            self.die()


async def traffic(dispatcher: Dispatcher, every: float = 0.5) -> None:
    """Good windows, for as long as it runs."""
    async with asyncio.TaskGroup() as group:
        mark = 10_000
        while True:
            group.create_task(all_answers(dispatcher, range(mark, mark + 4)))
            mark += 4
            await asyncio.sleep(every)


def with_traffic(
    body: Callable[[Dispatcher], Coroutine[None, None, None]],
) -> Callable[[Dispatcher], Coroutine[None, None, None]]:
    """``body`` beside good windows that keep coming."""

    async def both(dispatcher: Dispatcher) -> None:
        others = asyncio.create_task(traffic(dispatcher))
        await asyncio.sleep(1)
        try:
            await body(dispatcher)
        finally:
            others.cancel()
        while dispatcher.waiting:
            await asyncio.sleep(1)

    return both


def assert_only_refused(marks: Sequence[int], poison: Collection[int], answers: Sequence[object]) -> None:
    """The poison as poison, and everybody else was answered."""
    for mark, answer in zip(marks, answers, strict=True):
        if mark in poison:
            assert isinstance(answer, WindowRefused), mark
            assert (answer.reason, answer.attempts) == ("Poison", CRASHES)
            assert answer.failing_seconds > 0
        else:
            assert not isinstance(answer, BaseException), answer


@pytest.mark.parametrize(("away", "busy"), [(0.01, True), (2.0, True), (0.01, False), (2.0, False), (60.0, False)])
def test_a_poison_window_among_its_neighbours_is_given_up(away: float, busy: bool) -> None:
    """Exactly it is refused, the rest is answered, and the server died as seldom as was promised."""
    server = Process({137}, away=away)
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        assert_only_refused(MARKS, {137}, await all_answers(dispatcher, MARKS))
        assert server.deaths <= most_deaths(64)
        assert asyncio.get_running_loop().time() < 60 + 4 * away * most_deaths(64)

    run(server, with_traffic(body) if busy else body, states)
    assert State.DEPLOYMENT_FAULT not in states


def test_two_poison_windows_are_given_up() -> None:
    """They do not clear each other."""
    server = Process({103, 159})

    async def body(dispatcher: Dispatcher) -> None:
        assert_only_refused(MARKS, {103, 159}, await all_answers(dispatcher, MARKS))

    run(server, body)
    assert server.deaths <= 2 * most_deaths(64)


@pytest.mark.parametrize("seconds", [0.01, 1.5])
def test_an_isolated_window_is_alone_and_comes_right_after_a_health_probe(seconds: float) -> None:
    """No call of anybody else is in flight, from the answer to the one until the end of the other."""
    starts: list[tuple[list[int], int, int]] = []

    class Watched(Process):
        in_flight = 0

        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            self.in_flight += 1
            starts.append(([int(w.input_ids[0]) for w in windows], padded_length, self.in_flight))
            try:
                return await super().predict(windows, padded_length, timeout)
            finally:
                self.in_flight -= 1

    server = Watched({137}, seconds=seconds, lethal=seconds)

    async def body(dispatcher: Dispatcher) -> None:
        futures = [dispatcher.submit(window(mark, 40), 0.0, 0) for mark in MARKS]
        assert_only_refused(MARKS, {137}, await asyncio.gather(*futures, return_exceptions=True))

    run(server, with_traffic(body))
    tries = [at for at, (marks, _, _) in enumerate(starts) if 137 in marks][2:]
    assert most_deaths(64) - 3 <= len(tries) <= most_deaths(64) - 2, "the first one alone may count already"
    for at in tries:
        assert starts[at - 1][:2] == ([KNOWN_GOOD], 40)
        assert starts[at][2] == 1
        assert starts[at + 1][2] == 1, "nothing was sent before it ended"


def test_neighbours_do_not_wait_for_the_decision() -> None:
    """They are answered while the poison window is being isolated; others are answered between the tries."""
    server = Process({163}, away=10.0)

    async def body(dispatcher: Dispatcher) -> None:
        tasks = [dispatcher.submit(window(mark), 0.0, 0) for mark in MARKS]
        await asyncio.gather(*tasks[:-1])
        isolated = server.deaths
        assert isolated <= 1 + math.log2(64)
        served = [0] * (CRASHES + 2)
        while not tasks[-1].done():
            assert_answered([500], await all_answers(dispatcher, [500]))
            served[server.deaths - isolated] += 1
            await asyncio.sleep(0.5)
        assert min(served[1 : server.deaths - isolated]) >= 6, "three seconds and more after each death"
        with pytest.raises(WindowRefused):
            await tasks[-1]

    run(server, body)


@pytest.mark.parametrize("busy", [True, False])
def test_a_slow_poison_window_is_given_up(busy: bool) -> None:
    """Its call lasts longer than that of others may; and the server is watched without it for as much longer."""
    server = Process({101}, seconds=0.2, lethal=20.0)
    marks = range(100, 104)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([500], await all_answers(dispatcher, [500]))
        assert_only_refused(marks, {101}, await all_answers(dispatcher, marks))

    run(server, with_traffic(body) if busy else body)
    # And twice or so in a call that others had given up waiting for.
    assert server.deaths <= most_deaths(4) + 3


def test_poison_windows_of_two_workers_are_both_given_up() -> None:
    """To either worker the other one's is a server that dies at random."""
    server = Process({100, 200})

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        workers = [
            Dispatcher(
                {"one:1": server}, LeastTime(16_384, 2), window(KNOWN_GOOD), "m", Observer(), lambda *_: None, clock
            )
            for _ in range(2)
        ]
        pumps = [asyncio.create_task(worker.pump()) for worker in workers]
        marks = (range(100, 116), range(200, 216))
        both = await asyncio.gather(*(all_answers(*pair) for pair in zip(workers, marks, strict=True)))
        for mine, answers in zip(marks, both, strict=True):
            assert_only_refused(mine, {100, 200}, answers)
        for pump in pumps:
            pump.cancel()

    virtual_time.run(main())
    assert server.deaths <= 100


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 90.0), st.floats(0.001, 90.0)), max_size=60),
    st.lists(st.tuples(st.integers(1, 20), st.floats(0.0, 60.0)), min_size=1, max_size=4),
    st.sampled_from([0.01, 0.3, 2.0, 8.0]),
)
@example([(0.5, 2.0)] * 60, [(20, 0.0)], 0.3)
@example([(4.0, 0.01)] * 100, [(20, 0.0)], 0.3)
@example([(4.0, 0.01)] * 100, [(1, 0.0)], 8.0)
@example([(9.0, 5.0)] * 100, [(3, 0.0)], 8.0)
def test_a_server_that_dies_at_any_moments_makes_no_poison(
    lives: list[tuple[float, float]], arrivals: list[tuple[int, float]], seconds: float
) -> None:
    """However often, however soon after it came back: all are answered once it lives."""
    server = Process(seconds=seconds)

    async def body(dispatcher: Dispatcher) -> None:
        async def flap() -> None:
            for up, away in lives:
                await asyncio.sleep(up)
                server.die(away)
                await asyncio.sleep(away)

        flapping = asyncio.create_task(flap())
        tasks, first = [], 100
        for count, later in arrivals:
            marks = range(first, first + count)
            tasks.append((marks, asyncio.create_task(all_answers(dispatcher, marks))))
            first += count
            await asyncio.sleep(later)
        await flapping
        async with asyncio.timeout(1200):
            for marks, task in tasks:
                assert_answered(marks, await task)

    run(server, body)


@pytest.mark.parametrize("period", [3.1, 5.0, 7.7])
@pytest.mark.parametrize("seconds", [0.05, 1.0, 6.0])
def test_a_server_that_dies_every_few_seconds_makes_no_poison(period: float, seconds: float) -> None:
    """For an hour, with windows that come one by one: deaths beside windows that are alone are no coincidence here."""
    server = Process(seconds=seconds, away=1.0)

    async def body(dispatcher: Dispatcher) -> None:
        async def flap() -> None:
            while True:
                await asyncio.sleep(period)
                server.die()

        flapping = asyncio.create_task(flap())
        tasks = []
        for mark in range(100, 220):
            tasks.append(dispatcher.submit(window(mark), 0.0, 0))
            await asyncio.sleep(30)
        flapping.cancel()
        assert_answered(range(100, 220), await asyncio.gather(*tasks))

    run(server, body)


def test_a_death_that_meets_a_window_twice_is_a_coincidence() -> None:
    """It is alone, the server was healthy before, and yet it is not the cause."""
    server = Process(seconds=1.0)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([500], await all_answers(dispatcher, [500]))
        for _ in range(CRASHES - 1):
            task = asyncio.create_task(all_answers(dispatcher, [100]))
            for _ in range(2):
                calls = server.deaths
                server.kills = lambda marks: marks == [100]  # type: ignore[method-assign]
                while server.deaths == calls:
                    await asyncio.sleep(0.1)
            server.kills = lambda marks: False  # type: ignore[method-assign]  # noqa: ARG005
            assert_answered([100], await task)

    run(server, body)


class DiesOfAll(Process):
    """All but a health probe kill it."""

    healed = False

    def kills(self, marks: list[int]) -> bool:
        return not self.healed and marks != [KNOWN_GOOD]


@pytest.mark.parametrize("count", [1, 4, 64])
def test_a_server_that_dies_of_all_real_windows_is_broken(count: int) -> None:
    """Nobody is refused however long that takes, it is left in peace for most of the time, and all ends well."""
    server = DiesOfAll()
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        task = asyncio.create_task(all_answers(dispatcher, range(100, 100 + count)))
        await asyncio.sleep(3600)
        assert not task.done()
        if count == 64:
            assert State.DEPLOYMENT_FAULT in states
        else:
            assert server.deaths < count * (CRASHES + 3600 / 300 + 2), "each kills it once in five minutes, if that"
        server.healed = True
        assert_answered(range(100, 100 + count), await task)

    run(server, body, states)


def test_a_server_that_begins_to_die_of_all_real_windows_makes_no_poison() -> None:
    """It is asked for what it answered before, and nothing else is sent until it answers that again."""
    server = DiesOfAll()
    states: list[State] = []
    server.healed = True

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(MARKS, await all_answers(dispatcher, MARKS))
        server.healed = False
        task = asyncio.create_task(all_answers(dispatcher, [200, 201]))
        await asyncio.sleep(60)
        asked = len(states)
        await asyncio.sleep(3600)
        assert not task.done()
        assert len(states) == asked
        assert dispatcher.state is State.OUTAGE
        server.healed = True
        assert_answered([200, 201], await task)

    run(server, body, states)


@pytest.mark.parametrize("error", [LATE, BUSY, ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "OOM")])
def test_only_a_call_that_breaks_off_is_a_crash(error: ServingError) -> None:
    """A server that is gone after it complained, or after a call that ran out of time, went for another reason.

    Every other time it does, and between them nobody sees five in a row.
    """

    class Other(Process):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            deaths = self.deaths
            try:
                return await super().predict(windows, padded_length, timeout)
            except ServingError:
                raise (error if self.deaths > deaths and self.deaths % 2 else UNAVAILABLE) from None

    server = Other({101})

    async def body(dispatcher: Dispatcher) -> None:
        task = asyncio.create_task(all_answers(dispatcher, [100, 101, 102]))
        await asyncio.sleep(900)
        assert not task.done()
        server.poison.clear()
        assert_answered([100, 101, 102], await task)

    run(server, body)


def test_an_isolated_window_that_finds_the_server_busy_stays_alone() -> None:
    """It does not go back among its neighbours, whom it would take down with it."""
    server = Process({137})
    refusals = 3

    class Busy(Process):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            nonlocal refusals
            if len(windows) == 1 and int(windows[0].input_ids[0]) == 137 and refusals:
                refusals -= 1
                raise BUSY
            return await super().predict(windows, padded_length, timeout)

    server = Busy({137})

    async def body(dispatcher: Dispatcher) -> None:
        assert_only_refused(MARKS, {137}, await all_answers(dispatcher, MARKS))

    run(server, body)
    assert refusals == 0
    assert server.deaths <= most_deaths(64)


def test_an_isolated_window_whose_partition_was_revoked_holds_nobody_up() -> None:
    """Nothing of it is left, and the server is not killed again."""
    server = Process({101})

    async def body(dispatcher: Dispatcher) -> None:
        futures = [dispatcher.submit(window(mark), 0.0, 0) for mark in range(100, 104)]
        while not futures[0].done():
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        for future in futures:
            future.cancel()
        await until(State.OK, dispatcher)
        deaths = server.deaths
        assert_answered([500], await all_answers(dispatcher, [500]))
        await asyncio.sleep(600)
        assert dispatcher.waiting == 0
        assert server.deaths == deaths

    run(server, body)
