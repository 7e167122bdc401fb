"""The Schema Registry client, against a double of the registry's HTTP interface on this machine."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from registry_double import RegistryDouble

from consumer.codecs.avro_codec import decode_avro
from consumer.config import RegistryConfig
from consumer.events import BadInput
from consumer.kafka.registry import RegistryRefused, RegistryUnavailable, SchemaResolver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENT = json.dumps({"type": "record", "name": "rexstream.ReviewEvent", "fields": [{"name": "text", "type": "string"}]})


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    yield double
    double.stop()


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def resolver(double: RegistryDouble, clock: Clock | None = None, **settings: Any) -> SchemaResolver:
    return SchemaResolver(RegistryConfig(url=double.url, **settings), clock or Clock())


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
    assert decode_avro(b"\x00\x00\x00\x00\x07\x08good", "t-0-1", schemas.schema_for).text == "good"


def test_an_unknown_id_is_bad_input_for_a_minute(registry: RegistryDouble) -> None:
    """One unknown id is one request a minute, and a schema registered later is found."""
    clock = Clock()
    schemas = resolver(registry, clock)
    for _ in range(3):
        with pytest.raises(BadInput) as caught:
            schemas.fetch(9)
        assert (caught.value.stage, caught.value.reason) == ("decode", "UnknownSchemaId")
    assert len(registry.requests) == 1
    registry.answers["/schemas/ids/9"] = (200, {"schema": EVENT})
    clock.now += 59.9
    with pytest.raises(BadInput):
        schemas.fetch(9)
    clock.now += 0.1
    schemas.fetch(9)
    assert len(registry.requests) == 2


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_registry_in_trouble_is_unavailable(registry: RegistryDouble, status: int) -> None:
    """An answer that says to come back is transient, and asked once: the worker does the waiting."""
    registry.answers["/schemas/ids/7"] = (status, {"error_code": 50001, "message": "x"})
    with pytest.raises(RegistryUnavailable, match=str(status)):
        resolver(registry).fetch(7)
    assert len(registry.requests) == 1


def test_no_registry_is_unavailable(registry: RegistryDouble) -> None:
    """A refused connection is transient, and nothing about the id is remembered."""
    url = registry.url.replace("127.0.0.1", "user:hunter2@127.0.0.1")
    schemas = SchemaResolver(RegistryConfig(url=url[: url.rindex(":")] + ":1"), Clock())
    for _ in range(2):
        with pytest.raises(RegistryUnavailable) as caught:
            schemas.fetch(7)
        assert "hunter2" not in str(caught.value)


def test_a_silent_registry_times_out() -> None:
    """A registry that accepts and never answers is unavailable after the configured time."""

    class Silent:
        def get_schema(self, schema_id: int) -> Any:
            raise TimeoutError(schema_id)

        def get_version(self, subject_name: str, version: int) -> Any:
            raise NotImplementedError

        def register_schema(self, subject_name: str, schema: Any) -> int:
            raise NotImplementedError

        def get_subjects(self) -> list[str]:
            raise NotImplementedError

    with pytest.raises(RegistryUnavailable, match="TimeoutError"):
        SchemaResolver(RegistryConfig(url="http://silent"), Clock(), Silent()).fetch(7)


@pytest.mark.parametrize(
    ("status", "words"), [(401, "password_file"), (403, "password_file"), (404, "url"), (410, "url")]
)
def test_a_refusal_is_a_deployment_fault(registry: RegistryDouble, status: int, words: str) -> None:
    """Wrong credentials are for the operator, and so is any other web server, whose 404 is no unknown id."""
    registry.answers["/schemas/ids/7"] = (status, b"<html>no</html>")
    with pytest.raises(RegistryRefused, match=words):
        resolver(registry).fetch(7)


def test_an_answer_that_is_no_schema_is_unavailable(registry: RegistryDouble) -> None:
    """A page of a proxy says nothing about the event."""
    registry.answers["/schemas/ids/7"] = (200, b"<html>welcome</html>")
    with pytest.raises(RegistryUnavailable):
        resolver(registry).fetch(7)


@pytest.mark.parametrize(
    "answer",
    [{"schema": '{"type": "string"}', "schemaType": "JSON"}, {"schema": "nonsense"}, {"schema": '{"type": "recrd"}'}],
)
def test_a_schema_that_is_not_avro_is_bad_input(registry: RegistryDouble, answer: dict[str, str]) -> None:
    """The event says that it is Avro of a schema that is none."""
    registry.answers["/schemas/ids/7"] = (200, answer)
    with pytest.raises(BadInput) as caught:
        resolver(registry).fetch(7)
    assert caught.value.reason == "NotAvroSchema"


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
    assert decode_avro(b"\x00\x00\x00\x00\x07\x08good\x04", "t-0-1", schemas.schema_for).text == "good"


def test_the_password_comes_from_its_file(registry: RegistryDouble, tmp_path: Path) -> None:
    """The last line break of the file is no part of the password."""
    path = tmp_path / "password"
    path.write_text("hunter2\n", encoding="utf-8")
    registry.answers["/schemas/ids/7"] = (200, {"schema": EVENT})
    resolver(registry, username="reader", password_file=str(path)).fetch(7)
    assert registry.authorization == "Basic " + base64.b64encode(b"reader:hunter2").decode()


def test_a_missing_password_file_is_a_deployment_fault(registry: RegistryDouble, tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(RegistryRefused, match="nowhere"):
        resolver(registry, username="reader", password_file=str(tmp_path / "nowhere"))


def test_a_result_schema_is_registered_under_its_topic(registry: RegistryDouble) -> None:
    """Results get the id that the registry gives, under the usual subject."""
    registry.answers["/subjects/reviews.out-value/versions"] = (200, {"id": 12})
    assert resolver(registry).register("reviews.out", EVENT) == 12


def test_a_forbidden_schema_is_a_deployment_fault(registry: RegistryDouble) -> None:
    """A compatibility rule of the subject is the operator's to change."""
    registry.answers["/subjects/reviews.out-value/versions"] = (409, {"error_code": 409, "message": "x"})
    with pytest.raises(RegistryRefused, match="409"):
        resolver(registry).register("reviews.out", EVENT)


def test_a_probe_counts_subjects(registry: RegistryDouble) -> None:
    """Whether the registry lets this client in can be asked."""
    registry.answers["/subjects"] = (200, ["a", "b"])
    assert resolver(registry).probe() == 2
    registry.answers["/subjects"] = (401, {"error_code": 401, "message": "x"})
    with pytest.raises(RegistryRefused):
        resolver(registry).probe()
