"""JSON review events."""

from __future__ import annotations

import json

import pytest

from consumer.codecs.decoding import decode_value, parse_json
from consumer.events import BadInput, ReviewEvent

REVIEW = "壶嘴设计得好，倒水不洒。"


def encoded(**fields: object) -> bytes:
    return json.dumps({"text": REVIEW, **fields}).encode()


def refused(value: bytes) -> BadInput:
    with pytest.raises(BadInput) as caught:
        decode_value(value, "json", "t-0-1")
    return caught.value


def test_every_field_arrives() -> None:
    """An event with all fields keeps all of them."""
    event = decode_value(
        encoded(
            event_id="e-7",
            tasks=["sentiment", "ner"],
            schema={"品牌": None, "尺寸": {"单位": None}},
            kind="classify",
            product_id="p1",
            source="shop",
            language="zh",
            created_at=1_690_000_000_123,
            attributes={"store": "north"},
        ),
        "json",
        "t-0-1",
    )
    assert event == ReviewEvent(
        event_id="e-7",
        text=REVIEW,
        tasks=("sentiment", "ner"),
        schema={"品牌": None, "尺寸": {"单位": None}},
        kind="classify",
        product_id="p1",
        source="shop",
        language="zh",
        created_at=1_690_000_000_123,
        attributes={"store": "north"},
    )


@pytest.mark.parametrize(
    "value",
    [
        encoded(),
        encoded(event_id=None, tasks=None, schema=None, kind=None, product_id=None, created_at=None, attributes=None),
        encoded(event_id="", tasks=[]),
        encoded(rating=5, nested={"deep": [1, 2, {"x": None}]}),
        b"\xef\xbb\xbf" + encoded(),
    ],
    ids=["missing", "null", "empty", "unknown fields", "byte order mark"],
)
def test_optional_fields_default(value: bytes) -> None:
    """Missing, null and empty optional fields take their defaults, and unknown fields are ignored."""
    assert decode_value(value, "json", "t-0-1") == ReviewEvent(event_id="t-0-1", text=REVIEW)


def test_of_a_key_given_twice_the_last_wins() -> None:
    """A duplicate key is not bad input: its last value counts."""
    event = decode_value(b'{"text": "first", "text": "second"}', "json", "t-0-1")
    assert event.text == "second"


def test_a_task_named_twice_runs_once() -> None:
    """Repeated task names collapse, in the order of their first mention."""
    event = decode_value(encoded(tasks=["ner", "sentiment", "ner"]), "json", "t-0-1")
    assert event.tasks == ("ner", "sentiment")


def test_a_schema_may_come_as_json_text() -> None:
    """The reference's clients send the schema as text within the JSON."""
    assert decode_value(encoded(schema='{"品牌": null}'), "json", "t-0-1").schema == {"品牌": None}


def test_half_of_a_surrogate_pair_is_replaced_without_moving_offsets() -> None:
    """Text cut inside an emoji stays usable, writable as UTF-8, and as long as it was."""
    value = b'{"text": "ok \\ud83d yes", "attributes": {"a\\udc00": "\\ud800"}, "schema": {"t\\ud83d": {"u": null}}}'
    event = decode_value(value, "json", "t-0-1")
    assert event.text == "ok \ufffd yes"
    assert event.attributes == {"a\ufffd": "\ufffd"}
    assert event.schema == {"t\ufffd": {"u": None}}


