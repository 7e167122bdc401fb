"""Trace context of results."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from consumer.codecs.outputs import continue_trace, result_headers
from consumer.extraction.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TASK = Task("task", "extract", {"a": None})


def counted() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda size: bytes(itertools.islice(numbers, size))


SPAN, STARTED = bytes(range(1, 9)).hex(), bytes(range(9, 25)).hex()
"""What comes of ``counted``."""


def test_a_trace_is_continued_with_a_new_span() -> None:
    """Trace id and flags stay, the span id is this worker's."""
    trace = continue_trace([("a", b"b"), ("traceparent", f"00-{TRACE}-{PARENT}-01".encode())], counted())
    assert trace.traceparent == f"00-{TRACE}-{SPAN}-01"
    assert trace.continued


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        f"00-{TRACE}-{PARENT}".encode(),
        f"00-{TRACE.upper()}-{PARENT}-01".encode(),
        f"00-{'0' * 32}-{PARENT}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"ff-{TRACE}-{PARENT}-01".encode(),
        f"00-{TRACE}-{PARENT}-01-extra".encode(),
        f"00-{TRACE}-{PARENT}-01\n".encode(),
        b"\xff\xfe",
    ],
)
def test_a_broken_traceparent_starts_a_new_trace(value: bytes | None) -> None:
    """What breaks the standard is as good as nothing."""
    trace = continue_trace([("traceparent", value)], counted())
    assert trace.traceparent == f"00-{STARTED}-{SPAN}-00"
    assert not trace.continued


def test_without_a_traceparent_a_trace_starts() -> None:
    """Every result has a traceparent, and it is the only header that its trace adds: no tracestate without a parent."""
    trace = continue_trace([], counted())
    assert not trace.continued
    headers = result_headers((("tracestate", b"of=nobody"), ("a", b"b")), TASK, "id", trace)
    assert [value for name, value in headers if name == "traceparent"] == [f"00-{STARTED}-{SPAN}-00".encode()]
    assert "tracestate" not in dict(headers)


def test_two_different_traceparents_count_as_none() -> None:
    """Nobody can say which of two parents is the right one; the same one twice is no doubt."""
    first, second = f"00-{TRACE}-{PARENT}-01".encode(), f"00-{TRACE}-{'1' * 16}-01".encode()
    assert not continue_trace([("traceparent", first), ("traceparent", second)], counted()).continued
    assert continue_trace([("traceparent", first), ("Traceparent", first)], counted()).continued


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """A version from the future keeps its trace, and only the sampled flag."""
    trace = continue_trace([("traceparent", f"cc-{TRACE}-{PARENT}-ff-what-comes".encode())], counted())
    assert trace.traceparent == f"00-{TRACE}-{SPAN}-01"
