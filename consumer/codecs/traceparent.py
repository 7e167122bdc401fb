"""W3C trace context: one trace from the producer of a review to the reader of its results."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.events import Header

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

RandomBytes = Callable[[int], bytes]
"""Gives that many random bytes."""

_FORMAT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace. ``continued`` tells whether the record brought the trace or it starts here."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits: this worker's part."""
    flags: str
    """2 hex digits."""
    continued: bool

    @property
    def traceparent(self) -> str:
        """Header value, version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def continue_trace(headers: Sequence[Header], random_bytes: RandomBytes) -> Trace:
    """The trace of a record, with a new span id; a new trace when it brings none or one that breaks the standard.

    Source of the rules: W3C Trace Context, section 3.2. Two different ``traceparent`` headers count as none.
    """
    found = {value for key, value in headers if key.lower() == TRACEPARENT and value is not None}
    match = _FORMAT.fullmatch(found.pop()) if len(found) == 1 else None
    span_id = random_bytes(8).hex()
    if match is not None:
        version, trace_id, parent, flags, rest = match.groups()
        is_valid = (
            version != b"ff" and trace_id.strip(b"0") and parent.strip(b"0") and (rest is None or version != b"00")
        )
        if is_valid:
            # Of a later version only the flag that version 00 knows may be passed on.
            kept = flags.decode() if version == b"00" else f"{int(flags, 16) & 1:02x}"
            return Trace(trace_id.decode(), span_id, kept, continued=True)
    return Trace(random_bytes(16).hex(), span_id, "00", continued=False)