def test_a_whole_surrogate_pair_is_one_character() -> None:
    """Escaped emoji decode to themselves."""
    assert decode_value(b'{"text": "\\ud83d\\ude00"}', "json", "t-0-1").text == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("value", "stage", "reason"),
    [
        (b"\xff\xfe{}", "decode", "InvalidUtf8"),
        (b"", "decode", "InvalidJson"),
        (b'{"text": "x"', "decode", "InvalidJson"),
        (b'{"text": "x"} {}', "decode", "InvalidJson"),
        (b"[" * 100_000, "decode", "JsonTooDeep"),
        (b'{"text": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "decode", "JsonTooDeep"),
        (b"[]", "validate", "InvalidEvent"),
        (b'"just text"', "validate", "InvalidEvent"),
        (b"null", "validate", "InvalidEvent"),
        (b"{}", "validate", "MissingText"),
        (b'{"text": null}', "validate", "MissingText"),
        (b'{"text": NaN}', "validate", "InvalidEvent"),
        (b'{"text": "x", "tasks": [' + b"9" * 5000 + b"]}", "validate", "InvalidEvent"),
        (b'{"text": "x", "schema": Infinity}', "validate", "InvalidEvent"),
        (b'{"text": "x", "a": ' + b"9" * 5000 + b"} {}", "decode", "InvalidJson"),
        (b'{"text": ""}', "validate", "EmptyText"),
        (b'{"text": " \\n\\t\\u3000"}', "validate", "EmptyText"),
    ],
)
def test_what_is_no_event_is_refused(value: bytes, stage: str, reason: str) -> None:
    """Each way to be no event has its own stage and reason."""
    error = refused(value)
    assert (error.stage, error.reason) == (stage, reason)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 5),
        ("text", ["x"]),
        ("tasks", "ner"),
        ("tasks", ["ner", 5]),
        ("tasks", [None]),
        ("tasks", [f"t{n}" for n in range(65)]),
        ("schema", ["品牌"]),
        ("schema", 1),
    ],
)
def test_a_field_that_decides_is_named_where_it_is_of_the_wrong_type(field: str, value: object) -> None:
    """What is asked of which text cannot be guessed. The message names the field."""
    error = refused(encoded(**{field: value}))
    assert (error.stage, error.reason) == ("validate", "InvalidEvent")
    assert f"field {field}" in error.message


@pytest.mark.parametrize(
    ("field", "value", "arrives"),
    [
        ("event_id", 12, "12"),
        ("event_id", 12.0, "12"),
        ("event_id", -7, "-7"),
        ("event_id", 2**70, str(2**70)),
        ("event_id", 12.5, "12.5"),
        ("product_id", 5, "5"),
        ("source", 0, "0"),
        ("language", 1e3, "1000"),
        ("created_at", 1_690_000_000_123.0, 1_690_000_000_123),
        ("created_at", "1690000000123", 1_690_000_000_123),
        ("created_at", "2023-07-22T04:26:40.123Z", 1_690_000_000_123),
        ("created_at", "2023-07-22 12:26:40.123456+08:00", 1_690_000_000_123),
        ("created_at", "2023-01-01", 1_672_531_200_000),
        ("attributes", {"stars": 5, "ok": True, "mean": 4.5}, {"stars": "5", "ok": "true", "mean": "4.5"}),
        ("attributes", {"a": [1, "好", None], "b": {"c": {}}}, {"a": '[1,"好",null]', "b": '{"c":{}}'}),
        ("attributes", {"a": "1", "b": None}, {"a": "1"}),
        ("attributes", {"a": None}, {}),
        ("attributes", [], {}),
        ("kind", "", "extract"),
    ],
)
def test_metadata_of_another_type_is_converted_where_nothing_is_lost(
    field: str, value: object, arrives: object
) -> None:
    """Without a warning: the result holds what was sent."""
    event = decode_value(encoded(**{field: value}), "json", "t-0-1")
    assert getattr(event, field) == arrives
    assert event.warnings == ()


