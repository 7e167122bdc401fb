from __future__ import annotations

import tracemalloc

import pytest

from consumer.events import Header, Output, SourceRecord


@pytest.mark.parametrize("value", [b"", None, b"v" * 40])
def test_a_record_counts_what_its_headers_take(value: bytes | None) -> None:
    """Names as well, and what each header is kept in: tens of thousands fit into a record that is small in Kafka."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        headers: tuple[Header, ...] = tuple(
            (f"{number:x}", value and bytes(value[:-1]) + b"v") for number in range(50_000)
        )
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    record = SourceRecord("in", 0, 1, 1, b"key", b"value", headers, 1000, 0.0)
    assert taken < record.size < 3 * taken
    assert Output("out", None, b"result", headers).held_bytes > taken
