"""How much memory the bytes of a datum can become: a multiple of them, whatever schema its producer registered."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from avro_frames import framed, known

from consumer.codecs import avro_codec
from consumer.codecs.avro_codec import UNPACKED_BYTES
from consumer.codecs.avro_schemas import parse_writer_schema
from consumer.codecs.decoding import decode_value
from consumer.events import BadInput

SIZE = 32_768
MOST = 60
"""Times the datum; JSON takes 29. docs/operations.md counts 64 for one value while it is decoded."""


def record(name: str, *types: Any) -> dict[str, Any]:
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


def within(levels: int, kind: Any) -> Any:
    for number in range(levels):
        kind = record(f"R{number}", kind)
    return kind


def long(number: int) -> bytes:
    """As Avro writes it."""
    number, written = number * 2, b""
    while number > 127:
        written += bytes([number & 127 | 128])
        number >>= 7
    return written + bytes([number])


def array_of(items: Any, each: bytes, size: int = SIZE) -> tuple[str, bytes]:
    """A schema, and a datum of about ``size`` bytes that is an event with an array of nothing but ``each``."""
    count = size // len(each)
    fields = [{"name": "text", "type": "string"}, {"name": "more", "type": {"type": "array", "items": items}}]
    schema = json.dumps({"type": "record", "name": "com.shop.R", "fields": fields})
    return schema, b"\x08neat" + long(count) + each * count + b"\0"


def peak(schema: str, body: bytes) -> tuple[float, str]:
    """Memory in multiples of the datum, and how it ended."""
    registry, outcome = known({7: parse_writer_schema(schema)}), "event"
    with suppress(BadInput):  # what is imported and cached does not count
        decode_value(framed(b"\x08neat\0", 7), "avro", "t-0-1", registry)
    tracemalloc.start()
    try:
        decode_value(framed(body, 7), "avro", "t-0-1", registry)
    except BadInput as bad:
        outcome = bad.reason
    finally:
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return highest / len(body), outcome


@pytest.mark.parametrize(
    ("items", "each", "outcome"),
    [
        ("int", b"\x02", "event"),
        ("long", b"\x80\x10", "event"),
        ("string", b"\x04ab", "event"),
        ("float", b"abcd", "event"),
        (["null", "int"], b"\0", "event"),
        ({"type": "long", "logicalType": "timestamp-micros"}, b"\x02", "AvroTooLarge"),
        ({"type": "int", "logicalType": "date"}, b"\x02", "AvroTooLarge"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 300, "scale": 255}, b"\x00", "AvroTooLarge"),
        ({"type": "array", "items": "int"}, b"\0", "AvroTooLarge"),
        ({"type": "map", "values": "int"}, b"\0", "AvroTooLarge"),
        (record("I", ["null", "int"]), b"\0", "AvroTooLarge"),
        (["null", {"type": "map", "values": record("I", "int")}], b"\x02\x02\x02a\x02\0", "AvroTooLarge"),
        (record("Wide", *(["null"] * 900), "int"), b"\0", "AvroTooLarge"),
        (within(60, "int"), b"\0", "AvroTooLarge"),
        (within(150, "int"), b"\0", "AvroTooLarge"),
    ],
)
def test_an_array_takes_a_bounded_multiple_of_its_bytes(
    items: Any, each: bytes, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the smallest items that a schema can have; a record in 150 others took 40,000 times its byte."""
    monkeypatch.setattr(avro_codec, "UNPACKED_BYTES", 0)
    multiple, ended = peak(*array_of(items, each))
    assert ended == outcome
    assert multiple < MOST


def test_a_tree_takes_a_bounded_multiple_of_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no array at all."""
    monkeypatch.setattr(avro_codec, "UNPACKED_BYTES", 0)
    node = record("T", ["null", "T"], ["null", "T"])
    fields = [{"name": "text", "type": "string"}, {"name": "more", "type": ["null", node]}]
    body = b"\0"
    for _ in range(14):
        body = b"\x02" + body * 2
    schema = json.dumps({"type": "record", "name": "R", "fields": fields})
    multiple, ended = peak(schema, b"\x08neat" + body)
    assert (ended, multiple < MOST) == ("AvroTooLarge", True)


def test_real_values_are_far_from_the_bound() -> None:
    """A hundred thousand small records, or as many decimals, are still read, and a megabyte of times."""
    schema, body = array_of({"type": "long", "logicalType": "timestamp-millis"}, long(1_700_000_000_000), 1_000_000)
    registry = known({7: parse_writer_schema(schema)})
    assert decode_value(framed(body, 7), "avro", "t-0-1", registry).text == "neat"
    assert UNPACKED_BYTES > 100_000 * 250
    photo = record("Photo", "string", ["null", "string"], {"type": "array", "items": "string"})
    each = b"\x06url\x00\x00"
    assert peak(*array_of(photo, each, 5_000 * len(each)))[1] == "event"