@pytest.mark.parametrize(
    ("field", "value", "default"),
    [
        ("event_id", {}, "t-0-1"),
        ("event_id", ["x"], "t-0-1"),
        # As an id it would be that of every other event.
        ("event_id", True, "t-0-1"),
        ("event_id", 2.0**53, "t-0-1"),
        ("product_id", {"$oid": "SECRETWORD"}, None),
        ("source", {"SECRETWORD": 1}, None),
        ("language", False, None),
        ("language", ["SECRETWORD"], None),
        ("created_at", "SECRETWORD", None),
        ("created_at", True, None),
        ("created_at", 1.5, None),
        ("created_at", {"$date": 1}, None),
        ("created_at", [2023, 7, 22], None),
        ("created_at", 2**63, None),
        ("created_at", 253_402_300_800_000, None),
        ("created_at", -62_135_596_800_001, None),
        ("created_at", "+58299-01-01T00:00:00Z", None),
        ("attributes", ["SECRETWORD"], {}),
        ("attributes", "SECRETWORD", {}),
        ("attributes", 0, {}),
        ("kind", "SECRETWORD", "extract"),
        ("kind", True, "extract"),
        ("kind", {}, "extract"),
    ],
)
def test_metadata_that_does_not_fit_is_left_out_with_a_warning(field: str, value: object, default: object) -> None:
    """It costs neither the review nor another field; the warning names the field and never what it says."""
    event = decode_value(encoded(**{"product_id": "p", "attributes": {"a": "b"}, field: value}), "json", "t-0-1")
    assert getattr(event, field) == default
    assert {"product_id": event.product_id, "attributes": event.attributes, field: default} == {
        "product_id": "p",
        "attributes": {"a": "b"},
        field: default,
    }
    (warning,) = event.warnings
    assert warning.startswith(f"field-dropped: {field} ")
    assert "SECRETWORD" not in warning
    assert len(warning) < 160


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 5000])
def test_a_number_that_is_none_costs_its_own_field_only(number: bytes) -> None:
    """As Python and JavaScript write them; where nobody reads the field, it costs nothing."""
    value = (
        b'{"text": "x", "a": %s, "product_id": %s, "event_id": "e", "created_at": %s, "attributes": {"b": %s, "c": 1}}'
    )
    event = decode_value(value % ((number,) * 4), "json", "t-0-1")
    assert (event.event_id, event.product_id, event.created_at, event.attributes) == ("e", None, None, {"c": "1"})
    assert [warning.split()[1] for warning in event.warnings] == ["product_id", "created_at", "attributes"]
    assert decode_value(b'{"text": "x", "a": %s}' % number, "json", "t-0-1") == ReviewEvent("t-0-1", "x")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [(1_700_000_000, 1_700_000_000), ("1700000000", 1_700_000_000), (1_700_000_000.0, 1_700_000_000)],
)
def test_a_time_that_is_in_seconds_is_kept_with_a_warning(value: object, arrives: int) -> None:
    """As milliseconds it would be in January of 1970, which is no time of a review; nothing is invented."""
    event = decode_value(encoded(created_at=value), "json", "t-0-1")
    assert event.created_at == arrives
    (warning,) = event.warnings
    assert warning.startswith("field-suspect: created_at is before April 1973")
    assert "fields of the route" in warning


@pytest.mark.parametrize("value", [0, 5, -86_400_000, "1970-01-20", 100_000_000_000])
def test_a_time_that_is_not_in_seconds_is_no_matter(value: object) -> None:
    """Nothing, a test's number, a time before 1970, a date that says its year."""
    assert decode_value(encoded(created_at=value), "json", "t-0-1").warnings == ()


@pytest.mark.parametrize(
    ("field", "value", "arrives"),
    [
        ("created_at", "", None),
        ("attributes", "", {}),
        ("attributes", [], {}),
        ("attributes", '{"stars": 5, "shop": "a"}', {"stars": "5", "shop": "a"}),
    ],
)
def test_what_says_nothing_and_json_within_a_text_need_no_warning(field: str, value: object, arrives: object) -> None:
    """As tables and PHP write what is empty, and columns of databases an object."""
    event = decode_value(encoded(**{field: value}), "json", "t-0-1")
    assert (getattr(event, field), event.warnings) == (arrives, ())


@pytest.mark.parametrize(
    "text", ["{", '{"a": 1', "{" * 70_000, '{"a":' * 5_000 + "1" + "}" * 5_000, '{"b": "%s"}' % ("c" * 40_000)]
)
def test_a_text_that_is_no_attributes_is_left_out(text: str) -> None:
    """Broken, too deep or too long."""
    event = decode_value(encoded(attributes=text), "json", "t-0-1")
    assert (event.attributes, len(event.warnings)) == ({}, 1)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            json.dumps(json.dumps({"text": "SECRETWORD"})),
            "is a string, and not an object; it holds JSON itself: encode",
        ),
        (
            json.dumps(json.dumps(json.dumps({"text": "x"}))),
            "is a string, and not an object; it holds JSON itself: enc",
        ),
        ('"SECRETWORD"', "is a string, and not an object; send an object"),
        ('[{"text": "SECRETWORD"}]', "is an array, and not an object; send each of its items"),
        ("17", "is a number, and not an object; send an object"),
    ],
)
def test_what_is_no_object_is_said_with_the_way_out(value: str, says: str) -> None:
    """An event that was encoded twice, several events, a bare review."""
    with pytest.raises(BadInput) as caught:
        decode_value(value.encode(), "json", "t-0-1")
    assert says in caught.value.message
    assert "SECRETWORD" not in caught.value.message


