"""Dead letters: the original record as it was, and in its headers why it could not be processed.

Besides the project's own ``rexstream-dlq-*`` headers every dead letter carries the set of KIP-1191
(``__dlq.errors.*``) and, if configured, that of Kafka Connect or of Spring, for tools that know those. Sources:
Connect's ``DeadLetterQueueReporter`` (KIP-298), Spring's ``DeadLetterPublishingRecoverer``. Header values are UTF-8
text, but for numbers in Spring's set.

The event processor describes a failure (``Failure``, ``class_name``, ``stack_trace``) and makes the dead letter of it;
the producers make it smaller where its topic refuses its size. ``letters`` reads dead letters back.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from consumer.codecs.control_headers import EVENT_ID, REPLAY_COUNT, REPLAY_GROUP, last_value
from consumer.events import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.events import Header, SourceRecord, Stage


CompatibleSet = Literal["connect", "spring", "none"]
"""Whose headers are added, ``dead_letter.headers`` of the configuration."""

PREFIX = "rexstream-dlq-"
KIP_1191 = "__dlq.errors."
CONNECT = "__connect.errors."
SPRING = "kafka_dlt-"
ORIGINAL_TIMESTAMP = "rexstream-original-timestamp"
VALUE_OMITTED = PREFIX + "value-omitted"
HEADERS_OMITTED = PREFIX + "headers-omitted"
KEY_OMITTED = PREFIX + "key-omitted"
KEY_SHA256 = PREFIX + "key-sha256"
KEY_ADDED = PREFIX + "key-added"
DETAILS_OMITTED = PREFIX + "details-omitted"

DEFECT = "Defect"
"""The class of a failure that nobody foresaw: the record is kept, and a person has to look at the code."""

NO_TASK = "(no task)"
"""In place of names that no task can have: they may be anything, review text too. Without any a replay would run all
tasks of the event again."""

MESSAGE_BYTES = 2048
"""Longest message in a header, so that the message cannot make a dead letter too large for its topic."""

STACK_TRACE_BYTES = 4096
"""Longest stack trace in a header."""

MAX_DIGITS = 19
"""Digits of the largest 64-bit number: no longer number in a header was written by a worker."""

_FRAMES = 50
"""Most frames of a stack trace that are looked at: endless recursion has thousands."""

_CONNECT_STAGES: Mapping[Stage, str] = {
    "decode": "VALUE_CONVERTER",
    "validate": "TRANSFORMATION",
    "extract": "TASK_PUT",
    "produce": "KAFKA_PRODUCE",
}
"""Connect's own stages, the nearest one for each of ours."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one record, or one task of it, could not be processed. Times are milliseconds since 1970."""

    stage: Stage
    reason: str
    """A slug such as ``InvalidJson``: header ``class``, metric label."""
    message: str
    """Names the thing and the way out; never holds review text."""
    first_failed_at_ms: int
    exception: str | None = None
    """Qualified name of the exception's class."""
    cause: str | None = None
    """Qualified name of the class of the exception that it was raised from."""
    stack_trace: str | None = None
    attempts: int = 1
    task: str | None = None
    """None for an event that failed before its tasks were known; several names with commas between them."""
    task_count: int = 1
    """How many names ``task`` holds."""
    model: str | None = None
    model_version: str | None = None
    rows: str | None = None
    """Numbers of the rows that failed, of a record of several, as ``rexstream-only-rows`` has them."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Builds the dead letters of one worker."""

    topic: str
    group: str
    service_version: str
    compatible: CompatibleSet = "none"
    stack_traces: bool = False
    """Whether failures should bring a stack trace."""

    def of(self, record: SourceRecord, failure: Failure, now_ms: int) -> Output:
        """The dead letter of ``record``.

        The record's timestamp is kept; when it is missing, not positive or after ``now_ms`` (brokers refuse records
        from the future), ``now_ms`` takes its place and the original, if any, goes into a header.
        """
        failure = replace(failure, message=failure.message.encode()[:MESSAGE_BYTES].decode(errors="ignore"))
        timestamp = record.timestamp_ms
        clamped = timestamp is None or not 0 < timestamp <= now_ms
        added = self._headers(record, failure, now_ms)
        if clamped and timestamp is not None:
            added[ORIGINAL_TIMESTAMP] = str(timestamp).encode()
        added |= compatible_headers(self.compatible, record, failure, self.group)
        return Output(
            topic=self.topic,
            key=record.key,
            value=record.value,
            headers=(*_kept(record.headers, added), *added.items()),
            partition=record.partition,
            timestamp_ms=now_ms if clamped else timestamp,
        )

    def bare(self, record: SourceRecord, failure: Failure) -> Output:
        """A dead letter that holds nothing of ``record`` but its place, where ``of`` fails on what is in it.

        The record itself can be read at that place while its topic keeps it.
        """
        place = (record.topic, str(record.partition), str(record.offset))
        said = {
            **dict(zip((KIP_1191 + "topic", KIP_1191 + "partition", KIP_1191 + "offset"), place, strict=True)),
            KIP_1191 + "group": self.group,
            KIP_1191 + "message": failure.message,
            PREFIX + "id": "-".join(place if failure.task is None else (*place, failure.task)),
            PREFIX + "stage": failure.stage,
            PREFIX + "class": failure.reason,
            PREFIX + "stack-trace": failure.stack_trace or "",
            VALUE_OMITTED: str(len(record.value or b"")),
        }
        headers = tuple((name, value.encode(errors="replace")) for name, value in said.items())
        return Output(self.topic, None, None, headers, record.partition)

    def _headers(self, record: SourceRecord, failure: Failure, now_ms: int) -> dict[str, bytes]:
        place = f"{record.topic}-{record.partition}-{record.offset}"
        if failure.rows is not None:  # one for each reason, and each has rows and tasks of its own
            place += f"#{failure.stage}.{failure.reason}"
            if failure.stage == "produce" and failure.rows.isdigit():  # a result that its topic refuses
                place += f".{failure.rows}"
        kip_1191 = {
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "group": self.group,
            "delivery.count": str(failure.attempts),
            "message": failure.message,
        }
        own = {
            # Equal for every copy of one dead letter.
            "id": place if failure.task is None else f"{place}-{failure.task}",
            "stage": failure.stage,
            "class": failure.reason,
            "exception": failure.exception,
            "attempts": str(failure.attempts),
            "first-failed-at": _iso(failure.first_failed_at_ms),
            "failed-at": _iso(now_ms),
            "task": failure.task,
            "rows": failure.rows,
            "task-count": str(failure.task_count) if failure.task_count > 1 else None,
            "model": failure.model,
            "model-version": failure.model_version,
            "service-version": self.service_version,
            "replay-count": str(replay_count(record.headers, self.group)),
            "stack-trace": failure.stack_trace,
        }
        return _named(KIP_1191, kip_1191) | _named(PREFIX, own)


