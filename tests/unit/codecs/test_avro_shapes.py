"""Schemas and data by which a few bytes could end or hang a worker; all of them were found by fuzzing."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import fastavro
import pytest

from consumer.codecs.avro_codec import ParsedSchema, decode_avro, parse_writer_schema
from consumer.codecs.framing import framed
from consumer.events import BadInput

if TYPE_CHECKING:
    from consumer.events import ReviewEvent

NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
TEXT = b"\x08abcd"


def event_with(kind: Any) -> str:
    fields = [{"name": "text", "type": "string"}, {"name": "more", "type": kind}]
    return json.dumps({"type": "record", "name": "ReviewEvent", "namespace": "rexstream", "fields": fields})


def decode(schema: ParsedSchema, datum: bytes) -> ReviewEvent:
    return decode_avro(framed(datum, 1), "t-0-1", {1: schema}.__getitem__)


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: f'["null", {text}]'])
def test_a_datum_that_nests_a_million_times_is_bad_input(wrap: Any) -> None:
    """Its schema is a list of replies to replies: fine until the bytes of one record are deeper than the stack."""
    schema = parse_writer_schema(wrap(event_with(["null", NODE])))
    branch = b"\x02" if isinstance(schema, list) else b""
    assert decode(schema, branch + TEXT + b"\x02" * 20 + b"\x00").text == "abcd"
    with pytest.raises(BadInput) as caught:
        decode(schema, branch + TEXT + b"\x02" * 1_000_000 + b"\x00")
    assert caught.value.reason == "InvalidAvro"


def test_a_type_that_always_holds_itself_is_bad_input() -> None:
    """No datum of it can exist; reading one would never end."""
    endless = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": "Node"}]}
    with pytest.raises(BadInput) as caught:
        decode(parse_writer_schema(event_with(endless)), TEXT)
    assert caught.value.reason == "InvalidAvro"


def test_types_that_hold_themselves_through_others_and_from_other_schemas() -> None:
    """Through an array, a map, a second record; a schema that is nothing but such a reference is refused."""
    through = {
        "type": "record",
        "name": "A",
        "fields": [
            {"name": "list", "type": {"type": "array", "items": "A"}},
            {
                "name": "other",
                "type": {"type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]},
            },
        ],
    }
    schema = parse_writer_schema(event_with(through))
    with pytest.raises(BadInput):
        decode(schema, TEXT + b"\x02" * 300_000)
    named: dict[str, Any] = {}
    parse_writer_schema(json.dumps(NODE | {"namespace": "rexstream"}), named)
    with pytest.raises(ValueError, match="holds itself"):
        parse_writer_schema('"rexstream.Node"', named)
    with pytest.raises(BadInput):
        decode(
            parse_writer_schema(event_with(["null", "Node"]), named),
            TEXT + b"\x02" * 300_000,
        )


def test_a_type_that_is_used_twice_does_not_hold_itself() -> None:
    """Only real circles take the slow reader: twice the same type beside each other is none."""
    item = {"type": "record", "name": "Item", "fields": [{"name": "a", "type": "int"}]}
    pair = {"type": "record", "name": "Pair", "fields": [{"name": "l", "type": item}, {"name": "r", "type": "Item"}]}
    schema = parse_writer_schema(event_with(pair))
    assert isinstance(schema, dict)
    assert not any("recursive" in key for key in schema)
    assert decode(schema, TEXT + b"\x02\x04").text == "abcd"


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "record", "name": "Hollow", "fields": [{"name": "n", "type": "null"}]},
        {"type": "fixed", "name": "Nothing", "size": 0},
    ],
)
def test_an_array_of_nothings_is_no_schema(items: Any) -> None:
    """Ten bytes could announce ten to the eighteenth of them, wherever in the schema it stands."""
    for kind in (
        {"type": "array", "items": items},
        ["null", {"type": "map", "values": {"type": "array", "items": items}}],
    ):
        with pytest.raises(ValueError, match="take no bytes"):
            parse_writer_schema(event_with(kind))
    parse_writer_schema(event_with({"type": "array", "items": ["null", "int"]}))


@pytest.mark.parametrize(
    "items",
    [
        "float",
        "double",
        "boolean",
        {"type": "fixed", "name": "F", "size": 4},
        {"type": "record", "name": "P", "fields": [{"name": "x", "type": "float"}]},
    ],
)
@pytest.mark.parametrize("name", ["more", "tasks"])
def test_an_array_that_announces_what_is_not_there_is_bad_input(items: Any, name: str) -> None:
    """The reader of a float or a fixed takes the end of the bytes for zeros, and would read on for a century."""
    schema = parse_writer_schema(event_with({"type": "array", "items": items}).replace("more", name))
    with pytest.raises(BadInput):
        decode(schema, TEXT + b"\xfe" * 8 + b"\x01")


def test_data_that_are_whole_are_read_as_before() -> None:
    """Floats, fixed, booleans, empty strings and empty arrays at the very end of a datum."""
    kind = {"type": "record", "name": "Tail", "fields": [{"name": "a", "type": {"type": "array", "items": "double"}}]}
    kind["fields"] += [  # type: ignore[operator]
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 4}},
        {"name": "b", "type": "boolean"},
        {"name": "s", "type": "string"},
    ]
    schema = parse_writer_schema(event_with(kind))
    out = io.BytesIO()
    tail = {"a": [1.5, 2.5], "f": b"abcd", "b": True, "s": ""}
    fastavro.schemaless_writer(out, schema, {"text": "abcd", "more": tail})
    assert decode(schema, out.getvalue()).text == "abcd"
    for length in range(len(out.getvalue())):
        with pytest.raises(BadInput):
            decode(schema, out.getvalue()[:length])