def test_a_producers_own_schema_or_tasks_have_a_way_out() -> None:
    """The route's fields, with which they are not read."""
    for field in ("schema", "tasks"):
        with pytest.raises(BadInput, match=r"key fields, as in \{text: text\}"):
            decode_value(encoded(**{field: 3}), "json", "t-0-1")


def test_each_field_has_at_most_one_warning() -> None:
    """However much of an event is not as it should be, its results say so in a few lines."""
    names = ("event_id", "product_id", "source", "language", "created_at", "attributes", "kind")
    event = decode_value(encoded(**dict.fromkeys(names, [{"a": 1}] * 1000)), "json", "t-0-1")
    assert sorted(warning.split()[1] for warning in event.warnings) == sorted(names)


def test_a_schema_text_that_is_no_json_is_refused() -> None:
    """A broken schema is told from a broken event."""
    assert refused(encoded(schema='{"品牌": ')).reason == "InvalidSchema"


@pytest.mark.parametrize(
    "value",
    [
        b'{"text": "SECRETWORD", "schema": ["SECRETWORD"]}',
        b'{"text": "SECRETWORD", "tasks": {"SECRETWORD": 1}}',
        b'{"text": {"SECRETWORD": 1}}',
        b'{"text": "SECRETWORD\\q"}',
        b'{"text": "SECRETWORD" oops}',
        b'{"text": SECRETWORD}',
        b'{"text": "SECRETWORD", "schema": "SECRETWORD"}',
        b'{"text": "SECRETWORD\xff"}',
    ],
)
def test_messages_never_quote_the_value(value: bytes) -> None:
    """What the event says stays out of the message."""
    assert "SECRETWORD" not in refused(value).message


def test_messages_give_the_position() -> None:
    """The message tells where the JSON breaks."""
    assert "character 11" in refused(b'{"text": 1 2}').message
    assert "byte 2 of 3" in refused(b"{ \xff").message


@pytest.mark.parametrize(
    ("value", "preset"),
    [
        ({"before": None, "after": {"content": "好"}, "op": "c"}, "debezium"),
        ({"schema": {}, "payload": {"before": {}, "op": "d"}}, "debezium"),
        ({"schema": {}, "payload": {"content": "好"}}, "connect"),
        ({"schema": {}, "payload": None}, "connect"),
        ({"specversion": "1.0", "data": {"text": "好"}}, "cloudevents"),
        ({"type": "INSERT", "data": [{}], "database": "shop"}, "canal"),
        ({"type": "insert", "data": {}, "database": "shop"}, "maxwell"),
        ({"content": "好"}, None),
        ({}, None),
    ],
)
def test_a_value_without_a_text_is_told_what_its_route_lacks(value: dict[str, object], preset: str | None) -> None:
    """A newcomer's change events end as dead letters until their route says what they are."""
    with pytest.raises(BadInput) as caught:
        decode_value(json.dumps(value).encode(), "json", "id")
    assert caught.value.reason == "MissingText"
    assert ("preset of the route to " + preset if preset else "in fields of the route") in caught.value.message
    assert "好" not in caught.value.message


def test_what_ends_with_a_new_line_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many producers write it. What is no white space to JSON is refused, as anywhere."""
    monkeypatch.setattr("consumer.codecs.decoding.json.loads", None)
    assert parse_json('{"text": "x"} \t\r\n') == {"text": "x"}
    monkeypatch.undo()
    for behind in ("\xa0", "\x0b", "\0", "{}"):
        with pytest.raises(BadInput, match="Extra data at character 13"):
            parse_json('{"text": "x"}' + behind)
