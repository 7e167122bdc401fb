"""Decodes the record of an input topic (JSON, plain text or Avro) to the review event in it.

The event processor calls ``decode`` for each record. Whatever the format, the event's fields are checked in one place,
``event_from_fields``, and every way to fail is BadInput.

What an event brings is copied into each of its results, so each part of it has a bound that real producers never meet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from consumer.codecs.control_headers import EVENT_ID_CHARS, default_event_id, too_many_headers
from consumer.codecs.metadata import SECONDS_BELOW, attributes_of, dropped, text_of, time_of, what_it_is
from consumer.codecs.packing import not_utf8
from consumer.events import EARLIEST_MS, LATEST_MS, BadInput, Milliseconds, ReviewEvent, TaskKind, encodable

if TYPE_CHECKING:
    from consumer.codecs.avro_codec import SchemaFor
    from consumer.codecs.packing import Packing
    from consumer.config.route import ValueFormat
    from consumer.events import Header, SourceRecord

MAX_TASKS = 64
"""Tasks one event may name. Each that it may run is a result, or a dead letter with the whole value in it."""

FIELD_CHARS = 2048
"""Of ``product_id``, ``source`` (an address, perhaps) and ``language``."""

ATTRIBUTES_CHARS = 32_768
"""Of all attributes together, names and values."""

KEY_BYTES = 65_536
"""The key of a record is copied to each of its results."""

_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
_raw_decode = json.JSONDecoder().raw_decode


def decode(
    record: SourceRecord,
    value_format: ValueFormat,
    max_value_bytes: int,
    schema_for: SchemaFor | None = None,
    packing: Packing | None = None,
) -> ReviewEvent:
    """Decode the value of a record, which must not be null: a null value is dropped, not decoded.

    An event without an id of its own has that of a replay's header, else its coordinates. ``packing`` says how the
    value is packed, if it is. Headers that are too many for results are a warning. Raises BadInput ValueTooLarge (stage
    ``decode``) for more than ``max_value_bytes``, KeyTooLarge, HeadersTooLarge (control headers) and InvalidHeader
    (``validate``), and as ``Packing.unpack`` and ``decode_value``.
    """
    value, default_id, too_many = opened(record, max_value_bytes, packing)
    event = decode_value(value, value_format, default_id, schema_for, record.headers)
    return without_headers(event, too_many) if too_many else event


def opened(record: SourceRecord, max_value_bytes: int, packing: Packing | None = None) -> tuple[bytes, str, str]:
    """A record's value, unpacked, the default id of its event, and why its headers are too many for results, if they
    are. Raises as ``decode`` says.
    """
    value = record.value
    coordinates = f"{record.topic}-{record.partition}-{record.offset}"
    if value is None:
        raise ValueError(f"{coordinates} has a null value: count it as dropped, there is nothing to decode")
    if len(value) > max_value_bytes:
        what = f"the value has {len(value)} bytes, more than limits.value_bytes {max_value_bytes}; raise that limit"
        raise BadInput("decode", "ValueTooLarge", what)
    if record.key is not None and len(record.key) > KEY_BYTES:
        # No warning: the key is where a result belongs, and under another, or none, nobody would find it.
        what = f"the key has {len(record.key)} bytes; at most {KEY_BYTES} are allowed, each result carries it"
        raise BadInput("validate", "KeyTooLarge", what)
    default_id, too_many = coordinates, ""
    if record.headers:
        too_many = too_many_headers(record.headers)
        default_id = default_event_id(record.headers) or coordinates
    if packing is not None:
        value = packing.unpack(value, max_value_bytes)
    return value, default_id, too_many


def without_headers(event: ReviewEvent, why: str) -> ReviewEvent:
    """The event with a warning that its headers are not carried on."""
    return replace(event, carries_headers=False, warnings=(*event.warnings, dropped("headers", why)))


def decode_value(
    value: bytes,
    value_format: ValueFormat,
    default_event_id: str,
    schema_for: SchemaFor | None = None,
    headers: Sequence[Header] = (),
) -> ReviewEvent:
    """Decode a value whose fields are those of an event. Raises BadInput as ``read_value`` and ``event_from_fields``
    do.
    """
    fields = read_value(value, value_format, schema_for, headers)
    try:
        if not isinstance(fields, dict):
            raise _no_object(value, fields)
        return event_from_fields(fields, default_event_id)
    except BadInput as bad:
        if value_format != "avro":
            if bad.reason != "MissingText":
                raise
            from consumer.codecs.frames import no_text_field

            raise no_text_field(bad, fields) from None
        from consumer.codecs.avro_mismatch import explained

        raise explained(bad, fields, value, headers, schema_for) from None


def _no_object(value: bytes, found: object) -> BadInput:
    fix = "send an object with a field text"
    if isinstance(found, list):
        fix = "send each of its items as a record of its own"
    elif isinstance(found, str) and found.lstrip()[:1] in ("{", '"'):
        fix = "it holds JSON itself: encode an event once, not twice"
    what = f"the JSON value of {len(value)} bytes is {what_it_is(found)}, and not an object"
    return BadInput("validate", "InvalidEvent", f"{what}; {fix}")


def read_value(
    value: bytes, value_format: ValueFormat, schema_for: SchemaFor | None = None, headers: Sequence[Header] = ()
) -> Any:
    """What bytes hold: any JSON value, bare text under ``text`` (of both, byte order marks are skipped), or an Avro
    record.

    JSON may be in Confluent's frame. ``schema_for`` gives the writer schema of an id, which Avro values have in their
    frame or among ``headers``; without it, they are bare data. Raises BadInput InvalidUtf8, InvalidFraming, and as
    ``parse_json`` and ``avro_codec.decode_avro`` do.
    """
    if value_format == "text":
        if b"\0" in value[:4] or value.startswith(b"\3\5"):
            from consumer.codecs.frames import no_text

            if (framed := no_text(value)) is not None:
                raise framed
        return {"text": utf8(value).lstrip("\ufeff")}
    if value_format == "json":
        try:
            return _json(value)
        except BadInput as bad:
            from consumer.codecs.frames import json_in_frame

            return json_in_frame(value, headers, _json, bad)
    # Not at the top: a worker without Avro topics should not load the Avro library.
    from consumer.codecs.avro_codec import decode_avro

    return decode_avro(value, schema_for, headers, _json)


def _json(value: bytes) -> Any:
    return parse_json(utf8(value).lstrip("\ufeff"))


def utf8(value: bytes) -> str:
    """Decode strictly. Raises BadInput InvalidUtf8 (stage ``decode``) with the position of the first bad byte."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(value, error.start) from None


