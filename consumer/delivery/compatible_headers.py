"""What is said of a failure in the header names of Kafka Connect and of Spring, for tools that know those.

Sources: Connect's ``DeadLetterQueueReporter`` (KIP-298), Spring's ``DeadLetterPublishingRecoverer``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.delivery.dead_letters import Failure
    from consumer.events import SourceRecord, Stage

CompatibleSet = Literal["connect", "spring", "none"]

CONNECT = "__connect.errors."
SPRING = "kafka_dlt-"

_CONNECT_STAGES: Mapping[Stage, str] = {
    "decode": "VALUE_CONVERTER",
    "validate": "TRANSFORMATION",
    "extract": "TASK_PUT",
    "produce": "KAFKA_PRODUCE",
}
"""Connect's own stages, the nearest one for each of ours."""

_CONNECT_TASK = "0"
"""Connect numbers the tasks of a connector; the workers of a group have no numbers."""

_NO_TIMESTAMP = -1
"""``ConsumerRecord.NO_TIMESTAMP``."""


def compatible_headers(chosen: CompatibleSet, record: SourceRecord, failure: Failure, group: str) -> dict[str, bytes]:
    """The chosen set for ``record``; none for ``none``. What is unknown has no header."""
    if chosen == "connect":
        return _connect(record, failure, group)
    return _spring(record, failure, group) if chosen == "spring" else {}


def _connect(record: SourceRecord, failure: Failure, group: str) -> dict[str, bytes]:
    """All values are text. The group takes the place of the connector, the failure's class that of the failing one."""
    said = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "connector.name": group,
        "task.id": _CONNECT_TASK,
        "stage": _CONNECT_STAGES[failure.stage],
        "class.name": failure.reason,
        "exception.class.name": failure.exception,
        "exception.message": failure.message,
        "exception.stacktrace": failure.stack_trace,
    }
    return {CONNECT + name: value.encode() for name, value in said.items() if value is not None}


def _spring(record: SourceRecord, failure: Failure, group: str) -> dict[str, bytes]:
    """Numbers are binary, big-endian: the partition an int32, offset and timestamp int64."""
    timestamp = _NO_TIMESTAMP if record.timestamp_ms is None else record.timestamp_ms
    kind = "LogAppendTime" if record.log_append_time else "CreateTime"
    said = {
        "original-topic": record.topic.encode(),
        "original-partition": record.partition.to_bytes(4, "big", signed=True),
        "original-offset": record.offset.to_bytes(8, "big", signed=True),
        "original-timestamp": timestamp.to_bytes(8, "big", signed=True),
        "original-timestamp-type": b"NoTimestampType" if record.timestamp_ms is None else kind.encode(),
        "original-consumer-group": group.encode(),
        "exception-fqcn": failure.exception and failure.exception.encode(),
        "exception-cause-fqcn": failure.cause and failure.cause.encode(),
        "exception-message": failure.message.encode(),
        "exception-stacktrace": failure.stack_trace and failure.stack_trace.encode(),
    }
    return {SPRING + name: value for name, value in said.items() if isinstance(value, bytes)}
