"""Runs one task on one text: sends its windows to the model server, level after level, until it is finished.

The event processor runs every task of every event with it, within a ``WorkBudget``: the in-flight bounds count a
record's bytes, and what is made of it in memory can be a thousand times as much.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import structlog

from consumer.batching.queue import LANE
from consumer.codecs.outputs import ModelUsed
from consumer.events import BadInput, Place, Work
from consumer.worker.inference import Inference
from consumer.worker.work_queue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.batching.pinned import Pinned
    from consumer.batching.queue import EventShare
    from consumer.events import Outcome, SourceRecord
    from consumer.extraction.engine import Engine, Extraction
    from consumer.extraction.task import Task
    from consumer.extraction.window import Window
    from consumer.serving.dispatch.dispatcher import Dispatcher
    from consumer.serving.dispatch.suspected import SuspectedWindows
    from consumer.serving.protocol import Answer
    from consumer.serving.refused import WindowAnswer

EVENT_BYTES = 48 * 1024
"""What an event may take without asking: three tasks with a window each on three levels."""

DECODED = 32
"""Bytes that a byte of a value may become when it is decoded: JSON of nothing but short names was measured at 25."""

CHARACTER_BYTES = 20
"""A character of the text in a task. Where it makes more than a token, the task asks for the rest."""

WINDOW_BYTES, WINDOW_TOKEN_BYTES = 10 * 1024, 12
"""A window at the dispatcher: its entry there, its hint, an answer of 256 cells; and its arrays, by tokens."""

UNREAD_BYTES = 32 * 1024 * 1024
"""Answers of more than 256 cells, up to 1.5 MB each, that wait for those before them, or because their event waits for
memory. Beyond it such an answer is thrown away, and asked for again when it can be read."""

_UNKNOWN = ModelUsed("", "", "")  # before the first answer
_model_used = lru_cache(64)(ModelUsed)

_log = structlog.stdlib.get_logger(__name__)


class TaskRunner:
    """Runs extractions through the dispatcher."""

    # After so many the event waits before each restart and logs it: probably replicas serve different versions.
    RESTARTS_WITHOUT_WAIT = 3

    def __init__(
        self,
        engine: Engine,
        dispatcher: Dispatcher | SuspectedWindows,
        budgets: Mapping[str, WorkBudget],
        *,
        event_tokens: int,
        share: EventShare,
        over_share: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """One event has windows of at most ``event_tokens`` tokens at the dispatcher, all its tasks together. They are
        due as ``share`` says; ``over_share`` is called for each that is beyond it.
        """
        self._engine, self.dispatcher = engine, dispatcher
        self._budgets = budgets
        self._event_tokens = event_tokens
        self._share = share
        self._over_share, self._clock = over_share, clock
        self._unread = 0

    async def infer(self, text: str, task: Task, work: Work) -> Inference:
        """Extract ``task`` from the text of an event, whose windows that the model refuses count once.

        One result never mixes models: when another version answers than answered before, the extraction starts again at
        level 0. Raises BadInput for a text or schema over the limits, and WindowRefused.
        """
        restarts, version, budget = 0, work.version, self._budgets[work.place.partition.topic]
        while True:
            # Answer level after level, by ``version`` if any server has it; the newest version where it changed.
            run = _Run(work, budget, self.dispatcher.pinned, version)
            try:
                run.held = CHARACTER_BYTES * len(text)
                if not run.take(run.held):
                    await budget.queue.wait(work)
                extraction = self._engine.start(text, task)
                if not run.holds(extraction.held_bytes):
                    await budget.queue.wait(work)
                while not extraction.finished:
                    started, run.slowest = self._clock(), 0.0
                    if not await self._level(run, extraction):
                        break
                    elapsed = self._clock() - started
                    run.in_model += (in_model := min(elapsed, run.slowest))
                    run.queued += elapsed - in_model
                else:
                    return Inference(extraction.result(), run.model, run.queued, run.in_model, run.overflowed, restarts)
            finally:
                self._withdraw(run)
                work.used -= run.used
            restarts, version = restarts + 1, run.version
            del extraction  # its bytes are given back, and the next attempt may wait long
            if restarts > self.RESTARTS_WITHOUT_WAIT:
                _log.warning("model versions change faster than this text is extracted", restarts=restarts)
                await asyncio.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter, not cryptography

    async def _level(self, run: _Run, extraction: Extraction) -> bool:
        """Send the windows of a level, a few at a time, and read their answers in order; False for another model."""
        asked, work, windows, sent = run.asked, run.work, extraction.windows, 0
        work.windows += (total := len(windows))
        while asked or sent < total:
            while sent < total and (not asked or work.tokens < self._event_tokens):
                window = windows[sent]
                if not run.take(_size(window.length)):
                    await run.budget.queue.wait(work)
                asked.append(self._ask(run, window, extraction.level, sent))
                sent += 1
            first = asked[0]
            if first.future is None:
                asked[0] = self._ask(run, windows[first.number], extraction.level, first.number)
                continue
            run.awaited = first
            answer = await first.future
            run.awaited = None
            if (queue := run.budget.queue).growing:
                is_thrown_away = first.unread > 0 and self._unread > UNREAD_BYTES and not queue.is_oldest(work)
                if is_thrown_away:
                    self._throw_away(run, first)
                    del answer
                await queue.wait(work)
                if is_thrown_away:
                    continue
            del asked[0]
            first.future = None
            self._unread -= first.unread
            work.tokens -= first.length
            run.used -= (size := _size(first.length))
            work.used -= size
            if not run.answered(answer):
                return False
            try:
                extraction.read(answer.cells)
            except BadInput as bad:
                bad.model_version = run.model.version or None
                raise
            del answer  # may be 1.5 MB, and the next one may be long in coming
            if not run.holds(extraction.held_bytes):
                await run.budget.queue.wait(work)
        return True

    def _ask(self, run: _Run, window: Window, level: int, number: int) -> _Asked:
        work, lane, due, length = run.work, run.budget.lane, run.work.deadline, window.length
        if over := self._share.is_over(work.sent):
            due = self._share.deadline(due, self._clock(), work.tokens, work.windows, self.dispatcher.over_share[lane])
            self._over_share()
        asked = _Asked(number, length)
        overflowed = partial(self._overflowed, run, asked)
        asked.future = self.dispatcher.submit(window, due, level, work.place, lane, over, overflowed, run.version)
        work.tokens += length
        work.sent += length
        return asked

    def _overflowed(self, run: _Run, asked: _Asked, answer: WindowAnswer) -> None:
        if asked.future is None:
            return
        asked.unread = sum(array.nbytes for array in answer.cells)
        self._unread += asked.unread
        if self._unread > UNREAD_BYTES and asked is not run.awaited:
            self._throw_away(run, asked)

    def _throw_away(self, run: _Run, asked: _Asked) -> None:
        self._unread -= asked.unread
        run.work.tokens -= asked.length
        asked.future, asked.length, asked.unread = None, 0, 0

    def _withdraw(self, run: _Run) -> None:
        """Refused, cancelled or another model: the other windows need no answer."""
        for asked in run.asked:
            run.work.tokens -= asked.length
            self._unread -= asked.unread
            future, asked.future = asked.future, None
            if future is not None and not future.cancel() and not future.cancelled():
                future.exception()  # or asyncio logs a second refusal as never retrieved
        run.asked.clear()


@dataclass(eq=False, slots=True)
class _Asked:
    """A window at the dispatcher. ``future`` is None when its answer was read, or thrown away."""

    number: int
    length: int
    future: asyncio.Future[WindowAnswer] | None = None
    unread: int = 0
    """Bytes of an answer of many cells that waits to be read."""


@dataclass(eq=False, slots=True)
class _Run:
    """One attempt at an extraction."""

    work: Work
    budget: WorkBudget
    pinned: Pinned  # of the dispatcher: what is served, if that is several versions
    version: str = ""  # of the model that answered last, or is to answer
    used: int = 0  # bytes that it accounts for
    held: int = 0  # those of them that the extraction itself holds
    asked: list[_Asked] = field(default_factory=list)  # in order; a deque takes 700 bytes, and most are one or two
    awaited: _Asked | None = None
    """The one whose answer it reads as soon as it comes; None while the event waits for memory."""
    model: ModelUsed = _UNKNOWN
    queued: float = 0.0
    in_model: float = 0.0
    overflowed: int = 0
    slowest: float = 0.0  # call of the level
    call: Answer | None = None

    def holds(self, size: int) -> bool:
        """Account for what the extraction holds now, as ``take``."""
        more, self.held = size - self.held, size
        return more == 0 or self.take(more)

    def take(self, size: int) -> bool:
        """As ``WorkBudget.take``."""
        self.used += size
        return self.budget.take(self.work, size)

    def answered(self, answer: WindowAnswer) -> bool:
        """Take note of the call; False when another model answered than before."""
        self.overflowed += answer.overflowed
        if answer.answer is self.call:
            return True
        self.call = call = answer.answer
        self.slowest = max(self.slowest, call.seconds)
        model = _model_used(call.model_name, call.model_version, call.signature)
        asked, its, self.version = self.version, self.work.version, call.model_version
        if not self.model.version and its not in (asked, model.version) and its in self.pinned.versions:
            self.version = its  # of another task of the event, beside this one, that was answered first
            return False
        self.work.version = model.version
        if self.model.version and self.model != model:
            return False
        self.model = model
        return True


def _size(length: int) -> int:  # bytes of a window of ``length`` tokens at the dispatcher
    return WINDOW_BYTES + WINDOW_TOKEN_BYTES * length


class WorkBudget:
    """How much memory events may take at once, from their admission until their outputs are durable, in bytes.

    Each input topic has its own: one whose results are not taken, or wait for a slow record, stops no other. Belongs to
    one event loop; only ``durable`` may be called from other threads. Where there is not enough, events wait in order
    of arrival. The oldest event in the worker never waits: every result that is held back in order waits for one that
    came before it, so this one always lets the others go on. The budget can be exceeded by what this one event takes,
    by older ones that a registry had held up, and by one step (a text, an answer) of who has to wait next.
    """

    def __init__(self, size: int, lane: str = LANE) -> None:
        self.lane = lane  # of the topic's route
        self._durable: deque[tuple[tuple[tuple[str, int], int], int]] = deque()  # places; plain tuples, for speed
        self.queue = WorkQueue(size, self._take_back)

    async def enter(self, number: int, record: SourceRecord, size: int | None = None) -> Work:
        """Admit the event that arrived as ``number``, before its value is decoded; may wait for others.
        ``size``: bytes that will be decoded, if not those of the value as it is.
        """
        self._take_back()
        queue, decoded = self.queue, DECODED * (len(record.value or b"") if size is None else size)
        work = Work(Place.of(record), number, EVENT_BYTES + decoded, key=record.key)
        if queue.waiting or work.used > queue.free - queue.reserve:
            try:
                await queue.wait(work)
            except asyncio.CancelledError:
                self.leave(work)
                raise
        else:
            queue.free -= work.used
            work.granted, work.is_admitted = work.used, True
            queue.works.setdefault(work.place[:2], {})[work.place.offset] = work
        work.used = decoded
        return work

    def take(self, work: Work, size: int) -> bool:
        """Account for ``size`` bytes more; False when the event must wait in the queue before it goes on."""
        work.used += size
        more, queue = work.used - work.granted, self.queue
        if queue.growing or (more > 0 and more > queue.free):
            return False
        if more > 0:
            work.granted += more
            queue.free -= more
        return True

    def keep(self, work: Work, size: int) -> None:
        """The event is processed: until it is durable it holds ``size`` bytes of outputs."""
        if work.granted:  # else its assignment has ended
            self.queue.free += work.granted - size
            work.granted = work.used = size
            if self.queue.waiting:
                self.queue.serve()

    def leave(self, work: Work) -> None:
        """The event has ended without an outcome."""
        self._drop(work.place[:2], work.place.offset)
        self.queue.free, work.granted = self.queue.free + work.granted, 0  # taken after its assignment had ended
        if self.queue.waiting:
            self.queue.serve()

    def durable(self, record: SourceRecord) -> None:
        """All outputs of ``record`` are durable. From any thread."""
        self._durable.append((((record.topic, record.partition), record.epoch), record.offset))
        # After the record was added: who waits looks for such records after it was added to those who wait.
        if self.queue.waiting:
            self.queue.call()

    def _take_back(self) -> None:
        while self._durable:
            self._drop(*self._durable.popleft())

    def _drop(self, assignment: tuple[tuple[str, int], int], offset: int) -> None:
        works = self.queue.works.get(assignment)
        if works and (work := works.pop(offset, None)) is not None:
            self.queue.free += work.granted
            work.granted = 0
            if not works:
                del self.queue.works[assignment]


def durable(budgets: Mapping[str, WorkBudget], record: SourceRecord, _outcome: Outcome) -> None:
    """As ``WorkBudget.durable``, in the budget of the record's topic."""
    budgets[record.topic].durable(record)