def replay_count(headers: Sequence[Header], group: str) -> int:
    """How often this record was replayed for ``group``, as its headers say; 0 unless they are those of such a replay.

    For readers only: anyone may write headers, so what a replay itself counts stands in its markers.
    """
    count = last_value(headers, REPLAY_COUNT) or b""
    if last_value(headers, EVENT_ID) is None or last_value(headers, REPLAY_GROUP) != group.encode():
        return 0
    # Python converts no number of thousands of digits.
    return int(count) if count.isdigit() and len(count) <= MAX_DIGITS else 0


def _kept(headers: Sequence[Header], added: Mapping[str, bytes]) -> tuple[Header, ...]:
    """The record's own headers, without those of an earlier dead letter, which would contradict the ones added now.

    Another set's headers on a record that was not replayed are someone else's and stay.
    """
    replayed = any(name == REPLAY_COUNT for name, _ in headers)
    return tuple(
        (name, value)
        for name, value in headers
        if not name.startswith(PREFIX)
        and not (replayed and name.startswith((KIP_1191, CONNECT, SPRING)))
        and not (name == ORIGINAL_TIMESTAMP and ORIGINAL_TIMESTAMP in added)
    )


def _named(prefix: str, values: Mapping[str, str | bytes | None]) -> dict[str, bytes]:
    """Headers whose names begin with ``prefix``, text as UTF-8. What is unknown (None) has no header."""
    return {
        prefix + name: value.encode() if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def compatible_headers(chosen: CompatibleSet, record: SourceRecord, failure: Failure, group: str) -> dict[str, bytes]:
    """The headers of the chosen compatible set for ``record``; empty for ``none``.

    Of Connect all values are text; the group takes the place of the connector, the failure's class that of the failing
    one. Spring's numbers are binary, big-endian: the partition an int32, offset and timestamp int64.
    """
    if chosen == "connect":
        connect = {
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "connector.name": group,
            "task.id": "0",  # Connect numbers the tasks of a connector; the workers of a group have no numbers
            "stage": _CONNECT_STAGES[failure.stage],
            "class.name": failure.reason,
            "exception.class.name": failure.exception,
            "exception.message": failure.message,
            "exception.stacktrace": failure.stack_trace,
        }
        return _named(CONNECT, connect)
    if chosen == "none":
        return {}
    timestamp = -1 if record.timestamp_ms is None else record.timestamp_ms  # ConsumerRecord.NO_TIMESTAMP
    kind = "LogAppendTime" if record.log_append_time else "CreateTime"
    spring = {
        "original-topic": record.topic,
        "original-partition": record.partition.to_bytes(4, "big", signed=True),
        "original-offset": record.offset.to_bytes(8, "big", signed=True),
        "original-timestamp": timestamp.to_bytes(8, "big", signed=True),
        "original-timestamp-type": "NoTimestampType" if record.timestamp_ms is None else kind,
        "original-consumer-group": group,
        "exception-fqcn": failure.exception,
        "exception-cause-fqcn": failure.cause,
        "exception-message": failure.message,
        "exception-stacktrace": failure.stack_trace,
    }
    return _named(SPRING, spring)


def class_name(error: BaseException | None) -> str | None:
    """The qualified name of an exception's class; None for no exception."""
    return None if error is None else f"{type(error).__module__}.{type(error).__qualname__}"


def stack_trace(error: BaseException, *, text: bool = True) -> str:
    """Frames of ``error`` and, with ``text``, what it says; of a long one the last 4 KiB, where it was raised.

    Leaves out the exceptions that it was raised from: a library's message may quote what it could not read, which is
    review text. So may what ``error`` itself says, where nobody foresaw it.
    """
    frames = "".join(traceback.format_tb(error.__traceback__, -_FRAMES))
    said = f"{class_name(error)}: {error}" if text else f"{class_name(error)}"
    return f"{frames}{said}".encode(errors="replace")[-STACK_TRACE_BYTES:].decode(errors="ignore")


def raised_in(error: BaseException) -> str:
    """``file.py:line (function)`` of the frame that raised ``error``."""
    last = traceback.extract_tb(error.__traceback__, -1)
    return f"{PurePath(last[0].filename).name}:{last[0].lineno} ({last[0].name})" if last else "code without a frame"
