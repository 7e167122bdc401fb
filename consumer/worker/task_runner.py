"""One task on one text: windows to the model server, level after level, until the extraction is finished."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from consumer.codecs.outputs import ModelUsed
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Sequence

    from consumer.extraction.engine import Engine, Extraction
    from consumer.extraction.task import Extracted, Task
    from consumer.extraction.window import Window
    from consumer.serving.dispatch.dispatcher import WindowAnswer


_log = structlog.stdlib.get_logger(__name__)

VERSION_CHANGED = "model_version_changed: started again"


class Submitter(Protocol):
    """The dispatcher, as far as one extraction needs it."""

    def submit(self, window: Window, deadline: float, level: int, origin: Hashable) -> asyncio.Future[WindowAnswer]:
        """Queue one window for a batch. ``origin`` is the event that it comes from."""
        ...


@dataclass(frozen=True, slots=True)
class Inference:
    """What a task found, and what it took. Seconds; ``queued`` is the time that windows waited for a batch."""

    extracted: Extracted
    model: ModelUsed
    queued: float
    in_model: float
    overflowed: int
    restarts: int


class TaskRunner:
    """Runs extractions through the dispatcher."""

    # From here on the event waits before each restart and says so: replicas that serve different versions.
    PATIENT_AFTER = 3

    def __init__(self, engine: Engine, dispatcher: Submitter, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self._clock = clock

    async def infer(self, text: str, task: Task, deadline: float, origin: Hashable) -> Inference:
        """Extract ``task`` from ``text``. ``deadline`` (seconds of the clock) orders the work, it does not end it.

        ``origin`` tells one event from another: what the model refuses of one counts once, whatever its tasks.

        One result never mixes models: when another version answers than answered before, the extraction starts again
        at level 0. Raises BadInput for a text or schema over the limits, and WindowRefused.
        """
        restarts = 0
        while True:
            run = _Run(self._engine.start(text, task))
            try:
                finished = await self._finish(run, deadline, origin)
            except BadInput as bad:
                bad.model_version = run.model_version
                raise
            if finished:
                return run.inference(restarts)
            restarts += 1
            if restarts > self.PATIENT_AFTER:
                _log.warning("model versions change faster than this text is extracted", restarts=restarts)
                await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter, not cryptography

    async def _finish(self, run: _Run, deadline: float, origin: Hashable) -> bool:
        """Answer level after level; False when the model version changed on the way."""
        extraction = run.extraction
        while not extraction.finished:
            started = self._clock()
            futures = [self._dispatcher.submit(w, deadline, extraction.level, origin) for w in extraction.windows]
            try:
                answers = [await future for future in futures]
            finally:
                # Refused or withdrawn: the siblings of a window that will not be answered are work for nothing.
                for future in futures:
                    if not future.cancel() and not future.cancelled():
                        future.exception()  # or asyncio reports a second refusal as one that nobody saw
            if not run.accept(answers, self._clock() - started):
                return False
            extraction.advance([answer.cells for answer in answers])
        return True


class _Run:
    """One attempt at an extraction, on one model version."""

    def __init__(self, extraction: Extraction) -> None:
        self.extraction = extraction
        self._model = ModelUsed("", "", "")
        self._queued = 0.0
        self._in_model = 0.0
        self._overflowed = 0

    @property
    def model_version(self) -> str | None:
        """The version of the answers so far; None before the first."""
        return self._model.version or None

    def accept(self, answers: Sequence[WindowAnswer], elapsed: float) -> bool:
        """Count a level's answers; False when they come from another model version than before, or from two."""
        models = {ModelUsed(a.answer.model_name, a.answer.model_version, a.answer.signature) for a in answers}
        if self._model.version:
            models.add(self._model)
        if len(models) > 1:
            return False
        self._model = models.pop()
        in_model = min(elapsed, max(answer.answer.seconds for answer in answers))
        self._in_model += in_model
        self._queued += elapsed - in_model
        self._overflowed += sum(answer.overflowed for answer in answers)
        return True

    def inference(self, restarts: int) -> Inference:
        return Inference(
            self.extraction.result(), self._model, self._queued, self._in_model, self._overflowed, restarts
        )


# How much text may be under extraction at once.
#
# What is in flight is bounded in records and bytes; the windows of a record take far more memory than its bytes do.

CHARACTERS = 1_000_000
"""A review of 50,000 characters was measured to hold 8.3 MiB of windows and offsets per task: about 170 bytes a
character, so this is some 170 MB. 2,000 usual reviews of 100 characters with three tasks each are 600,000."""


class TextBudget:
    """Characters of text times tasks. One event loop's; first come, first served, so that a long text gets its turn."""

    def __init__(self, characters: int = CHARACTERS) -> None:
        self._size = self._free = characters
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, characters: int) -> AsyncIterator[None]:
        """Wait for room and hold it. A text larger than all the room takes all of it."""
        characters = min(characters, self._size)
        if self._waiting or characters > self._free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((characters, turn))
            try:
                await turn
            except asyncio.CancelledError:
                # It may have had its turn already; and those behind it must not wait for one that has left.
                self._give_back(0 if turn.cancelled() else characters)
                raise
        else:
            self._free -= characters
        try:
            yield
        finally:
            self._give_back(characters)

    def _give_back(self, characters: int) -> None:
        self._free += characters
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
                continue
            if wanted > self._free:
                return
            self._waiting.popleft()
            self._free -= wanted
            turn.set_result(None)
