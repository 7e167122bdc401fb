"""Ids of schemas, each with a fate of its own: lagging, absent, failing, hanging. None of them is another's."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from avro_frames import framed
from confluent_kafka.schema_registry.error import SchemaRegistryError
from structlog.testing import capture_logs

from consumer.config.tree import RegistryConfig
from consumer.events import BadInput
from consumer.kafka.registry import awaited, resolver
from consumer.kafka.registry.awaited import BAD_SECONDS, MOST_ASKED_AGAIN, AwaitedSchemas
from consumer.kafka.registry.questions import MOST_ALONE
from consumer.kafka.registry.resolver import MAX_ID, SchemaResolver
from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

SCHEMA = '{"type": "record", "name": "E", "fields": [{"name": "text", "type": "string"}]}'
ABSENT, BROKEN = SchemaRegistryError(404, 40403, "no"), SchemaRegistryError(500, 50001, "no")


class Found:
    schema_str = SCHEMA
    schema_type = "AVRO"
    references = ()


class Registry:
    """Answers by id: what is in ``fates``, else a schema. Without ``alive`` it does so, and answers nothing else."""

    def __init__(self) -> None:
        self.fates: dict[int, Callable[[int], Any]] = {}
        self.alive = True
        self.asked: Counter[int] = Counter()
        self.looks = 0
        self.now = 100.0
        self.states: list[Mapping[str, str]] = []
        double: Any = self
        made = SchemaResolver(RegistryConfig(url="http://registry.invalid"), SCHEMA, connect=lambda _: double)
        self.schemas = AwaitedSchemas(
            made, self.states.append, Backoff(0.001, 0.005), (0.001,) * 4, clock=lambda: self.now
        )

    def get_schema(self, schema_id: int) -> Any:
        self.asked[schema_id] += 1
        return self.fates[schema_id](self.asked[schema_id]) if schema_id in self.fates else Found()

    def get_compatibility(self, subject_name: str | None = None) -> str:
        assert subject_name is None
        self.looks += 1
        if not self.alive:
            raise BROKEN
        return "FULL"

    def ensure(self, number: int, topic: str = "in") -> Coroutine[Any, Any, None]:
        return self.schemas.ensure(framed(b"", number), topic)


def fails(error: Exception, until: Callable[[int], bool] = lambda _: False) -> Callable[[int], Any]:
    """``error`` until the number of the question passes."""

    def answer(call: int) -> Any:
        if until(call):
            return Found()
        raise error

    return answer


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def test_an_id_that_one_node_does_not_know_yet_is_asked_for_again() -> None:
    """Nothing pauses for it."""
    registry = Registry()
    registry.fates[7] = fails(ABSENT, lambda call: call > 4)
    run(registry.ensure(7))
    assert registry.asked[7] == 5
    assert registry.states == []


def test_the_questions_go_on_for_some_seconds() -> None:
    """As long as a node of a registry may lag, and no longer than a record may wait for nothing."""
    assert 3 <= sum(awaited.ASK_AGAIN_AFTER) <= 10
    assert len(awaited.ASK_AGAIN_AFTER) <= 6


def test_an_absent_id_is_bad_input_and_not_asked_for_again_for_a_moment() -> None:
    """After that it is: a schema may be registered late."""
    registry = Registry()
    registry.fates[7] = fails(ABSENT)

    async def records() -> None:
        async def dead() -> str:
            with pytest.raises(BadInput) as caught:
                await registry.ensure(7)
            return caught.value.reason

        found = await asyncio.gather(*(dead() for _ in range(50)))
        assert set(found) == {"UnknownSchemaId"}
        assert registry.asked[7] == 5
        registry.now += BAD_SECONDS - 0.1
        assert await dead() == "UnknownSchemaId"
        assert registry.asked[7] == 5
        registry.now += 0.2
        del registry.fates[7]
        await registry.ensure(7)

    run(records())
    assert BAD_SECONDS <= 10


def test_an_id_whose_answer_is_final_is_not_asked_for_again() -> None:
    """A schema that is no Avro stays so; a number that no registry gives is not even asked about once."""
    registry = Registry()
    protobuf = type("Protobuf", (Found,), {"schema_type": "PROTOBUF"})()
    registry.fates[7] = lambda _: protobuf

    async def records() -> None:
        for number, reason in ((7, "NotAvroSchema"), (7, "NotAvroSchema"), (MAX_ID + 1, "UnknownSchemaId")):
            with pytest.raises(BadInput) as caught:
                await registry.ensure(number)
            assert caught.value.reason == reason

    run(records())
    assert registry.asked == {7: 1}


def test_random_bytes_are_not_asked_about_again_and_again() -> None:
    """So many ids at once are no schemas on their way; what is remembered of them has a bound."""
    registry = Registry()
    numbers = range(1000, 1000 + 10 * MOST_ASKED_AGAIN)
    registry.fates = dict.fromkeys(numbers, fails(ABSENT))

    async def records() -> None:
        found = await asyncio.gather(*map(registry.ensure, numbers), return_exceptions=True)
        assert all(isinstance(each, BadInput) for each in found)

    run(records())
    assert sum(registry.asked.values()) <= len(numbers) + 10 * MOST_ASKED_AGAIN
    assert registry.schemas._asked_again == set()
    assert registry.schemas._awaited == {}


def test_one_id_that_the_registry_fails_on_holds_only_its_own_records() -> None:
    """Nothing pauses, no other id waits, an error line says it once a minute; mended, its records go on."""
    registry = Registry()
    mended = False
    registry.fates[7] = fails(BROKEN, lambda _: mended)

    async def records() -> None:
        nonlocal mended
        held = [asyncio.create_task(registry.ensure(7)) for _ in range(20)]
        while registry.asked[7] < 4:
            await asyncio.sleep(0.001)
        for number in range(20):
            await registry.ensure(100 + number, "in")
        assert not any(task.done() for task in held)
        assert registry.states == []
        mended = True
        await asyncio.gather(*held)

    with capture_logs() as lines:
        run(records())
    (error,) = [line for line in lines if line["log_level"] == "error"]
    assert error["waiting_for"] == "schema 7"
    assert registry.schemas._awaited == {}


def test_several_ids_that_the_registry_fails_on_pause_the_topics_of_their_records() -> None:
    """And no others: what they hold would fill the bounds. The topics go on with the first that is mended."""
    registry = Registry()
    mended: set[int] = set()

    def mended_of(number: int, _: int) -> bool:
        return number in mended

    for number in range(MOST_ALONE + 1):
        registry.fates[number] = fails(BROKEN, partial(mended_of, number))

    async def records() -> None:
        held = [asyncio.create_task(registry.ensure(number)) for number in registry.fates]
        while not registry.states:
            await asyncio.sleep(0.001)
        await registry.ensure(100, "other")
        assert [*registry.states[-1]] == ["in"]
        mended.add(0)
        await held[0]
        assert registry.states[-1] == {}
        mended.update(registry.fates)
        await asyncio.gather(*held)

    run(records())


def test_one_id_that_hangs_holds_no_thread_that_others_need() -> None:
    """However many such ids there are, once they have been asked for."""
    registry = Registry()
    hung = threading.Event()

    def hang(call: int) -> Any:
        if call > 1:
            hung.wait(30)
        raise BROKEN

    registry.fates = dict.fromkeys(range(10), hang)

    async def records() -> None:
        held = [asyncio.create_task(registry.ensure(number)) for number in range(10)]
        while sum(registry.asked.values()) < 11:  # one of them hangs
            await asyncio.sleep(0.001)
        await asyncio.gather(*(registry.ensure(100 + number) for number in range(10)))
        hung.set()
        for task in held:
            task.cancel()
        await asyncio.wait(held)

    run(records())


def test_a_registry_that_is_away_gets_one_question_at_a_time_and_pauses_what_waits() -> None:
    """A thousand new ids are no storm for one that comes back; then all go on."""
    registry = Registry()
    registry.alive = False

    def broken(_: int) -> Any:
        if registry.alive:
            return Found()
        raise BROKEN

    numbers = range(300)
    registry.fates = dict.fromkeys(numbers, broken)

    async def records() -> None:
        waiting = [asyncio.create_task(registry.ensure(n, "a" if n % 2 else "b")) for n in numbers]
        for _ in range(20):
            registry.now += 1.0
            await asyncio.sleep(0.005)
        while not registry.states or registry.states[-1].keys() != {"a", "b"}:
            await asyncio.sleep(0.001)
        assert sum(registry.asked.values()) <= 60
        registry.now += 1.0
        registry.alive = True
        await asyncio.gather(*waiting)

    with capture_logs() as lines:
        run(records())
    assert registry.states[-1] == {}
    # A question that failed while the registry was away, and is looked into when it is back, has failed alone.
    lines = [line for line in lines if "but not for this" not in line["event"]]
    assert [line["log_level"] for line in lines] == ["error", "info"]


def test_an_outage_in_between_is_not_taken_for_an_absent_schema() -> None:
    """Nor does the time that it lasts count: the lagging node is asked as often as without it."""
    registry = Registry()

    def answer(call: int) -> Any:
        registry.alive = call not in (2, 3)
        if call in (2, 3):
            registry.now += 60.0
            raise BROKEN
        if call < 6:
            raise ABSENT
        return Found()

    registry.fates[7] = answer
    run(registry.ensure(7))
    assert registry.states[-1] == {}


def test_of_ever_new_ids_the_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is asked for again, and is known then."""
    monkeypatch.setattr(resolver, "MOST_SCHEMAS", 3)
    registry = Registry()

    async def events() -> None:
        for number in (1, 2, 3, 4, 5, 5, 1):
            await registry.ensure(number)
            assert registry.schemas.schema_for(number)

    asyncio.run(events())
    assert registry.asked.total() == 6
    with pytest.raises(KeyError):
        registry.schemas.schema_for(2)
