"""Where a group without offsets begins (``kafka.start``): whether it has begun, and each partition's first offset.

Pure; ``kafka.consume.group_start`` asks the brokers and commits.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from consumer.events import Partition


class Committed(NamedTuple):
    """What a group has committed for a partition."""

    offset: int | None
    """None without one."""
    note: str = ""
    """The text that its commit carried."""


class StartOffset(NamedTuple):
    """Where a group is to begin in a partition, and why there."""

    offset: int
    why: str


class Ends(NamedTuple):
    """What the brokers say of the partitions that are due, by partition."""

    beginnings: Mapping[Partition, int]
    """First offset that the log has; needed for partitions that are newer than the start."""
    ends: Mapping[Partition, int]
    """The offset that a read_committed reader would get next. Asked for before ``at_time``."""
    at_time: Mapping[Partition, int]
    """Offset of the first record that is not older than the start; a partition without one is left out."""


def start_note(partitions: Collection[Partition]) -> str:
    """What the commit of start offsets carries: which partitions it is for, as a checksum of their names."""
    names = "\n".join(sorted(map(str, partitions)))
    return f"rexstream start {zlib.crc32(names.encode()):08x}"


def due(committed: Mapping[Partition, Committed]) -> frozenset[Partition]:
    """The partitions whose start offset is to be committed: all of a new group, none of one that has begun.

    ``committed`` has every partition of the input topics. Brokers may take a commit for some topics and refuse it for
    others. Such a group has begun nowhere, but it has offsets: it is told by their note, as long as they are all of a
    commit for exactly these partitions and no worker has committed any. Then the others are due.
    """
    begun = {partition for partition, found in committed.items() if found.offset is not None}
    note = start_note(committed)
    if any(committed[partition].note != note for partition in begun):
        return frozenset()
    return frozenset(committed) - begun


def start_offsets(
    partitions: Collection[Partition], start: str, since: int | None, found: Ends, newer: Collection[Partition]
) -> dict[Partition, StartOffset]:
    """Where to begin in each of ``partitions``.

    ``start`` is kafka.start, ``since`` its time in milliseconds, None for ``latest``. ``newer``: those that were not
    there at first, all of whose records came after the start. Where no record is as new as the start, that is the
    end of before the search: one that came during the search is read.
    """
    offsets: dict[Partition, StartOffset] = {}
    for partition in sorted(partitions):
        if partition in newer:
            offsets[partition] = StartOffset(found.beginnings[partition], "the partition is newer than the start")
        elif since is None:
            offsets[partition] = StartOffset(found.ends[partition], f"kafka.start is {start}")
        elif partition in found.at_time:
            offset = found.at_time[partition]
            offsets[partition] = StartOffset(offset, f"the first record since {start}")
        else:
            offsets[partition] = StartOffset(found.ends[partition], f"the end: no record since {start}")
    return offsets
