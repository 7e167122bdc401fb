"""Fields of an event by a route's mapping: where they are looked for, and what is said where a text is missing."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.mapping import FieldMapping, Rows, described
from consumer.config.route import Preset, RouteConfig
from consumer.events import BadInput, ReviewEvent, SourceRecord

if TYPE_CHECKING:
    from consumer.events import Header

NESTED = {
    "payload": {"after": {"content": "好用", "a.b": "dotted"}},
    "ids": [{"id": 7}, {"id": 8}],
    "meta": {"stars": 5, "good": True, "none": None, "tags": ["a"]},
    "ts": 1_700_000_000,
    "schema": {"价格": None},
    "kind": "review.created",
    "tasks": "none",
    "source": {"shop": "a"},
    "product_id": 33,
    "$odd": "dollar",
}


def read(
    fields: dict[str, Any],
    value: Any = NESTED,
    *headers: Header,
    key: bytes | None = b'{"id": 5}',
    preset: Preset | None = None,
) -> ReviewEvent:
    record = SourceRecord("in", 0, 7, 1, key, b"", headers, 1_700_000_000_123, 0.0)
    found = FieldMapping(RouteConfig(input="in", fields=fields, preset=preset)).read(value, record, "in-0-7")
    assert isinstance(found, ReviewEvent)
    return found


TEXT = {"text": "payload.after.content"}


@pytest.mark.parametrize(
    ("source", "event_id"),
    [
        ("ids.0.id", "7"),
        ("ids.1.id", "8"),
        ("ids.2.id", "in-0-7"),
        ("ids.-1.id", "in-0-7"),
        ("ids.00000000000000.id", "7"),
        (["nothing", "meta.none", "ids.1.id", "ts"], "8"),
        ("$key", '{"id": 5}'),
        ("$key.id", "5"),
        ("$key.no", "in-0-7"),
        ("$headers.id", "h2"),
        ("$headers.x.y", "dotted"),
        ("$headers.none", "in-0-7"),
        ("$timestamp", "1700000000123"),
        (r"payload.after.a\.b", "dotted"),
        (r"\$odd", "dollar"),
        (None, "in-0-7"),
        ({"from": ["no", "$key.id"]}, "5"),
    ],
)
def test_where_an_id_may_come_from(source: Any, event_id: str) -> None:
    """Paths, indexes, the record's key, headers and timestamp; the first that is there and not null."""
    headers = (("id", b"h1"), ("id", b"h2"), ("x.y", b"dotted"))
    assert read({**TEXT, "event_id": source}, NESTED, *headers).event_id == event_id


def test_an_empty_text_is_not_there_while_anything_else_is() -> None:
    """As files and forms write what is missing; alone it is what it was."""
    fields = {"text": ["body", "title"], "event_id": ["id", "$key"], "source": ["shop", {"value": "a"}]}
    event = read(fields, {"body": "\t", "title": "好用", "id": "", "shop": " "}, key=b"k")
    assert (event.text, event.event_id, event.source) == ("好用", "k", "a")
    assert read({"text": "body", "source": ["shop", "no"]}, {"body": "好", "shop": ""}).source == ""
    with pytest.raises(BadInput) as caught:
        read(fields, {"body": " ", "title": ""})
    assert caught.value.reason == "EmptyText"


@pytest.mark.parametrize("key", [None, b"\0\0\0\0\x05\x02", b"\xff", b"plain", b"[]", b"[" * 100_000])
def test_keys_that_are_no_json(key: bytes | None) -> None:
    """Nothing is found in them; one that a registry framed is no text either."""
    assert read({**TEXT, "event_id": "$key.id"}, key=key).event_id == "in-0-7"
    if key is None or key[0] in b"\0\xff":
        assert read({**TEXT, "event_id": "$key"}, key=key).event_id == "in-0-7"


