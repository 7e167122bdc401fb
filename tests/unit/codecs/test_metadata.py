"""Metadata of another type than is wanted, as only Avro brings it. What JSON brings: ``test_decoding_json``."""

from __future__ import annotations

import json
import math

import pytest

from consumer.codecs import metadata
from consumer.codecs.decoding import event_from_fields
from consumer.events import BadInput, Milliseconds, ReviewEvent


@pytest.mark.parametrize(
    ("field", "value", "arrives"),
    [
        ("source", "应用".encode(), "应用"),
        ("event_id", b"e-7", "e-7"),
        ("created_at", Milliseconds(7), 7),
        ("attributes", {"a": "好".encode(), "b": [b"x"], "c": Milliseconds(7)}, {"a": "好", "b": '["x"]', "c": "7"}),
    ],
)
def test_what_loses_nothing_is_converted(field: str, value: object, arrives: object) -> None:
    """Bytes are text to whoever reads them as a string, as Avro has it; a time whose unit is known is one."""
    event = event_from_fields({"text": "x", field: value}, "t-0-1")
    assert (getattr(event, field), event.warnings) == (arrives, ())


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("source", b"\xff", "is bytes that are not UTF-8"),
        ("source", math.nan, "is a number of which not every digit is known; send it as a string"),
        ("event_id", math.inf, "is a number of which not every digit is known; send it as a string"),
        ("created_at", math.nan, "is not a finite number"),
        ("created_at", b"2023", "is bytes"),
        (
            "attributes",
            {"a": math.nan, "b": b"\xff", "c": {1, 2}, "d": [object()]},
            "(4 of 4) cannot be written as JSON",
        ),
        ("kind", b"extract", "is bytes, but none of extract, classify, multi_classify; extract is used"),
    ],
)
def test_what_does_not_fit_is_left_out(field: str, value: object, why: str) -> None:
    """With a warning that says what it was."""
    event = event_from_fields({"text": "x", field: value}, "t-0-1")
    assert event == ReviewEvent("t-0-1", "x", warnings=event.warnings)
    assert event.warnings == (f"field-dropped: {field} {why}",)


@pytest.mark.parametrize("item", [math.nan, [1] * 200 + [math.nan]])
def test_what_cannot_be_written_counts_among_the_characters(item: object) -> None:
    """Each piece was tried: a megabyte of them, in each of a thousand rows that share it, took minutes."""
    tried = 0

    def write(value: object) -> str:
        nonlocal tried
        tried += 1
        return json.dumps(value, allow_nan=False)

    attributes = {f"n{number}": item for number in range(20_000)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "_json", write)
        event = event_from_fields({"text": "x", "attributes": attributes}, "t-0-1")
    assert event.attributes == {}
    assert event.warnings == ("field-dropped: attributes (20000) have more than 32768 characters",)
    assert tried < 10_000


def test_bytes_are_a_text() -> None:
    """And a schema; other bytes are none."""
    event = event_from_fields({"text": "好".encode(), "schema": '{"品牌": null}'.encode()}, "t-0-1")
    assert (event.text, event.schema) == ("好", {"品牌": None})
    for fields, reason in (({"text": b"\xff"}, "InvalidEvent"), ({"text": "x", "schema": b"\xff"}, "InvalidSchema")):
        with pytest.raises(BadInput) as caught:
            event_from_fields(fields, "t-0-1")
        assert caught.value.reason == reason


def test_attributes_that_nest_too_deep_are_left_out() -> None:
    """They are counted, since their names may be text of the review."""
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    event = event_from_fields({"text": "x", "attributes": {"SECRETWORD": deep, "b": "c"}}, "t-0-1")
    assert event.attributes == {"b": "c"}
    assert event.warnings == ("field-dropped: attributes (1 of 2) cannot be written as JSON",)
