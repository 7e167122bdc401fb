"""Avro values: fields of review events in, results out, and Confluent's frame around both.

The frame is a zero byte, then the schema's id in four bytes, big-endian, before the datum. With a schema registry every
value has it; without one, values are bare data of the shipped schemas. Only what reads or writes Avro imports this
module, since it loads fastavro.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import fastavro
from fastavro._read_py import schemaless_reader as schemaless_reader_in_python
from fastavro.read import SchemaResolutionError

from consumer.codecs.avro_shapes import MOST_NOTHINGS, holds_endless_nothings, holds_itself
from consumer.config.shipped import shipped
from consumer.events import BadInput

ParsedSchema = dict[str, Any] | list[Any] | str
"""A writer schema as ``parse_writer_schema`` returns it: as a rule a record, but unions and plain types are legal."""

_RECURSIVE = "__rexstream_recursive"
"""Key that marks a parsed schema with a type that holds itself."""

SchemaFor = Callable[[int], ParsedSchema]
"""Writer schema by id. Raises LookupError for an id that the registry does not know."""

_FRAME = struct.Struct(">bI")


def decode_avro(value: bytes, schema_for: SchemaFor | None) -> dict[str, Any]:
    """Fields of a value in Confluent's wire format, resolved against the shipped event schema.

    With ``schema_for`` None the value is a bare datum that was written with that schema. Raises BadInput (stage
    ``decode``): InvalidFraming, UnknownSchemaId, InvalidAvro or IncompatibleSchema. What ``schema_for`` raises besides
    LookupError passes through.
    """
    if schema_for is None:
        return _read(value, event_schema())
    number = schema_id(value)
    try:
        writer = schema_for(number)
    except LookupError:
        raise unknown_schema(number) from None
    return _read(value[_FRAME.size :], writer)


def encode_avro(fields: Mapping[str, Any], number: int | None) -> bytes:
    """Encode a result's fields with the shipped result schema.

    With the id that a registry gave the schema, in Confluent's wire format; with None, as a bare datum.
    """
    out = io.BytesIO()
    fastavro.schemaless_writer(out, result_schema(), dict(fields))
    return out.getvalue() if number is None else _FRAME.pack(0, number) + out.getvalue()


def schema_id(value: bytes) -> int:
    """The id of the schema that a value was written with, without decoding it, so that it can be fetched first.

    Raises BadInput InvalidFraming (stage ``decode``).
    """
    if len(value) < _FRAME.size:
        what = f"a value of {len(value)} bytes is too short for a schema id and Avro; send Confluent's wire format"
        raise BadInput("decode", "InvalidFraming", what)
    magic, number = _FRAME.unpack_from(value)
    if magic:
        what = (
            f"first byte is {value[0]}, but Confluent's wire format starts with 0; send that format, or remove"
            " kafka.registry.url when values are bare Avro"
        )
        raise BadInput("decode", "InvalidFraming", what)
    return int(number)


def unknown_schema(number: int) -> BadInput:
    """The error of a value whose schema the registry does not have: UnknownSchemaId (stage ``decode``)."""
    what = f"the registry has no schema {number}; register the producer's schema or ask it for its registry"
    return BadInput("decode", "UnknownSchemaId", what)


@cache
def event_schema() -> ParsedSchema:
    """The shipped schema of events, the reader's side of every decoding."""
    return parse_writer_schema(shipped("schemas/avro/review_event.avsc").read_text(encoding="utf-8"))


@cache
def result_schema() -> ParsedSchema:
    """The shipped schema of results."""
    return parse_writer_schema(shipped("schemas/avro/extraction_result.avsc").read_text(encoding="utf-8"))


def parse_writer_schema(text: str, named: dict[str, Any] | None = None) -> ParsedSchema:
    """Parse a schema's JSON text; ``named`` collects the types it defines, for the schemas that refer to them.

    Logical types are dropped: fields arrive as the numbers that were sent, and a timestamp outside the years 1 to 9999
    is no reason to fail. Raises ValueError for what is not an Avro schema.
    """
    named = {} if named is None else named
    try:
        parsed: ParsedSchema = fastavro.parse_schema(_physical(json.loads(text)), named_schemas=named)
        is_endless, is_recursive = holds_endless_nothings(parsed, named), holds_itself(named)
    except Exception as error:
        # fastavro looks fields up as it goes and lets KeyError, TypeError and others out.
        raise ValueError(f"not an Avro schema ({type(error).__name__})") from None
    if not parsed:
        raise ValueError("not an Avro schema (an empty union)")
    if is_endless:
        what = f"an array of items that take no bytes, or a record of more than {MOST_NOTHINGS} such"
        raise ValueError(f"it has {what}, and a few bytes can hold any number of those")
    if is_recursive:
        branches = [branch for branch in (parsed if isinstance(parsed, list) else [parsed]) if isinstance(branch, dict)]
        if not branches:  # names only, and a name cannot be marked
            raise ValueError("it takes a type that holds itself from another schema")
        for branch in branches:
            branch[_RECURSIVE] = True
    return parsed


def _physical(schema: Any) -> Any:
    if isinstance(schema, dict):
        # The default is data, and may hold any key.
        return {
            key: item if key == "default" else _physical(item) for key, item in schema.items() if key != "logicalType"
        }
    return [_physical(item) for item in schema] if isinstance(schema, list) else schema


class _Datum(io.BytesIO):
    """A stream that raises EOFError on a short read, where fastavro accepts missing bytes of a float or a fixed.

    Of an array that announces billions of items and holds none, fastavro would read every one.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size is None or len(found) != size:
            raise EOFError
        return found


def _read(datum: bytes, writer: ParsedSchema) -> dict[str, Any]:
    stream = _Datum(datum)
    # The compiled reader has no bound on nesting: a megabyte of it overflows the stack, which ends the process.
    deep = any(_RECURSIVE in branch for branch in (writer if isinstance(writer, list) else [writer]))
    read = schemaless_reader_in_python if deep else fastavro.schemaless_reader
    try:
        # Always a record, as the reader schema is one.
        fields: Any = read(stream, writer, event_schema())
    except SchemaResolutionError:
        what = "the producer's schema, or a null that it allows, does not fit schemas/avro/review_event.avsc"
        raise BadInput("decode", "IncompatibleSchema", f"{what}; compare the two") from None
    except Exception as error:
        # fastavro documents no set of errors: whatever it raises here is caused by the bytes.
        what = f"not Avro of its schema: {type(error).__name__} at byte {stream.tell()} of {len(datum)}"
        raise BadInput("decode", "InvalidAvro", f"{what}; check which schema the producer writes") from None
    if rest := len(datum) - stream.tell():
        what = f"{rest} bytes of {len(datum)} are left behind the datum; check which schema the producer writes"
        raise BadInput("decode", "InvalidAvro", what)
    return dict(fields)
