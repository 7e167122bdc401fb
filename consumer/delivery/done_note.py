"""Which records behind a committed offset are done: a note that goes with the commit, for whoever reads on from there.

Records are done in any order, and an offset says only that all before it are. A worker that is killed would leave what
is done behind the first unfinished record to be done again. So each commit carries a note of it, as the text (metadata)
that Kafka keeps beside an offset. A commit of anyone else's replaces it.

The note is ``rexstream-done:1:BASE:WRITTEN:RUNS``. ``BASE`` is the offset of its commit: a tool that copies the text to
another offset copies no meaning. ``WRITTEN`` is the time of the note in milliseconds since 1970: a record that is newer
is none that it names, as in a log that lost its end and got another one. Such a log shows in leader epochs, too, of
which Kafka keeps one beside a committed offset (KIP-320): no record that the note names has a newer one. ``RUNS`` are
lengths, by turns of offsets that are not done and of offsets that are (or hold no record), as base-128 numbers,
deflated, in base64.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NAME = "rexstream-done"
_FORMAT = "1"

MOST_CHARACTERS = 4000
"""Brokers take 4,096 bytes (``offset.metadata.max.bytes``) and refuse the commit of a longer text."""

_WINDOW_BITS = 9

_MOST_BYTES = 1 << 16
"""Of runs that are unpacked; none that are as many are packed. Two numbers for each record in flight are far below."""


@dataclass(frozen=True, slots=True)
class Done:
    """Runs of offsets that are done, in order: ``firsts`` and ``lasts``, both inclusive; never empty."""

    firsts: tuple[int, ...]
    lasts: tuple[int, ...]
    written_ms: int
    """Milliseconds since 1970: no record that is named is newer."""
    leader_epoch: int | None = None
    """No record that is named has a newer one; None where the broker gives none."""

    def __contains__(self, offset: int) -> bool:
        run = bisect_right(self.firsts, offset) - 1
        return run >= 0 and offset <= self.lasts[run]

    def names(self, offset: int, timestamp_ms: int | None) -> bool:
        """Whether the record at ``offset`` is done. ``timestamp_ms``: that of the record; None where it has none."""
        return offset in self and (timestamp_ms is None or timestamp_ms <= self.written_ms)

    def is_of_another_log(self, offset: int, leader_epoch: int | None) -> bool:
        """Whether the log lost records that are named and got others: one at ``offset`` has this ``leader_epoch``.

        Leader epochs rise with offsets, so up to the last that is named none is newer than the note's.
        """
        return (
            self.leader_epoch is not None
            and leader_epoch is not None
            and leader_epoch > self.leader_epoch
            and offset <= self.lasts[-1]
        )

    def behind(self, offset: int) -> Done | None:
        """What is left of it after ``offset``: all, or nothing."""
        return self if offset < self.lasts[-1] else None

    @property
    def count(self) -> int:
        """How many offsets are done."""
        return sum(self.lasts) - sum(self.firsts) + len(self.lasts)


def note(base: int, in_flight: Iterable[int], end: int, before: Done | None, now_ms: int) -> str:
    """The text beside a commit of ``base``; empty where nothing behind it is done.

    ``in_flight``: offsets, rising, from ``base`` on, of the records that are not done; all others before ``end`` are.
    ``before``: what an earlier note named; used from ``end`` on, and with its time: what is before its end is as old.
    Runs for which there is no room are left out, from the last one on.
    """
    lengths: list[int] = []
    position, since = base, base
    for offset in in_flight:
        if offset != position:
            lengths += (position - since, offset - position)
            since = offset
        position = offset + 1
    waiting = position - since
    if end > position:
        lengths += (waiting, end - position)
        position, waiting = end, 0
    if before is not None:
        start = position - waiting
        for begin, last in zip(before.firsts, before.lasts, strict=True):
            if last >= position:
                first = max(begin, position)
                if first == start and lengths:
                    lengths[-1] += last + 1 - first
                else:
                    lengths += (first - start, last + 1 - first)
                start = position = last + 1
    head = f"{_NAME}:{_FORMAT}:{base}:{now_ms if before is None else before.written_ms}:"
    while lengths:
        data = _bytes(lengths)
        text = head + _packed(data)
        fit = min(MOST_CHARACTERS / len(text), (_MOST_BYTES - 1) / len(data))
        if fit >= 1:
            return text
        # A little less than fits, as what is deflated is not in proportion.
        del lengths[int(len(lengths) * 0.9 * fit) // 2 * 2 :]
    return ""


def read(offset: int, text: str, leader_epoch: int | None = None) -> Done | None:
    """What a note names that came with a commit of ``offset``; None for another text, and for a note of another offset.

    ``leader_epoch``: what the commit says of it.
    Nothing is named in a note that cannot be read: its records are repeated, as without one.
    """
    name, _, rest = text.partition(":")
    parts = rest.split(":")
    if name != _NAME or len(parts) != 4 or parts[:2] != [_FORMAT, str(offset)]:
        return None
    try:
        written_ms = int(parts[2])
        unpack = zlib.decompressobj(-_WINDOW_BITS)
        data = unpack.decompress(base64.b64decode(parts[3], validate=True), _MOST_BYTES)
    except (binascii.Error, ValueError, zlib.error):
        return None
    lengths = _numbers(data)
    if not unpack.eof or not lengths or len(lengths) % 2:
        return None
    edges = list(accumulate(lengths, initial=offset))
    if any(later <= earlier for earlier, later in pairwise(edges[1:])):
        return None  # only the first length may be 0
    return Done(tuple(edges[1::2]), tuple(edge - 1 for edge in edges[2::2]), written_ms, leader_epoch)


def _bytes(lengths: Sequence[int]) -> bytearray:
    data = bytearray() if max(lengths) > 0x7F else bytearray(lengths)  # nearly always, and at once
    for length in () if data else lengths:
        rest = length
        while rest > 0x7F:
            data.append(rest & 0x7F | 0x80)
            rest >>= 7
        data.append(rest)
    return data


def _packed(data: bytearray) -> str:
    # The least of both sizes: with zlib's defaults the state alone takes 50 us a partition to set up.
    pack = zlib.compressobj(1, zlib.DEFLATED, -_WINDOW_BITS, 1)
    return base64.b64encode(pack.compress(data) + pack.flush()).decode()


def _numbers(data: bytes) -> list[int]:
    """Empty where the last one is cut off or one is too large for an offset."""
    found: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(number)
            number = shift = 0
        elif shift > 56:
            return []
    return [] if shift else found
