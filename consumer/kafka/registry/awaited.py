"""Schemas for the event loop: fetched on a thread, and awaited through every outage and refusal of the registry.

The event processor awaits them; while one is waited for, the worker pauses the input topics whose events wait for it,
and shows why.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import structlog

from consumer.codecs.avro_codec import schema_id
from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable
from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from consumer.codecs.avro_codec import SchemaFor
    from consumer.kafka.registry.resolver import SchemaResolver

_log = structlog.stdlib.get_logger(__name__)

_BACKOFF = Backoff(first=0.5, limit=30.0, least=0.5)

ResultT = TypeVar("ResultT")


class AwaitedSchemas:
    """The event processor's schemas. While the registry does not answer, events wait: that is no bad input."""

    def __init__(
        self,
        resolver: SchemaResolver,
        on_state: Callable[[Mapping[str, str]], None],
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """``on_state`` gets the input topics whose events the registry keeps waiting, each with the reason."""
        self._resolver = resolver
        self.schema_for: SchemaFor = resolver.schema_for
        """The schema of an id that ``ensure`` made known. Raises KeyError for any other."""
        self._on_state = on_state
        self._backoff = backoff
        # A thousand events with new ids ask one after the other, and so do those of one output topic. Topics do not
        # wait for each other nor for ids: a subject that accepts no schema holds up its own topic only.
        self._reading = asyncio.Lock()
        self._writing: dict[str, asyncio.Lock] = {}
        self._result_ids: dict[str, int] = {}
        # One request at a time, so that waiting never takes more than one of the loop's few threads.
        self._request = asyncio.Lock()
        # What is waited for -> why, the oldest first; and by whom: how many events of each input topic.
        self._reasons: dict[str, str] = {}
        self._waiting: dict[str, Counter[str]] = {}
        self._reported: dict[str, str] = {}

    async def ensure(self, value: bytes, input_topic: str) -> None:
        """Return once the schema of ``value``, from ``input_topic``, is known, however long no registry answers.

        Raises BadInput (stage ``decode``) for a value without an id, or an id that a healthy registry does not know.
        """
        number = schema_id(value)
        if not self._resolver.is_cached(number):
            with self._noted("schemas of events", input_topic):
                async with self._reading:
                    await self._patiently("schemas of events", lambda: self._resolver.fetch(number))

    async def result_schema_id(self, topic: str, input_topic: str) -> int:
        """Id of the result schema on an output topic, for an event of ``input_topic``; fetched once.

        Waits through outages and refusals alike.
        """
        if topic not in self._result_ids:
            with self._noted(topic, input_topic):
                async with self._writing.setdefault(topic, asyncio.Lock()):
                    if topic not in self._result_ids:
                        number = await self._patiently(topic, lambda: self._resolver.result_schema_id(topic))
                        self._result_ids[topic] = number
                        _log.info("result schema known", topic=topic, schema_id=number)
        return self._result_ids[topic]

    @contextmanager
    def _noted(self, what: str, input_topic: str) -> Iterator[None]:
        """While an event of ``input_topic`` waits for ``what``, or for its turn to ask: what a reason pauses."""
        waiting = self._waiting.setdefault(what, Counter())
        waiting[input_topic] += 1
        self._report()
        try:
            yield
        finally:
            waiting[input_topic] -= 1
            if not waiting.total():
                self._waiting.pop(what, None)
            self._report()

    async def _patiently(self, what: str, request: Callable[[], ResultT]) -> ResultT:
        failures = 0
        try:
            while True:
                try:
                    async with self._request:
                        return await asyncio.to_thread(request)
                except (RegistryUnavailable, RegistryRefused) as error:
                    self._waits(what, str(error))
                await asyncio.sleep(self._backoff.pause(failures))
                failures += 1
        finally:
            # Also when the registry does not know the id: it answers.
            self._waits(what, None)

    def _waits(self, what: str, reason: str | None) -> None:
        """Note why ``what`` is waited for, None when it no longer is."""
        if reason is None:
            if self._reasons.pop(what, None) is not None and not self._reasons:
                _log.info("schema registry answers again")
        else:
            if self._reasons.get(what) != reason:
                _log.error(
                    "schema registry keeps events waiting",
                    waiting_for=what,
                    inputs=[topic for topic, events in self._waiting.get(what, Counter()).items() if events],
                    reason=reason,
                )
            self._reasons[what] = reason
        self._report()

    def _report(self) -> None:
        """Report the input topics that wait, each with its oldest reason, when that has changed."""
        now: dict[str, str] = {}
        for what, reason in self._reasons.items():
            for topic, events in self._waiting.get(what, Counter()).items():
                if events:
                    now.setdefault(topic, reason)
        if now != self._reported:
            self._reported = now
            self._on_state(now)
