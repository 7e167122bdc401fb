"""Values that are the review itself."""

from __future__ import annotations

from consumer.codecs.fields import checked_text
from consumer.events import BadInput, ReviewEvent


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
