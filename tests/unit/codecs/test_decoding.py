"""From a Kafka record to its event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.codecs.decoding import decode
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.codecs.avro_codec import SchemaId
    from consumer.codecs.avro_schemas import WriterSchema
    from consumer.config.route import ValueFormat
    from consumer.events import SourceRecord

    MakeRecord = Callable[..., SourceRecord]

NOTHING_REGISTERED: dict[SchemaId, WriterSchema] = {}


@pytest.mark.parametrize(
    ("value_format", "value"),
    [("json", b'{"text": "neat"}'), ("text", b"neat"), ("avro", b"\x00\x08neat\x00\x00\x00\x00\x00\x00\x00\x00")],
)
def test_each_format_is_decoded(make_record: MakeRecord, value_format: ValueFormat, value: bytes) -> None:
    """An event without an id is named by its coordinates, whatever its format."""
    event = decode(make_record(value), value_format, 100)
    assert (event.event_id, event.text) == ("reviews.raw-3-41", "neat")


def test_with_a_registry_avro_is_framed(make_record: MakeRecord) -> None:
    """A schema resolver turns on Confluent's wire format."""
    with pytest.raises(BadInput, match="schema 9"):
        decode(make_record(b"\x00\x00\x00\x00\x09"), "avro", 100, NOTHING_REGISTERED.__getitem__)


def test_a_value_over_the_limit_is_refused(make_record: MakeRecord) -> None:
    """The limit is inclusive, and the message has both sizes."""
    assert decode(make_record(b"1234"), "text", 4).text == "1234"
    with pytest.raises(BadInput, match=r"5 bytes.* 4") as caught:
        decode(make_record(b"12345"), "text", 4)
    assert (caught.value.stage, caught.value.reason) == ("decode", "ValueTooLarge")


def test_a_null_value_is_the_callers_business(make_record: MakeRecord) -> None:
    """A tombstone is dropped by the caller, so decoding one is a fault of the program."""
    with pytest.raises(ValueError, match=r"reviews\.raw-3-41"):
        decode(make_record(None), "json", 100)


def test_a_replay_keeps_the_events_id(make_record: MakeRecord) -> None:
    """The header of a replay names the event that brings no id of its own."""
    headers = [("rexstream-event-id", b"old"), ("rexstream-event-id", b"reviews.raw-0-7")]
    assert decode(make_record(b"neat", *headers), "text", 100).event_id == "reviews.raw-0-7"
    assert decode(make_record(b'{"text": "neat"}', *headers), "json", 100).event_id == "reviews.raw-0-7"
    assert decode(make_record(b'{"text": "neat", "event_id": "e"}', *headers), "json", 100).event_id == "e"


@pytest.mark.parametrize("value", [None, b""])
def test_an_empty_id_header_says_nothing(make_record: MakeRecord, value: bytes | None) -> None:
    """Null and empty header values are as good as no header."""
    assert decode(make_record(b"neat", ("rexstream-event-id", value)), "text", 100).event_id == "reviews.raw-3-41"


def test_an_unreadable_id_header_is_refused(make_record: MakeRecord) -> None:
    """A replay header that is not UTF-8 cannot be honoured, and guessing would break deduplication."""
    with pytest.raises(BadInput, match="rexstream-event-id") as caught:
        decode(make_record(b"neat", ("rexstream-event-id", b"\xff")), "text", 100)
    assert caught.value.reason == "InvalidHeader"


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ('"task": "ner"', "ner"),
        ('"task": ["ner", "event"]', "ner"),
        ('"task": "ner", "tasks": []', "ner"),
        ('"task": "ner", "tasks": ["event"]', None),
        ('"task": null', None),
        ('"task": {"id": 5}', None),
        ('"task": []', None),
    ],
)
def test_a_field_task_is_noticed_where_no_tasks_are_named(
    make_record: MakeRecord, fields: str, task: str | None
) -> None:
    """It may be a producer's own, or a slip: the routes know which."""
    assert decode(make_record(f'{{"text": "neat", {fields}}}'.encode()), "json", 100).task == task
