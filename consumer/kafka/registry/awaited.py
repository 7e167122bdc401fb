"""Schemas for the event loop: fetched on a thread, and awaited through every outage and refusal of the registry.

The event processor awaits them; while one is waited for, the worker pauses consumption and shows why.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import structlog

from consumer.codecs.avro_codec import schema_id
from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable
from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

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
        on_state: Callable[[str | None], None],
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """``on_state`` gets the reason while the registry keeps events waiting, None when it no longer does."""
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
        # What is waited for -> why; the oldest first.
        self._reasons: dict[str, str] = {}

    async def ensure(self, value: bytes) -> None:
        """Return once the schema of ``value`` is known, however long the registry does not answer.

        Raises BadInput (stage ``decode``) for a value without an id, or an id that a healthy registry does not know.
        """
        number = schema_id(value)
        if not self._resolver.is_cached(number):
            async with self._reading:
                await self._patiently("schemas of events", lambda: self._resolver.fetch(number))

    async def result_schema_id(self, topic: str) -> int:
        """Id of the result schema on an output topic, fetched once. Waits through outages and refusals alike."""
        if topic not in self._result_ids:
            async with self._writing.setdefault(topic, asyncio.Lock()):
                if topic not in self._result_ids:
                    number = await self._patiently(topic, lambda: self._resolver.result_schema_id(topic))
                    self._result_ids[topic] = number
                    _log.info("result schema known", topic=topic, schema_id=number)
        return self._result_ids[topic]

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
        """Note why ``what`` waits, None when it no longer does, and report the oldest reason when it is another."""
        before = next(iter(self._reasons.values()), None)
        if reason is None:
            self._reasons.pop(what, None)
        else:
            if self._reasons.get(what) != reason:
                _log.error("schema registry keeps events waiting", waiting_for=what, reason=reason)
            self._reasons[what] = reason
        now = next(iter(self._reasons.values()), None)
        if now != before:
            if now is None:
                _log.info("schema registry answers again")
            self._on_state(now)
