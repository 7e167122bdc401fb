"""A dispatcher in virtual time, before a model client that fails as it is told to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import virtual_time
from cells import cells_of

from consumer.batching.policy import LeastTime
from consumer.extraction.window import Window
from consumer.serving.dispatch.dispatcher import Dispatcher, State, WindowAnswer
from consumer.serving.protocol import Answer, Failure, ServingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from consumer.resilience.circuit_breaker import BreakerState

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
        return Answer(tuple(cells_of({(m, 0): 1.0}) for m in marks), "m", "1", "serving_default", 0.001)

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


class Observer:
    """Checks what it is told, and keeps the codes of calls and the states of the breaker."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.versions: list[tuple[str, str]] = []
        """Of every call: its code, and the version that it is counted for."""
        self.breaker_states: list[BreakerState] = []

    def batch_sent(self, rows: int, useful_tokens: int, padded_tokens: int, reason: str) -> None:
        assert 0 < rows <= useful_tokens <= padded_tokens
        assert reason

    def lane_sent(self, lane: str, padded_tokens: int, waited: float) -> None:
        assert lane
        assert padded_tokens > 0
        assert waited >= 0

    def model_called(self, model: str, version: str, code: str, seconds: float) -> None:  # noqa: ARG002
        self.codes.append(code)
        self.versions.append((code, version))

    def model_retried(self) -> None:
        self.codes.append("again")

    def in_flight_windows(self, windows: int) -> None:
        assert windows >= 0

    def windows_overflowed(self, windows: int) -> None:
        assert windows

    def breaker(self, state: BreakerState, endpoint: str) -> None:  # noqa: ARG002
        self.breaker_states.append(state)


def run(
    client: StubClient,
    body: Callable[[Dispatcher], Awaitable[None]],
    states: list[State] | None = None,
    max_tokens: int = 16_384,
    max_in_flight: int = 2,
) -> Observer:
    """Run ``body`` beside a dispatcher, in virtual time, until all is well; what the dispatcher told its observer."""
    observer = Observer()

    async def main() -> None:
        def on_state(state: State, error: ServingError | None) -> None:
            assert (state is State.OK) == (error is None)
            if states is not None:
                states.append(state)

        clock = asyncio.get_running_loop().time
        dispatcher = Dispatcher(
            {"one:1": client}, LeastTime(max_tokens, max_in_flight), window(KNOWN_GOOD), "m", observer, on_state, clock
        )
        pump = asyncio.create_task(dispatcher.pump())
        try:
            await body(dispatcher)
            assert dispatcher.waiting == 0
            await until(State.OK, dispatcher)
        finally:
            pump.cancel()

    virtual_time.run(main())
    return observer


async def all_answers(dispatcher: Dispatcher, marks: Sequence[int]) -> list[WindowAnswer | BaseException]:
    """Hand all of them in at once."""
    return await asyncio.gather(
        *(dispatcher.submit(window(m), deadline=0.0, level=0) for m in marks), return_exceptions=True
    )


def assert_answered(marks: Sequence[int], answers: Sequence[WindowAnswer | BaseException]) -> None:
    """Every window has its own cells."""
    for mark, answer in zip(marks, answers, strict=True):
        assert isinstance(answer, WindowAnswer), answer
        assert answer.cells.rows.tolist() == [mark]


async def until(state: State, dispatcher: Dispatcher) -> None:
    """Virtual seconds go by until the dispatcher is in this state."""
    async with asyncio.timeout(20_000):
        while dispatcher.state is not state:
            await asyncio.sleep(0.01)
