"""Values in the frames of serializers, on routes of every format: read, or refused by what they are."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from avro_frames import EVENT_SCHEMA, datum, framed, known
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.avro_codec import SCHEMA_ID, schema_id
from consumer.codecs.avro_schemas import event_schema
from consumer.codecs.decoding import decode_value, read_value
from consumer.codecs.frames import looks_like_protobuf
from consumer.events import BadInput

if TYPE_CHECKING:
    from consumer.config.route import ValueFormat
    from consumer.events import Header

REVIEW = "表盘很清楚，表带偏短"
JSON = json.dumps({"text": REVIEW}, ensure_ascii=False).encode()
AVRO = datum(EVENT_SCHEMA, {"text": REVIEW})
PROTOBUF = b"\x0a" + bytes([len(REVIEW.encode())]) + REVIEW.encode() + b"\x10\x05"
"""A message of a string and a number."""

VERSION = uuid.UUID("b7b4a7f0-9c96-4e4a-a687-fb5de9ef0c63")
GLUE = b"\x03\x00" + VERSION.bytes


def refused(value: bytes, form: ValueFormat, *headers: Header, schema_for: Any = None) -> BadInput:
    with pytest.raises(BadInput) as caught:
        decode_value(value, form, "t-0-1", schema_for, headers)
    assert REVIEW[:4] not in caught.value.message
    return caught.value


@pytest.mark.parametrize("number", [1, 7, 200, 100_001, 0xFFFFFFFF])
def test_json_in_confluents_frame_is_read(number: int) -> None:
    """Its schema need not be known."""
    assert decode_value(framed(JSON, number), "json", "t-0-1").text == REVIEW
    assert decode_value(framed(b"\xef\xbb\xbf" + JSON, number), "json", "t-0-1").text == REVIEW
    assert read_value(framed(b"[1]", number), "json") == [1]


def test_json_whose_schema_is_in_a_header_is_read() -> None:
    """There is nothing in front of it."""
    headers = ((SCHEMA_ID, b"\x01" + VERSION.bytes),)
    assert decode_value(JSON, "json", "t-0-1", None, headers).text == REVIEW


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (framed(b"\x00" + PROTOBUF, 200), "Protobuf frame, id 200,"),
        (framed(b"\x04\x00\x02" + PROTOBUF, 200), "Protobuf frame, id 200,"),
        (framed(AVRO, 200), "Confluent frame, id 200, whose payload is not JSON: Avro or Protobuf;"),
        (framed(AVRO, 0xDEADBEEF), "Confluent frame, id 3735928559,"),
        (GLUE + JSON, f"AWS Glue frame, schema version {VERSION}; "),
        (b"\x03\x05" + VERSION.bytes + b"x\x9c", f"AWS Glue frame, schema version {VERSION}, compressed with zlib; "),
        (b"\xc3\x01" + bytes(8) + AVRO, "Avro's single-object encoding"),
        (b"Obj\x01\x04", "an Avro file"),
        (b"\x00\x00\x00\x00\x07", "Confluent frame, id 7, with nothing in it"),
        (framed(b"\x00\x00\x00\x07" + JSON, 0), "a frame with schema id 0, of eight bytes perhaps, as Apicurio's"),
    ],
)
def test_other_frames_on_a_route_of_json_are_named(value: bytes, says: str) -> None:
    """Never as bytes that are no UTF-8, or JSON that breaks at its first character."""
    bad = refused(value, "json")
    assert (bad.stage, bad.reason) == ("decode", "InvalidFraming")
    assert bad.message.startswith(says)


def test_json_that_is_broken_in_its_frame_says_where() -> None:
    """As without one."""
    bad = refused(framed(b'{"text": ', 9), "json")
    assert bad.reason == "InvalidJson"
    assert bad.message.startswith("in a frame with schema id 9: not JSON")
    assert refused(framed(b'{"text": "\xff"}', 9), "json").reason == "InvalidUtf8"


@pytest.mark.parametrize(
    "value", [b"", b"\x00", b"\x00\x00\x00\x07", b"nonsense", b"\x03\x00short", b"\xff\xfe", b'{"text"']
)
def test_what_is_in_no_frame_is_what_it_was(value: bytes) -> None:
    """Also where there is nothing behind one, and JSON that is only broken, whatever its headers say."""
    headers = (("apicurio.value.globalId", bytes(8)),) if value.startswith(b"{") else ()
    assert refused(value, "json", *headers).reason in ("InvalidJson", "InvalidUtf8")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_no_frame(encoding: str) -> None:
    """It is called what it is, on every route, and with Latin letters it is no text, although it would be UTF-8."""
    for value, form in ((JSON.decode(), "json"), ('{"text": "neat"}', "json"), ("neat, really", "text")):
        bad = refused(value.encode(encoding), form)  # type: ignore[arg-type]
        assert bad.reason in ("InvalidUtf8", "InvalidJson")
        assert "UTF-16" in bad.message
        assert "encoding of the route" in bad.message


def test_a_frame_in_front_of_text_is_no_text() -> None:
    """It would be UTF-8."""
    for payload in (JSON, REVIEW.encode()):
        bad = refused(framed(payload, 7), "text")
        assert bad.reason == "InvalidFraming"
        assert bad.message.startswith("Confluent frame, id 7,")
    assert refused(GLUE + REVIEW.encode(), "text").message.startswith(f"AWS Glue frame, schema version {VERSION}; ")
    for text in ("\0", "\0\0\0\0\0neat", "\0neat", "\3\0neat", "\3\5"):
        assert decode_value(text.encode(), "text", "t-0-1").text == text


@pytest.mark.parametrize("number", [1, 2, 7, 64, 200, 100_001, 0x02000001, 0xFFFFFFFF])
@pytest.mark.parametrize("text", ["", "a", REVIEW, REVIEW * 40])
def test_a_framed_value_without_a_registry_says_what_is_missing(number: int, text: str) -> None:
    """Whatever the shipped schema makes of the frame's bytes."""
    bad = refused(framed(datum(EVENT_SCHEMA, {"text": text, "event_id": "e"}), number), "avro")
    assert f"id {number}, " in bad.message
    assert "kafka.registry.url is missing" in bad.message
    if number < 2**24:
        assert bad.message.startswith(f"Confluent frame, id {number}, ")
        assert bad.reason == "InvalidFraming"
    bad = refused(AVRO + b"x", "avro", (SCHEMA_ID, b"\x00\x00\x00\x00\x07"))
    assert "kafka.registry.url is missing" in bad.message


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (framed(b"\x00" + PROTOBUF, 200), "Protobuf frame, id 200,"),
        (framed(JSON, 200), "JSON in a Confluent frame, id 200; set the route's format to json"),
        (GLUE + AVRO, f"AWS Glue frame, schema version {VERSION}; "),
        (b"\xc3\x01" + bytes(8) + AVRO, "Avro's single-object encoding"),
        (AVRO[:-1], "not Avro of its schema"),
        (b"", "not Avro of its schema"),
    ],
)
def test_other_values_on_a_route_of_bare_avro_are_named(value: bytes, says: str) -> None:
    """And what is only damaged is not taken for a frame."""
    assert refused(value, "avro").message.startswith(says)


