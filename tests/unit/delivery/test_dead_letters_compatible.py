"""The sets of other systems, byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.delivery.dead_letters import CompatibleSet, Failure, compatible_headers
from consumer.events import SourceRecord

RECORD = SourceRecord("reviews.raw", 3, 4_294_967_298, 1, b"k", b"v", (), 1_760_000_000_000, 0.0)
FAILURE = Failure(
    "extract",
    "Poison",
    "nicht lösbar",
    1_760_000_000_001,
    exception="a.Refused",
    cause="b.Failed",
    stack_trace="line 1",
    attempts=5,
    task="sentiment",
)


def test_the_set_of_kafka_connect_is_text() -> None:
    """Every name of KIP-298, in Connect's own words."""
    assert compatible_headers("connect", RECORD, FAILURE, "group-1") == {
        "__connect.errors.topic": b"reviews.raw",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"4294967298",
        "__connect.errors.connector.name": b"group-1",
        "__connect.errors.task.id": b"0",
        "__connect.errors.stage": b"TASK_PUT",
        "__connect.errors.class.name": b"Poison",
        "__connect.errors.exception.class.name": b"a.Refused",
        "__connect.errors.exception.message": "nicht lösbar".encode(),
        "__connect.errors.exception.stacktrace": b"line 1",
    }


def test_the_set_of_spring_has_binary_numbers() -> None:
    """int32 and int64, big-endian, as Spring's recoverer writes and reads them."""
    assert compatible_headers("spring", RECORD, FAILURE, "group-1") == {
        "kafka_dlt-original-topic": b"reviews.raw",
        "kafka_dlt-original-partition": b"\x00\x00\x00\x03",
        "kafka_dlt-original-offset": b"\x00\x00\x00\x01\x00\x00\x00\x02",
        "kafka_dlt-original-timestamp": b"\x00\x00\x01\x99\xc8\x2c\xc0\x00",
        "kafka_dlt-original-timestamp-type": b"CreateTime",
        "kafka_dlt-original-consumer-group": b"group-1",
        "kafka_dlt-exception-fqcn": b"a.Refused",
        "kafka_dlt-exception-cause-fqcn": b"b.Failed",
        "kafka_dlt-exception-message": "nicht lösbar".encode(),
        "kafka_dlt-exception-stacktrace": b"line 1",
    }


@pytest.mark.parametrize(
    ("timestamp", "by_broker", "expected", "kind"),
    [
        (None, False, b"\xff" * 8, b"NoTimestampType"),
        (-1, False, b"\xff" * 8, b"CreateTime"),
        (7, True, b"\x00" * 7 + b"\x07", b"LogAppendTime"),
    ],
)
def test_spring_learns_the_kind_of_the_timestamp(
    timestamp: int | None, by_broker: bool, expected: bytes, kind: bytes
) -> None:
    """Java's NO_TIMESTAMP is -1, and its enum is written by its names."""
    said = compatible_headers(
        "spring", replace(RECORD, timestamp_ms=timestamp, log_append_time=by_broker), FAILURE, "g"
    )
    assert said["kafka_dlt-original-timestamp"] == expected
    assert said["kafka_dlt-original-timestamp-type"] == kind


@pytest.mark.parametrize("chosen", ["connect", "spring"])
def test_what_is_unknown_is_left_out(chosen: CompatibleSet) -> None:
    """No exception, no cause, no stack trace: no header, rather than one that says nothing."""
    bare = Failure("decode", "InvalidJson", "no JSON", 1)
    names = {name.rpartition("exception")[2] for name in compatible_headers(chosen, RECORD, bare, "g")}
    assert not {".class.name", ".stacktrace", "-fqcn", "-cause-fqcn", "-stacktrace"} & names


def test_none_adds_nothing() -> None:
    """The default."""
    assert compatible_headers("none", RECORD, FAILURE, "g") == {}
