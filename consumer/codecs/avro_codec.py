"""Avro values: what a record of a producer holds, and results.

A value is read with the schema that it was written with: its fields count, whatever the producer's record is called.
With a schema registry that schema has an id, in front of the value (Confluent's frame: a zero byte and four bytes, big-
endian) or in the header ``SCHEMA_ID``. Without one, values are bare data of the shipped schemas. Only what reads or
writes Avro imports this module, since it loads fastavro.
"""

from __future__ import annotations

import io
import json
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import fastavro
from fastavro._read_py import schemaless_reader as schemaless_reader_in_python

from consumer.codecs.avro_logical import TooManyValues, allow
from consumer.codecs.avro_schemas import JSON_PAYLOAD, VALUE, WriterSchema, event_schema
from consumer.codecs.control_headers import last_value
from consumer.config.shipped import shipped
from consumer.events import BadInput

if TYPE_CHECKING:
    from consumer.events import Header

SchemaId = int | str
"""A schema's number in its registry, or its GUID as text: the same in every registry."""

SchemaFor = Callable[[SchemaId], WriterSchema]
"""Writer schema by id. Raises LookupError for an id that the registry does not know."""

SCHEMA_ID = "__value_schema_id"
"""Header of values without a frame: 0 and the id in four bytes, or 1 and the GUID in sixteen."""

UNPACKED_BYTES = 33_554_432
"""Memory that decimals, times, and records, arrays and maps within arrays may take, of a datum of up to 1 MiB; of a
larger one, 32 times its size. One byte may be a record, and a million of them are 200 MB."""

_FRAME = struct.Struct(">bI")

_FAULTS: dict[type[Exception], str] = {
    EOFError: "too few bytes",
    IndexError: "too few bytes, or a branch or symbol that it does not have,",
    UnicodeDecodeError: "a string that is not UTF-8",
    RecursionError: "records nest too deep",
}
"""What fastavro's errors mean."""


def decode_avro(
    value: bytes,
    schema_for: SchemaFor | None,
    headers: Sequence[Header],
    parse_json: Callable[[bytes], Any],
) -> Any:
    """What a value holds: as a rule a record as a dict with the producer's names of its fields, and with those of
    events where an alias says so. Times are ``Milliseconds``; decimals, UUIDs and enums are text.

    With ``schema_for`` None the value is a bare datum of the shipped event schema. ``parse_json`` reads values whose id
    is that of a JSON Schema. Raises BadInput (stage ``decode``): InvalidFraming, UnknownSchemaId, InvalidAvro or
    AvroTooLarge, and what ``parse_json`` does. What ``schema_for`` raises besides LookupError passes through.
    """
    if schema_for is None:
        try:
            return read_datum(value, event_schema())
        except BadInput as bad:
            from consumer.codecs.frames import no_bare_datum

            raise no_bare_datum(value, headers, bad) from None
    number, start = located(value, headers)
    try:
        writer = schema_for(number)
    except LookupError:
        raise unknown_schema(number) from None
    payload = value[start:]
    return parse_json(payload) if writer is JSON_PAYLOAD else read_datum(payload, writer)


def encode_avro(fields: Mapping[str, Any], number: int | None) -> bytes:
    """Encode a result's fields with the shipped result schema.

    With the id that a registry gave the schema, in Confluent's wire format; with None, as a bare datum.
    """
    out = io.BytesIO()
    fastavro.schemaless_writer(out, result_schema(), dict(fields))
    return out.getvalue() if number is None else _FRAME.pack(0, number) + out.getvalue()


def schema_id(value: bytes, headers: Sequence[Header] = ()) -> SchemaId:
    """The id of the schema that a value was written with, without decoding it, so that it can be fetched first.

    Raises BadInput InvalidFraming (stage ``decode``).
    """
    return located(value, headers)[0]


def located(value: bytes, headers: Sequence[Header]) -> tuple[SchemaId, int]:
    """The id of a value's schema, and where in the value its datum starts. Raises BadInput InvalidFraming."""
    if headers and (content := last_value(headers, SCHEMA_ID)) is not None:
        return _header_id(content), 0
    if len(value) >= _FRAME.size and value[0] == 0:
        return int(_FRAME.unpack_from(value)[1]), _FRAME.size
    # Not at the top: only what cannot be read is looked at so closely.
    from consumer.codecs.frames import no_confluent_frame

    raise no_confluent_frame(value, headers)


def _header_id(content: bytes) -> SchemaId:
    if len(content) == 5 and content[0] == 0:
        return int(_FRAME.unpack(content)[1])
    if len(content) == 17 and content[0] == 1:
        return str(uuid.UUID(bytes=content[1:]))
    what = f"header {SCHEMA_ID} has {len(content)} bytes that are no schema id"
    raise BadInput("decode", "InvalidFraming", f"{what}; send 0 and an id of four bytes, or 1 and a GUID of sixteen")


def unknown_schema(number: SchemaId) -> BadInput:
    """The error of a value whose schema the registry does not have: UnknownSchemaId (stage ``decode``)."""
    fix = "register the producer's schema or ask it for its registry"
    if number == 0:
        fix = "registries count from 1, but Apicurio's frame may have eight bytes: have its serializer write four"
    return BadInput("decode", "UnknownSchemaId", f"the registry has no schema {number}; {fix}")


@cache
def result_schema() -> dict[str, Any]:
    """The shipped schema of results, as fastavro parsed it. Times are written as the numbers that they are."""
    parsed: Any = fastavro.parse_schema(
        _physical(json.loads(shipped("schemas/avro/extraction_result.avsc").read_text(encoding="utf-8")))
    )
    return dict(parsed)


def _physical(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _physical(item) for key, item in schema.items() if key != "logicalType"}
    return [_physical(item) for item in schema] if isinstance(schema, list) else schema


def read_datum(datum: bytes, writer: WriterSchema) -> Any:
    """What a datum without a frame holds. Raises BadInput (stage ``decode``) InvalidAvro or AvroTooLarge."""
    stream = io.BytesIO(datum)
    # The compiled reader has no bound on nesting: a megabyte of it overflows the stack, which ends the process.
    read = schemaless_reader_in_python if writer.is_deep else fastavro.schemaless_reader
    most = max(UNPACKED_BYTES, 32 * len(datum))
    allow(most)
    try:
        found: Any = read(stream, writer.parsed, None)
    except TooManyValues:
        what = f"the datum of {len(datum)} bytes unpacks to more than {most}, most of it tiny records, arrays or times"
        raise BadInput("decode", "AvroTooLarge", f"{what}; send several events") from None
    except Exception as error:
        # fastavro documents no set of errors: whatever it raises here is caused by the bytes.
        why = _FAULTS.get(type(error), type(error).__name__)
        what = f"not Avro of its schema: {why} at byte {stream.tell()} of {len(datum)}"
        raise BadInput("decode", "InvalidAvro", f"{what}; check which schema the producer writes") from None
    if rest := len(datum) - stream.tell():
        what = f"{rest} bytes of {len(datum)} are left behind the datum; check which schema the producer writes"
        raise BadInput("decode", "InvalidAvro", what)
    return found[VALUE]
