"""Where a group without offsets begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.delivery.start_offsets import Committed, Ends, due, start_note, start_offsets
from consumer.events import Partition

if TYPE_CHECKING:
    from collections.abc import Mapping

A0, A1, B0 = Partition("a", 0), Partition("a", 1), Partition("b", 0)
NOTE = start_note((A0, A1, B0))
NONE = Committed(None)
OTHER = Committed(7, "by hand")


@pytest.mark.parametrize(
    ("committed", "expected"),
    [
        pytest.param({}, set(), id="no topic"),
        pytest.param({A0: NONE, A1: NONE, B0: NONE}, {A0, A1, B0}, id="new"),
        pytest.param({A0: Committed(0), A1: NONE, B0: NONE}, set(), id="one offset, of a worker, at 0"),
        pytest.param({A0: OTHER, A1: NONE, B0: NONE}, set(), id="one offset, set by hand"),
        pytest.param({A0: Committed(5, NOTE), A1: Committed(9, NOTE), B0: Committed(0, NOTE)}, set(), id="begun"),
        pytest.param({A0: Committed(5, NOTE), A1: Committed(9, NOTE), B0: NONE}, {B0}, id="a part was refused"),
        pytest.param({A0: Committed(6), A1: Committed(9, NOTE), B0: NONE}, set(), id="a worker has gone on since"),
        pytest.param(
            {A0: Committed(5, start_note((A0,))), A1: NONE}, set(), id="a partition that is new to a begun group"
        ),
        pytest.param(
            {A0: Committed(5, start_note((A0, A1))), A1: Committed(5, start_note((A0, A1))), B0: NONE},
            set(),
            id="a topic that is new to a begun group",
        ),
    ],
)
def test_start_offsets_are_due_to_a_new_group_and_the_rest_of_a_refused_commit(
    committed: Mapping[Partition, Committed], expected: set[Partition]
) -> None:
    """Whatever else has an offset has begun, and what is new to it starts at its beginning."""
    assert due(committed) == expected


BEGINNINGS, ENDS = {A0: 2, A1: 0, B0: 0}, {A0: 10, A1: 0, B0: 30}


def offsets(since: int | None, at_time: Mapping[Partition, int], *newer: Partition) -> dict[Partition, int]:
    start = "latest" if since is None else "2026-11-01T00:00:00Z"
    found = start_offsets((B0, A1, A0), start, since, Ends(BEGINNINGS, ENDS, at_time), newer)
    return {partition: place.offset for partition, place in found.items()}


def test_latest_is_the_end_also_of_an_empty_partition() -> None:
    """Every partition gets an offset, or the next worker would take the group for a new one."""
    assert offsets(None, {}) == {A0: 10, A1: 0, B0: 30}


def test_a_time_is_its_first_record_or_the_end_where_all_are_older() -> None:
    """An empty partition, and one of which nothing is new enough, begin at their end."""
    assert offsets(5, {A0: 4}) == {A0: 4, A1: 0, B0: 30}


def test_a_partition_that_was_missing_begins_at_its_beginning() -> None:
    """All that it holds came after the start, whatever the producers' clocks say."""
    assert offsets(None, {}, A0, A1) == {A0: 2, A1: 0, B0: 30}
    assert offsets(5, {A0: 4, B0: 12}, A0) == {A0: 2, A1: 0, B0: 12}


def test_each_offset_says_why() -> None:
    """For the log."""
    found = start_offsets((A0, A1, B0), "2026-11-01T00:00:00Z", 5, Ends(BEGINNINGS, ENDS, {A0: 4}), (B0,))
    assert [place.why for place in found.values()] == [
        "the first record since 2026-11-01T00:00:00Z",
        "the end: no record since 2026-11-01T00:00:00Z",
        "the partition is newer than the start",
    ]


def test_a_note_names_its_partitions_and_not_their_order() -> None:
    """A note is compared with that of the partitions that are there now."""
    assert start_note((A1, A0)) == start_note((A0, A1))
    assert len({start_note((A0,)), start_note((A0, A1)), start_note((A0, B0))}) == 3
