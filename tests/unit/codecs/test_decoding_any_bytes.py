"""Whatever the bytes are, a decoder gives an event or bad input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from avro_frames import EVENT_SCHEMA, datum, framed, known
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.codecs.avro_schemas import event_schema, parse_writer_schema
from consumer.codecs.decoding import decode_value
from consumer.events import BadInput, ReviewEvent

if TYPE_CHECKING:
    from collections.abc import Callable

RICH = parse_writer_schema(
    json.dumps(
        {
            "type": "record",
            "name": "ReviewEvent",
            "namespace": "rexstream",
            "fields": [
                {"name": "kinds", "type": {"type": "enum", "name": "Kinds", "symbols": ["A", "B"]}},
                {"name": "text", "type": ["string", "bytes", "null"]},
                {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 4}},
                {"name": "again", "type": ["null", "ReviewEvent"]},
                {"name": "numbers", "type": {"type": "array", "items": ["double", "float", "int"]}},
                {"name": "attributes", "type": {"type": "map", "values": "string"}},
            ],
        }
    )
)
DECODERS: dict[str, Callable[[bytes, str], ReviewEvent]] = {
    "json": lambda value, name: decode_value(value, "json", name),
    "text": lambda value, name: decode_value(value, "text", name),
    "bare avro": lambda value, name: decode_value(value, "avro", name),
    "framed avro": lambda value, name: decode_value(value, "avro", name, known({1: event_schema()})),
    "another schema": lambda value, name: decode_value(framed(value, 1), "avro", name, known({1: RICH})),
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "a\udfffb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(
    ["event_id", "text", "tasks", "schema", "kind", "product_id", "created_at", "attributes", "other"]
)


def check(decoder: str, value: bytes) -> None:
    outcome: ReviewEvent | BadInput
    try:
        outcome = DECODERS[decoder](value, "t-0-1")
    except BadInput as error:
        outcome = error
    if isinstance(outcome, BadInput):
        assert outcome.stage in ("decode", "validate")
        assert outcome.reason.isalnum()
    else:
        event = outcome
        assert event.text.strip()
        # What was accepted can be written out again.
        json.dumps([event.event_id, event.text, event.tasks, event.schema, dict(event.attributes)], ensure_ascii=False)
        "".join([event.event_id, event.text, *(event.tasks or ()), *event.attributes.values()]).encode()


@pytest.mark.parametrize("decoder", DECODERS)
@given(value=st.binary(max_size=200))
@example(value=b"\x00\x00\x00\x00\x01" + b"\xff" * 40)
@example(value=b"\x00\x02" + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" * 4)
def test_any_bytes(decoder: str, value: bytes) -> None:
    """Random bytes raise nothing but BadInput."""
    check(decoder, value)


@given(fields=st.dictionaries(field_names, json_values, max_size=6))
def test_any_json_object(fields: dict[str, object]) -> None:
    """Fields of any type raise nothing but BadInput."""
    check("json", json.dumps(fields).encode())


@given(
    text=st.text(max_size=20),
    tasks=st.none() | st.lists(st.text(max_size=5), max_size=3),
    schema=st.none() | st.text(max_size=20),
    damage=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=3),
)
def test_damaged_avro(text: str, tasks: list[str] | None, schema: str | None, damage: list[tuple[int, int]]) -> None:
    """Flipping bytes of a good datum raises nothing but BadInput."""
    value = bytearray(datum(EVENT_SCHEMA, {"text": text, "tasks": tasks, "schema": schema}))
    for place, byte in damage:
        value[place % len(value)] = byte
    check("bare avro", bytes(value))
