"""What is around a value that could not be read as its route's format: the frames that serializers write, by name.

Only what fails comes here, and JSON in a frame: nothing of an ordinary event runs this module.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from consumer.codecs.packing import begins, begins_like_utf_16, not_utf8
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.config.route import Preset
    from consumer.events import Header

_CONFLUENT = 5
"""Bytes of Confluent's frame: zero, and the schema's id in four, big-endian."""

_GLUE = 18
"""Bytes of AWS Glue's: 3, 0 (or 5, compressed with zlib), and the schema version's UUID."""

_LARGE_ID = 2**24
"""No registry has so many schemas. A bare event whose bytes would be a smaller id has an empty text."""

_MOST_INDEXES = 8
"""Longest path to a message within a Protobuf schema that is believed."""

_MOST_FIELDS = 1000
"""Fields after which a message is believed: a megabyte of them would hold the event loop."""

_JSON = (b"{", b"[")
"""What an event's JSON, or that of several, begins with."""

_OTHERS = (
    (b"\xc3\x01", "Avro's single-object encoding, whose schema is known by a fingerprint"),
    (b"Obj\x01", "an Avro file, with its schema"),
)

_ID_HEADERS = ("__value_schema_id", "apicurio.value.globalId", "apicurio.value.contentId")


def json_in_frame(value: bytes, headers: Sequence[Header], parse: Callable[[bytes], Any], bad: BadInput) -> Any:
    """The JSON in a value that is none as it stands, where Confluent's frame is around it.

    Raises BadInput InvalidFraming (stage ``decode``) that names another frame, what ``parse`` raises for JSON in one
    that cannot be read, or ``bad`` where there is none.
    """
    if len(value) == _CONFLUENT and not value[0]:
        raise _refused(f"Confluent frame, id {_id(value)}, with nothing in it; send JSON")
    if not is_confluent(value):
        what = None if value.lstrip()[:1] in _JSON else named(value, headers)
        raise bad if what is None else _refused(f"{what}; send JSON, bare or in Confluent's frame")
    payload = value[_CONFLUENT:]
    try:
        return parse(payload)
    except BadInput as inner:
        if payload.lstrip()[:1] in _JSON:
            raise BadInput(
                inner.stage, inner.reason, f"in a frame with schema id {_id(value)}: {inner.message}"
            ) from None
    if value[1] and not value[2] and not value[4]:
        raise bad  # UTF-16, by its zeros
    fix = "send JSON, or Avro with the route's format avro and kafka.registry.url"
    if not _id(value):
        raise _refused(f"a frame with schema id 0, of eight bytes perhaps, as Apicurio's serializers write it; {fix}")
    if looks_like_protobuf(payload):
        raise _refused(f"Protobuf frame, id {_id(value)}, by its bytes; {fix}")
    raise _refused(f"Confluent frame, id {_id(value)}, whose payload is not JSON: Avro or Protobuf; {fix}")


def no_text(value: bytes) -> BadInput | None:
    """The error InvalidFraming (stage ``decode``) of a bare text with a frame in front, which may be UTF-8, too.

    None where a text may well begin so.
    """
    fix = "set the route's format to json or avro, or send the text without it"
    if value[:1] == b"\3":
        return None if (what := named(value, ())) is None else _refused(f"{what}; {fix}")
    if begins_like_utf_16(value):
        return not_utf8(value, value.index(b"\0"))
    if not is_confluent(value) or not 0 < _id(value) < _LARGE_ID:
        return None
    return _refused(f"Confluent frame, id {_id(value)}, in front of what should be bare text; {fix}")


def no_text_field(bad: BadInput, fields: Mapping[str, Any]) -> BadInput:
    """``bad``, the error of an object without a text on a route without mapping, with what such a route needs."""
    preset = _likely_preset(fields)
    what = "name where it is in fields of the route (docs/mapping.md)"
    if preset is not None:
        what = f"it looks like a message of {preset}: set preset of the route to {preset} (docs/mapping.md)"
    return BadInput(bad.stage, bad.reason, f"{bad.message}, or {what}")


def _likely_preset(fields: Mapping[str, Any]) -> Preset | None:
    is_connect = fields.keys() == {"schema", "payload"}
    inner = fields["payload"] if is_connect else fields
    if isinstance(inner, Mapping) and "op" in inner and ("after" in inner or "before" in inner):
        return "debezium"
    if is_connect:
        return "connect"
    if "specversion" in fields:
        return "cloudevents"
    if "type" in fields and "data" in fields and "database" in fields:
        return "canal" if isinstance(fields["data"], list) else "maxwell"
    return None


