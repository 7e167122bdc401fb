"""How long windows are held, and how often the state changes, by a server that is half well and then mended.

In virtual time, at fifteen windows a second. The backoff draws from a seeded generator, so every run is the same.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NamedTuple

import pytest
import virtual_time
from dispatcher_harness import (
    BATCH_FAULT,
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
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.batching.policy import CallCost, LeastTime
from consumer.serving.dispatch.dispatcher import Dispatcher, State
from consumer.serving.dispatch.outage import STEADY_SECONDS
from consumer.serving.protocol import Answer, Failure, ServingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window

MENDED = 30.0
MIXED = ServingError(
    Failure.DEPLOYMENT, "FAILED_PRECONDITION", "Tensors … have different shapes and padding is turned off."
)
REMOVED = ServingError(Failure.DEPLOYMENT, "NOT_FOUND", "Servable not found for request: Latest(m)")
TOO_MANY_ROWS = ServingError(
    Failure.DEPLOYMENT, "INVALID_ARGUMENT", "Task size 9 is larger than maximum input batch size 3"
)


class Mended(StubClient):
    """Answers after ``seconds``; until ``MENDED`` a call fails as ``failure`` draws it."""

    def __init__(self, share: float, seconds: float, seed: int) -> None:
        super().__init__()
        self.share, self.seconds = share, seconds
        self._draw = random.Random(seed)

    async def failure(self, windows: Sequence[Window], padded_length: int) -> ServingError | None:  # noqa: ARG002
        return UNAVAILABLE if self._draw.random() < self.share else None

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        if asyncio.get_running_loop().time() < MENDED and (error := await self.failure(windows, padded_length)):
            await asyncio.sleep(0.002)
            raise error
        await asyncio.sleep(self.seconds)
        return await super().predict(windows, padded_length, timeout)


class Batching(Mended):
    """A server with batching: calls that arrive within a millisecond are one, and fail together."""

    def __init__(self, seconds: float, most_rows: int) -> None:
        super().__init__(0.0, seconds, 0)
        self.most_rows = most_rows
        self._lengths: list[int] = []

    async def failure(self, windows: Sequence[Window], padded_length: int) -> ServingError | None:
        if len(windows) > self.most_rows:
            return TOO_MANY_ROWS
        together = self._lengths
        together.append(padded_length)
        await asyncio.sleep(0.001)
        if self._lengths is together:
            self._lengths = []
        return MIXED if len(set(together)) > 1 else None


class Seen(NamedTuple):
    states: list[State]
    held: float
    """Seconds after ``MENDED`` until the last of the windows that were submitted before was answered."""
    after: int
    """Windows answered from three seconds after ``MENDED`` on, for ten seconds."""


def watch(client: StubClient, lengths: Sequence[int] = (16,), seed: int = 0, policy: LeastTime | None = None) -> Seen:
    """Fifteen windows a second while the worker would consume, until fifteen seconds after the server is mended."""
    states: list[State] = []
    times: list[tuple[float, float]] = []

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        draw = random.Random(seed)
        dispatcher = Dispatcher(
            {"one:1": client},
            policy or LeastTime(16_384, 2),
            window(KNOWN_GOOD),
            "m",
            Observer(),
            lambda state, _: states.append(state),
            clock,
        )
        pump = asyncio.create_task(dispatcher.pump())

        async def one(mark: int, length: int) -> None:
            began = clock()
            await dispatcher.submit(window(mark, length), began, 0, mark)
            times.append((began, clock()))

        async with asyncio.TaskGroup() as group:
            mark = 100
            while clock() < MENDED + 15:
                if dispatcher.state is State.OK and dispatcher.waiting < 300:
                    for _ in range(2):
                        group.create_task(one(mark, draw.choice(lengths)))
                        mark += 1
                await asyncio.sleep(draw.uniform(0.07, 0.2))
        pump.cancel()

    random.seed(seed)
    virtual_time.run(main())
    held = max((done - MENDED for began, done in times if began < MENDED), default=0.0)
    return Seen(states, held, sum(MENDED + 3 < done <= MENDED + 13 for _, done in times))


@pytest.mark.parametrize("seconds", [0.02, 0.3])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_network_that_loses_calls_holds_no_window_and_changes_no_state(share: float, seconds: float) -> None:
    """At 5 % windows were held for a minute longer, at 30 % for two, with seventy changes of the state."""
    runs = [watch(Mended(share, seconds, seed), seed=seed) for seed in range(10)]
    assert sorted(seen.held for seen in runs)[-2] <= 3.0, "one of ten may have met a coincidence"
    assert max(seen.held for seen in runs) <= 10.0
    assert sum(len(seen.states) for seen in runs) <= 4
    assert min(seen.after for seen in runs) >= 120


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
def test_a_server_that_is_mostly_gone_changes_its_state_now_and_then(share: float) -> None:
    """It is an outage, said a few times at most; and three seconds after its end all is as before."""
    runs = [watch(Mended(share, 0.02, seed), seed=seed) for seed in range(5)]
    # Where most calls are lost, a window may have been alone when all the probes after it were lost, too, by chance.
    assert max(seen.held for seen in runs) <= (4.0 if share >= 0.9 else 40.0)
    for seen in runs:
        assert seen.states[-1] is State.OK
        assert 2 <= len(seen.states) <= 8
        assert seen.after >= 120


@pytest.mark.parametrize(("seconds", "most_rows"), [(0.1, 512), (0.1, 3), (0.3, 3)])
def test_batching_on_the_server_is_a_deployment_fault_until_it_is_off(seconds: float, most_rows: int) -> None:
    """Though a health probe alone passes. It was not said, and retries booked ahead slowed the mended server.

    Windows of different lengths go in calls of their own here, two at once.
    """
    apart = LeastTime(16_384, 4, CallCost(floor=0.0, fixed=0.0, per_token=1e-4, per_pair=0.0))
    seen = watch(Batching(seconds, most_rows), lengths=(16, 24, 40, 80, 120), policy=apart)
    assert seen.states == [State.DEPLOYMENT_FAULT, State.OK]
    assert seen.held <= 4.0
    assert seen.after >= 120


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(("error", "most"), [(MIXED, 8), (REMOVED, 2)])
def test_faults_of_a_few_calls_do_not_flap(error: ServingError, most: int, share: float) -> None:
    """One of several replicas batches, or lacks the model: there were eighteen changes of the state in 30 s.

    A model that is not there is met by probes, too, so the few calls that do not find it change nothing.
    """

    class Replica(Mended):
        async def failure(self, windows: Sequence[Window], padded_length: int) -> ServingError | None:
            return error if await super().failure(windows, padded_length) else None

    for seed in range(5):
        seen = watch(Replica(share, 0.05, seed), lengths=(16, 32, 64), seed=seed)
        assert len(seen.states) <= most
        assert seen.held <= 3.0


def test_a_server_that_answered_nothing_for_a_while_is_found_again_at_once() -> None:
    """As after half-open connections: probes whose answers never come do not hold up the one that is answered."""

    class Hanging(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            if 10 < asyncio.get_running_loop().time() < MENDED + 40:
                await asyncio.sleep(timeout)
                raise ServingError(Failure.TRANSIENT, "DEADLINE_EXCEEDED", "Deadline Exceeded")
            return await super().predict(windows, padded_length, timeout)

    async def body(dispatcher: Dispatcher) -> None:
        clock = asyncio.get_running_loop().time
        while clock() < MENDED:
            assert_answered([100], [await dispatcher.submit(window(100), 0.0, 0)])
            await asyncio.sleep(0.1)
        assert MENDED + 40 <= clock() <= MENDED + 46

    states: list[State] = []
    run(Hanging(), body, states)
    assert states == [State.OUTAGE, State.OK]


def test_an_outage_that_ends_is_over_within_three_seconds() -> None:
    """However long it lasted, what waited is sent again."""

    async def body(dispatcher: Dispatcher) -> None:
        clock = asyncio.get_running_loop().time
        for back_at in (2.0, 100.0, 800.0, 4000.0):
            client.fail = lambda _, back_at=back_at: UNAVAILABLE if clock() < back_at else None  # type: ignore[misc]
            assert_answered([100, 101], await all_answers(dispatcher, [100, 101]))
            assert clock() <= back_at + 3.0
            await until(State.OK, dispatcher)
            assert clock() <= back_at + 4.0
            await asyncio.sleep(STEADY_SECONDS)

    client = StubClient()
    run(client, body)


# Derandomized: a window may be alone in flight by chance when the server goes away, and then rightly waits for longer.
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(0.001, 5.0), st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0])), max_size=8),
    st.sampled_from([0.01, 0.2]),
    st.integers(0, 2**20),
)
def test_after_any_faults_everything_is_sent_within_ten_seconds_and_nothing_is_refused(
    phases: list[tuple[float, float]], seconds: float, seed: int
) -> None:
    """Whatever share of calls was lost, when and for how long."""
    draw = random.Random(seed)
    ends, at = [], 0.0
    for lasts, share in phases:
        at += lasts
        ends.append((at, share))

    class Faults(StubClient):
        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            now = asyncio.get_running_loop().time()
            if draw.random() < next((share for end, share in ends if now < end), 0.0):
                raise UNAVAILABLE
            await asyncio.sleep(seconds)
            return await super().predict(windows, padded_length, timeout)

    async def body(dispatcher: Dispatcher) -> None:
        tasks = []
        for mark in range(100, 140):
            tasks.append(dispatcher.submit(window(mark), 0.0, 0))
            await asyncio.sleep(at / 40)
        assert_answered(range(100, 140), await asyncio.gather(*tasks))
        assert asyncio.get_running_loop().time() <= at + 10.0

    random.seed(seed)
    run(Faults(), body)


def test_an_idle_worker_notices_a_model_that_does_not_fit() -> None:
    """One health probe a minute, and no call more while windows are answered."""
    client = StubClient()
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered([100], await all_answers(dispatcher, [100]))
        for _ in range(100):
            await asyncio.sleep(10)
            assert_answered([100], await all_answers(dispatcher, [100]))
        assert len(client.calls) == 101
        await asyncio.sleep(600)
        assert 9 <= len(client.calls) - 101 <= 10
        client.fail = lambda _: BATCH_FAULT
        async with asyncio.timeout(65):
            await until(State.DEPLOYMENT_FAULT, dispatcher)
        client.fail = lambda _: None
        async with asyncio.timeout(4):
            await until(State.OK, dispatcher)

    run(client, body, states)
    assert states == [State.DEPLOYMENT_FAULT, State.OK]


def test_a_busy_server_holds_nothing_after_it_has_threads_again() -> None:
    """Every refusal used to book a second."""
    busy = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "")
    client = StubClient(lambda _: busy if asyncio.get_running_loop().time() < MENDED else None)

    async def body(dispatcher: Dispatcher) -> None:
        assert_answered(range(100, 140), await all_answers(dispatcher, range(100, 140)))
        assert asyncio.get_running_loop().time() <= MENDED + 3

    run(client, body)


def test_a_model_that_fails_at_one_length_is_said_once() -> None:
    """Short health probes are answered; the one that ends the fault is as long as the one that found it."""

    class Short(StubClient):
        healed = False

        async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
            if padded_length > 16 and not self.healed:
                await asyncio.sleep(0.01)
                raise BATCH_FAULT
            return await super().predict(windows, padded_length, timeout)

    client = Short()
    states: list[State] = []

    async def body(dispatcher: Dispatcher) -> None:
        futures = [dispatcher.submit(window(mark, 100), 0.0, 0) for mark in range(100, 104)]
        async with asyncio.timeout(5):
            await until(State.DEPLOYMENT_FAULT, dispatcher)
        await asyncio.sleep(600)
        client.healed = True
        assert_answered(range(100, 104), await asyncio.gather(*futures))

    run(client, body, states)
    assert states == [State.DEPLOYMENT_FAULT, State.OK]
