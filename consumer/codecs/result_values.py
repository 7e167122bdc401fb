"""Results as their topics hold them, read back in every format that workers write.

How a value begins says which it is: JSON with a brace, Confluent's frame with a zero, a bare Avro result with the
length of its ``result_id``. So a topic may hold several, as one does whose route got another ``output_format``. Avro is
loaded with the first value in it.
"""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import TYPE_CHECKING, Any

from consumer.config.shipped import shipped
from consumer.events import BadInput

if TYPE_CHECKING:
    from consumer.codecs.avro_codec import SchemaFor
    from consumer.codecs.avro_schemas import WriterSchema

_FRAME = struct.Struct(">bI")
_BARE = b"\x80\x01"
"""Avro's length of a text of 64 bytes, such as a ``result_id``."""


def read_result(value: bytes, schema_for: SchemaFor | None) -> Any:
    """What a value holds, a mapping with the fields of a result as a rule; None for what no worker writes.

    ``schema_for`` gives the schema of a frame's id; None without a registry. Raises BadInput (stage ``decode``) for a
    result that cannot be read here: UnknownSchemaId, NotAvroSchema, InvalidAvro or AvroTooLarge, and InvalidFraming for
    a frame without a registry. What ``schema_for`` raises besides LookupError passes through.
    """
    if (number := framed_with(value)) is not None:
        if schema_for is None:
            what = f"Confluent frame, schema id {number}, and kafka.registry.url is missing"
            raise BadInput("decode", "InvalidFraming", f"{what}; set it to the registry that the workers use")
        from consumer.codecs.avro_codec import decode_avro

        try:
            return decode_avro(value, schema_for, (), json.loads)
        except (ValueError, RecursionError):
            return None
    if value.startswith(_BARE):
        from consumer.codecs.avro_codec import read_datum

        return read_datum(value, _result_writer())
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def framed_with(value: bytes | None) -> int | None:
    """The id of the schema in a value's Confluent frame; None where it has none."""
    return int(_FRAME.unpack_from(value)[1]) if value and not value[0] and len(value) >= _FRAME.size else None


@cache
def _result_writer() -> WriterSchema:
    """The shipped schema of results, which bare data are written with."""
    from consumer.codecs.avro_schemas import parse_writer_schema

    return parse_writer_schema(shipped("schemas/avro/extraction_result.avsc").read_text(encoding="utf-8"))
