"""Questions to the Schema Registry, each repeated until there is an answer: what follows an error of its.

``awaited`` asks them for the event processor. An error is the registry's own when it does not answer another question
either; then one question at a time is asked, and every topic whose events wait pauses. Otherwise it is about what was
asked: that alone is asked again, and nothing pauses unless there are several.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import structlog

from consumer.events import BadInput
from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from consumer.resilience.backoff import Backoff

_log = structlog.stdlib.get_logger(__name__)

ALIVE_SECONDS = 1.0
"""How long one look at whether the registry answers at all is good for."""

MOST_ALONE = 3
"""When more than so many questions fail, each alone, the topics whose events wait for them pause, too: what else they
hold would only fill the bounds on what is in flight."""

LOG_SECONDS = 60.0
"""How often it is logged that something alone is waited for."""

AnswerT = TypeVar("AnswerT")


class Questions:
    """Belongs to the event loop; never more than three of its threads, and one that looks, are busy with requests."""

    def __init__(
        self,
        answers: Callable[[], bool],
        on_change: Callable[[], None],
        backoff: Backoff,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``answers()`` waits, and returns whether the registry answers at all.

        ``on_change`` is called when what ``reason`` returns may have changed.
        """
        self._answers = answers
        self._on_change = on_change
        self._backoff = backoff
        self._clock = clock
        # Why the registry as a whole does not answer; what it refuses, and what it fails on alone, with its reasons.
        self._away: str | None = None
        self._refused: dict[str, str] = {}
        self._alone: dict[str, str] = {}
        self._away_failures = 0
        self._asking = asyncio.Lock()
        # What is asked again does not keep a thread from what is asked for the first time.
        self._first, self._again = asyncio.Semaphore(2), asyncio.Semaphore(1)
        self._looking = asyncio.Lock()
        self._alive = False
        self._alive_until = clock()
        self._log_at = clock()

    @property
    def pausing(self) -> bool:
        """Whether ``reason`` has any."""
        return bool(self._away or self._refused or len(self._alone) > MOST_ALONE)

    def reason(self, what: str) -> str | None:
        """Why those must pause who wait for ``what``; None where they need not."""
        alone = self._alone.get(what) if len(self._alone) > MOST_ALONE else None
        return self._away or self._refused.get(what) or alone

    async def answer(self, what: str, request: Callable[[], AnswerT]) -> AnswerT:
        """The answer to ``request``, made on a thread, however long there is none. Raises its BadInput.

        ``what`` names what is asked for.
        """
        failures = 0
        try:
            while True:
                async with self._next(failures):
                    try:
                        answer = await asyncio.to_thread(request)
                    except BadInput:
                        self._is_back()
                        raise
                    except RegistryRefused as error:
                        self._is_back()
                        self._is_refused(what, str(error))
                    except RegistryUnavailable as error:
                        if await self._answers_others():
                            self._is_back()
                            self._fails_alone(what, str(error))
                        else:
                            self._is_away(str(error))
                    else:
                        self._is_back()
                        return answer
                failures += 1
        finally:
            self._note(what)

    @asynccontextmanager
    async def _next(self, failures: int) -> AsyncIterator[None]:
        """Wait until a question that failed so often may be asked."""
        if failures and self._away is None:
            await asyncio.sleep(self._backoff.pause(failures - 1))
        async with self._again if failures else self._first:
            if self._away is None:
                yield
                return
        # One asks for all: a thousand events with new ids are no storm for a registry that comes back.
        async with self._asking:
            if self._away is not None:
                await asyncio.sleep(self._backoff.pause(self._away_failures))
                self._away_failures += 1
            yield

    async def _answers_others(self) -> bool:
        async with self._looking:
            if self._clock() >= self._alive_until:
                self._alive = await asyncio.to_thread(self._answers)
                self._alive_until = self._clock() + ALIVE_SECONDS
            return self._alive

    def _is_away(self, reason: str) -> None:
        if self._away is None:
            self._away_failures = 0
            _log.error("schema registry keeps events waiting", reason=reason)
        self._away = reason
        self._on_change()

    def _is_back(self) -> None:
        if self._away is not None:
            self._away = None
            _log.info("schema registry answers again")
            self._on_change()

    def _is_refused(self, what: str, reason: str) -> None:
        if self._refused.get(what) != reason:
            _log.error("schema registry keeps events waiting", waiting_for=what, reason=reason)
        self._note(what, refused=reason)

    def _fails_alone(self, what: str, reason: str) -> None:
        if self._clock() >= self._log_at:
            self._log_at = self._clock() + LOG_SECONDS
            _log.error(
                "schema registry answers, but not for this: the events that need it wait",
                waiting_for=what,
                reason=reason,
                fix="see the registry's own log; nothing behind these events is committed until it is mended",
            )
        self._note(what, alone=reason)

    def _note(self, what: str, *, refused: str | None = None, alone: str | None = None) -> None:
        """Why there is no answer about ``what``; nothing when there is, or nobody asks any more."""
        for reasons, reason in ((self._refused, refused), (self._alone, alone)):
            reasons.pop(what, None)
            if reason is not None:
                reasons[what] = reason
        self._on_change()
