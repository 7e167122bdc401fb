"""Runs one task on one text: sends its windows to the model server, level after level, until it is finished.

The event processor runs a ``TaskRunner`` for every task of every event, within a ``TextBudget``: the in-flight bounds
count a record's bytes, and its windows take far more memory than those.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from consumer.codecs.outputs import ModelUsed
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable

    from consumer.extraction.engine import Engine
    from consumer.extraction.task import Extracted, Task
    from consumer.serving.dispatch.dispatcher import Dispatcher

VERSION_CHANGED = "model_version_changed: started again"

CHARACTERS = 1_000_000
"""A review of 50,000 characters was measured to hold 8.3 MiB of windows and offsets per task: about 170 bytes a
character, so this is some 170 MB. 2,000 usual reviews of 100 characters with three tasks each are 600,000."""

_NO_MODEL = ModelUsed("", "", "")
"""Stands for the model before the first answer."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inference:
    """What a task found, and what it took.

    ``queued`` (waiting for a batch) and ``in_model`` are seconds, ``overflowed`` windows were repeated on the dense
    signature, ``restarts`` attempts before this one met another model version.
    """

    extracted: Extracted
    model: ModelUsed
    queued: float
    in_model: float
    overflowed: int
    restarts: int


class TaskRunner:
    """Runs extractions through the dispatcher."""

    # After so many the event waits before each restart and logs it: probably replicas serve different versions.
    RESTARTS_WITHOUT_WAIT = 3

    def __init__(self, engine: Engine, dispatcher: Dispatcher, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self._clock = clock

    async def infer(self, text: str, task: Task, deadline: float, origin: Hashable) -> Inference:
        """Extract ``task`` from ``text``. ``deadline`` (seconds of the clock) orders the work; nothing ends at it.

        ``origin`` identifies the event: however many windows of an event the model refuses, in whatever tasks, they
        count once.

        One result never mixes models: when another version answers than answered before, the extraction starts again at
        level 0. Raises BadInput for a text or schema over the limits, and WindowRefused.
        """
        restarts = 0
        while (inference := await self._attempt(text, task, deadline, origin, restarts)) is None:
            restarts += 1
            if restarts > self.RESTARTS_WITHOUT_WAIT:
                _log.warning("model versions change faster than this text is extracted", restarts=restarts)
                await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter, not cryptography
        return inference

    async def _attempt(
        self, text: str, task: Task, deadline: float, origin: Hashable, restarts: int
    ) -> Inference | None:
        """Answer level after level; None when the model version changed meanwhile."""
        extraction = self._engine.start(text, task)
        model = _NO_MODEL
        queued, in_model, overflowed = 0.0, 0.0, 0
        while not extraction.finished:
            started = self._clock()
            futures = [self._dispatcher.submit(w, deadline, extraction.level, origin) for w in extraction.windows]
            try:
                answers = [await future for future in futures]
            finally:
                # Refused or cancelled: the other windows of an extraction that failed need no answer.
                for future in futures:
                    if not future.cancel() and not future.cancelled():
                        future.exception()  # or asyncio logs a second refusal as never retrieved
            elapsed = self._clock() - started
            models = {ModelUsed(a.answer.model_name, a.answer.model_version, a.answer.signature) for a in answers}
            if model.version:
                models.add(model)
            if len(models) > 1:
                return None
            model = models.pop()
            level_in_model = min(elapsed, max(answer.answer.seconds for answer in answers))
            in_model += level_in_model
            queued += elapsed - level_in_model
            overflowed += sum(answer.overflowed for answer in answers)
            try:
                extraction.advance([answer.cells for answer in answers])
            except BadInput as bad:
                bad.model_version = model.version or None
                raise
        return Inference(extraction.result(), model, queued, in_model, overflowed, restarts)


class TextBudget:
    """How much text may be under extraction at once: characters times tasks.

    Belongs to one event loop. First come, first served, so that short texts do not keep a long one waiting for ever.
    """

    def __init__(self, characters: int = CHARACTERS) -> None:
        self._size = self._free = characters
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, characters: int) -> AsyncIterator[None]:
        """Wait until so many characters are free, and hold them. A text over the whole budget takes all of it."""
        characters = min(characters, self._size)
        if self._waiting or characters > self._free:
            granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((characters, granted))
            try:
                await granted
            except asyncio.CancelledError:
                # Characters may have been granted already, and must be given back; and those who wait behind must not
                # wait for one that was cancelled.
                self._give_back(0 if granted.cancelled() else characters)
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
            wanted, granted = self._waiting[0]
            if not granted.cancelled():
                if wanted > self._free:
                    return
                self._free -= wanted
                granted.set_result(None)
            self._waiting.popleft()
