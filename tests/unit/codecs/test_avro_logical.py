"""What logical types become, wherever in a value they stand."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from avro_frames import datum, framed, known
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.avro_schemas import parse_writer_schema
from consumer.codecs.decoding import decode_value, read_value
from consumer.events import Milliseconds, ReviewEvent

MS = 1_700_000_000_123
DEBEZIUM, CONNECT = "io.debezium.time", "org.apache.kafka.connect.data"


def of(kind: str, logical: str | None = None, **properties: Any) -> dict[str, Any]:
    named = {} if logical is None else {"logicalType": logical}
    return {"type": kind, **named, **{key.replace("_", "."): value for key, value in properties.items()}}


def raw(schema: Any) -> Any:
    """Without what would make fastavro's writer convert."""
    if isinstance(schema, dict):
        return {key: raw(item) for key, item in schema.items() if key != "logicalType"}
    return [raw(item) for item in schema] if isinstance(schema, list) else schema


def read(kind: Any, sent: Any) -> Any:
    """A value of this type, as it is read from a field, an array, a map, a union and a record in a record."""
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": kind}]}
    array, values = {"type": "array", "items": kind}, {"type": "map", "values": kind}
    places = {"plain": kind, "array": array, "map": values, "union": ["null", kind], "record": inner}
    if kind.get("type") == "fixed":
        places = {"plain": kind}
    fields = [{"name": name, "type": place} for name, place in places.items()]
    schema = {"type": "record", "name": "com.shop.R", "fields": fields}
    whole = {"plain": sent, "array": [sent], "map": {"a": sent}, "union": sent, "record": {"x": sent}}
    parsed = parse_writer_schema(json.dumps(schema))
    found = read_value(framed(datum(raw(schema), whole), 7), "avro", known({7: parsed}))
    for name in places:
        at = {"array": 0, "map": "a", "record": "x"}.get(name)
        one = found[name] if at is None else found[name][at]
        assert one == found["plain"]
        assert type(one) is type(found["plain"])
    return found["plain"]


@pytest.mark.parametrize(
    ("kind", "sent", "expected"),
    [
        (of("long", "timestamp-millis"), MS, MS),
        (of("long", "timestamp-micros"), MS * 1000 + 999, MS),
        (of("long", "timestamp-nanos"), MS * 1_000_000 + 999_999, MS),
        (of("long", "local-timestamp-millis"), MS, MS),
        (of("long", "local-timestamp-micros"), MS * 1000, MS),
        (of("long", "local-timestamp-nanos"), -1, -1),
        (of("int", "date"), 19_675, 19_675 * 86_400_000),
        (of("int", "date"), -1, -86_400_000),
        (of("long", connect_name=f"{DEBEZIUM}.Timestamp", connect_version=1), MS, MS),
        (of("long", connect_name=f"{DEBEZIUM}.MicroTimestamp", connect_version=1), MS * 1000, MS),
        (of("long", connect_name=f"{DEBEZIUM}.NanoTimestamp"), MS * 1_000_000, MS),
        (of("int", connect_name=f"{DEBEZIUM}.Date"), 19_675, 19_675 * 86_400_000),
        (of("long", "timestamp-millis", connect_name=f"{CONNECT}.Timestamp"), MS, MS),
        (of("long", connect_name=f"{CONNECT}.Timestamp"), MS, MS),
        (of("int", "date", connect_name=f"{CONNECT}.Date"), 1, 86_400_000),
        (of("long", "timestamp-micros"), 2**63 - 1, (2**63 - 1) // 1000),
    ],
)
def test_times_are_milliseconds_of_a_known_unit(kind: dict[str, Any], sent: int, expected: int) -> None:
    """So that no unit of a mapping is applied to them again."""
    found = read(kind, sent)
    assert found == expected
    assert isinstance(found, Milliseconds)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (of("int", "time-millis"), 5),
        (of("long", "time-micros"), 5),
        (of("long", connect_name=f"{DEBEZIUM}.MicroTime"), 5),
        (of("int", connect_name=f"{DEBEZIUM}.Year"), 2024),
        (of("string", connect_name=f"{DEBEZIUM}.ZonedTimestamp"), "2024-01-02T03:04:05Z"),
        (of("string", "uuid"), "x"),
        (of("string", "timestamp-millis"), "2024"),
        (of("int", "timestamp-micros"), 7),
        (of("long", "date"), 7),
        (of("double", "timestamp-millis"), 1.5),
        (of("string", "decimal", precision=3, scale=1), "7"),
        (of("bytes", "decimal", scale=-1), b"\xff\x01"),
        (of("bytes", "decimal", scale=10**9), b"\xff"),
        (of("bytes", "decimal", scale=2), b"\xff" * 300),
        (of("bytes", "big-decimal"), b"ab"),
        (of("bytes", connect_name="io.debezium.data.Bits"), b"ab"),
        (of("bytes"), b"\xff\xfe"),
        (of("fixed", "duration", name="D", size=12), b"abcdefghijkl"),
        (of("fixed", "uuid", name="U", size=4), b"abcd"),
    ],
)
def test_what_stays_as_it_was_sent(kind: dict[str, Any], sent: Any) -> None:
    """Times of a day, what is text already, and logical types where they do not belong, as the specification says."""
    found = read(kind, sent)
    assert found == sent
    assert type(found) is type(sent)