def test_paths_lead_into_json_within_a_text() -> None:
    """As a database's column of JSON holds it, or a connector of texts."""
    row = {"extra": ' {"content": "好用", "tags": ["a"], "to": {"b": 1}}', "bad": "{", "list": '["ner"]'}
    fields = {"text": "extra.content", "event_id": "extra.tags.0", "attributes": "extra.to", "tasks": "list"}
    event = read(fields, row)
    assert (event.text, event.event_id, event.attributes, event.tasks) == ("好用", "a", {"b": "1"}, ("ner",))
    assert read({"text": "extra.content", "attributes": "extra"}, row).attributes["tags"] == '["a"]'
    schema = {"type": "string", "optional": True}
    value = {"schema": schema, "payload": row["extra"]}
    assert read({"text": "content"}, value, preset="connect").text == "好用"
    with pytest.raises(BadInput, match="as far as bad, which is a string without content"):
        read({"text": "bad.content"}, row)
    # Nobody asked for what is in it: it is the text.
    assert read({"text": "extra"}, row).text == row["extra"]


def test_a_key_with_connects_schema() -> None:
    """As its JSON converter writes keys."""
    key = b'{"schema": {"type": "struct", "fields": []}, "payload": {"id": 12}}'
    assert read({**TEXT, "event_id": "$key.id"}, key=key).event_id == "12"
    framed = b"\0\0\0\0\x05" + b'{"id": 12}'  # of JSON Schema
    assert read({**TEXT, "event_id": "$key.id"}, key=framed).event_id == "12"


def test_a_producers_own_fields_do_not_collide() -> None:
    """schema, kind and tasks are read where they are named, an envelope's source only where it is text."""
    event = read(TEXT)
    assert (event.schema, event.kind, event.tasks, event.source, event.product_id) == (
        None,
        "extract",
        None,
        None,
        "33",
    )
    assert event.warnings == ()
    event = read({**TEXT, "schema": "schema", "kind": {"value": "classify"}, "source": {"value": "shop-a"}})
    assert (event.schema, event.kind, event.source) == ({"价格": None}, "classify", "shop-a")
    assert read({**TEXT, "product_id": None}).product_id is None


def test_attributes_by_name_or_all_of_them() -> None:
    """What leads to nothing is left out without a warning; what is no text is converted."""
    sources = {
        "stars": "meta.stars",
        "good": "meta.good",
        "no": "meta.no",
        "shop": {"value": "a"},
        "lang": "$headers.l",
    }
    event = read({**TEXT, "attributes": sources}, NESTED, ("l", b"zh"))
    assert event.attributes == {"stars": "5", "good": "true", "shop": "a", "lang": "zh"}
    event = read({**TEXT, "attributes": "meta"})
    assert event.attributes == {"stars": "5", "good": "true", "tags": '["a"]'}
    assert event.warnings == ()


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ({"from": "ts", "unit": "seconds"}, 1_700_000_000, 1_700_000_000_000),
        ({"from": "ts", "unit": "seconds"}, "1700000000", 1_700_000_000_000),
        ({"from": "ts", "unit": "microseconds"}, 1_700_000_000_123_999, 1_700_000_000_123),
        ({"from": "ts", "unit": "days"}, 19_675, 1_699_920_000_000),
        ({"from": "ts", "utc_offset": "+08:00"}, "2023-11-15 06:13:20", 1_700_000_000_000),
        ({"from": "ts", "utc_offset": "+08:00"}, "2023-11-14T22:13:20Z", 1_700_000_000_000),
        ({"from": "ts", "utc_offset": -600}, "2023-11-14 12:13:20", 1_700_000_000_000),
        ("ts", "2023-11-14 22:13:20", 1_700_000_000_000),
        ("$timestamp", 5, 1_700_000_000_123),
    ],
)
def test_times(source: Any, value: Any, expected: int) -> None:
    """By the unit that the route says, and by their own zone before the route's."""
    event = read({"text": "t", "created_at": source}, {"t": "好", "ts": value})
    assert (event.created_at, event.warnings) == (expected, ())


