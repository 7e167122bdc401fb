"""Schemas as producers register them: any name, anywhere, and whatever of them reading does not need."""

from __future__ import annotations

import json
from typing import Any

import pytest
from avro_frames import datum, framed, known

from consumer.codecs.avro_schemas import parse_writer_schema
from consumer.codecs.decoding import decode_value, read_value
from consumer.events import BadInput, ReviewEvent

TEXT = {"name": "text", "type": "string"}


def record(name: str, *fields: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **properties}


def holding(schema: Any, body: bytes, named: dict[str, Any] | None = None) -> Any:
    """What is read from a datum."""
    parsed = parse_writer_schema(json.dumps(schema), named)
    return read_value(framed(body, 7), "avro", known({7: parsed}))


def event(schema: Any, body: bytes) -> ReviewEvent:
    parsed = parse_writer_schema(json.dumps(schema))
    return decode_value(framed(body, 7), "avro", "t-0-1", known({7: parsed}))


@pytest.mark.parametrize(
    "schema",
    [
        record("ConnectDefault", TEXT, namespace="io.confluent.connect.avro"),
        record("shop.public.reviews.Value", TEXT),
        record("com.shop.ProductReview", TEXT),
        record("ReviewEvent", TEXT, namespace=""),
        record("int", TEXT),
        record("a b.c-d.é", TEXT),
        {"type": record("Wrapped", TEXT)},
        record("error", TEXT) | {"type": "error"},
        record("R", {"name": "text", "type": {"type": "string", "avro.java.string": "String"}}),
        record("R", {"name": "text", "type": {"type": {"type": "string"}}}),
        record("R", {"name": "text", "type": "bytes"}),
    ],
)
def test_a_record_of_any_name_with_a_text_is_an_event(schema: Any) -> None:
    """Its fields say what it is."""
    assert event(schema, b"\x08neat").text == "neat"


def test_other_fields_of_every_type_are_no_obstacle() -> None:
    """In front of the text, behind it, and of names that events have for something else."""
    money = record("com.shop.Money", {"name": "cents", "type": "long"}, {"name": "back", "type": ["null", "Money"]})
    others: list[dict[str, Any]] = [
        {"name": "stars", "type": "int"},
        {"name": "price", "type": money},
        {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 4}},
        {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "com.shop.Money"}}},
        TEXT,
        {"name": "nothing", "type": "null"},
        {"name": "score", "type": ["float", "double", "boolean"]},
        {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["APP", "WEB"]}},
        {"name": "again", "type": ["null", "Channel"]},
    ]
    schema = record("com.shop.ProductReview", *others)
    price = {"cents": 5, "back": {"cents": -1, "back": None}}
    sent = {"stars": 4, "price": price, "id": b"\xff\0ab", "tags": {"a": [price]}, "text": "neat"}
    sent |= {"nothing": None, "score": True, "channel": "WEB", "again": "APP"}
    assert holding(schema, datum(schema, sent)) == sent
    assert event(schema, datum(schema, sent)) == ReviewEvent("t-0-1", "neat")


def test_a_union_may_name_records_of_other_subjects() -> None:
    """Topics of several types are written so: the union itself has nothing but names."""
    named: dict[str, Any] = {}
    for name in ("Ping", "Review"):
        kind = {"name": "kind", "type": {"type": "enum", "name": f"{name}Kind", "symbols": ["A", "B"]}}
        parse_writer_schema(json.dumps(record(f"com.shop.{name}", TEXT, kind)), named)
    for union in (["com.shop.Ping", "com.shop.Review"], ["null", "com.shop.Ping", "com.shop.Review"]):
        first = 2 * len(union) - 2
        assert holding(union, bytes([first]) + b"\x08neat\x02", dict(named)) == {"text": "neat", "kind": "B"}
    assert holding("com.shop.Review", b"\x08neat\x00", dict(named)) == {"text": "neat", "kind": "A"}
    more = record("com.shop.More", TEXT, {"name": "kind", "type": "ReviewKind"})
    assert holding(more, b"\x08neat\x02", dict(named)) == {"text": "neat", "kind": "B"}


def test_a_name_without_a_namespace_is_found_from_within_one() -> None:
    """Java looks in the enclosing namespace first, and then in none."""
    plain = record("Plain", {"name": "n", "type": "int"})
    inner = record("com.shop.Inner", {"name": "a", "type": "Plain"}, {"name": "b", "type": "Near"})
    near = record("com.shop.Near", {"name": "m", "type": "int"})
    schema = record("Outer", *({"name": name, "type": t} for name, t in zip("xyz", (plain, near, inner), strict=True)))
    assert holding(schema, b"\2\4\6\x08") == {"x": {"n": 1}, "y": {"m": 2}, "z": {"a": {"n": 3}, "b": {"m": 4}}}


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("string", None),
        ("boolean", "false"),
        ("int", "1"),
        ("double", "NaN"),
        (["null", "string"], "none"),
        ({"type": "array", "items": "string"}, None),
        ({"type": "map", "values": "string"}, []),
        ({"type": "enum", "name": "E", "symbols": ["A"]}, 7),
        ({"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}, None),
        ({"type": "enum", "name": "E", "symbols": ["a-b", "1", "A", "A"]}, "x"),
        ({"type": "fixed", "name": "F", "size": 1}, 0),
        (record("Inner", {"name": "i", "type": "int", "default": "x"}), None),
        ({"type": "bytes", "logicalType": "decimal", "precision": -1, "scale": "2"}, None),
        ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 9}, None),
        ({"type": "long", "logicalType": ["timestamp-millis"]}, None),
        ({"type": "long", "logicalType": {"a": 1}, "connect.name": 5, "order": "up"}, None),
    ],
)
def test_what_reading_does_not_need_decides_nothing(kind: Any, default: Any) -> None:
    """Defaults, orders, documentation and odd properties: registries accept them, and no value depends on them."""
    odd = {"name": "odd", "type": kind, "default": default, "doc": 5, "order": [], "aliases": "text"}
    schema = record("R", TEXT, odd, doc={}, aliases=7, **{"connect.name": [], "namespace": "com.shop"})
    parsed = parse_writer_schema(json.dumps(schema))
    assert parsed.parsed["fields"][0]["type"]["fields"][0] == TEXT


def test_a_symbol_may_be_any_text() -> None:
    """And no number beyond the symbols is one of them."""
    schema = record("R", TEXT, {"name": "source", "type": {"type": "enum", "name": "E", "symbols": ["web-2", "1"]}})
    assert event(schema, b"\x08neat\x00").source == "web-2"
    for beyond in (b"\x01", b"\x04"):
        with pytest.raises(BadInput, match="a branch or symbol that it does not have") as caught:
            event(schema, b"\x08neat" + beyond)
        assert caught.value.reason == "InvalidAvro"
