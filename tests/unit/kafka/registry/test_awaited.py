"""Waiting for writer schemas: an outage of the registry is not the event's fault."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from avro_frames import framed

from consumer.config.tree import RegistryConfig
from consumer.events import BadInput
from consumer.kafka.registry.awaited import AwaitedSchemas
from consumer.kafka.registry.resolver import SchemaResolver
from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SCHEMA = '{"type": "record", "name": "E", "fields": [{"name": "text", "type": "string"}]}'


class Client:
    """A registry that does what ``answer`` says, call after call."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.calls = 0
        self.registered: list[str] = []
        self._answer = answer

    def get_schema(self, schema_id: int) -> Any:
        assert schema_id == 4
        self.calls += 1
        return self._answer(self.calls)

    def get_version(self, subject_name: str, version: int, deleted: bool = False) -> Any:
        raise AssertionError((subject_name, version, deleted))

    def register_schema(self, subject_name: str, schema: Any) -> int:
        assert schema.schema_str == SCHEMA
        self.registered.append(subject_name)
        self.calls += 1
        return int(self._answer(self.calls))

    def lookup_schema(self, subject_name: str, schema: Any, normalize_schemas: bool = False) -> Any:
        raise AssertionError((subject_name, schema, normalize_schemas))

    def get_compatibility(self, subject_name: str | None = None) -> str:
        assert subject_name is None
        raise registry_error(503, 50301)

    def test_compatibility_all_versions(self, subject_name: str, schema: Any) -> bool:
        raise AssertionError((subject_name, schema))

    def get_subjects(self) -> list[str]:
        raise AssertionError


class Found:
    schema_str = SCHEMA
    schema_type = "AVRO"
    references = ()


def registry_error(http: int, code: int) -> Exception:
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    return SchemaRegistryError(http, code, "no")


def schemas(client: Client, states: list[Mapping[str, str]]) -> AwaitedSchemas:
    double: Any = client
    resolver = SchemaResolver(RegistryConfig(url="http://registry.invalid"), SCHEMA, connect=lambda _: double)
    return AwaitedSchemas(resolver, states.append, Backoff(0.001, 0.001), (0.001, 0.001))


def test_an_outage_of_the_registry_is_waited_out_and_said_once() -> None:
    """The event waits; the worker is called when it begins to wait and when it no longer does."""

    def answer(call: int) -> Any:
        if call < 5:
            raise registry_error(503, 50301)
        return Found()

    states: list[Mapping[str, str]] = []
    waiting = schemas(Client(answer), states)
    asyncio.run(waiting.ensure(framed(b"", 4), "in"))
    assert waiting.schema_for(4)
    assert len(states) == 2
    assert list(states[0]) == ["in"]
    assert states[1] == {}


def test_an_unknown_id_is_bad_input_also_right_after_an_outage() -> None:
    """A healthy registry that does not know the id has answered: nothing keeps waiting."""

    def answer(call: int) -> Any:
        raise registry_error(503, 50301) if call < 3 else registry_error(404, 40403)

    states: list[Mapping[str, str]] = []
    with pytest.raises(BadInput, match="no schema 4"):
        asyncio.run(schemas(Client(answer), states).ensure(framed(b"", 4), "in"))
    assert states[-1] == {}


def test_many_events_with_one_new_id_are_one_question() -> None:
    """A burst of records does not become a burst of requests."""
    client = Client(lambda _: Found())

    async def burst() -> None:
        waiting = schemas(client, [])
        await asyncio.gather(*(waiting.ensure(framed(b"", 4), "in") for _ in range(50)))

    asyncio.run(burst())
    assert client.calls == 1


def test_a_result_schema_is_registered_through_refusals() -> None:
    """Credentials that are mended while the worker waits are enough; it need not be started again."""

    def answer(call: int) -> Any:
        if call < 3:
            raise registry_error(401, 40101)
        return 12

    states: list[Mapping[str, str]] = []

    async def register() -> int:
        return await schemas(Client(answer), states).result_schema_id("out", "in")

    assert asyncio.run(register()) == 12
    assert len(states) == 2
    assert states[-1] == {}


def test_a_topic_is_asked_about_once() -> None:
    """Whether results of it come at once or later."""
    client = Client(lambda _: 12)

    async def results() -> list[int]:
        waiting = schemas(client, [])
        together = await asyncio.gather(*(waiting.result_schema_id("out", "in") for _ in range(50)))
        return [*together, await waiting.result_schema_id("out", "in")]

    assert asyncio.run(results()) == [12] * 51
    assert client.registered == ["out-value"]


def test_a_topic_that_is_refused_holds_up_no_other() -> None:
    """Nor the schemas of events; the reason stays until the last one is mended."""
    mended = False

    def answer(_: int) -> Any:
        if client.registered[-1:] == ["closed-value"] and not mended:
            raise registry_error(409, 409)
        return 12

    client = Client(answer)
    states: list[Mapping[str, str]] = []

    async def both() -> None:
        nonlocal mended
        waiting = schemas(client, states)
        refused = asyncio.create_task(waiting.result_schema_id("closed", "in"))
        while not states:
            await asyncio.sleep(0)
        assert await asyncio.wait_for(waiting.result_schema_id("open", "in"), 30) == 12
        assert len(states) == 1, "the other topic's success ends no waiting"
        mended = True
        assert await refused == 12

    asyncio.run(both())
    assert states[-1] == {}


def test_who_no_longer_waits_leaves_no_reason() -> None:
    """A partition that was given up takes its waiting events with it."""

    def answer(_: int) -> Any:
        raise registry_error(503, 50301)

    states: list[Mapping[str, str]] = []

    async def given_up() -> None:
        task = asyncio.create_task(schemas(Client(answer), states).ensure(framed(b"", 4), "in"))
        while not states:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(given_up())
    assert list(states[0]) == ["in"]
    assert states[-1] == {}


def test_only_input_topics_whose_events_wait_are_paused() -> None:
    """One that asks, and one whose event waits for its turn to ask; others go on. Each leaves when its event does."""
    answering = False

    def answer(_: int) -> Any:
        if not answering:
            raise registry_error(503, 50301)
        return Found()

    states: list[Mapping[str, str]] = []

    async def wait() -> None:
        nonlocal answering
        waiting = schemas(Client(answer), states)
        first = asyncio.create_task(waiting.ensure(framed(b"", 4), "a"))
        while not states:
            await asyncio.sleep(0)
        assert states[-1].keys() == {"a"}
        second = asyncio.create_task(waiting.ensure(framed(b"", 4), "b"))
        while len(states) < 2:
            await asyncio.sleep(0)
        assert states[-1].keys() == {"a", "b"}
        second.cancel()
        await asyncio.wait([second])
        assert states[-1].keys() == {"a"}
        answering = True
        await first

    asyncio.run(wait())
    assert states[-1] == {}
