"""Review events as JSON objects."""

from __future__ import annotations

from consumer.codecs.fields import event_from_fields
from consumer.codecs.strict_json import parse_json
from consumer.codecs.text_codec import utf8
from consumer.events import BadInput, ReviewEvent


def decode_json(value: bytes, default_event_id: str) -> ReviewEvent:
    """Decode a UTF-8 JSON object; a byte order mark is skipped.

    Raises BadInput: InvalidUtf8, InvalidJson or JsonTooDeep (stage ``decode``), and those of ``event_from_fields``.
    """
    fields = parse_json(utf8(value).removeprefix("\ufeff"))
    if not isinstance(fields, dict):
        what = f"the JSON value of {len(value)} bytes is not an object; send an object with a field text"
        raise BadInput("validate", "InvalidEvent", what)
    return event_from_fields(fields, default_event_id)