def test_json_on_a_route_of_avro_is_told() -> None:
    """As what it begins like."""
    assert "it begins like JSON" in refused(JSON, "avro").message


def test_a_bare_datum_that_begins_like_a_frame_is_read() -> None:
    """An event without an id begins with a zero; those of texts of no letter say that they are empty."""
    assert AVRO[0] == 0
    assert decode_value(AVRO, "avro", "t-0-1").text == REVIEW
    assert refused(datum(EVENT_SCHEMA, {"text": " "}), "avro").reason == "EmptyText"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (GLUE + AVRO, f"AWS Glue frame, schema version {VERSION}; "),
        (b"\xc3\x01" + bytes(8) + AVRO, "Avro's single-object encoding"),
        (b"\x00\x00", "a value of 2 bytes is too short"),
        (JSON, "it begins like JSON"),
        (b"\x7f" + AVRO, "first byte is 127, but"),
    ],
)
def test_with_a_registry_what_is_not_confluents_is_named(value: bytes, says: str) -> None:
    """Before the registry is asked."""
    bad = refused(value, "avro", schema_for=known({}))
    assert bad.reason == "InvalidFraming"
    assert bad.message.startswith(says)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (("apicurio.value.globalId", bytes(8)), "header apicurio.value.globalId"),
        (("Content-Type", b"avro/binary+0123"), "Avro of Azure's registry"),
    ],
)
def test_ids_in_other_registries_headers_are_named(header: Header, says: str) -> None:
    """With a registry and without."""
    for schema_for in (None, known({})):
        assert refused(b"\x09" + AVRO, "avro", header, schema_for=schema_for).message.startswith(says)


