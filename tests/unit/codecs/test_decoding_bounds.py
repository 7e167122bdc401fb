"""What an event brings is copied to each of its results and log lines, so every part of it is bounded."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.control_headers import (
    CONTROL_BYTES,
    EVENT_ID,
    EVENT_ID_CHARS,
    HEADERS_BYTES,
    MAX_HEADERS,
    ONLY_TASKS,
    REPLAY_COUNT,
    REPLAY_GROUP,
)
from consumer.codecs.decoding import ATTRIBUTES_CHARS, FIELD_CHARS, KEY_BYTES, MAX_TASKS, decode
from consumer.events import BadInput, SourceRecord

if TYPE_CHECKING:
    from consumer.events import Header, ReviewEvent

LONG = 1_000_000


def event(value: dict[str, object], key: bytes | None = b"k", *headers: Header) -> ReviewEvent:
    encoded = json.dumps({"text": "好", **value}).encode()
    return decode(SourceRecord("in", 0, 1, 1, key, encoded, headers, None, 0.0), "json", 10 * LONG)


def reason(value: dict[str, object], key: bytes | None = b"k", *headers: Header) -> str:
    with pytest.raises(BadInput) as caught:
        event(value, key, *headers)
    assert len(caught.value.message) < 300
    assert caught.value.stage == "validate"
    return caught.value.reason


def test_an_event_id_has_a_longest_value() -> None:
    """The bound itself is taken. Beyond, no id can take its place: results are joined by it."""
    assert event({"event_id": "编" * EVENT_ID_CHARS}).event_id == "编" * EVENT_ID_CHARS
    assert reason({"event_id": "编" * (EVENT_ID_CHARS + 1)}) == "FieldTooLong"
    assert reason({"event_id": 10**EVENT_ID_CHARS}) == "FieldTooLong"
    with pytest.raises(BadInput, match=rf"event_id .*{EVENT_ID_CHARS}"):
        event({"event_id": "x" * LONG})


@pytest.mark.parametrize("field", ["product_id", "source", "language"])
def test_another_field_that_is_too_long_is_left_out(field: str) -> None:
    """The bound itself is taken, one character more is not, and the warning names the field and the bound."""
    assert getattr(event({field: "编" * FIELD_CHARS}), field) == "编" * FIELD_CHARS
    for value in ("编" * (FIELD_CHARS + 1), "x" * LONG, 10**FIELD_CHARS):
        taken = event({field: value})
        assert getattr(taken, field) is None
        length = len(str(value))
        assert taken.warnings == (f"field-dropped: {field} has {length} characters, more than {FIELD_CHARS}",)


@pytest.mark.parametrize("number", [1, 2, 1000])
def test_attributes_are_bounded_together(number: int) -> None:
    """Whether one is long or there are many, and names count as values do. Beyond, none of them is carried."""
    size = ATTRIBUTES_CHARS // number
    within = {str(n).rjust(5): "v" * (size - 5) for n in range(number)}
    assert event({"attributes": within}).attributes == within
    beyond = event({"attributes": {**within, "n" * (ATTRIBUTES_CHARS - number * size + 1): ""}})
    assert beyond.attributes == {}
    assert beyond.warnings == (
        f"field-dropped: attributes ({number + 1}) have more than {ATTRIBUTES_CHARS} characters",
    )


@pytest.mark.parametrize("item", [[0] * 100_000, {"a": {str(n): n for n in range(40_000)}}, [["x" * 1000]] * 40, 7])
def test_attributes_are_bounded_as_they_are_written(item: object) -> None:
    """What becomes JSON counts as the text that it is in a result."""
    taken = event(
        {"attributes": {"a": item, **({"b" * ATTRIBUTES_CHARS: None, "c" * 32_767: ""} if item == 7 else {})}}
    )
    assert (taken.attributes, len(taken.warnings)) == ({}, 1)


def test_the_key_is_bounded() -> None:
    """Every result and dead letter carries it."""
    assert event({}, b"k" * KEY_BYTES).text == "好"
    assert event({}, None).text == "好"
    assert reason({}, b"k" * (KEY_BYTES + 1)) == "KeyTooLarge"


@pytest.mark.parametrize(
    ("headers", "ok"),
    [
        ([("h", b"v" * (HEADERS_BYTES - 1))], True),
        ([("h", b"v" * HEADERS_BYTES)], False),
        ([("n" * HEADERS_BYTES, None)], True),
        ([("n" * HEADERS_BYTES, b"v")], False),
        ([("名" * (HEADERS_BYTES // 2), None)], False),
        ([("", None)] * MAX_HEADERS, True),
        ([("", None)] * (MAX_HEADERS + 1), False),
    ],
)
def test_headers_are_bounded_in_number_and_bytes(headers: list[Header], ok: bool) -> None:
    """Names count as values do. Beyond, results carry none of them, and say so."""
    taken = event({"kind": "?"}, b"k", *headers)
    assert taken.text == "好"
    assert taken.carries_headers is ok
    assert [warning.split()[1] for warning in taken.warnings] == ["kind"] + ["headers"] * (not ok)


def test_too_many_headers_do_not_hide_what_a_replay_says() -> None:
    """Control headers are read and bounded by themselves."""
    too_many: list[Header] = [("h", b"v" * HEADERS_BYTES)]
    assert event({}, b"k", *too_many, (EVENT_ID, b"reviews.raw-0-7")).event_id == "reviews.raw-0-7"
    assert reason({}, b"k", *too_many, (EVENT_ID, b"i" * 10_000)) == "InvalidHeader"
    assert reason({}, b"k", *too_many, (ONLY_TASKS, b"t," * CONTROL_BYTES)) == "HeadersTooLarge"


def test_a_replay_can_add_its_headers_to_any_record() -> None:
    """What was within the bounds is so when it comes again; no forged set of them is endless."""
    full: list[Header] = [("h" * 255, b"v")] * MAX_HEADERS
    replay: list[Header] = [
        (EVENT_ID, b"i" * EVENT_ID_CHARS),
        (ONLY_TASKS, ",".join(["t" * 64] * MAX_TASKS).encode()),
        (REPLAY_COUNT, b"3"),
        (REPLAY_GROUP, b"g" * 249),
    ]
    assert event({}, b"k", *full, *replay).event_id == "i" * EVENT_ID_CHARS
    assert reason({}, b"k", ("rexstream-only-tasks", b"t," * CONTROL_BYTES)) == "HeadersTooLarge"


@pytest.mark.parametrize("size", [EVENT_ID_CHARS + 1, 10_000])
def test_an_event_id_from_a_header_is_bounded_as_one_from_the_value(size: int) -> None:
    """Anyone may write that header, and the id goes into every log line."""
    assert event({}, b"k", (EVENT_ID, b"i" * EVENT_ID_CHARS)).event_id == "i" * EVENT_ID_CHARS
    assert reason({}, b"k", (EVENT_ID, b"i" * size)) == "InvalidHeader"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.integers(0, 3 * FIELD_CHARS).map(lambda n: "好" * n)
            for name in ("event_id", "product_id", "source", "language")
        }
        | {
            "attributes": st.dictionaries(st.text(max_size=9), st.integers(0, 40_000).map(lambda n: "x" * n)),
            "tasks": st.lists(st.text(max_size=4), max_size=2 * MAX_TASKS),
        },
    )
)
def test_whatever_is_taken_is_within_all_bounds(value: dict[str, object]) -> None:
    """What a result repeats of its event is at most 200,000 bytes of UTF-8."""
    try:
        taken = event(value)
    except BadInput:
        return
    repeated = (
        taken.event_id,
        taken.product_id,
        taken.source,
        taken.language,
        *taken.attributes,
        *taken.attributes.values(),
    )
    assert sum(len((part or "").encode()) for part in repeated) <= 200_000
    assert len(taken.tasks or ()) <= MAX_TASKS


@pytest.mark.parametrize("piece", [b"[]", b"{}", b'{"":0}', b"999", b'"a"', b"1.5"])
@pytest.mark.parametrize(
    "place", [b'"pad":[%s]', b'"schema":{"a":[%s]}', b'"attributes":[%s]', b'"attributes":{"a":[%s]}']
)
def test_decoding_takes_a_bounded_multiple_of_the_value(piece: bytes, place: bytes) -> None:
    """JSON in the smallest pieces: less than 32 bytes of memory for each of its own, for as long as it is decoded."""
    size = 200_000
    value = b'{"text":"x",' + place % b",".join([piece] * (size // (len(piece) + 1))) + b"}"
    tracemalloc.start()
    try:
        with contextlib.suppress(BadInput):
            decode(SourceRecord("in", 0, 1, 1, b"k", value, (), None, 0.0), "json", LONG)
        assert tracemalloc.get_traced_memory()[1] < 32 * len(value)
    finally:
        tracemalloc.stop()
