from __future__ import annotations

import sys
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, TIMESTAMP_NOT_AVAILABLE

from consumer.delivery.done_note import Done
from consumer.events import Partition
from consumer.kafka.consume.assignment import Assignment, source_record
from consumer.kafka.consume.membership import accepted

P, Q = Partition("in", 0), Partition("in", 1)


class Message:
    """What ``confluent_kafka.Message`` offers, filled by the test."""

    def __init__(self, headers: Any = None, timestamp: tuple[int, int] = (TIMESTAMP_CREATE_TIME, 77)) -> None:
        self._headers = headers
        self._timestamp = timestamp

    def topic(self) -> str:
        return "in"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 5

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


def record(message: Any) -> Any:
    return source_record(message, P, 3, 1.5)


def test_every_assignment_has_an_epoch_of_its_own() -> None:
    """Also of a partition that comes back."""
    assignment = Assignment()
    first = assignment.begin([P, Q])
    assert assignment.end([P]) == {P: first[P]}
    second = assignment.begin([P])
    assert len({*first.values(), *second.values()}) == 3
    assert assignment.epochs == {P: second[P], Q: first[Q]}
    assert assignment.end([Partition("other", 0)]) == {}


def test_only_an_offset_seen_in_this_epoch_goes_back() -> None:
    """Gaps go forward; a new epoch starts anywhere."""
    assignment = Assignment()
    assignment.begin([P])
    assert not assignment.goes_back(P, 0)
    assignment.reached(P, 11)
    assert not assignment.goes_back(P, 20)
    assert assignment.goes_back(P, 10)
    assignment.begin([P])
    assert not assignment.goes_back(P, 3)


def test_a_record_is_carried_as_it_is() -> None:
    """Headers as a list: repeated names, null values and bytes that are no text."""
    headers = [("a", None), ("a", b"\xff")]
    made = record(Message(headers))
    assert (made.topic, made.partition, made.offset, made.epoch) == ("in", 0, 5, 3)
    assert (made.key, made.value, made.headers, made.timestamp_ms) == (b"k", None, tuple(headers), 77)
    assert record(Message(timestamp=(TIMESTAMP_NOT_AVAILABLE, 0))).timestamp_ms is None


@pytest.mark.parametrize("error", [SystemError("returned a result with an exception set"), UnicodeError("no")])
def test_a_header_name_that_is_not_utf_8_does_not_end_the_worker(error: Exception) -> None:
    """The client raises a SystemError for it (2.16); the record goes on without its headers."""
    if isinstance(error, UnicodeError):
        error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert record(Message(error)).headers == ()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (b"CGMDv2:" + (3).to_bytes(4, sys.byteorder, signed=True) + b"group", True),
        (b"CGMDv2:" + (-1).to_bytes(4, sys.byteorder, signed=True) + b"group", False),
        (b"CGMDv2:\x01", None),
        (b"CGMDv3:" + (3).to_bytes(4, sys.byteorder), None),
        (object(), None),
    ],
)
def test_membership_is_read_from_the_group_metadata(metadata: object, expected: bool | None) -> None:
    """A client that writes it in another way leaves the question open."""
    assert accepted(metadata) is expected


@pytest.mark.parametrize(("kind", "by_broker"), [(TIMESTAMP_CREATE_TIME, False), (TIMESTAMP_LOG_APPEND_TIME, True)])
def test_a_record_says_whose_clock_its_timestamp_is(kind: int, by_broker: bool) -> None:
    """A dead letter passes it on."""
    assert record(Message(timestamp=(kind, 7))).log_append_time is by_broker


def test_what_is_done_is_passed_over_until_all_of_it_is_passed() -> None:
    """The record that is newer than the note is not: it came to a log that had lost its end."""
    assignment = Assignment()
    assignment.begin([P])
    assignment.pass_over(P, 4, Done((5, 8), (6, 9), 100))
    old: Any = Message(timestamp=(TIMESTAMP_CREATE_TIME, 100))
    new: Any = Message(timestamp=(TIMESTAMP_CREATE_TIME, 101))
    without: Any = Message(timestamp=(TIMESTAMP_NOT_AVAILABLE, 0))
    assert assignment.goes_back(P, 3)
    assert not assignment.goes_back(P, 4)
    found = [assignment.is_done(P, 4, old), assignment.is_done(P, 5, old), assignment.is_done(P, 6, new)]
    assert found == [False, True, False]
    assert not assignment.is_done(Q, 8, old)
    assert assignment.is_done(P, 8, without)
    assert P in assignment.done
    assert assignment.is_done(P, 9, old)
    assert assignment.done == {}, "it costs no record anything any more"


def test_what_is_done_belongs_to_one_epoch() -> None:
    """The next one reads its own note."""
    assignment = Assignment()
    for end in (assignment.end, assignment.begin):
        assignment.begin([P])
        assignment.pass_over(P, 4, Done((5,), (6,), 100))
        end([P])
        assert assignment.done == {}
