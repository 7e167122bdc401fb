"""Schemas of a registry, against a double of its HTTP interface on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import header_schema_id_serializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext
from registry_double import NOT_FOUND, RegistryDouble

from consumer.codecs.avro_codec import schema_id
from consumer.codecs.decoding import decode_value
from consumer.config.tree import RegistryConfig
from consumer.events import BadInput
from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable
from consumer.kafka.registry.resolver import MAX_ID, SchemaResolver

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT = json.dumps({"type": "record", "name": "rexstream.Found", "fields": [{"name": "task", "type": "string"}]})
EVENT = json.dumps({"type": "record", "name": "rexstream.ReviewEvent", "fields": [{"name": "text", "type": "string"}]})


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    yield double
    double.stop()


def resolver(double: RegistryDouble, **settings: Any) -> SchemaResolver:
    return SchemaResolver(RegistryConfig(url=double.url, **settings), RESULT)


def test_a_schema_is_fetched_once(registry: RegistryDouble) -> None:
    """The first fetch asks; after it decoding answers from memory."""
    registry.answers["/schemas/ids/7"] = (200, {"schema": EVENT})
    schemas = resolver(registry)
    assert not schemas.is_cached(7)
    with pytest.raises(KeyError):
        schemas.schema_for(7)
    schemas.fetch(7)
    schemas.fetch(7)
    assert schemas.is_cached(7)
    assert registry.requests == ["/schemas/ids/7"]
    assert decode_value(b"\x00\x00\x00\x00\x07\x08good", "avro", "t-0-1", schemas.schema_for).text == "good"


def test_an_unknown_id_is_bad_input(registry: RegistryDouble) -> None:
    """As long as the registry does not have it: a schema registered later is found."""
    schemas = resolver(registry)
    with pytest.raises(BadInput) as caught:
        schemas.fetch(9)
    assert (caught.value.stage, caught.value.reason) == ("decode", "UnknownSchemaId")
    registry.answers["/schemas/ids/9"] = (200, {"schema": EVENT})
    schemas.fetch(9)
    assert len(registry.requests) == 2


@pytest.mark.parametrize(
    ("answer", "alive"),
    [((200, {"compatibilityLevel": "FULL"}), True), ((403, {"error_code": 403}), True), ((404, {}), True)]
    + [((code, {"error_code": code}), False) for code in (429, 500, 503)],
)
def test_a_registry_answers_whatever_it_says(registry: RegistryDouble, answer: Any, alive: bool) -> None:
    """An error of its own is no answer; nor is silence."""
    registry.answers["/config"] = answer
    schemas = resolver(registry)
    assert schemas.answers() is alive
    registry.stop()
    assert not schemas.answers()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}, "Protobuf frame, id 7"),
        ({"schema": "x", "schemaType": "THRIFT"}, "THRIFT frame, id 7"),
        ({"schema": "nonsense"}, "not an Avro schema"),
        ({"schema": '{"type": "recrd"}'}, "not an Avro schema"),
    ],
)
def test_a_schema_that_is_not_read_is_bad_input(registry: RegistryDouble, answer: dict[str, str], says: str) -> None:
    """Named for what it is."""
    registry.answers["/schemas/ids/7"] = (200, answer)
    with pytest.raises(BadInput, match=says) as caught:
        resolver(registry).fetch(7)
    assert caught.value.reason == "NotAvroSchema"


def test_a_json_schema_is_read_as_json(registry: RegistryDouble) -> None:
    """On a route of Avro, too, whatever its text."""
    registry.answers["/schemas/ids/7"] = (200, {"schema": "nonsense", "schemaType": "JSON"})
    schemas = resolver(registry)
    schemas.fetch(7)
    assert decode_value(b'\0\0\0\0\x07{"text": "good"}', "avro", "t-0-1", schemas.schema_for).text == "good"
    with pytest.raises(BadInput, match="not JSON") as caught:
        decode_value(b"\0\0\0\0\x07\x08good", "avro", "t-0-1", schemas.schema_for)
    assert caught.value.reason == "InvalidJson"


GUID = "89791762-2336-4186-9674-299b90a802e2"


def test_a_guid_is_looked_up_as_one(registry: RegistryDouble) -> None:
    """Once, and values whose header has it are read without a frame; header names and ids are Confluent's own."""
    registry.answers[f"/schemas/guids/{GUID}"] = (200, {"schema": EVENT, "guid": GUID})
    schemas = resolver(registry)
    headers: list[Any] = []
    context = SerializationContext("in", MessageField.VALUE, headers)
    value = header_schema_id_serializer(b"\x08good", context, SchemaId("AVRO", guid=GUID))
    number = schema_id(value, headers)
    assert number == GUID
    assert not schemas.is_cached(number)
    for _ in range(2):
        schemas.fetch(number)
    event = decode_value(value, "avro", "t-0-1", schemas.schema_for, headers)
    assert event.text == "good"
    assert registry.requests == [f"/schemas/guids/{GUID}"]


