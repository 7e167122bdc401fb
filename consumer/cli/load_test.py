"""The measurements of ``rexstream tune``: windows of real reviews, single calls over a grid of shapes, calls at once.

``sampled`` asks reviews level by level and keeps their windows; ``LoadTest`` sends these again in calls of chosen
shapes. What follows from the times is in ``consumer.batching.call_cost`` and ``tuning``.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from consumer.batching.call_cost import Cell, fit_call_cost
from consumer.batching.queue import padded_length
from consumer.events import BadInput
from consumer.offline import ATTEMPTS, PAUSES, Driver, Unanswered
from consumer.serving.protocol import Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from consumer.cli.model_source import Session
    from consumer.extraction.engine import Engine
    from consumer.extraction.task import Task
    from consumer.extraction.window import Window
    from consumer.serving.protocol import Answer, ModelClient

CHUNK: Final = 16
"""Reviews that are asked together: some dozen windows of each level, a call or two."""
MOST_REPEATS: Final = 15
LEAST_REPEATS: Final = 3
"""Calls of a cell below which their spread says little."""
FITTED: Final = 6
"""Cells from which on the fit predicts the next; before, time is taken to grow as tokens do."""
AT_ONCE: Final = (1, 2, 3, 4, 8)
PASSES: Final = 3
"""Times that each number of calls at once is measured, in turn: what disturbs the server for a while disturbs all."""
SLOT_SECONDS: Final = 2.0
"""Longest measurement of one number of calls at once, where there is time for more."""
MOST_CALLS: Final = 200
LEAST_TIMEOUT: Final = 30.0
"""Seconds that any call may take; the first one of a shape may take many times what later ones do."""
TOO_LARGE: Final = (Relief.SMALLER_MEMORY, Relief.FEWER_BYTES)


class VersionChanged(Exception):  # noqa: N818 - the state of the server, not a fault of the program
    """The served version changed while it was measured."""


@dataclass(slots=True)
class Sample:
    """What reviews ask of the model."""

    reviews: int = 0
    refused: int = 0
    """Reviews with a task that could not be done, such as texts over ``limits.text_chars``."""
    windows: list[Window] = field(default_factory=list)
    """Of all levels, in the order in which they were answered."""
    first: Counter[int] = field(default_factory=Counter)
    """Windows of the first level, by padded length."""

    @property
    def every(self) -> Counter[int]:
        """Windows of all levels, by padded length."""
        return Counter(padded_length(window.length) for window in self.windows)


async def sampled(
    session: Session,
    texts: Sequence[str],
    tasks: Sequence[Task],
    until: float,
    under_way: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Sample:
    """Run ``tasks`` on ``texts``, a chunk at least and others until the clock says ``until``.

    Raises Unanswered when the model server cannot be reached or does not fit.
    """
    sample = Sample()
    driver = Driver(_Recorder(session.client, sample.windows), known_good=session.known_good)
    for start in range(0, len(texts), CHUNK):
        if start and clock() >= until:
            break
        under_way(f"windows of reviews, {sample.reviews} of {len(texts)}")
        chunk = texts[start : start + CHUNK]
        try:
            done = await driver.run([partial(session.engine.start, text, task) for text in chunk for task in tasks])
        except Unanswered as unanswered:
            raise _ended(unanswered.error, "it was sent windows of reviews") from unanswered
        sample.reviews += len(chunk)
        failed = [each.failure is not None for each in done]
        sample.refused += sum(any(failed[at : at + len(tasks)]) for at in range(0, len(failed), len(tasks)))
        for text in chunk:
            for task in tasks:
                sample.first.update(_first_level(session.engine, text, task))
    return sample


def _first_level(engine: Engine, text: str, task: Task) -> list[int]:
    """Padded lengths of the windows that need no answer; none of what is refused."""
    try:
        return [padded_length(window.length) for window in engine.start(text, task).windows]
    except BadInput:
        return []


class _Recorder:
    """Implements ModelClient by another one, and keeps the windows that it answered."""

    def __init__(self, client: ModelClient, windows: list[Window]) -> None:
        self._client = client
        self._windows = windows

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        answer = await self._client.predict(windows, padded_length, timeout)
        self._windows += windows
        return answer

    async def ready(self) -> bool:
        return await self._client.ready()

    async def close(self) -> None:
        await self._client.close()


class LeftOut(NamedTuple):
    """A shape that was not measured."""

    rows: int
    length: int
    why: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Single calls by shape, and the shapes that have none."""

    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Calls a second of one shape with so many calls in flight. ``refused`` says why there are no more of them."""

    rows: int
    length: int
    passes: dict[int, list[float]]
    refused: str


class LoadTest:
    """Sends windows in calls of chosen shapes and takes the time. Lives on one event loop."""

    def __init__(
        self,
        client: ModelClient,
        windows: Sequence[Window],
        longest: float,
        under_way: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``longest``: no call is made that is predicted to take more seconds."""
        self._client = client
        self._longest = longest
        self._under_way = under_way
        self._clock = clock
        self._sleep = sleep
        self._by_length: defaultdict[int, list[Window]] = defaultdict(list)
        for window in windows:
            self._by_length[padded_length(window.length)].append(window)
        self.model: tuple[str, str] | None = None
        """Name and version that answered."""

    async def grid(self, shapes: Sequence[tuple[int, int]], until: float) -> Grid:
        """Measure each shape, in this order: once to warm it up, once for the record; then all again, and again.

        The first round may take half of the time until the clock says ``until``, so that there is as much for two
        repeats of it. Raises Unanswered, VersionChanged.
        """
        seconds: dict[tuple[int, int], list[float]] = {}
        left_out: list[LeftOut] = []
        half = self._clock() + (until - self._clock()) / 2
        most_tokens = float("inf")
        for rows, length in shapes:
            expected = _expected(seconds, rows, length)
            if rows * length >= most_tokens:
                why = "a smaller call was already too large for the server"
            elif expected > self._longest:
                why = f"expected to take {expected:.1f} s"
            elif seconds and self._clock() + 2 * expected > half:
                why = "the time was up"
            else:
                self._under_way(f"{rows} x {length} tokens")
                try:
                    await self._alone(rows, length)
                    seconds[rows, length] = [await self._alone(rows, length)]
                    continue
                except ServingError as error:
                    most_tokens = rows * length
                    why = f"too large for the server ({error.code})"
            left_out.append(LeftOut(rows, length, why))
        for repeat in range(2, MOST_REPEATS + 1):
            for (rows, length), taken in seconds.items():
                if self._clock() + taken[0] > until:
                    continue
                self._under_way(f"{rows} x {length} tokens, {repeat} of {MOST_REPEATS}")
                try:
                    taken.append(await self._alone(rows, length))
                except ServingError as error:
                    raise _unanswered(error, rows, length) from error
        return Grid(tuple(Cell(*shape, tuple(taken)) for shape, taken in seconds.items()), tuple(left_out))

    async def at_once(self, rows: int, length: int, call_seconds: float, until: float) -> AtOnce:
        """Measure how many calls of a shape a second brings, by the number of them in flight.

        ``call_seconds`` is what one takes. Each number is measured at least once, whatever the clock says. Raises
        Unanswered, VersionChanged.
        """
        passes: dict[int, list[float]] = {number: [] for number in AT_ONCE}
        slot = min(SLOT_SECONDS, max(0.0, until - self._clock()) / (PASSES * len(AT_ONCE)))
        refused = ""
        for attempt in range(PASSES):
            for number in list(passes):
                if attempt and self._clock() + slot > until:
                    continue
                self._under_way(f"{number} calls at once of {rows} x {length} tokens")
                calls = min(MOST_CALLS, max(2 * number, round(slot / call_seconds / number) * number))
                try:
                    passes[number].append(await self._rate(number, calls, rows, length))
                except ServingError as error:
                    if number == 1 or error.relief is Relief.NONE:
                        raise _unanswered(error, rows, length) from error
                    refused = f"{number} at once were refused ({error.code})"
                    passes = {fewer: rates for fewer, rates in passes.items() if fewer < number}
                    break
        return AtOnce(rows, length, passes, refused)

    async def _rate(self, number: int, calls: int, rows: int, length: int) -> float:
        """Calls a second of ``calls`` calls, ``number`` of them in flight. Raises ServingError."""
        waiting = iter(range(calls))

        async def one_after_the_other() -> None:
            for _ in waiting:
                await self._call(rows, length)

        started = self._clock()
        for ended in await asyncio.gather(*(one_after_the_other() for _ in range(number)), return_exceptions=True):
            if ended is not None:
                raise ended
        return calls / (self._clock() - started)

    async def _alone(self, rows: int, length: int) -> float:
        """Seconds of a call with no other beside it, tried again where the server is busy.

        Raises ServingError where it is too large for the server, Unanswered for everything else.
        """
        attempt = 0
        while True:
            try:
                return await self._call(rows, length)
            except ServingError as error:
                if error.relief in TOO_LARGE:
                    raise
                attempt += 1
                if error.relief is not Relief.FEWER_IN_FLIGHT or attempt == ATTEMPTS:
                    raise _unanswered(error, rows, length) from error
            await self._sleep(PAUSES.pause(attempt))

    async def _call(self, rows: int, length: int) -> float:
        """Seconds of one call. Raises ServingError, VersionChanged."""
        longest = max(self._by_length, key=lambda found: (found <= length, found))
        windows = list(islice(cycle(self._by_length[longest]), rows))
        answer = await self._client.predict(windows, length, max(LEAST_TIMEOUT, 10 * self._longest))
        model = answer.model_name, answer.model_version
        if self.model is None:
            self.model = model
        if model != self.model:
            raise VersionChanged(
                f"model {model[0]} changed from version {self.model[1]} to {model[1]} while it was measured; measure "
                "again when no version is being rolled out"
            )
        return answer.seconds


def _unanswered(error: ServingError, rows: int, length: int) -> Unanswered:
    return _ended(error, f"it was sent {rows} x {length} tokens")


def _ended(error: ServingError, asked: str) -> Unanswered:
    """The end of a measurement, with what it ended at."""
    what = error.message or "refused"
    if error.failure is not Failure.DEPLOYMENT:
        what += f"; {asked}"
    if error.relief is Relief.FEWER_IN_FLIGHT:
        what += (
            ", one call at a time: others keep it busy. Measure when they do not, or give it more --grpc_max_threads"
        )
    return Unanswered(ServingError(error.failure, error.code, what, error.relief))


def _expected(seconds: dict[tuple[int, int], list[float]], rows: int, length: int) -> float:
    """Seconds that a call of a new shape should take; 0 for the first."""
    cells = [Cell(*shape, tuple(taken)) for shape, taken in seconds.items()]
    if len(cells) >= FITTED:
        return fit_call_cost(cells).seconds(rows, length)
    largest = max(cells, key=lambda cell: cell.tokens, default=None)
    return 0.0 if largest is None else largest.seconds * rows * length / largest.tokens
