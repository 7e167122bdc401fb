"""Schemas and data by which a few bytes could end or hang a worker; all of them were found by fuzzing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from avro_frames import datum, framed, known
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs import avro_shapes
from consumer.codecs.avro_schemas import WriterSchema, parse_writer_schema
from consumer.codecs.decoding import decode_value
from consumer.events import BadInput

if TYPE_CHECKING:
    from consumer.events import ReviewEvent

NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
TEXT = b"\x08abcd"


def event_with(kind: Any) -> str:
    fields = [{"name": "text", "type": "string"}, {"name": "more", "type": kind}]
    return json.dumps({"type": "record", "name": "ReviewEvent", "namespace": "rexstream", "fields": fields})


def decode(schema: WriterSchema, value: bytes) -> ReviewEvent:
    return decode_value(framed(value, 1), "avro", "t-0-1", known({1: schema}))


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: f'["null", {text}]'])
def test_a_datum_that_nests_a_million_times_is_bad_input(wrap: Any) -> None:
    """Its schema is a list of replies to replies: fine until the bytes of one record are deeper than the stack."""
    schema = parse_writer_schema(wrap(event_with(["null", NODE])))
    branch = b"\x02" if wrap("").startswith("[") else b""
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
    assert parse_writer_schema('"rexstream.Node"', named).is_deep
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
    assert not schema.is_deep
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


def doubling(types: int, leaf: Any) -> dict[str, Any]:
    """A record that holds the next one twice, and so on; the last holds ``leaf``."""
    kind: dict[str, Any] = {"type": "record", "name": f"R{types}", "fields": [{"name": "leaf", "type": leaf}]}
    for number in reversed(range(types)):
        fields = [{"name": "a", "type": kind}, {"name": "b", "type": f"R{number + 1}"}]
        kind = {"type": "record", "name": f"R{number}", "fields": fields}
    return kind


@pytest.mark.parametrize("leaf", ["null", "int", {"type": "array", "items": "int"}])
def test_types_that_hold_each_other_twice_are_judged_once_each(leaf: Any) -> None:
    """Sixty of them in six kilobytes come to a billion billions, in an array or in the event itself."""
    for kind in ({"type": "array", "items": doubling(60, leaf)}, doubling(60, leaf)):
        if leaf == "null":
            with pytest.raises(ValueError, match="take no bytes"):
                parse_writer_schema(event_with(kind))
        else:
            with pytest.raises(BadInput):
                decode(parse_writer_schema(event_with(kind)), TEXT)


def test_many_types_beside_each_other() -> None:
    """Each holds the one before it twice: a chain of thousands needs neither the time nor the stack for all of it."""
    first = {"type": "record", "name": "R0", "fields": [{"name": "leaf", "type": "null"}]}
    kinds = [first] + [
        {"type": "record", "name": f"R{n}", "fields": [{"name": x, "type": f"R{n - 1}"} for x in "ab"]}
        for n in range(1, 1500)
    ]
    with pytest.raises(ValueError, match="take no bytes"):
        parse_writer_schema(event_with({"type": "array", "items": ["null", *kinds]}))


def test_a_definition_is_visited_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested definitions are among the named ones too, and are not walked through again for each that is above."""
    asked: list[Any] = []
    name_of = avro_shapes._name_of

    def counted(schema: Any) -> str:
        asked.append(schema)
        return name_of(schema)

    monkeypatch.setattr(avro_shapes, "_name_of", counted)
    parse_writer_schema(event_with(doubling(60, "int")))
    fields = 1 + 2 + 2 * 60 + 1
    assert len(asked) == 2 * fields, "once for the sums, once for the decision"


def test_a_record_may_hold_some_nothings() -> None:
    """A thousand, and no more."""
    for number in (avro_shapes.MOST_NOTHINGS, avro_shapes.MOST_NOTHINGS + 1):
        fields = [{"name": f"n{index}", "type": "null"} for index in range(number)]
        fields.append({"name": "text", "type": "string"})
        schema = json.dumps({"type": "record", "name": "ReviewEvent", "namespace": "rexstream", "fields": fields})
        if number <= avro_shapes.MOST_NOTHINGS:
            parse_writer_schema(schema)
        else:
            with pytest.raises(ValueError, match="take no bytes"):
                parse_writer_schema(schema)


def test_a_type_of_nothing_but_itself_takes_no_bytes() -> None:
    """Also by way of another type; one byte anywhere in the circle makes all of it take bytes."""
    for extra, refused in (("null", True), ("boolean", False)):
        inner = {"type": "record", "name": "B", "fields": [{"name": "a", "type": "A"}]}
        outer = {
            "type": "record",
            "name": "A",
            "fields": [{"name": "b", "type": inner}, {"name": "x", "type": extra}],
        }
        schema = event_with({"type": "array", "items": outer})
        if refused:
            with pytest.raises(ValueError, match="take no bytes"):
                parse_writer_schema(schema)
        else:
            parse_writer_schema(schema)


@given(st.lists(st.lists(st.integers(0, 11), max_size=3), min_size=1, max_size=10))
def test_nothings_are_counted_as_a_reader_would_make_them(held: list[list[int]]) -> None:
    """Against the plain recursion; every record holds earlier ones, an empty record (10) or an int (11)."""
    parts: list[dict[str, Any]] = [{"type": "record", "name": "10", "fields": []}]
    for number, others in enumerate(held):
        names = ["int" if other == 11 or (number <= other < 10) else str(other) for other in others]
        fields = [{"name": f"f{index}", "type": name} for index, name in enumerate(names)]
        parts.append({"type": "record", "name": str(number), "fields": fields})
    by_name = {part["name"]: part for part in parts}

    def made(name: str) -> float:
        if name == "int":
            return 0
        each = [made(field["type"]) for field in by_name[name]["fields"]]
        return 0 if 0 in each else min(1 + sum(each), avro_shapes.MOST_NOTHINGS + 1)

    nothings = avro_shapes._nothings(parts)
    assert {name: nothings[name] for name in by_name} == {name: made(name) for name in by_name}


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
    tail = {"a": [1.5, 2.5], "f": b"abcd", "b": True, "s": ""}
    value = datum(event_with(kind), {"text": "abcd", "more": tail})
    assert decode(schema, value).text == "abcd"
    for length in range(len(value)):
        with pytest.raises(BadInput):
            decode(schema, value[:length])