@pytest.mark.parametrize("answer", [NOT_FOUND, (404, {"error_code": 404, "message": "HTTP 404"}), (404, b"<html>")])
def test_a_guid_that_is_not_there_is_bad_input(registry: RegistryDouble, answer: tuple[int, Any]) -> None:
    """Also where the registry is too old for any: one producer's header must not pause the topic."""
    registry.answers[f"/schemas/guids/{GUID}"] = answer
    with pytest.raises(BadInput, match=GUID) as caught:
        resolver(registry).fetch(GUID)
    assert caught.value.reason == "UnknownSchemaId"


def test_a_server_that_is_no_registry_is_not_asked_for_a_guid(registry: RegistryDouble) -> None:
    """Its 404 says nothing about the value."""
    registry.answers[f"/schemas/guids/{GUID}"] = registry.answers["/config"] = (404, b"<html>")
    with pytest.raises(RegistryRefused, match="url"):
        resolver(registry).fetch(GUID)


def test_references_are_followed(registry: RegistryDouble) -> None:
    """A schema may take types from others, which may take types from others."""

    def version(name: str, schema: dict[str, Any], references: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        body = {"subject": name, "version": 1, "id": 1, "schema": json.dumps(schema), "references": references}
        return 200, body

    inner = {"type": "record", "name": "x.Inner", "fields": [{"name": "n", "type": "int"}]}
    outer = {"type": "record", "name": "x.Outer", "fields": [{"name": "inner", "type": "x.Inner"}]}
    event = json.loads(EVENT)
    event["fields"].append({"name": "extra", "type": "x.Outer"})
    registry.answers["/subjects/inner/versions/1"] = version("inner", inner, [])
    registry.answers["/subjects/outer/versions/1"] = version(
        "outer", outer, [{"name": "x.Inner", "subject": "inner", "version": 1}]
    )
    registry.answers["/schemas/ids/7"] = (
        200,
        {"schema": json.dumps(event), "references": [{"name": "x.Outer", "subject": "outer", "version": 1}]},
    )
    schemas = resolver(registry)
    schemas.fetch(7)
    assert decode_value(b"\x00\x00\x00\x00\x07\x08good\x04", "avro", "t-0-1", schemas.schema_for).text == "good"


def test_a_probe_counts_subjects(registry: RegistryDouble) -> None:
    """Whether the registry lets this client in can be asked."""
    registry.answers["/subjects"] = (200, ["a", "b"])
    assert resolver(registry).probe() == 2
    registry.answers["/subjects"] = (401, {"error_code": 401, "message": "x"})
    with pytest.raises(RegistryRefused):
        resolver(registry).probe()


@pytest.mark.parametrize("number", [MAX_ID + 1, 2**32 - 1])
def test_no_registry_has_ids_beyond_javas_int(registry: RegistryDouble, number: int) -> None:
    """Four stray bytes are not asked about: some registries would answer as for a wrong path."""
    with pytest.raises(BadInput) as caught:
        resolver(registry).fetch(number)
    assert caught.value.reason == "UnknownSchemaId"
    assert registry.requests == []


@pytest.mark.parametrize("code", [40401, 40402])
def test_a_reference_that_is_gone_is_bad_input(registry: RegistryDouble, code: int) -> None:
    """Nothing of this worker's can mend it, and other events need not wait for it."""
    references = [{"name": "x.Outer", "subject": "outer", "version": 3}]
    registry.answers["/schemas/ids/7"] = (200, {"schema": EVENT, "references": references})
    registry.answers["/subjects/outer/versions/3"] = (404, {"error_code": code, "message": "x"})
    with pytest.raises(BadInput, match="version 3 of subject outer") as caught:
        resolver(registry).fetch(7)
    assert caught.value.reason == "UnknownSchemaReference"


def test_a_reference_during_an_outage_waits(registry: RegistryDouble) -> None:
    """Half a schema is not taken for a whole one."""
    references = [{"name": "x.Outer", "subject": "outer", "version": 3}]
    registry.answers["/schemas/ids/7"] = (200, {"schema": EVENT, "references": references})
    registry.answers["/subjects/outer/versions/3"] = (503, {"error_code": 50301, "message": "x"})
    schemas = resolver(registry)
    with pytest.raises(RegistryUnavailable):
        schemas.fetch(7)
    assert not schemas.is_cached(7)


def test_references_in_a_circle_end(registry: RegistryDouble) -> None:
    """Registries refuse to store them; what answers in one's place may say anything."""
    references = [{"name": "x.Outer", "subject": "outer", "version": 1}]
    body = {"subject": "outer", "version": 1, "id": 1, "schema": EVENT, "references": references}
    registry.answers["/subjects/outer/versions/1"] = (200, body)
    registry.answers["/schemas/ids/7"] = (200, {"schema": EVENT, "references": references})
    with pytest.raises(BadInput, match="deep") as caught:
        resolver(registry).fetch(7)
    assert caught.value.reason == "NotAvroSchema"


def test_a_result_schema_is_registered_under_its_topic(registry: RegistryDouble) -> None:
    """Under the usual subject, with the id that the registry gives."""
    number = resolver(registry).result_schema_id("reviews.out")
    assert registry.subjects == {"reviews.out-value": number}
    assert registry.schemas == {number: RESULT}


def test_a_forbidden_schema_is_a_deployment_fault(registry: RegistryDouble) -> None:
    """A compatibility rule of the subject is the operator's to change, who is told what it says."""
    registry.schemas, registry.subjects, registry.closed = {3: EVENT}, {"out-value": 3}, {"out-value"}
    with pytest.raises(RegistryRefused, match=r"409 .*forbids.*must at /fields/14"):
        resolver(registry).result_schema_id("out")


def test_without_auto_register_a_schema_is_looked_up(registry: RegistryDouble) -> None:
    """And nothing is registered, also when it is missing: that is a deployment fault, with both ways out."""
    looking = resolver(registry, auto_register=False)
    with pytest.raises(RegistryRefused, match=r"subject out-value.*extraction_result\.avsc.*auto_register"):
        looking.result_schema_id("out")
    registry.schemas, registry.subjects = {3: EVENT}, {"out-value": 3}
    with pytest.raises(RegistryRefused, match="subject out-value"):
        looking.result_schema_id("out")
    assert registry.schemas == {3: EVENT}
    registry.schemas[4], registry.subjects["out-value"] = RESULT, 4
    assert looking.result_schema_id("out") == 4
    assert not [path for path in registry.requests if path.endswith("/versions")]


def test_a_lookup_during_an_outage_is_transient(registry: RegistryDouble) -> None:
    """Only an answer says that the schema is missing."""
    registry.answers["/subjects/out-value"] = (500, {"error_code": 50001, "message": "x"})
    with pytest.raises(RegistryUnavailable):
        resolver(registry, auto_register=False).result_schema_id("out")


def test_the_state_of_a_subject_is_found_without_changing_it(registry: RegistryDouble) -> None:
    """Absent, closed, present; the mode is the subject's own, or else the registry's."""
    schemas = resolver(registry)
    fresh = schemas.subject_state("out")
    assert (fresh.number, fresh.compatibility, fresh.accepts) == (None, "BACKWARD", True)
    registry.schemas, registry.subjects, registry.closed = {3: EVENT}, {"out-value": 3}, {"out-value"}
    registry.modes = {"out-value": "FULL"}
    closed = schemas.subject_state("out")
    assert (closed.number, closed.compatibility, closed.accepts) == (None, "FULL", False)
    registry.schemas[3] = RESULT
    there = schemas.subject_state("out")
    assert (there.number, there.accepts) == (3, True)
    assert registry.subjects == {"out-value": 3}
    assert "/subjects/out-value/versions" not in registry.requests
