"""The registry behind the commands that read results."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import pytest
from avro_values import RESULT_SCHEMA
from registry_double import RegistryDouble

from consumer.cli.options import Unreachable
from consumer.cli.result_schemas import ResultSchemas
from consumer.codecs.avro_codec import encode_avro
from consumer.config.tree import RegistryConfig
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULT = {
    "result_id": "0" * 64,
    "event_id": "e",
    "task": "t",
    "extractions": [],
    "processed_at": 1,
    "model": {"name": "m", "version": "1", "signature": "s"},
    "timing": {"model_ms": 1.0, "total_ms": 1.0, "model_calls": 1},
}


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    double.schemas = {7: RESULT_SCHEMA}
    yield double
    double.stop()


def schemas(registry: RegistryDouble, *, auto_register: bool = True) -> ResultSchemas:
    return ResultSchemas(RegistryConfig(url=registry.url, timeout_seconds=2.0, auto_register=auto_register))


def test_each_schema_is_asked_for_once(registry: RegistryDouble) -> None:
    """Also one that is not there, which others' records may name by the million."""
    found = schemas(registry)
    assert found.read(b'{"a": 1}') == {"a": 1}
    assert registry.requests == []
    for _ in range(3):
        assert found.read(encode_avro(RESULT, 7))["event_id"] == "e"
        with pytest.raises(BadInput, match="no schema 8"):
            found.read(encode_avro(RESULT, 8))
    assert registry.requests == ["/schemas/ids/7", "/schemas/ids/8"]


def test_a_registry_that_is_away_or_refuses_ends_the_command(registry: RegistryDouble) -> None:
    """With the exit codes of a dependency that does not answer, and of a setting to be mended."""
    registry.answers["/schemas/ids/9"] = 401, {"error_code": 401, "message": "no"}
    with pytest.raises(click.UsageError, match="answered 401"):
        schemas(registry).read(encode_avro(RESULT, 9))
    registry.stop()
    with pytest.raises(Unreachable, match="schema registry"):
        schemas(registry).read(encode_avro(RESULT, 7))


def test_without_a_registry_there_is_none_to_ask() -> None:
    with pytest.raises(BadInput, match=r"kafka\.registry\.url"):
        ResultSchemas(RegistryConfig()).read(encode_avro(RESULT, 7))


def test_a_schema_is_put_under_a_live_topic_as_its_rules_allow(registry: RegistryDouble) -> None:
    """Once, with the id that it has; a rule that forbids it is named before anything is published."""
    schemas(registry).also_under("out", 7, only_ask=True)
    assert registry.subjects == {}
    schemas(registry).also_under("out", 7)
    schemas(registry).also_under("out", 7)
    assert registry.subjects == {"out-value": 7}
    assert registry.requests.count("/subjects/out-value/versions") == 1
    with pytest.raises(click.UsageError, match=r"other-value .* does not have schema 7.*auto_register"):
        schemas(registry, auto_register=False).also_under("other", 7)
    registry.closed.add("closed-value")
    registry.subjects["closed-value"], registry.schemas[6] = 6, '"string"'
    with pytest.raises(click.UsageError, match=r"rule of subject closed-value .* forbids schema 7"):
        schemas(registry).also_under("closed", 7, only_ask=True)
    with pytest.raises(click.UsageError, match="compatibility rule forbids"):
        schemas(registry).also_under("closed", 7)
    with pytest.raises(click.UsageError, match="no schema 8"):
        schemas(registry).also_under("out", 8)


def test_json_results_need_nothing_of_the_registry(registry: RegistryDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is not even imported."""
    monkeypatch.setitem(sys.modules, "consumer.kafka.registry.resolver", None)
    assert schemas(registry).read(b"{}") == {}
    with pytest.raises(ImportError):
        schemas(registry).read(encode_avro(RESULT, 7))