@pytest.mark.parametrize(
    ("scale", "number", "text"),
    [
        (2, 2000, "20.00"),
        (2, -5, "-0.05"),
        (0, 2**70, str(2**70)),
        (3, 0, "0.000"),
        (1, -10, "-1.0"),
        (9, 1, "0.000000001"),
    ],
)
def test_decimals_are_text(scale: int, number: int, text: str) -> None:
    """Whatever their size; without a precision, too, and fixed."""
    content = number.to_bytes(12, signed=True)
    assert read(of("bytes", "decimal", precision=20, scale=scale), content) == text
    assert read(of("bytes", connect_name=f"{CONNECT}.Decimal", scale=scale), content) == text
    assert read(of("fixed", "decimal", name="D", size=12, precision=9, scale=scale), content) == text


@given(st.integers(-(2**200), 2**200), st.integers(0, 60))
def test_decimals_are_exact(number: int, scale: int) -> None:
    """Beyond the precision that Python rounds to."""
    kind = of("bytes", "decimal", precision=90, scale=scale)
    schema = parse_writer_schema(json.dumps(kind))
    content = number.to_bytes(30, signed=True)
    found = read_value(framed(datum({"type": "bytes"}, content), 7), "avro", known({7: schema}))
    assert (
        Decimal(found).as_tuple()[1:] == Decimal((number < 0, tuple(map(int, str(abs(number)))), -scale)).as_tuple()[1:]
    )


@pytest.mark.parametrize(("scale", "number", "text"), [(2, 2000, "20.00"), (0, 7, "7"), (-2, 5, "500")])
def test_oracles_numbers_bring_their_scale(scale: int, number: int, text: str) -> None:
    """Debezium's record of scale and value, where a column has none of its own."""
    fields = [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}]
    names = {"name": "VariableScaleDecimal", "namespace": "io.debezium.data"}
    kind = of("record", connect_name="io.debezium.data.VariableScaleDecimal", fields=fields) | names
    schema = {"type": "record", "name": "R", "fields": [{"name": "id", "type": ["null", kind]}]}
    body = datum(schema, {"id": {"scale": scale, "value": number.to_bytes(4, signed=True)}})
    parsed = parse_writer_schema(json.dumps(schema))
    assert read_value(framed(body, 7), "avro", known({7: parsed})) == {"id": text}


def test_a_fixed_uuid_is_text() -> None:
    """As a string of it is."""
    assert read(of("fixed", "uuid", name="U", size=16), bytes(range(16))) == "00010203-0405-0607-0809-0a0b0c0d0e0f"


def event(kind: Any, sent: Any, **more: Any) -> ReviewEvent:
    fields = [{"name": "text", "type": "string"}, {"name": "created_at", "type": ["null", kind]}]
    fields += [{"name": name, "type": kind} for name in more]
    schema = {"type": "record", "name": "com.shop.ProductReview", "fields": fields}
    body = datum(raw(schema), {"text": "neat", "created_at": sent, **more})
    return decode_value(framed(body, 7), "avro", "t-0-1", known({7: parse_writer_schema(json.dumps(schema))}))


@pytest.mark.parametrize(
    ("kind", "sent", "expected"),
    [
        (of("long", "timestamp-micros"), MS * 1000, MS),
        (of("long", connect_name=f"{DEBEZIUM}.MicroTimestamp"), MS * 1000, MS),
        (of("int", "date"), 19_675, 19_675 * 86_400_000),
        (of("string", connect_name=f"{DEBEZIUM}.ZonedTimestamp"), "2023-11-14T22:13:20.123Z", MS),
        (of("long"), MS, MS),
    ],
)
def test_an_event_was_created_when_its_producer_says(kind: Any, sent: Any, expected: int) -> None:
    """In whatever unit."""
    created = event(kind, sent)
    assert created.created_at == expected
    assert created.warnings == ()


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        (of("long", "timestamp-millis"), 253_402_300_800_000),
        (of("long", "timestamp-millis"), -(2**63)),
        (of("long", connect_name=f"{DEBEZIUM}.MicroTimestamp"), 2**63 - 1),
        (of("int", "date"), 2**31 - 1),
        (of("long"), MS * 1000),
    ],
)
def test_a_time_beyond_all_calendars_is_left_out_with_a_warning(kind: Any, sent: int) -> None:
    """Readers of results raise for it."""
    found = event(kind, sent)
    assert found.created_at is None
    assert len(found.warnings) == 1
    assert "created_at" in found.warnings[0]


def test_our_names_are_nobody_elses() -> None:
    """fastavro's readers are one table for the whole process."""
    assert all("-rexstream-" in name for name in fastavro.read.LOGICAL_READERS if "rexstream" in name)
    assert "long-timestamp-millis" in fastavro.read.LOGICAL_READERS
