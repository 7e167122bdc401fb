from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.transaction_size import LEAST_BYTES, SLOW_SHARE, TransactionSize

TIMEOUT = 15.0
MOST, BYTES = 1000, 8_388_608
SIZES = st.lists(st.integers(0, 2_000_000), max_size=60)


def at_most() -> TransactionSize:
    """One that has grown to what is configured."""
    size = TransactionSize(MOST, BYTES, TIMEOUT)
    size.records, size.bytes = MOST, BYTES
    return size


@given(SIZES, st.integers(1, MOST), st.integers(1, BYTES))
def test_what_is_taken_fits_both_bounds_and_is_never_nothing(sizes: list[int], records: int, most: int) -> None:
    """And no more would fit; only one record alone may have more bytes."""
    size = at_most()
    size.records, size.bytes = records, most
    taken = size.take(iter(sizes))
    assert taken <= records
    assert (taken > 0) == bool(sizes)
    assert taken <= 1 or sum(sizes[:taken]) <= most
    assert taken in (len(sizes), records) or sum(sizes[: taken + 1]) > most


@pytest.mark.no_cover  # simulates for long; others run the same lines
@given(st.floats(0.0001, 10.0), st.integers(1, 200_000))
def test_whatever_the_brokers_write_a_second_transactions_become_quick_enough_and_stay_so(
    seconds_a_megabyte: float, record: int
) -> None:
    """Halved at each failure, grown at each success: in the end the timeout is never missed, nor a third of it."""
    size, slow = at_most(), 0

    def seconds(records: int) -> float:
        return 0.01 + records * record * seconds_a_megabyte / 1e6

    for round_ in range(400):
        records = size.take([record] * MOST)
        took = seconds(records)
        if took > TIMEOUT:
            assert round_ < 20, "it is still too large after twenty halvings"
            size.halve(records, records * record)
            continue
        slow += took > SLOW_SHARE * TIMEOUT and round_ > 40
        size.committed(records, records * record, took)
        assert 1 <= size.records <= MOST
        assert LEAST_BYTES <= size.bytes <= BYTES
    assert slow == 0 or seconds(1) > SLOW_SHARE * TIMEOUT / 2
    # What is written at once is not kept small for ever.
    if seconds(MOST) < SLOW_SHARE * TIMEOUT / 2 and MOST * record < BYTES:
        assert size.records == MOST


def test_a_process_grows_from_a_sixteenth_to_all_in_few_transactions() -> None:
    """Where the brokers are quick a start costs nothing that can be seen."""
    size = TransactionSize(MOST, BYTES, TIMEOUT)
    seen = [size.bounds]
    while size.bounds != (MOST, BYTES):
        size.committed(size.records, size.bytes, 0.02)
        seen.append(size.bounds)
    assert seen[0] == (62, 524_288)
    assert len(seen) == 6


def test_a_bound_that_was_not_reached_does_not_grow() -> None:
    """Small transactions of a quiet worker say nothing about large ones."""
    size = TransactionSize(MOST, BYTES, TIMEOUT)
    for _ in range(100):
        size.committed(1, 1000, 0.02)
    assert size.bounds == (62, 524_288)


def test_after_a_failure_it_grows_slowly_unless_one_record_was_the_cause() -> None:
    """The next failure costs a transaction again."""
    size = at_most()
    size.halve(MOST, 1000)
    size.committed(500, 1000, 0.02)
    assert size.records == 563
    size.one_was_too_large()
    size.committed(563, 1000, 0.02)
    assert size.records == MOST


@pytest.mark.parametrize(("records", "size"), [(1, 10), (1, 1 << 40), (2, 100_000)])
def test_one_record_is_the_least(records: int, size: int) -> None:
    """However often it fails."""
    bounds = at_most()
    for _ in range(50):
        bounds.halve(records, size)
    assert bounds.records == 1
    assert bounds.take([1 << 40, 1]) == 1
