"""Results as they are published: their fields, their bytes and their headers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.events import Header, ReviewEvent, SourceRecord
    from consumer.extraction.task import Extracted, Task


TASK = "rexstream-task"
RESULT_ID = "rexstream-result-id"

_VALUE_TYPE_HEADERS = frozenset(
    {
        "content-type",
        "contenttype",
        "content_type",
        "ce_datacontenttype",  # CloudEvents
        "__typeid__",  # Spring
        "__value_schema_id",  # Confluent
    }
)
"""Headers, in lower case, that tell how the value of the review is written, and would be wrong about the result's."""


@dataclass(frozen=True, slots=True)
class ModelUsed:
    """The model that answered every window of a result."""

    name: str
    version: str
    signature: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds. ``queued_ms`` is the time before the first model call, None where there is no queue."""

    queued_ms: float | None
    model_ms: float
    total_ms: float
    model_calls: int


def result_id(event_id: str, task: Task) -> str:
    """64 hex digits, equal for the same event, task name and schema: what consumers can deduplicate by."""
    canonical = json.dumps([event_id, task.name, task.fingerprint])
    return hashlib.sha256(canonical.encode()).hexdigest()


def result_fields(
    event: ReviewEvent,
    task: Task,
    extracted: Extracted,
    model: ModelUsed,
    timing: Timing,
    processed_at_ms: int,
    record: SourceRecord | None,
) -> dict[str, Any]:
    """The fields of an ``ExtractionResult``, made of JSON types; ``processed_at_ms`` counts from 1970.

    Without a record, outside Kafka, there is no ``record``; without a queue there is no ``queued_ms``.
    """
    fields: dict[str, Any] = {
        "result_id": result_id(event.event_id, task),
        "event_id": event.event_id,
        "task": task.name,
        "extractions": [[asdict(fact) for fact in path] for path in extracted.paths],
        "model": asdict(model),
    }
    if record is not None:
        fields["record"] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp_ms,
        }
    fields |= {
        "product_id": event.product_id,
        "source": event.source,
        "language": event.language,
        "created_at": event.created_at,
        "attributes": dict(event.attributes),
        "timing": {key: value for key, value in asdict(timing).items() if key != "queued_ms" or value is not None},
        "warnings": list(extracted.warnings),
        "processed_at": processed_at_ms,
    }
    return fields


def encode_json(fields: dict[str, Any]) -> bytes:
    """One line of UTF-8 JSON. Raises ValueError for a number that JSON cannot hold."""
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def result_headers(carried: Sequence[Header], task: str, identifier: str, trace: Trace) -> tuple[Header, ...]:
    """Headers of a result: the record's own, in order, then task, result id and traceparent.

    Not carried over are those that are set here, those that describe the value's format, and the tracestate of a trace
    that could not be continued (W3C Trace Context, section 3.3).
    """
    replaced = {TASK, RESULT_ID, TRACEPARENT} | ({TRACESTATE} if not trace.continued else set())
    kept = [(key, value) for key, value in carried if key.lower() not in replaced | _VALUE_TYPE_HEADERS]
    kept += [(TASK, task.encode()), (RESULT_ID, identifier.encode()), (TRACEPARENT, trace.traceparent.encode())]
    return tuple(kept)


# W3C trace context: one trace from the producer of a review to the reader of its results.

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
