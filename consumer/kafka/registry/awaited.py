"""Schemas for the event loop: fetched on a thread, and awaited through every outage and refusal of the registry.

The event processor awaits them; while the registry is away, or refuses, the worker pauses the input topics whose events
wait for it, and shows why. What fails alone keeps only the events waiting that need it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from consumer.codecs.avro_codec import schema_id
from consumer.events import BadInput
from consumer.kafka.registry.questions import Questions
from consumer.kafka.registry.resolver import MAX_ID
from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from consumer.codecs.avro_codec import SchemaFor, SchemaId
    from consumer.events import Header
    from consumer.kafka.registry.resolver import SchemaResolver

_log = structlog.stdlib.get_logger(__name__)

_BACKOFF = Backoff(first=0.5, limit=30.0, least=0.5)

ASK_AGAIN_AFTER = (0.5, 0.5, 1.0, 1.0, 2.0)
"""Seconds before each further question about a schema that the registry says it does not have: a node of it that lags
behind the others answers so for a moment after a schema was registered."""

_ABSENT = ("UnknownSchemaId", "UnknownSchemaReference")

MOST_ASKED_AGAIN = 64
"""Most ids that are asked about again at a time: more are no schemas on their way, but bytes that are no ids."""

BAD_SECONDS = 5.0
"""How long an id counts as bad without a new question: a producer's bad bytes must not cause a request per record, and
a schema that is registered late must still be found."""

_MAX_BAD = 10_000
"""Most bad ids remembered: random bytes may hold any of four thousand million."""


@dataclass(eq=False, slots=True)
class _Awaited:
    """A schema or a subject that events wait for."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One of the events asks, the others wait for it."""
    events: Counter[str] = field(default_factory=Counter)
    """How many, by input topic."""


class AwaitedSchemas:
    """The event processor's schemas. While the registry does not answer, events wait: that is no bad input."""

    def __init__(
        self,
        resolver: SchemaResolver,
        on_state: Callable[[Mapping[str, str]], None],
        backoff: Backoff = _BACKOFF,
        ask_again_after: Sequence[float] = ASK_AGAIN_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``on_state`` gets the input topics to pause, each with the reason why the registry keeps its events waiting.

        ``ask_again_after`` and ``clock`` are in seconds.
        """
        self._resolver = resolver
        self.schema_for: SchemaFor = resolver.schema_for
        """The schema of an id that ``ensure`` made known, until the next await. Raises KeyError for any other."""
        self._on_state = on_state
        self._ask_again_after = ask_again_after
        self._clock = clock
        self._questions = Questions(resolver.answers, self._report, backoff, clock)
        # By what is waited for, the oldest first; as many as there are events that wait.
        self._awaited: dict[str, _Awaited] = {}
        self._reported: dict[str, str] = {}
        self._result_ids: dict[str, int] = {}
        self._bad: dict[SchemaId, tuple[float, BadInput]] = {}
        self._asked_again: set[SchemaId] = set()

    async def ensure(self, value: bytes, input_topic: str, headers: Sequence[Header] = ()) -> None:
        """Return once the schema of ``value``, from ``input_topic``, is known, however long no registry answers.

        Raises BadInput (stage ``decode``) for a value without an id, an id that a healthy registry does not know for
        some seconds, or one whose schema is neither Avro nor JSON; and for ``BAD_SECONDS`` after that without another
        question.
        """
        number = schema_id(value, headers)
        if not self._resolver.is_cached(number):
            with self._waiting(what := f"schema {number}", input_topic) as awaited:
                async with awaited.lock:
                    await self._fetch(what, number)

    async def result_schema_id(self, topic: str, input_topic: str) -> int:
        """Id of the result schema on an output topic, for an event of ``input_topic``; fetched once.

        Waits through outages and refusals alike.
        """
        if topic not in self._result_ids:
            with self._waiting(topic, input_topic) as awaited:
                async with awaited.lock:
                    if topic not in self._result_ids:
                        number = await self._questions.answer(topic, lambda: self._resolver.result_schema_id(topic))
                        self._result_ids[topic] = number
                        _log.info("result schema known", topic=topic, schema_id=number)
        return self._result_ids[topic]

    async def _fetch(self, what: str, number: SchemaId) -> None:
        """Fetch a schema, unless another event has just done so. Raises BadInput."""
        if self._resolver.is_cached(number):
            return
        if (known := self._bad.get(number)) is not None and self._clock() < known[0]:
            raise BadInput(known[1].stage, known[1].reason, known[1].message)
        pauses = iter(self._ask_again_after if not isinstance(number, int) or number <= MAX_ID else ())
        try:
            while True:
                try:
                    await self._questions.answer(what, lambda: self._resolver.fetch(number))
                except BadInput as bad:
                    crowded = number not in self._asked_again and len(self._asked_again) >= MOST_ASKED_AGAIN
                    if bad.reason not in _ABSENT or crowded or (pause := next(pauses, None)) is None:
                        self._remember(number, bad)
                        raise
                    self._asked_again.add(number)
                    await asyncio.sleep(pause)
                else:
                    self._bad.pop(number, None)
                    self._resolver.trim()
                    return
        finally:
            self._asked_again.discard(number)

    def _remember(self, number: SchemaId, bad: BadInput) -> None:
        now = self._clock()
        if len(self._bad) >= _MAX_BAD:
            self._bad = {other: entry for other, entry in self._bad.items() if entry[0] > now}
        if len(self._bad) < _MAX_BAD:
            self._bad[number] = now + BAD_SECONDS, bad

    @contextmanager
    def _waiting(self, what: str, input_topic: str) -> Iterator[_Awaited]:
        """While an event of ``input_topic`` waits for ``what``, or for the one that asks for it."""
        awaited = self._awaited.setdefault(what, _Awaited())
        awaited.events[input_topic] += 1
        self._report()
        try:
            yield awaited
        finally:
            awaited.events[input_topic] -= 1
            if not awaited.events.total():
                self._awaited.pop(what, None)
            self._report()

    def _report(self) -> None:
        """Report the input topics to pause, each with its oldest reason, when that has changed."""
        now: dict[str, str] = {}
        if self._questions.pausing:
            for what, awaited in self._awaited.items():
                if (reason := self._questions.reason(what)) is not None:
                    for topic, events in awaited.events.items():
                        if events:
                            now.setdefault(topic, reason)
        if now != self._reported:
            self._reported = now
            self._on_state(now)