@pytest.mark.parametrize("value", ["yesterday", 10**18, {}, True, float("nan")])
def test_what_is_no_time_is_left_out_with_a_warning(value: Any) -> None:
    """It never costs the review, and no text is in the warning."""
    event = read({"text": "t", "created_at": {"from": "ts", "unit": "seconds"}}, {"t": "好", "ts": value})
    (warning,) = event.warnings
    assert event.created_at is None
    assert warning.startswith("field-dropped: created_at is ")
    assert "yesterday" not in warning


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            "payload.after.content",
            {"payload": {"after": None}},
            "as far as payload.after, which is null without content",
        ),
        ("payload.after.content", {"payload": {"before": 1}}, "as far as payload, which is an object without after"),
        ("payload.after.content", {"评论": "差"}, "is not there: the value is an object without it"),
        ("payload.content", {"payload": "好"}, "as far as payload, which is a string without content"),
        ("content", {"content": None}, "path content leads to null"),
        ("a.0", {"a": []}, "as far as a, which is an array without 0"),
        ("content", "好", "is not there: the value is a string without it"),
        ("$headers.text", {}, "is a header that the record does not have"),
        ("$key.text", {}, "key.text leads to nothing"),
        (["a", "b.c"], {"b": {}}, "path a is not there.*; path b.c leads as far as b, which is an object without c"),
    ],
)
def test_a_text_that_is_not_there_says_how_far_its_path_led(path: Any, value: Any, words: str) -> None:
    """With the configuration's names, and none of the value's: they may be review text."""
    with pytest.raises(BadInput, match=words) as caught:
        read({"text": path}, value)
    assert (caught.value.stage, caught.value.reason) == ("validate", "MissingText")
    assert "评论" not in caught.value.message


def test_a_text_without_mapping_is_that_of_the_row() -> None:
    """And where the row has none, the message says which key maps it."""
    assert read({"event_id": "id"}, {"text": "好", "id": 1}).text == "好"
    with pytest.raises(BadInput, match="text: content"):
        read({"event_id": "id"}, {"content": "好"})
    with pytest.raises(BadInput, match="text is a number") as caught:
        read({"text": "n"}, {"n": 5})
    assert caught.value.reason == "InvalidEvent"


def test_a_null_is_a_null_value() -> None:
    """Connect's converter writes it so."""
    record = SourceRecord("in", 0, 7, 1, None, b"null", (), None, 0.0)
    assert FieldMapping(RouteConfig(input="in", fields=TEXT)).read(None, record, "in-0-7") == "null_value"


def test_a_mapping_that_the_rules_refuse_is_no_mapping() -> None:
    """Whoever made it did not load a configuration."""
    with pytest.raises(ValueError, match="did you mean text"):
        FieldMapping(RouteConfig(input="in", fields={"txt": "a"}))


def test_check_can_say_where_each_field_comes_from() -> None:
    """The mapping, resolved."""
    fields = {
        "text": ["content", "body.text"],
        "created_at": {"from": "ts", "unit": "seconds", "utc_offset": "-03:30"},
        "source": {"value": "shop-a"},
        "language": None,
        "attributes": {"stars": "rating.stars"},
    }
    assert described(RouteConfig(input="in", fields=fields, preset="cloudevents")) == {
        "text": "content or body.text",
        "event_id": "event_id of the row or the CloudEvent's id or topic-partition-offset",
        "product_id": "product_id of the row",
        "source": "the constant shop-a",
        "language": "not read",
        "created_at": "ts (unit seconds, UTC-03:30 without a zone)",
        "attributes": "stars from rating.stars",
        "tasks": "not read",
        "schema": "not read",
        "kind": "not read",
    }
    text = described(RouteConfig(input="in", format="text", fields={"event_id": "$key"}))
    assert (text["text"], text["event_id"], text["source"]) == ("the value", "$key", "not read")


