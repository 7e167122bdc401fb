"""Avro data in Confluent's frame, and results read back, for tests of the codecs; the frame knows nothing of them."""

from __future__ import annotations

import io
import struct
from typing import Any

import fastavro

from consumer.codecs.avro_codec import result_schema, schema_id


def framed(datum: bytes, number: int) -> bytes:
    """The frame for schema ``number`` (unsigned 32-bit), then the datum."""
    return struct.pack(">bI", 0, number) + datum


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
