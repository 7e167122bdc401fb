"""Many texts through one model without Kafka: what the commands ``extract``, ``evaluate`` and ``compare`` share.

All windows of a chunk of texts are batched by length, level by level: windows of similar length need little padding,
and no single text is waited for, so there are no deadlines.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from consumer.batching.queue import padded_length
from consumer.codecs.outputs import ModelUsed
from consumer.events import BadInput
from consumer.extraction.task import ReferenceCrash
from consumer.resilience.backoff import Backoff
from consumer.serving.protocol import Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from consumer.extraction.engine import Extraction
    from consumer.extraction.window import Cells, Window
    from consumer.serving.protocol import Answer, ModelClient

MAX_TOKENS: Final = 8192
"""Padded tokens of a batch: half a second or two of a base-sized model on two CPU cores, and past the point where
larger batches are any faster."""

CALL_TOKENS: Final = 1024
"""Padded tokens that take about as long as the fixed part of a call."""

CALL_SECONDS: Final = 120.0
ATTEMPTS: Final = 5
PAUSES: Final = Backoff(0.2, least=0.5)
"""Seconds between two attempts: a server that restarts has about three seconds in all."""

MAX_RESTARTS: Final = 5


class Unanswered(Exception):  # noqa: N818 - the state of the server, not a fault of the program
    """The model server cannot be used. ``error`` is its last one."""

    def __init__(self, error: ServingError) -> None:
        super().__init__(str(error))
        self.error = error


class Driver:
    """Runs extractions through a model client. Lives on one event loop."""

    def __init__(
        self,
        client: ModelClient,
        concurrency: int = 1,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        known_good: Callable[[int], Awaitable[object]] | None = None,
    ) -> None:
        """``concurrency`` calls at most are at the model at a time.

        ``known_good`` asks a window of so many tokens or more that a fitting model answers, and raises ServingError
        otherwise. With it a text is only blamed for a window that is refused while one as long is answered.
        """
        self._client = client
        self._known_good = known_good
        self._free = asyncio.Semaphore(concurrency)
        self._sleep = sleep
        self._calls = 0

    async def run(self, starts: Sequence[Callable[[], Extraction]]) -> list[Extracting]:
        """Run one extraction for every start, in order. BadInput or ReferenceCrash is one text's failure.

        Raises Unanswered when the model server cannot be reached or does not fit.
        """
        runs = [Extracting(start) for start in starts]
        while active := [run for run in runs if run.windows]:
            rows = iter(await self._answer([window for run in active for window in run.windows]))
            for run in active:
                run.answer(list(itertools.islice(rows, len(run.windows))))
        for run in runs:
            run.total_seconds = time.monotonic() - run.began
        return runs

    async def _answer(self, windows: list[Window]) -> list[_Row]:
        rows: dict[int, _Row] = {}

        async def call(batch: list[int]) -> None:
            async with self._free:
                rows.update(zip(batch, await self._rows([windows[index] for index in batch]), strict=True))

        try:
            async with asyncio.TaskGroup() as group:
                for batch in batches([window.length for window in windows]):
                    group.create_task(call(batch))
        except* Unanswered as failed:
            raise failed.exceptions[0] from None
        return [rows[index] for index in range(len(windows))]

    async def _rows(self, windows: list[Window]) -> list[_Row]:
        """Answer one batch; halve it where it is too large for the server, or until a rejected window is alone."""
        try:
            answer = await self._predict(windows)
        except ServingError as error:
            if len(windows) == 1:
                await self._require_fitting(windows[0].length)
                return [_Row(error, None, self._calls, 0.0)]
            middle = len(windows) // 2
            return await self._rows(windows[:middle]) + await self._rows(windows[middle:])
        used = ModelUsed(answer.model_name, answer.model_version, answer.signature)
        self._calls += 1
        return [_Row(cells, used, self._calls, answer.seconds) for cells in answer.cells]

    async def _require_fitting(self, length: int) -> None:
        """Raise Unanswered where the model refuses, or a server that went away does not answer, a known-good window."""
        if self._known_good is not None:
            try:
                await self._known_good(length)
            except ServingError as error:
                raise Unanswered(error) from error

    async def _predict(self, windows: list[Window]) -> Answer:
        """One call. Raises ServingError where smaller batches may help, Unanswered where nothing here does."""
        length = padded_length(max(window.length for window in windows))
        attempt = 0
        while True:
            try:
                return await self._client.predict(windows, length, CALL_SECONDS)
            except ServingError as error:
                too_large = error.relief in (Relief.SMALLER_MEMORY, Relief.FEWER_BYTES) and len(windows) > 1
                if error.failure is Failure.BATCH_FAULT or too_large:
                    raise
                if error.failure is Failure.DEPLOYMENT or attempt + 1 == ATTEMPTS:
                    raise Unanswered(error) from error
            await self._sleep(PAUSES.pause(attempt))
            attempt += 1


class Extracting:
    """The extraction of one text, under way or ended: finished, or failed with the reason.

    ``model`` is None when no window had to be answered. Seconds: ``model_seconds`` is the sum over the calls that
    carried a window of this text, ``total_seconds`` from the start to the last answer of all texts beside it.
    """

    def __init__(self, start: Callable[[], Extraction]) -> None:
        self._start = start
        self._restarts = -1
        self.began = time.monotonic()
        self.extraction: Extraction | None = None
        self.failure: BadInput | ReferenceCrash | None = None
        self.model: ModelUsed | None = None
        self.model_seconds = self.total_seconds = 0.0
        self._restart()

    @property
    def windows(self) -> Sequence[Window]:
        """Windows to be answered now; none when it is over."""
        return () if self.extraction is None else self.extraction.windows

    def answer(self, rows: Sequence[_Row]) -> None:
        """Take the rows of all current windows and move on."""
        self.model_seconds += sum({row.call: row.seconds for row in rows}.values())
        models = {row.model for row in rows if row.model is not None}
        if self.model is not None:
            models.add(self.model)
        cells: list[Cells] = []
        for row in rows:
            if isinstance(row.cells, ServingError):
                what = f"the model refuses a window of this text, alone in its batch: {row.cells}"
                self._fail(BadInput("extract", "BatchFault", what))
                return
            cells.append(row.cells)
        if len(models) > 1:
            self._restart()  # the server changed its version meanwhile: a result never mixes two
        elif self.extraction is not None:
            (self.model,) = models
            try:
                self.extraction.advance(cells)
            except (BadInput, ReferenceCrash) as failure:
                self._fail(failure)

    def _fail(self, failure: BadInput | ReferenceCrash) -> None:
        self.extraction, self.failure = None, failure

    def _restart(self) -> None:
        self.model = None
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            what = f"the answers came from different versions of the model, {self._restarts} times over"
            raise Unanswered(ServingError(Failure.TRANSIENT, "ABORTED", what))
        try:
            self.extraction = self._start()
        except (BadInput, ReferenceCrash) as failure:
            self._fail(failure)


class _Row(NamedTuple):
    """What one window got: cells, or why the model refuses this very window. ``call`` numbers the calls."""

    cells: Cells | ServingError
    model: ModelUsed | None
    call: int
    seconds: float


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Split windows of these lengths (tokens) into batches of indexes, the longest first.

    A batch holds at most ``MAX_TOKENS`` padded tokens (or one window), and no more padding than a call of its own for
    the shorter windows would cost.
    """
    made: list[list[int]] = []
    longest = rows_left = padding_left = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = padded_length(lengths[index])
        padding_left -= longest - length
        if not rows_left or padding_left < 0:
            made.append([])
            longest, rows_left, padding_left = length, max(1, MAX_TOKENS // length), CALL_TOKENS
        made[-1].append(index)
        rows_left -= 1
    return made