NAMES = (
    *("op", "after", "before", "payload", "schema", "data", "type", "specversion", "data_base64", "text"),
    *("id", "fields", "field", "name", "source", "__deleted", "isDdl", "status", "time", "a"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)
WORDS = st.sampled_from(["op", "c", "u", "d", "INSERT", "insert", "delete", "1.0", "{", '{"text": "好"}', "true"])


@st.composite
def envelopes(draw: st.DrawFn) -> Any:
    """JSON that looks like an envelope."""
    names = ("op", "type", "specversion", "data", "after", "before", "payload", "schema", "source", "data_base64")
    return {name: draw(JSON | WORDS) for name in draw(st.lists(st.sampled_from(names), unique=True))}


@given(
    JSON | envelopes(),
    st.sampled_from([None, "debezium", "connect", "cloudevents", "canal", "maxwell"]),
    st.lists(st.tuples(st.sampled_from(["ce_id", "content-type", "ce_time"]), st.none() | st.binary(max_size=30))),
    st.none() | st.binary(max_size=20),
)
def test_whatever_json_says_it_is_an_event_or_bad_input(
    value: Any, preset: Preset | None, headers: list[Header], key: bytes | None
) -> None:
    """Nothing else is raised, so no value can become a defect."""
    fields = {
        "text": ["a.text", "text", "data.text", "0"],
        "event_id": ["id", "$key.id", "$headers.ce_id"],
        "created_at": {"from": ["time", "$timestamp"], "unit": "seconds", "utc_offset": "+08:00"},
        "attributes": {"a": "a", "s": "source.a", "c": {"value": "x"}},
        "schema": "schema",
        "kind": "type",
        "tasks": "fields",
    }
    route = RouteConfig(input="in", preset=preset, fields=fields)
    record = SourceRecord("in", 0, 7, 1, key, b"", tuple(headers), None, 0.0)
    try:
        found = FieldMapping(route).read(value, record, "in-0-7")
    except BadInput:
        return
    rows = [row.event for row in found.events(0, 2000)] if isinstance(found, Rows) else [found]
    assert rows
    for row in rows:
        assert isinstance(row, (ReviewEvent, BadInput)) or row in (
            "delete",
            "null_value",
            "no_review",
            "text_unavailable",
        )


@pytest.mark.parametrize("preset", [None, "debezium", "connect", "cloudevents", "canal", "maxwell"])
def test_depth_is_no_defect(preset: Preset | None) -> None:
    """Values as deep as the JSON parser takes them, in the place of a schema, attributes and envelopes."""
    deep: Any = {}
    for _ in range(900):
        deep = {"schema": deep, "type": "struct", "fields": []}
    fields = {"text": "text", "attributes": "schema", "schema": "schema"}
    mapping = FieldMapping(RouteConfig(input="in", preset=preset, fields=fields))
    record = SourceRecord("in", 0, 7, 1, None, b"", (), None, 0.0)
    row = {"text": "好", "schema": deep}
    values = (deep, row, {"op": "c", "after": row}, {"schema": deep, "payload": row}, {"type": "INSERT", "data": [row]})
    for value in (*values, {"type": "insert", "data": row}, {"specversion": "1.0", "data": row}):
        with contextlib.suppress(BadInput):
            found = mapping.read(value, record, "in-0-7")
            assert not isinstance(found, Rows) or len(found.events(0, 9)) == 1


def test_json_within_a_text_is_parsed_once_for_all_rows() -> None:
    """A megabyte beside a thousand rows would else be parsed a thousand times."""
    large = "[" + "1," * 200_000 + "1]"
    data = [{"content": "好"} for _ in range(1000)]
    route = RouteConfig(
        input="in", preset="canal", fields={"text": "content", "attributes": {"a": "big.0", "b": "$key.a"}}
    )
    record = SourceRecord("in", 0, 7, 1, b"[" + b"1," * 30_000 + b"1]", b"", (), None, 0.0)
    began = time.process_time()
    rows = FieldMapping(route).read({"type": "INSERT", "data": data, "big": large}, record, "in-0-7")
    assert isinstance(rows, Rows)
    assert len(rows.events(0, 1000)) == 1000
    assert time.process_time() - began < 2
