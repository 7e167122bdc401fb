"""Avro data in Confluent's frame, and results read back, for tests of the codecs; the frame knows nothing of them."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro

from consumer.codecs.avro_codec import result_schema, schema_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.codecs.avro_codec import SchemaFor
    from consumer.codecs.avro_schemas import WriterSchema

_SHIPPED = Path(__file__).parents[2] / "schemas/avro"
EVENT_SCHEMA = (_SHIPPED / "review_event.avsc").read_text("utf-8")
RESULT_SCHEMA = (_SHIPPED / "extraction_result.avsc").read_text("utf-8")


def framed(datum: bytes, number: int) -> bytes:
    """The frame for schema ``number`` (unsigned 32-bit), then the datum."""
    return struct.pack(">bI", 0, number) + datum


def datum(schema: Any, value: Any) -> bytes:
    """A value as a producer with this schema writes it, without a frame; the schema as JSON text, or read from it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, json.loads(schema) if isinstance(schema, str) else schema, value)
    return out.getvalue()


def known(schemas: Mapping[Any, WriterSchema]) -> SchemaFor:
    """A registry that has these, and no others."""
    return dict(schemas).__getitem__


def decode_result(value: bytes, is_framed: bool) -> dict[str, Any]:
    """Fields of a result that ``encode_avro`` wrote; also that nothing is left behind it.

    Raises BadInput for a frame that is none, EOFError for a datum that ends too early.
    """
    if is_framed:
        schema_id(value)
        value = value[5:]
    stream = io.BytesIO(value)
    fields: Any = fastavro.schemaless_reader(stream, result_schema(), result_schema())
    assert stream.tell() == len(value)
    return dict(fields)