def no_confluent_frame(value: bytes, headers: Sequence[Header]) -> BadInput:
    """The error of an Avro value without a schema's id: InvalidFraming (stage ``decode``)."""
    if (what := named(value, headers)) is not None:
        return _refused(f"{what}; send Confluent's wire format")
    if len(value) < _CONFLUENT:
        what = f"a value of {len(value)} bytes is too short for a schema id and Avro"
        return _refused(f"{what}; send Confluent's wire format")
    if value.lstrip()[:1] in _JSON:
        return _refused("it begins like JSON, and has no schema id; set the route's format to json, or send Avro")
    what = f"first byte is {value[0]}{begins(value)}, but Confluent's wire format starts with 0"
    return _refused(f"{what}; send that format, or remove kafka.registry.url when values are bare Avro")


def no_bare_datum(value: bytes, headers: Sequence[Header], bad: BadInput) -> BadInput:
    """``bad``, which a value without a registry met as bare Avro, unless it has a frame: then InvalidFraming."""
    if any(name == _ID_HEADERS[0] for name, _ in headers):
        what = f"header {_ID_HEADERS[0]} names the value's schema, and kafka.registry.url is missing"
        return _refused(f"{what}; set it, so that the schema can be fetched")
    if not is_confluent(value):
        if bad.stage == "decode" and value.lstrip()[:1] in _JSON:
            return BadInput(bad.stage, bad.reason, f"{bad.message}; it begins like JSON: is that the route's format?")
        if bad.stage != "decode" or (other := named(value, headers)) is None:
            return bad
        return _refused(f"{other}; send bare Avro of schemas/avro/review_event.avsc, or use a registry")
    number, payload = _id(value), value[_CONFLUENT:]
    if bad.stage != "decode" or not 0 < number < _LARGE_ID:
        # Bare events may begin with a zero as well.
        what = f"; if it is in Confluent's frame, with schema id {number}, kafka.registry.url is missing"
        return BadInput(bad.stage, bad.reason, bad.message + what)
    if payload.lstrip()[:1] in _JSON:
        return _refused(f"JSON in a Confluent frame, id {number}; set the route's format to json")
    if looks_like_protobuf(payload):
        what = f"Protobuf frame, id {number}, by its bytes: Avro and JSON are read"
        return _refused(f"{what}; if it is Avro, kafka.registry.url is missing")
    what = f"Confluent frame, id {number}, on a route that reads bare Avro: kafka.registry.url is missing"
    return _refused(f"{what}; set it, so that the schema can be fetched")


def is_confluent(value: bytes) -> bool:
    """Whether a value may have Confluent's frame and something in it."""
    return len(value) > _CONFLUENT and value[0] == 0


def named(value: bytes, headers: Sequence[Header]) -> str | None:
    """What a value is that has neither Confluent's frame nor none; None where that cannot be told."""
    if len(value) > _GLUE and value[0] == 3 and value[1] in (0, 5):
        version = uuid.UUID(bytes=value[2:_GLUE])
        packed = ", compressed with zlib" if value[1] else ""
        return f"AWS Glue frame, schema version {version}{packed}; that registry is not supported"
    for start, what in _OTHERS:
        if value.startswith(start):
            return what
    for name, content in headers:
        if name in _ID_HEADERS[1:]:
            return f"header {name} has the schema's id, which Apicurio's serializers can put into a frame of four bytes"
        if name.lower() == "content-type" and (content or b"").startswith(b"avro/binary+"):
            return "Avro of Azure's registry, which is not supported"
    return None


def looks_like_protobuf(payload: bytes) -> bool:
    """Whether a frame's payload is Protobuf: where the message is in its schema, then fields."""
    count, at = varint(payload, 0)
    count = (count >> 1) if not count & 1 else -1
    if not 0 <= count <= _MOST_INDEXES:
        return False
    for _ in range(count):
        index, at = varint(payload, at)
        if index > 128:
            return False
    if at >= len(payload):
        return False
    for _ in range(_MOST_FIELDS):
        if at >= len(payload):
            return at == len(payload)
        tag, at = varint(payload, at)
        kind = tag & 7
        if tag >> 3 not in range(1, 2**29):
            return False
        if kind == 0:
            _, at = varint(payload, at)
        elif kind == 2:
            size, at = varint(payload, at)
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return False
    return True


def varint(payload: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends: behind everything, where it is none."""
    number = 0
    for place, byte in enumerate(payload[at : at + 10]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    return number, len(payload) + 1


def _id(value: bytes) -> int:
    return int(struct.unpack_from(">I", value, 1)[0])


def _refused(what: str) -> BadInput:
    return BadInput("decode", "InvalidFraming", what)
