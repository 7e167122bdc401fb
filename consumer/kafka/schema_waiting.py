"""Writer schemas for the event loop: fetched on a thread, waited for through every outage of the registry."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

import structlog

from consumer.codecs.framing import schema_id
from consumer.kafka.registry import RegistryRefused, RegistryUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.codecs.avro_codec import ParsedSchema
    from consumer.kafka.registry import SchemaResolver

_log = structlog.stdlib.get_logger(__name__)

ResultT = TypeVar("ResultT")


class AwaitedSchemas:
    """Implements the pipeline's ``Schemas``. An id that cannot be asked about waits; it is no bad input."""

    BACKOFF_FIRST = 0.5
    BACKOFF_LIMIT = 30.0

    def __init__(self, resolver: SchemaResolver, on_state: Callable[[str | None], None]) -> None:
        """``on_state`` gets the reason while the registry keeps events waiting, None when it answers again."""
        self._resolver = resolver
        self._on_state = on_state
        # One request at a time: a thousand events with one new id are one question.
        self._asking = asyncio.Lock()

    async def ensure(self, value: bytes) -> None:
        """Return once the schema of ``value`` is known, however long the registry is out.

        Raises BadInput (stage ``decode``) for a value without an id, or an id that a healthy registry does not know.
        """
        number = schema_id(value)
        if self._resolver.is_cached(number):
            return
        async with self._asking:
            await self._patiently(lambda: self._resolver.fetch(number))

    def schema_for(self, number: int) -> ParsedSchema:
        """The schema of an id that ``ensure`` made known. Raises KeyError for any other."""
        return self._resolver.schema_for(number)

    async def register(self, topic: str, schema_text: str) -> int:
        """Register the schema of a topic's values; its id. Waits through outages and refusals alike."""
        async with self._asking:
            return await self._patiently(lambda: self._resolver.register(topic, schema_text))

    async def _patiently(self, request: Callable[[], ResultT]) -> ResultT:
        pause = self.BACKOFF_FIRST
        waited = False
        try:
            while True:
                try:
                    return await asyncio.to_thread(request)
                except (RegistryUnavailable, RegistryRefused) as error:
                    if not waited:
                        waited = True
                        _log.error("schema registry keeps events waiting", reason=str(error))
                        self._on_state(str(error))
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not cryptography
                pause = min(self.BACKOFF_LIMIT, pause * 2)
        finally:
            # Also when it says that it does not know the id: it answers.
            if waited:
                self._on_state(None)
