"""A record of an input topic to the review event in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.codecs.fields import decode_json, decode_text
from consumer.codecs.routing import event_id_of
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.codecs.avro_codec import ParsedSchema
    from consumer.config.tree import ValueFormat
    from consumer.events import ReviewEvent, SourceRecord


def decode(
    record: SourceRecord,
    value_format: ValueFormat,
    max_value_bytes: int,
    schema_for: Callable[[int], ParsedSchema] | None = None,
) -> ReviewEvent:
    """Decode the value of a record, which must not be null: a null value is dropped, not decoded.

    ``schema_for`` gives the writer schema of an id (see ``avro_codec.SchemaFor``); without it, Avro values are bare
    data. An event without an id of its own has that of a replay's header, else its coordinates. Raises BadInput of
    stage ``decode`` or ``validate``, and whatever ``schema_for`` raises besides LookupError.
    """
    value = record.value
    if value is None:
        raise ValueError(f"{_coordinates(record)} has a null value: count it as dropped, there is nothing to decode")
    if len(value) > max_value_bytes:
        what = f"the value has {len(value)} bytes, more than limits.value_bytes {max_value_bytes}; raise that limit"
        raise BadInput("decode", "ValueTooLarge", what)
    return _decode(value, value_format, event_id_of(record.headers) or _coordinates(record), schema_for)


def _coordinates(record: SourceRecord) -> str:
    return f"{record.topic}-{record.partition}-{record.offset}"


def _decode(
    value: bytes, value_format: ValueFormat, default_event_id: str, schema_for: Callable[[int], ParsedSchema] | None
) -> ReviewEvent:
    if value_format == "json":
        return decode_json(value, default_event_id)
    if value_format == "text":
        return decode_text(value, default_event_id)
    # Not at the top: a worker without Avro topics should not load the Avro library.
    from consumer.codecs import avro_codec

    if schema_for is None:
        return avro_codec.decode_bare_avro(value, default_event_id)
    return avro_codec.decode_avro(value, default_event_id, schema_for)
