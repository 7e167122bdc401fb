"""The embedded broker is never given more than it keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.local.partition_budget import PARTITION_BYTES, PartitionBudget, PartitionFull, partition_of, record_size


def test_a_record_that_just_fits_is_the_last_one() -> None:
    """The bound is a bound: a partition is filled to it, and one byte more is refused."""
    fitting = PARTITION_BYTES - record_size(b"k", b"")
    PartitionBudget(1).admit(b"k", b"x" * fitting)
    with pytest.raises(PartitionFull):
        PartitionBudget(1).admit(b"k", b"x" * (fitting + 1))


def test_what_a_partition_holds_already_counts() -> None:
    """A second send has only the bytes that the first one left."""
    budget = PartitionBudget(1, {0: PARTITION_BYTES - 200})
    budget.admit(None, b"x" * 50)
    with pytest.raises(PartitionFull, match="partition 0"):
        budget.admit(None, b"x" * 50)


def test_a_refused_record_takes_no_room() -> None:
    """After a refusal a smaller record still fits."""
    budget = PartitionBudget(1, {0: PARTITION_BYTES - 200})
    with pytest.raises(PartitionFull):
        budget.admit(None, b"x" * 500)
    assert budget.admit(None, b"x") == 0


@given(st.lists(st.tuples(st.none() | st.binary(max_size=8), st.binary(max_size=1000)), max_size=50))
def test_keys_keep_their_partition_and_the_rest_spreads(records: list[tuple[bytes | None, bytes]]) -> None:
    """A keyed record goes to its key's partition; one without a key to the emptiest."""
    budget = PartitionBudget(3)
    filled = [0, 0, 0]
    for key, value in records:
        partition = budget.admit(key, value)
        if key is None:
            assert filled[partition] == min(filled)
        else:
            assert partition == partition_of(key, 3)
        filled[partition] += record_size(key, value)


def test_headers_take_room_too() -> None:
    """A record's size counts header names and values."""
    assert record_size(None, b"x", (("name", b"12345"),)) >= record_size(None, b"x") + 9
