"""Confluent's frame around an Avro datum: a zero byte, then the schema's id in four bytes, big-endian."""

from __future__ import annotations

import struct

from consumer.events import BadInput

_HEADER = struct.Struct(">bI")
MAGIC = 0


def schema_id(value: bytes) -> int:
    """The id of the schema that a value was written with, without decoding it, so that it can be fetched first.

    Raises BadInput InvalidFraming (stage ``decode``).
    """
    if len(value) < _HEADER.size:
        what = f"a value of {len(value)} bytes is too short for a schema id and Avro; send Confluent's wire format"
        raise BadInput("decode", "InvalidFraming", what)
    magic, number = _HEADER.unpack_from(value)
    if magic != MAGIC:
        what = (
            f"first byte is {value[0]}, but Confluent's wire format starts with 0; send that format, or remove"
            " kafka.registry.url when values are bare Avro"
        )
        raise BadInput("decode", "InvalidFraming", what)
    return int(number)


def unframed(value: bytes) -> bytes:
    """The datum behind the frame."""
    return value[_HEADER.size :]


def framed(datum: bytes, number: int) -> bytes:
    """Put the frame for schema ``number`` (unsigned 32-bit) before a datum."""
    return _HEADER.pack(MAGIC, number) + datum