def parse_json(text: str, parse_int: Callable[[str], float] | None = None) -> Any:
    """Parse one JSON value. Of a key given twice the last wins.

    NaN and Infinity, which JSON does not have but many programs write, cost no more than their own field; so does an
    integer of thousands of digits, which is read as NaN. Raises BadInput with stage ``decode``: InvalidJson with the
    position, or JsonTooDeep. The message never quotes the value.
    """
    try:
        if parse_int is None and text.startswith("{"):  # as ``json.loads``, without its search for white space
            value, end = _raw_decode(text)
            if end == len(text) or not text[end:].strip(" \t\n\r"):
                return value
        return json.loads(text, parse_int=parse_int)
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg.split(':')[0]} at character {error.pos} of {len(text)}; send one JSON value"
        if "\0" in text[:4]:
            what += ", or set encoding of the route: it begins like UTF-16 or UTF-32 without a byte order mark"
        raise BadInput("decode", "InvalidJson", what) from None
    except RecursionError:
        what = f"JSON of {len(text)} characters nests too deep to be read; flatten it"
        raise BadInput("decode", "JsonTooDeep", what) from None
    except ValueError:
        # More digits than Python converts.
        return parse_json(text, _integer)


def _integer(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:
        return math.nan


def event_from_fields(fields: Mapping[str, Any], default_event_id: str) -> ReviewEvent:
    """Check decoded fields. Unknown ones are ignored; optional ones may be missing or null.

    An empty ``event_id`` counts as missing and an empty ``tasks`` as no choice. ``schema`` may be an object or its JSON
    text. What else does not fit is converted or left out (``metadata``), and ``warnings`` say so. Raises BadInput with
    stage ``validate``: MissingText, EmptyText, InvalidEvent (``text``, ``tasks`` or ``schema`` of the wrong type),
    FieldTooLong (``event_id``), InvalidSchema or SchemaTooDeep.
    """
    warnings: list[str] = []
    text = _review(fields.get("text"))
    event_id = _text(fields, "event_id", None, warnings)
    if event_id is not None and len(event_id) > EVENT_ID_CHARS:
        what = f"field event_id has {len(event_id)} characters; at most {EVENT_ID_CHARS} are allowed"
        raise BadInput("validate", "FieldTooLong", f"{what}, each result repeats them")
    tasks, singular = _tasks(fields), fields.get("task")
    kind: TaskKind = fields.get("kind", "extract")
    if kind not in _KINDS:
        if fields.get("kind") not in (None, ""):
            warnings.append(dropped("kind", f"is {what_it_is(kind)}, but none of {', '.join(_KINDS)}; extract is used"))
        kind = "extract"
    return ReviewEvent(
        event_id=event_id or default_event_id,
        text=text,
        tasks=tasks,
        schema=_schema(fields),
        kind=kind,
        product_id=_text(fields, "product_id", FIELD_CHARS, warnings),
        source=_text(fields, "source", FIELD_CHARS, warnings),
        language=_text(fields, "language", FIELD_CHARS, warnings),
        created_at=_created_at(fields, warnings),
        attributes=_attributes(fields, warnings),
        warnings=tuple(warnings),
        task=None if singular is None or tasks is not None else _singular(singular),
    )


def _wrong_type(name: str, value: object, wanted: str) -> BadInput:
    what = f"field {name} is {what_it_is(value)}, but must be {wanted}"
    if name != "text":
        what += "; a producer's own field of that name is not read with the route's key fields, as in {text: text}"
    return BadInput("validate", "InvalidEvent", what)


def _review(text: object) -> str:
    if isinstance(text, bytes):  # Avro's: they are text to whoever reads them as a string
        with suppress(UnicodeDecodeError):
            text = text.decode()
    if text is None:
        raise BadInput("validate", "MissingText", "the event has no text; set its field text to the review")
    if not isinstance(text, str):
        raise _wrong_type("text", text, "a string")
    if not text.strip():
        what = f"the text of {len(text)} characters is empty or only white space; send reviews that say something"
        raise BadInput("validate", "EmptyText", what)
    return encodable(text)


def _text(fields: Mapping[str, Any], name: str, most: int | None, warnings: list[str]) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or (most is not None and len(value) > most):
        value = text_of(name, value, warnings, most)
    return None if value is None else encodable(value)


def _tasks(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = fields.get("tasks")
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise _wrong_type("tasks", value, "an array of task names")
    for index, task in enumerate(value):
        if not isinstance(task, str):
            raise _wrong_type(f"tasks[{index}]", task, "a string")
    tasks = tuple(dict.fromkeys(map(encodable, value)))
    if len(tasks) > MAX_TASKS:
        what = f"field tasks names {len(tasks)} tasks, more than {MAX_TASKS}; send several events"
        raise BadInput("validate", "InvalidEvent", what)
    return tasks or None


def _singular(value: object) -> str | None:
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    return first if isinstance(first, str) else None


def _schema(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    value = fields.get("schema")
    if value is None:
        return None
    if isinstance(value, str | bytes):
        try:
            value = parse_json(value if isinstance(value, str) else utf8(value))
        except BadInput as error:
            raise BadInput("validate", "InvalidSchema", f"field schema: {error.message}") from None
    if not isinstance(value, Mapping):
        raise _wrong_type("schema", value, "an object of type names")
    try:
        return _mended_tree(value)
    except RecursionError:
        raise BadInput("validate", "SchemaTooDeep", "field schema nests too deep to be read; flatten it") from None


def _mended_tree(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    return {encodable(key): _mended_tree(item) if isinstance(item, Mapping) else item for key, item in tree.items()}


def _created_at(fields: Mapping[str, Any], warnings: list[str]) -> int | None:
    value = fields.get("created_at")
    # A smaller number is in seconds, perhaps.
    if value is None or (type(value) is int and SECONDS_BELOW <= value <= LATEST_MS):
        return value
    if type(value) is Milliseconds and EARLIEST_MS <= value <= LATEST_MS:
        return value
    return time_of("created_at", value, warnings)


def _attributes(fields: Mapping[str, Any], warnings: list[str]) -> dict[str, str]:
    attributes = fields.get("attributes")
    if attributes is None:
        return {}
    fits = isinstance(attributes, dict) and all(isinstance(item, str) for item in attributes.values())
    if not fits or sum(len(key) + len(item) for key, item in attributes.items()) > ATTRIBUTES_CHARS:
        attributes = attributes_of(attributes, warnings, ATTRIBUTES_CHARS)
    return {encodable(key): encodable(item) for key, item in attributes.items()}
