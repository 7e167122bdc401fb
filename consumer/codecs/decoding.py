"""Decodes the record of an input topic (JSON, plain text or Avro) to the review event in it.

The event processor calls ``decode`` for each record. Whatever the format, the event's fields are checked in one place,
``event_from_fields``, and every way to fail is BadInput.

What an event brings is copied into each of its results, so each part of it has a bound that real producers never meet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from consumer.codecs.control_headers import EVENT_ID_CHARS, check_size, default_event_id
from consumer.events import BadInput, ReviewEvent, TaskKind

if TYPE_CHECKING:
    from consumer.codecs.avro_codec import SchemaFor
    from consumer.config.route import ValueFormat
    from consumer.events import SourceRecord

MAX_TASKS = 64
"""Tasks one event may name. Each that it may run is a result, or a dead letter with the whole value in it."""

FIELD_CHARS = 2048
"""Of ``product_id``, ``source`` (an address, perhaps) and ``language``."""

ATTRIBUTES_CHARS = 32_768
"""Of all attributes together, names and values."""

KEY_BYTES = 65_536
"""The key of a record is copied to each of its results."""

_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)
_JSON_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (type(None), "null"),
    (bool, "a boolean"),  # before the numbers: to Python it is one
    ((int, float), "a number"),
    (str, "a string"),
    (Mapping, "an object"),
    ((list, tuple), "an array"),
)


def decode(
    record: SourceRecord, value_format: ValueFormat, max_value_bytes: int, schema_for: SchemaFor | None = None
) -> ReviewEvent:
    """Decode the value of a record, which must not be null: a null value is dropped, not decoded.

    An event without an id of its own has that of a replay's header, else its coordinates. Raises BadInput ValueTooLarge
    (stage ``decode``) for more than ``max_value_bytes``, KeyTooLarge, HeadersTooLarge and InvalidHeader (``validate``),
    and as ``decode_value``.
    """
    value = record.value
    coordinates = f"{record.topic}-{record.partition}-{record.offset}"
    if value is None:
        raise ValueError(f"{coordinates} has a null value: count it as dropped, there is nothing to decode")
    if len(value) > max_value_bytes:
        what = f"the value has {len(value)} bytes, more than limits.value_bytes {max_value_bytes}; raise that limit"
        raise BadInput("decode", "ValueTooLarge", what)
    if record.key is not None and len(record.key) > KEY_BYTES:
        what = f"the key has {len(record.key)} bytes; at most {KEY_BYTES} are allowed, each result carries it"
        raise BadInput("validate", "KeyTooLarge", what)
    default_id = coordinates
    if record.headers:
        check_size(record.headers)
        default_id = default_event_id(record.headers) or coordinates
    return decode_value(value, value_format, default_id, schema_for)


def decode_value(
    value: bytes, value_format: ValueFormat, default_event_id: str, schema_for: SchemaFor | None = None
) -> ReviewEvent:
    """Decode a value whose fields are those of an event. Raises BadInput as ``read_value`` and ``event_from_fields``
    do.
    """
    fields = read_value(value, value_format, schema_for)
    if not isinstance(fields, dict):
        what = f"the JSON value of {len(value)} bytes is not an object; send an object with a field text"
        raise BadInput("validate", "InvalidEvent", what)
    return event_from_fields(fields, default_event_id)


def read_value(value: bytes, value_format: ValueFormat, schema_for: SchemaFor | None = None) -> Any:
    """What bytes hold: any JSON value (a byte order mark is skipped), bare text under ``text``, or an Avro record.

    ``schema_for`` gives the writer schema of an id; without it, Avro values are bare data. Raises BadInput InvalidUtf8,
    and as ``parse_json`` and ``avro_codec.decode_avro`` do.
    """
    if value_format == "text":
        return {"text": utf8(value)}
    if value_format == "json":
        return parse_json(utf8(value).removeprefix("\ufeff"))
    # Not at the top: a worker without Avro topics should not load the Avro library.
    from consumer.codecs.avro_codec import decode_avro

    return decode_avro(value, schema_for)


def utf8(value: bytes) -> str:
    """Decode strictly. Raises BadInput InvalidUtf8 (stage ``decode``) with the position of the first bad byte."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte {error.start} of {len(value)}; send UTF-8, or set the route's format to what is sent"
        raise BadInput("decode", "InvalidUtf8", what) from None


