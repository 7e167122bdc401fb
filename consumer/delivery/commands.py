"""Commands to the release thread, from the poll thread, the worker and the runtime: one queue, in order, no locks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.events import Outcome, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from queue import SimpleQueue

    from consumer.delivery.done_note import Done
    from consumer.delivery.ledger import Commit
    from consumer.events import Partition


Processed = tuple[SourceRecord, Outcome]
"""The outcome of a record is known. A plain tuple, since every event makes one."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """An epoch of a partition begins; ``position`` is its first offset where that is known.

    ``done``: what is durable behind it and will not be delivered.
    """

    partition: Partition
    epoch: int
    position: int | None
    done: Done | None = None


@dataclass(frozen=True, slots=True)
class Rewound:
    """The position of a partition moved back to ``offset``, and ``epoch`` begins.

    ``reply`` receives where: at the first record that was in flight, if that lies before ``offset``.
    """

    partition: Partition
    epoch: int
    offset: int
    reply: SimpleQueue[int]


@dataclass(frozen=True, slots=True)
class Delivered:
    """Records were polled. Always queued before anyone can process them."""

    records: Sequence[SourceRecord]


@dataclass(frozen=True, slots=True)
class EndReached:
    """The partition has nothing more to read at ``position``."""

    partition: Partition
    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """These assignments end: make durable what is possible until ``deadline`` (monotonic seconds), forget the rest.

    Only what is in flight of ``awaited`` is waited for: the others are at a standstill. ``reply`` then receives the
    commits: those that say more than what was handed out before.
    """

    epochs: Mapping[Partition, int]
    awaited: Collection[Partition]
    deadline: float
    reply: SimpleQueue[dict[Partition, Commit]]


@dataclass(frozen=True, slots=True)
class Lost:
    """These assignments are someone else's already: forget them, commit nothing of them."""

    epochs: Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class Drain:
    """Answer once nothing more becomes durable and the offsets of all that is durable are handed out.

    ``reply`` then gets True when nothing is in flight, False when all that is left waits for topics that refuse it.
    """

    reply: SimpleQueue[bool]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the release thread; wait at most ``flush_seconds`` for outputs that the producer still holds."""

    flush_seconds: float


Command = Assigned | Rewound | Delivered | Processed | EndReached | Revoke | Lost | Drain | Stop
