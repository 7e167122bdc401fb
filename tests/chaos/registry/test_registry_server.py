"""Our client of schema registries against a real one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from apicurio import Apicurio
from avro_values import EVENT_SCHEMA, NEWER, OLDER, RESULT_SCHEMA, REVIEWS, framed
from certificates import Authority
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from consumer.cli.dependencies import registry_findings
from consumer.codecs.decoding import decode_value
from consumer.config.loading import load_config
from consumer.config.tree import RegistryConfig
from consumer.events import BadInput
from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable
from consumer.kafka.registry.resolver import SchemaResolver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def producer(registry_url: str) -> SchemaRegistryClient:
    """The registry as others use it."""
    return SchemaRegistryClient({"url": registry_url})


def resolver(url: str, **settings: Any) -> SchemaResolver:
    return SchemaResolver(RegistryConfig(url=url, **settings), RESULT_SCHEMA)


def test_evolution_that_the_registry_allows_is_read(
    registry_url: str, producer: SchemaRegistryClient, new_topic: Callable[[str], str]
) -> None:
    """Under FULL compatibility the shipped schema and a newer one pass, one of another type does not, and values of
    both, and of an older one elsewhere, are events.
    """
    subject = f"{new_topic('reviews')}-value"
    numbers = {EVENT_SCHEMA: producer.register_schema(subject, Schema(EVENT_SCHEMA, "AVRO"))}
    producer.set_compatibility(subject, "FULL")
    numbers[NEWER] = producer.register_schema(subject, Schema(NEWER, "AVRO"))
    numbers[OLDER] = producer.register_schema(f"{new_topic('older')}-value", Schema(OLDER, "AVRO"))
    broken = NEWER.replace('"name": "text", "type": "string"', '"name": "text", "type": "int"')
    assert broken != NEWER
    assert not producer.test_compatibility_all_versions(subject, Schema(broken, "AVRO"))
    schemas = resolver(registry_url)
    for text, number in numbers.items():
        schemas.fetch(number)
        value = framed(number, text, event_id="e", text=REVIEWS[0])
        assert decode_value(value, "avro", "t-0-1", schemas.schema_for).text == REVIEWS[0]


@pytest.mark.parametrize("number", [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_ids_that_no_registry_gave(registry_url: str, number: int) -> None:
    """Whatever four bytes a producer sends, the answer is about the event, never about the configuration."""
    with pytest.raises(BadInput) as caught:
        resolver(registry_url).fetch(number)
    assert caught.value.reason == "UnknownSchemaId"


def test_an_id_that_is_registered_later(
    registry_url: str, producer: SchemaRegistryClient, new_topic: Callable[[str], str]
) -> None:
    """The registry is asked again, and so is its client."""
    schemas = resolver(registry_url)
    last = producer.register_schema(f"{new_topic('a')}-value", Schema(OLDER.replace("text", "a"), "AVRO"))
    soon = range(last + 1, last + 20)
    for number in soon:
        with pytest.raises(BadInput):
            schemas.fetch(number)
    unique = OLDER.replace("rexstream.ReviewEvent", new_topic("R").replace("-", "_"))
    number = producer.register_schema(f"{new_topic('b')}-value", Schema(unique, "AVRO"))
    assert number in soon, "something else uses this registry"
    schemas.fetch(number)


def test_schemas_of_other_kinds(
    registry_url: str, producer: SchemaRegistryClient, new_topic: Callable[[str], str]
) -> None:
    """Values of a JSON Schema are JSON, Protobuf is named for what it is."""
    text = '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'
    number = producer.register_schema(f"{new_topic('json')}-value", Schema(text, "JSON"))
    schemas = resolver(registry_url)
    schemas.fetch(number)
    value = b"\x00" + number.to_bytes(4) + json.dumps({"text": REVIEWS[0]}).encode()
    assert decode_value(value, "avro", "t-0-1", schemas.schema_for).text == REVIEWS[0]
    text = 'syntax = "proto3"; message Review { string text = 1; }'
    number = producer.register_schema(f"{new_topic('other')}-value", Schema(text, "PROTOBUF"))
    with pytest.raises(BadInput, match=f"Protobuf frame, id {number}") as caught:
        schemas.fetch(number)
    assert caught.value.reason == "NotAvroSchema"


def test_references(registry_url: str, producer: SchemaRegistryClient, new_topic: Callable[[str], str]) -> None:
    """Types in other subjects are fetched with those that they refer to, also when two refer to the same."""
    space = new_topic("s").replace("-", "_")
    names = {label: f"{space}.{label}" for label in ("Money", "Price", "Shop")}

    def register(subject: str, name: str, fields: list[dict[str, Any]], *needs: str) -> int:
        schema = json.dumps({"type": "record", "name": name, "fields": fields})
        references = [SchemaReference(names[need], f"{space}-{need}", 1) for need in needs]
        return producer.register_schema(subject, Schema(schema, "AVRO", references))

    register(f"{space}-Money", names["Money"], [{"name": "cents", "type": "int"}])
    register(f"{space}-Price", names["Price"], [{"name": "now", "type": names["Money"]}], "Money")
    register(f"{space}-Shop", names["Shop"], [{"name": "debt", "type": names["Money"]}], "Money")
    fields = [
        {"name": "price", "type": names["Price"]},
        {"name": "text", "type": "string"},
        {"name": "shop", "type": names["Shop"]},
    ]
    number = register(f"{space}-value", "rexstream.ReviewEvent", fields, "Price", "Shop")
    schemas = resolver(registry_url)
    schemas.fetch(number)
    value = b"\x00" + number.to_bytes(4) + b"\x06\x08good\x0a"
    assert decode_value(value, "avro", "t-0-1", schemas.schema_for).text == "good"


def test_the_result_schema_is_registered_once(
    registry_url: str, producer: SchemaRegistryClient, new_topic: Callable[[str], str]
) -> None:
    """Every worker and every topic gets the same id, and a subject one version."""
    first, second = new_topic("out"), new_topic("out")
    numbers = {resolver(registry_url).result_schema_id(topic) for topic in (first, first, second)}
    assert len(numbers) == 1
    assert producer.get_versions(f"{first}-value") == [1]
    assert json.loads(str(producer.get_schema(numbers.pop()).schema_str)) == json.loads(RESULT_SCHEMA)


def test_without_auto_register(
    registry_url: str, producer: SchemaRegistryClient, new_topic: Callable[[str], str]
) -> None:
    """What is missing is said; what somebody registered, in whatever layout, is found; nothing is registered."""
    topic = new_topic("out")
    looking = resolver(registry_url, auto_register=False)
    with pytest.raises(RegistryRefused, match=f"subject {topic}-value"):
        looking.result_schema_id(topic)
    assert f"{topic}-value" not in producer.get_subjects()
    other_layout = json.dumps(json.loads(RESULT_SCHEMA), indent=7)
    number = producer.register_schema(f"{topic}-value", Schema(other_layout, "AVRO"))
    assert looking.result_schema_id(topic) == number
    assert producer.get_versions(f"{topic}-value") == [1]


def test_a_compatibility_rule_that_forbids(
    registry_url: str, producer: SchemaRegistryClient, new_topic: Callable[[str], str]
) -> None:
    """The refusal gives the registry's reason, ``check`` sees it before, and a change of the rule mends it."""
    topic = new_topic("out")
    subject = f"{topic}-value"
    wider = json.loads(RESULT_SCHEMA)
    wider["fields"].append({"name": "must", "type": "string"})
    producer.register_schema(subject, Schema(json.dumps(wider), "AVRO"))
    producer.set_compatibility(subject, "FULL")
    settings = [f"kafka.registry.url={registry_url}", "routes.0.output_format=avro", f"routes.0.output={topic}"]

    def checked() -> tuple[str, str]:
        (finding,) = [
            f for f in registry_findings(load_config(None, {}, settings), ()) if f.subject == f"subject {subject}"
        ]
        return finding.status, finding.detail

    status, detail = checked()
    assert status == "fail"
    assert "compatibility FULL forbids" in detail
    schemas = resolver(registry_url)
    with pytest.raises(RegistryRefused, match=r"forbids this schema: .*[Ii]ncompatible"):
        schemas.result_schema_id(topic)
    assert producer.get_versions(subject) == [1]

    producer.set_compatibility(subject, "NONE")
    assert checked()[0] == "ok"
    assert producer.get_versions(subject) == [1], "check registers nothing"
    number = schemas.result_schema_id(topic)
    assert checked() == ("ok", f"has the result schema, id {number}; compatibility NONE")


def test_tls_on_a_real_server(installed: Path, tmp_path: Path) -> None:
    """With its authority the registry is used, and without it refused; a stopped one is an outage, in TLS too."""
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    secure = Apicurio(installed, tmp_path, authority)
    try:
        secure.start()
        schemas = resolver(secure.url, ca_file=str(tmp_path / "ca.pem"), timeout_seconds=2.0)
        assert schemas.probe() == 0
        assert schemas.result_schema_id("out") > 0
        with pytest.raises(RegistryRefused, match="certificate"):
            resolver(secure.url).probe()
        secure.pause()
        with pytest.raises(RegistryUnavailable):
            schemas.probe()
        secure.resume()
        assert schemas.probe() == 1
        secure.kill()
        with pytest.raises(RegistryUnavailable):
            schemas.probe()
        secure.start()
        assert schemas.probe() == 1
    finally:
        secure.kill()
