"""Why a producer's Avro is no event: which field, of which record, of which type, and what it could be mapped from.

Runs only for a dead letter. Names and types of a schema are no review text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.codecs.avro_codec import located
from consumer.codecs.avro_schemas import JSON_PAYLOAD, branches, described, event_fields
from consumer.codecs.frames import no_bare_datum, varint
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.codecs.avro_codec import SchemaFor
    from consumer.codecs.avro_schemas import WriterSchema
    from consumer.events import Header

_NAMES_CHARS = 1500
"""Of a record's fields, how much is listed."""


def explained(
    bad: BadInput, read: Any, value: bytes, headers: Sequence[Header], schema_for: SchemaFor | None
) -> BadInput:
    """``bad``, or IncompatibleSchema (stage ``decode``) where the producer's schema is to blame: what was ``read`` from
    ``value`` has no text, or a field of another type than events have.
    """
    if schema_for is None:
        return no_bare_datum(value, headers, bad)
    if bad.reason not in ("MissingText", "InvalidEvent"):
        return bad
    number, start = located(value, headers)
    writer = schema_for(number)
    if writer is JSON_PAYLOAD:
        return bad
    branch = _branch(value[start:], writer)
    if not isinstance(read, dict) or not isinstance(branch, dict) or "fields" not in branch:
        what = f"the value, of schema {number}, is {described(branch)}, but must be a record with a field text"
        return BadInput("decode", "IncompatibleSchema", f"{what}; send a record")
    types = {field["name"]: field["type"] for field in branch["fields"]}
    record = described(branch)
    if isinstance(read.get("text"), bytes):
        what = f"field text of {record} of schema {number} is bytes that are not UTF-8; send UTF-8, or a string"
        return BadInput("decode", "InvalidUtf8", what)
    for name in ("text", "tasks", "schema"):
        wanted = described(event_fields()[name]["type"])
        if name not in read and name == "text":
            what = f"{record} of schema {number} has no field {name}, which must be {wanted}"
        elif read.get(name) is None or _fits(name, read[name]):
            continue
        else:
            found = described(types[name]) if name in types else "of another type, under an alias"
            what = f"field {name} of {record} of schema {number} is {found}, but must be {wanted}"
        names = ", ".join(types)
        names = names if len(names) <= _NAMES_CHARS else f"{names[:_NAMES_CHARS]}..."
        fix = f"its fields are {names}; name the one to read in the route's key fields, as in fields: {{{name}: NAME}}"
        if name != "text":
            fix = "with the route's key fields, as in fields: {text: text}, a producer's own is not read"
        return BadInput("decode", "IncompatibleSchema", f"{what}; {fix}")
    return bad


def _fits(name: str, value: object) -> bool:
    if name == "tasks":
        return isinstance(value, list) and all(isinstance(task, str) for task in value)
    return isinstance(value, str | bytes) or (name == "schema" and isinstance(value, dict))


def _branch(datum: bytes, writer: WriterSchema) -> Any:
    """The type that a datum is of, of those in a union the one that its first bytes name."""
    types = branches(writer)
    if not isinstance(writer.parsed["fields"][0]["type"], list):
        return types[0]
    return types[(varint(datum[:4], 0)[0] >> 1) % len(types)]