def test_the_schemas_id_may_be_in_a_header() -> None:
    """Four bytes, or a GUID; the value then has no frame, even if it begins like one."""
    own = ((SCHEMA_ID, b"\x00\x00\x00\x00\x01"), (SCHEMA_ID, b"\x00\x00\x00\x00\x07"))
    assert schema_id(AVRO, own) == 7, "the nearest hop's, as Java's lastHeader has it"
    for content, number in ((b"\x00\x00\x00\x00\x07", 7), (b"\x01" + VERSION.bytes, str(VERSION))):
        headers = (("other", b"\x01"), (SCHEMA_ID, None), (SCHEMA_ID, content))
        assert schema_id(AVRO, headers) == number
        event = decode_value(AVRO, "avro", "t-0-1", known({number: event_schema()}), headers)
        assert event.text == REVIEW


@pytest.mark.parametrize(
    "content", [b"", b"7", b"\x00\x00\x00\x07", b"\x01" * 16, b"\x02" * 17, b"\x01" * 5, bytes(17)]
)
def test_a_header_that_is_no_id_is_refused(content: bytes) -> None:
    """By name, and without a question to the registry."""
    bad = refused(framed(AVRO, 7), "avro", (SCHEMA_ID, content), schema_for=known({7: event_schema()}))
    assert bad.reason == "InvalidFraming"
    assert SCHEMA_ID in bad.message


def test_an_id_of_zero_is_not_confluents() -> None:
    """Apicurio's frame has eight bytes, unless it is told otherwise."""
    bad = refused(framed(b"\x00\x00\x00\x07" + AVRO, 0), "avro", schema_for=known({}))
    assert bad.reason == "UnknownSchemaId"
    assert "Apicurio" in bad.message


@given(st.binary(max_size=80))
def test_any_payload_may_be_asked_whether_it_is_protobuf(payload: bytes) -> None:
    """Without an error, and in time."""
    looks_like_protobuf(payload)


def test_a_long_message_is_not_read_to_its_end() -> None:
    """A megabyte of fields would hold the event loop; what is wrong far behind is not found, either."""
    assert looks_like_protobuf(b"\x00" + b"\x08\x01" * 2000 + b"\xff")
    assert not looks_like_protobuf(b"\x00" + b"\x08\x01" * 200 + b"\xff")


def test_what_is_protobuf() -> None:
    """To the last byte."""
    for message in (PROTOBUF, b"\x08\x01", b"\x09" + bytes(8), b"\x0d" + bytes(4)):
        assert looks_like_protobuf(b"\x00" + message)
        assert not looks_like_protobuf(b"\x00" + message[:-1])
        assert not looks_like_protobuf(b"\x00" + message + b"\x07")
    assert not looks_like_protobuf(b"\x00")
    assert not looks_like_protobuf(AVRO)