def parse_json(text: str) -> Any:
    """Parse one JSON value, as the standard has it. Of a key given twice the last wins; NaN and Infinity are refused.

    Raises BadInput with stage ``decode``: InvalidJson with the position, or JsonTooDeep. The message never quotes the
    value.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg.split(':')[0]} at character {error.pos} of {len(text)}; send one JSON value"
        raise BadInput("decode", "InvalidJson", what) from None
    except RecursionError:
        what = f"JSON of {len(text)} characters nests too deep to be read; flatten it"
        raise BadInput("decode", "JsonTooDeep", what) from None
    except ValueError:
        # What is left: an integer with more digits than Python converts, and _refuse.
        what = "not JSON: it holds NaN, Infinity or an integer of thousands of digits; send null or a shorter number"
        raise BadInput("decode", "InvalidJson", what) from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def event_from_fields(fields: Mapping[str, Any], default_event_id: str) -> ReviewEvent:
    """Check decoded fields. Unknown ones are ignored; optional ones may be missing or null.

    An empty ``event_id`` counts as missing and an empty ``tasks`` as no choice. ``schema`` may be an object or its JSON
    text. Raises BadInput with stage ``validate``: MissingText, EmptyText, InvalidEvent (a field of the wrong type),
    FieldTooLong, InvalidSchema or SchemaTooDeep.
    """
    text = _text(fields, "text")
    if text is None:
        raise BadInput("validate", "MissingText", "the event has no text; set its field text to the review")
    attributes, event_id = _attributes(fields), _text(fields, "event_id", EVENT_ID_CHARS)
    if not text.strip():
        what = f"the text of {len(text)} characters is empty or only white space; send reviews that say something"
        raise BadInput("validate", "EmptyText", what)
    return ReviewEvent(
        event_id=event_id or default_event_id,
        text=text,
        tasks=_tasks(fields),
        schema=_schema(fields),
        kind=_kind(fields),
        product_id=_text(fields, "product_id", FIELD_CHARS),
        source=_text(fields, "source", FIELD_CHARS),
        language=_text(fields, "language", FIELD_CHARS),
        created_at=_created_at(fields),
        attributes=attributes,
    )


def _field(fields: Mapping[str, Any], name: str, types: type | tuple[type, ...], wanted: str) -> Any:
    """A field's value, None when it is missing or null. Raises BadInput InvalidEvent when it is of another type."""
    value = fields.get(name)
    # No field takes a boolean, which to Python is an int.
    if value is not None and (isinstance(value, bool) or not isinstance(value, types)):
        raise _wrong_type(name, value, wanted)
    return value


def _wrong_type(name: str, value: object, wanted: str) -> BadInput:
    kinds = (name for types, name in _JSON_TYPES if isinstance(value, types))
    what = f"field {name} is {next(kinds, f'of type {type(value).__name__}')}, but must be {wanted}"
    return BadInput("validate", "InvalidEvent", what)


def _mended(text: str) -> str:
    """Half of a surrogate pair, as text cut at a UTF-16 unit leaves it, cannot be written as UTF-8.

    One replacement character for each keeps every offset where it was.
    """
    return _SURROGATE.sub("\ufffd", text)


def _text(fields: Mapping[str, Any], name: str, most: int | None = None) -> str | None:
    value: str | None = _field(fields, name, str, "a string")
    if value is not None and most is not None and len(value) > most:
        raise _too_long(f"field {name} has {len(value)} characters", most)
    return None if value is None else _mended(value)


def _too_long(what: str, most: int) -> BadInput:
    return BadInput("validate", "FieldTooLong", f"{what}; at most {most} are allowed, each result repeats them")


def _tasks(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = _field(fields, "tasks", (list, tuple), "an array of task names") or ()
    for index, task in enumerate(value):
        if not isinstance(task, str):
            raise _wrong_type(f"tasks[{index}]", task, "a string")
    tasks = tuple(dict.fromkeys(map(_mended, value)))
    if len(tasks) > MAX_TASKS:
        what = f"field tasks names {len(tasks)} tasks, more than {MAX_TASKS}; send several events"
        raise BadInput("validate", "InvalidEvent", what)
    return tasks or None


def _schema(fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
    value = fields.get("schema")
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except BadInput as error:
            raise BadInput("validate", "InvalidSchema", f"field schema: {error.message}") from None
    if not isinstance(value, Mapping):
        raise _wrong_type("schema", value, "an object of type names")
    try:
        return _mended_tree(value)
    except RecursionError:
        raise BadInput("validate", "SchemaTooDeep", "field schema nests too deep to be read; flatten it") from None


def _mended_tree(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    return {_mended(key): _mended_tree(item) if isinstance(item, Mapping) else item for key, item in tree.items()}


def _kind(fields: Mapping[str, Any]) -> TaskKind:
    kind: TaskKind | None = fields.get("kind")
    if kind is not None and kind not in _KINDS:
        raise _wrong_type("kind", kind, f"one of the strings {', '.join(_KINDS)}")
    return kind or "extract"


def _created_at(fields: Mapping[str, Any]) -> int | None:
    value: int | None = _field(fields, "created_at", int, "a whole number of milliseconds since 1970")
    if value is not None and value not in _INT64:
        what = "field created_at is a number of more than 64 bits; send milliseconds"
        raise BadInput("validate", "InvalidEvent", what)
    return value


def _attributes(fields: Mapping[str, Any]) -> dict[str, str]:
    attributes = _field(fields, "attributes", Mapping, "an object with string values") or {}
    for number, item in enumerate(attributes.values(), 1):
        if not isinstance(item, str):
            # By number: the name may be any text, a review's too.
            raise _wrong_type(f"attributes (value {number})", item, "a string")
    characters = sum(len(key) + len(item) for key, item in attributes.items())
    if characters > ATTRIBUTES_CHARS:
        raise _too_long(f"the {len(attributes)} attributes have {characters} characters", ATTRIBUTES_CHARS)
    return {_mended(key): _mended(item) for key, item in attributes.items()}
