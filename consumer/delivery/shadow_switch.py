"""Which results of a shadow run take the place of live ones, when they are published to the live topics.

Pure. A shadow's result is published unless one of these holds, each of which is counted:

- ``repeated``: another result of the same event and task in the shadow is later.
- ``newer``: the live topic has a later result of them. Of two results of one partition of the input that of the later
  record is the later one, and of the same record the one that was extracted later; else the time of extraction decides.
- ``deleted``: a tombstone of its key lies behind it in the shadow, or the live topic has one and no result behind it.
- ``other``: it is no result of the planned records. Tombstones are these, too: the live topics have their own.

Of each event and task that the shadow has some 250 bytes are kept, hashes and numbers.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from consumer.events import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from consumer.delivery.shadow_plan import PlannedRange

Verdict = Literal["publish", "repeated", "newer", "deleted", "other"]

_ID_BYTES = 16
"""Of the hash of an event and a task: two that are taken for one would cost a result."""
_KEY_BYTES = 8
_KEPT = struct.Struct("<IqqIq8s")


class Said(NamedTuple):
    """What a result says of itself."""

    event_id: str
    task: str
    record: Partition
    """The partition of the input that its record came from."""
    offset: int
    processed_at: int
    """Milliseconds since 1970."""


def said_of(result: Any) -> Said | None:
    """Of what a value holds; None for what is no result of a record."""
    try:
        place = result["record"]
        record = Partition(str(place["topic"]), int(place["partition"]))
        said = Said(
            str(result["event_id"]), str(result["task"]), record, int(place["offset"]), int(result["processed_at"])
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    # What is larger is of others, and would not be kept in 64 bits.
    return said if max(map(abs, said[3:])) < 2**63 else None


class _Kept(NamedTuple):
    record: int
    """Number of the partition of the input, as all below in the order in which they were seen."""
    offset: int
    processed_at: int
    place: int
    """Number of the partition of the shadow."""
    place_offset: int
    key: bytes

    def is_later(self, other: _Kept) -> bool:
        if self.record == other.record:
            return (self.offset, self.processed_at) > (other.offset, other.processed_at)
        return self.processed_at > other.processed_at


class _Deletes:
    """Which results lie before a tombstone of their key, and not behind it again."""

    def __init__(self) -> None:
        self._behind: dict[bytes, set[bytes]] = {}
        """By key: the results behind its last tombstone."""

    def tombstone(self, key: bytes) -> None:
        self._behind[key] = set()

    def result(self, key: bytes, identifier: bytes) -> None:
        if (behind := self._behind.get(key)) is not None:
            behind.add(identifier)

    def deleted(self, key: bytes, identifier: bytes) -> bool:
        behind = self._behind.get(key)
        return behind is not None and identifier not in behind


class SwitchChoice:
    """Add every record of the shadow topics, then those of the live ones, in their order; then ask.

    Records of the live topics may be added later, too; what the switch itself has published changes nothing.
    """

    def __init__(
        self, plan: Mapping[Partition, PlannedRange], read: Callable[[bytes], Any], *, over_newer: bool = False
    ) -> None:
        """``read`` gives what a value holds, as ``codecs.result_values.read_result``; what it raises passes through.

        ``over_newer``: publish also where the live result is newer.
        """
        self._plan = plan
        self._read = read
        self._over_newer = over_newer
        self._kept: dict[bytes, bytes] = {}
        self._newer: set[bytes] = set()
        self._shadow_deletes, self._live_deletes = _Deletes(), _Deletes()
        self._numbers: dict[Partition, int] = {}
        self.repeated = 0
        """Results of the shadow of which another of the same event and task is later."""

    def add_shadow(self, topic: str, place: Partition, offset: int, key: bytes | None, value: bytes | None) -> None:
        """A record of a shadow topic at ``place``; ``topic`` is the live one that it would go to."""
        hashed = _hash(_KEY_BYTES, topic, key)
        if value is None:
            self._shadow_deletes.tombstone(hashed)
        elif (said := self._planned(value)) is not None:
            identifier = _hash(_ID_BYTES, topic, said.event_id, said.task)
            self._shadow_deletes.result(hashed, identifier)
            new = _Kept(*self._when(said), self._number(place), offset, hashed)
            before = self._kept.get(identifier)
            self.repeated += before is not None
            if before is None or not _Kept(*_KEPT.unpack(before)).is_later(new):
                self._kept[identifier] = _KEPT.pack(*new)

    def add_live(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """A record of the live ``topic``."""
        hashed = _hash(_KEY_BYTES, topic, key)
        if value is None:
            self._live_deletes.tombstone(hashed)
        elif (said := said_of(self._read(value))) is not None:
            identifier = _hash(_ID_BYTES, topic, said.event_id, said.task)
            kept = self._kept.get(identifier)
            if kept is None:
                return
            self._live_deletes.result(hashed, identifier)
            if _Kept(*self._when(said), 0, 0, b"").is_later(_Kept(*_KEPT.unpack(kept))):
                self._newer.add(identifier)

    def verdict(
        self, topic: str, place: Partition, offset: int, value: bytes | None
    ) -> tuple[Verdict, Partition | None]:
        """What becomes of a record that ``add_shadow`` was told of, and what partition of the input it came from.

        None for one that is no result of the planned records.
        """
        said = self._planned(value)
        if said is None:
            return "other", None
        identifier = _hash(_ID_BYTES, topic, said.event_id, said.task)
        kept = _Kept(*_KEPT.unpack(self._kept[identifier]))
        if (kept.place, kept.place_offset) != (self._number(place), offset):
            return "repeated", said.record
        return self._of_kept(identifier, kept), said.record

    def counts(self, switched: Mapping[Partition, int]) -> Counter[tuple[str, Verdict]]:
        """By shadow topic, how many events and tasks come to what, without those before ``switched``.

        ``switched``: offsets in the partitions of the shadow.
        """
        places = {number: (place.topic, switched.get(place, 0)) for place, number in self._numbers.items()}
        found: Counter[tuple[str, Verdict]] = Counter()
        for identifier, packed in self._kept.items():
            kept = _Kept(*_KEPT.unpack(packed))
            topic, offset = places[kept.place]
            if kept.place_offset >= offset:
                found[topic, self._of_kept(identifier, kept)] += 1
        return found

    def _of_kept(self, identifier: bytes, kept: _Kept) -> Verdict:
        if any(each.deleted(kept.key, identifier) for each in (self._shadow_deletes, self._live_deletes)):
            return "deleted"
        return "newer" if identifier in self._newer and not self._over_newer else "publish"

    def _planned(self, value: bytes | None) -> Said | None:
        said = None if value is None else said_of(self._read(value))
        planned = None if said is None else self._plan.get(said.record)
        return said if said and planned and planned.start <= said.offset < planned.end else None

    def _when(self, said: Said) -> tuple[int, int, int]:
        return self._number(said.record), said.offset, said.processed_at

    def _number(self, partition: Partition) -> int:
        return self._numbers.setdefault(partition, len(self._numbers))


def _hash(size: int, *parts: str | bytes | None) -> bytes:
    said = json.dumps([each.hex() if isinstance(each, bytes) else each for each in parts])
    return hashlib.blake2b(said.encode(), digest_size=size).digest()


class Step(NamedTuple):
    """A record of a shadow topic and what becomes of it."""

    place: Partition
    next: int
    """The offset behind it."""
    verdict: Verdict
    topic: str
    """The live topic."""
    input: Partition | None
    """What its record was read from; None where it is no result of the planned records."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    @property
    def size(self) -> int:
        """Bytes of what is published."""
        return len(self.key or b"") + len(self.value or b"") if self.verdict == "publish" else 0


def in_chunks(steps: Iterable[Step], published: int, size: int, passed: int) -> Iterator[list[Step]]:
    """Lists of steps, one for each transaction: of so many published records, bytes and records passed over at most.

    A larger record is alone among those that are published.
    """
    chunk: list[Step] = []
    records = total = 0
    for step in steps:
        is_published = step.verdict == "publish"
        is_full = is_published and records > 0 and (records == published or total + step.size > size)
        if is_full or (not is_published and len(chunk) - records == passed):
            yield chunk
            chunk, records, total = [], 0, 0
        chunk.append(step)
        records += is_published
        total += step.size
    if chunk:
        yield chunk


def positions(steps: Iterable[Step]) -> dict[Partition, int]:
    """Where the switch goes on in each partition of the shadow behind these steps."""
    return {step.place: step.next for step in steps}
