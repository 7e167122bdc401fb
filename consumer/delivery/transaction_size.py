"""How much goes into one transaction, so that it is written well before the brokers abort it. Pure.

A transaction that is too large for its timeout would fail in the same way at every try. So the size follows what the
brokers get done: halved when a transaction was slow, timed out or was ended by the brokers, and grown again while they
go well. One record by itself is the least.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST_SHARE = 16
"""A process begins with a sixteenth of what is configured: its predecessor may have ended because that was too much."""

SLOW_SHARE = 1 / 3
"""A transaction that took more than this share of its timeout to be written was too large: a broker may become slower
still."""

QUICK_SHARE = SLOW_SHARE / 2
"""Only after one that took less than this a larger one is tried: twice as much is then not slow yet."""

LEAST_BYTES = 65_536
"""Fewer are not worth a transaction of their own; where they are too many, the records are halved further."""

DOUBLED, SLOWLY = 2.0, 1.125
"""Growth after a transaction that went well: before anything failed, and after that."""


class TransactionSize:
    """The bounds of the next transaction; at most those that are configured."""

    def __init__(self, records: int, size: int, timeout_seconds: float) -> None:
        """At most ``records`` records and ``size`` bytes (one record may have more), for a transaction's timeout."""
        self._most_records = records
        self._most_bytes = size
        self._timeout = timeout_seconds
        self._growth = DOUBLED
        self.records = max(1, records // FIRST_SHARE)
        """Most records of the next transaction."""
        self.bytes = min(size, max(LEAST_BYTES, size // FIRST_SHARE))
        """Most bytes of its outputs, unless one record alone has more."""

    @property
    def bounds(self) -> tuple[int, int]:
        """Most records, and most bytes."""
        return self.records, self.bytes

    def take(self, sizes: Iterable[int]) -> int:
        """How many of the waiting records, whose outputs have ``sizes`` bytes, go into the next transaction."""
        taken = total = 0
        for size in sizes:
            total += size
            if taken == self.records or (taken and total > self.bytes):
                break
            taken += 1
        return taken

    def is_full(self, records: int, size: int) -> bool:
        """Whether so much need not wait for more."""
        return records >= self.records or size >= self.bytes

    def is_slow(self, seconds: float) -> bool:
        """Whether a transaction that is so old may have been ended by the brokers for its age."""
        return seconds > SLOW_SHARE * self._timeout

    def is_late(self, seconds: float) -> bool:
        """Whether a transaction that took so long to be written would hardly be committed before its timeout."""
        return seconds > 2 * SLOW_SHARE * self._timeout

    def committed(self, records: int, size: int, seconds: float) -> None:
        """A transaction of ``records`` and ``size`` bytes went well; ``seconds`` passed until all was written."""
        if self.is_slow(seconds):
            self.halve(records, size)
        elif seconds < QUICK_SHARE * self._timeout:
            # A bound that was not reached has shown nothing.
            if records >= self.records:
                self.records = min(self._most_records, math.ceil(self.records * self._growth))
            if size * DOUBLED > self.bytes:
                self.bytes = min(self._most_bytes, math.ceil(self.bytes * self._growth))

    def halve(self, records: int, size: int) -> None:
        """A transaction of ``records`` and ``size`` bytes was too large."""
        self._growth = SLOWLY
        self.records = max(1, min(self.records, records) // 2)
        self.bytes = min(self.bytes, max(LEAST_BYTES, size // 2))

    def one_was_too_large(self) -> None:
        """One record was the cause, and is not there any more: the others may go together again at once."""
        self._growth = DOUBLED
