"""The fields of a review event, checked in one place for every format that has fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn, get_args

from consumer.events import BadInput, ReviewEvent, TaskKind

# JSON as its standard has it, with every way to fail turned into bad input.


def parse_json(text: str) -> Any:
    """Parse one JSON value. Of a key given twice the last wins; NaN and Infinity are refused.

    Raises BadInput with stage ``decode``: InvalidJson with the position, or JsonTooDeep. The message never quotes.
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


MAX_TASKS = 64
"""Tasks one event may name. Every unknown one becomes a dead letter with the whole value in it, so the number that a
stranger's record can cause must be bounded."""

_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)


def event_from_fields(fields: Mapping[str, Any], default_event_id: str) -> ReviewEvent:
    """Check decoded fields. Unknown ones are ignored; optional ones may be missing or null.

    An empty ``event_id`` counts as missing and an empty ``tasks`` as no choice. ``schema`` may be an object or its JSON
    text. Raises BadInput with stage ``validate``: MissingText, EmptyText, InvalidEvent (a field of the wrong type) or
    InvalidSchema.
    """
    text = _text(fields, "text")
    if text is None:
        raise BadInput("validate", "MissingText", "the event has no text; set its field text to the review")
    attributes = _attributes(fields)
    return ReviewEvent(
        event_id=_text(fields, "event_id") or default_event_id,
        text=checked_text(text),
        tasks=_tasks(fields),
        schema=_schema(fields),
        kind=_kind(fields),
        product_id=_text(fields, "product_id"),
        source=_text(fields, "source"),
        language=_text(fields, "language"),
        created_at=_created_at(fields),
        attributes=attributes,
    )


def checked_text(text: str) -> str:
    """The review, or BadInput EmptyText when it holds nothing but white space."""
    if not text.strip():
        what = f"the text of {len(text)} characters is empty or only white space; send reviews that say something"
        raise BadInput("validate", "EmptyText", what)
    return text


def _wrong_type(name: str, value: object, wanted: str) -> BadInput:
    return BadInput("validate", "InvalidEvent", f"field {name} is {_json_type(value)}, but must be {wanted}")


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"


def _mended(text: str) -> str:
    """Half of a surrogate pair, as text cut at a UTF-16 unit leaves it, cannot be written as UTF-8.

    One replacement character for each keeps every offset where it was.
    """
    return _SURROGATE.sub("\ufffd", text)


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong_type(name, value, "a string")
    return _mended(value)


def _tasks(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = fields.get("tasks")
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise _wrong_type("tasks", value, "an array of task names")
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
    value = fields.get("kind")
    if value is None:
        return "extract"
    for kind in _KINDS:
        if value == kind:
            return kind
    raise _wrong_type("kind", value, f"one of the strings {', '.join(_KINDS)}")


def _created_at(fields: Mapping[str, Any]) -> int | None:
    value = fields.get("created_at")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type("created_at", value, "a whole number of milliseconds since 1970")
    if value not in _INT64:
        raise BadInput(
            "validate", "InvalidEvent", "field created_at is a number of more than 64 bits; send milliseconds"
        )
    return value


def _attributes(fields: Mapping[str, Any]) -> dict[str, str]:
    value = fields.get("attributes")
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong_type("attributes", value, "an object with string values")
    for number, item in enumerate(value.values()):
        if not isinstance(item, str):
            # By number: the name may be anything that a stranger wrote.
            raise _wrong_type(f"attributes (value {number + 1})", item, "a string")
    return {_mended(key): _mended(item) for key, item in value.items()}


# Values that are the review itself.


def decode_text(value: bytes, default_event_id: str) -> ReviewEvent:
    """The whole value as the review. Raises BadInput: InvalidUtf8 (stage ``decode``), EmptyText (``validate``)."""
    return ReviewEvent(event_id=default_event_id, text=checked_text(utf8(value)))


def utf8(value: bytes) -> str:
    """Decode strictly. Raises BadInput InvalidUtf8 with the position of the first bad byte."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte {error.start} of {len(value)}; send UTF-8, or set the route's format to what is sent"
        raise BadInput("decode", "InvalidUtf8", what) from None


# Review events as JSON objects.


def decode_json(value: bytes, default_event_id: str) -> ReviewEvent:
    """Decode a UTF-8 JSON object; a byte order mark is skipped.

    Raises BadInput: InvalidUtf8, InvalidJson or JsonTooDeep (stage ``decode``), and those of ``event_from_fields``.
    """
    fields = parse_json(utf8(value).removeprefix("\ufeff"))
    if not isinstance(fields, dict):
        what = f"the JSON value of {len(value)} bytes is not an object; send an object with a field text"
        raise BadInput("validate", "InvalidEvent", what)
    return event_from_fields(fields, default_event_id)
