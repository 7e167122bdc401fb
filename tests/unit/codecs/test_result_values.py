"""Reading results back, in every format that workers write."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from avro_values import RESULT_SCHEMA, framed, writer_schema

from consumer.codecs.avro_codec import encode_avro
from consumer.codecs.avro_schemas import JSON_PAYLOAD, WriterSchema, parse_writer_schema
from consumer.codecs.outputs import encode_json
from consumer.codecs.result_values import framed_with, read_result
from consumer.events import BadInput

FACTS = [
    {"type": "产品", "span": "屏幕", "start": 0, "end": 2, "score": 0.9},
    {"type": "好", "span": None, "start": None, "end": None, "score": 0.5},
]
RESULT: dict[str, Any] = {
    "result_id": "0f" * 32,
    "event_id": "e1",
    "task": "t",
    "task_fingerprint": "0" * 16,
    "extractions": [FACTS[:1], FACTS],
    "model": {"name": "m", "version": "3", "signature": "s"},
    "record": {"topic": "in", "partition": 2, "offset": 7, "timestamp": 1_700_000_000_000},
    "product_id": None,
    "source": "shop",
    "language": None,
    "created_at": -5,
    "attributes": {"a": "b"},
    "timing": {"model_ms": 1.5, "total_ms": 2.5, "model_calls": 1},
    "warnings": ["facts-capped: 3"],
    "processed_at": 1_700_000_000_001,
}
_SCHEMA = json.loads(RESULT_SCHEMA)
OLDER = json.dumps({**_SCHEMA, "fields": [each for each in _SCHEMA["fields"] if each["name"] != "task_fingerprint"]})
SCHEMAS: dict[Any, WriterSchema] = {
    7: parse_writer_schema(RESULT_SCHEMA),
    8: parse_writer_schema(OLDER),
    9: JSON_PAYLOAD,
}


def read(value: bytes) -> Any:
    return read_result(value, SCHEMAS.__getitem__)


@pytest.mark.parametrize("value", [encode_json(RESULT), encode_avro(RESULT, 7), encode_avro(RESULT, None)])
def test_a_result_says_the_same_in_every_format(value: bytes) -> None:
    """What Avro adds are the nulls of optional fields."""
    found = read(value)
    assert found.pop("timing").items() >= RESULT["timing"].items()
    assert found == {key: each for key, each in RESULT.items() if key != "timing"}


def test_a_result_of_an_older_release_is_read_with_its_own_schema() -> None:
    value = framed(8, OLDER, **{**RESULT, "timing": {**RESULT["timing"], "queued_ms": None}})
    assert framed_with(value) == 8
    found = read(value)
    assert "task_fingerprint" not in found
    assert (found["record"]["offset"], found["processed_at"]) == (7, 1_700_000_000_001)


@pytest.mark.parametrize(
    "value", [b"", b"{", b"\xff\xfe", b"text", b"\0\0\0\0\x09{", b"[" * 100_000, b"\0\0\0\0\x09" + b"[" * 100_000]
)
def test_what_no_worker_writes_is_no_result(value: bytes) -> None:
    assert read(value) is None


def test_a_frame_of_anything_else_is_read_as_what_it_is() -> None:
    """Whoever looks for a result in it finds none."""
    schema = writer_schema({"name": "price", "type": "int"})
    other: dict[Any, WriterSchema] = {5: parse_writer_schema(schema)}
    assert read_result(framed(5, schema, price=3), other.__getitem__) == {"price": 3}
    assert read(b'\0\0\0\0\x09{"price": 3}') == {"price": 3}


@pytest.mark.parametrize(
    ("value", "reason", "words"),
    [
        (encode_avro(RESULT, 6), "UnknownSchemaId", "no schema 6"),
        (encode_avro(RESULT, 7)[:-1], "InvalidAvro", "too few bytes"),
        (encode_avro(RESULT, None)[:-1], "InvalidAvro", "too few bytes"),
        (encode_avro(RESULT, 7) + b"\0", "InvalidAvro", "1 bytes of"),
    ],
)
def test_a_result_that_cannot_be_read_says_why(value: bytes, reason: str, words: str) -> None:
    """And is not taken for something else."""
    with pytest.raises(BadInput, match=words) as raised:
        read(value)
    assert raised.value.reason == reason


def test_a_frame_needs_a_registry() -> None:
    with pytest.raises(BadInput, match=r"schema id 7.*kafka\.registry\.url"):
        read_result(encode_avro(RESULT, 7), None)


def test_json_results_do_not_load_avro() -> None:
    """Which is memory and time that commands on JSON results do not need."""
    said = "import sys; from consumer.codecs.result_values import read_result as r; r(b'{}', None)"
    loaded = f"{said}; sys.exit('fastavro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
