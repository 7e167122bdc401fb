"""What a shadow run is to do, kept with the brokers so that a run that was killed goes on with the same; its pace.

Pure. ``kafka.tools.shadow_group`` keeps a plan as the offsets of a group: the offset of a partition is where the run
ends, and the text that goes with it is a ``PlannedRange.note``.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.events import Partition

FORMAT = 1
"""Of a note."""

ASKED = ("times", "routes", "model", "tasks")
"""What a run is asked for, each with a checksum in the note."""


class PlanUnreadable(Exception):  # noqa: N818 - named for what it is
    """The brokers hold a plan that this release cannot read. The message says what is known."""


def checksums(asked: Mapping[str, Any]) -> dict[str, str]:
    """A checksum of each of ``ASKED``; the values are made of JSON types."""
    return {name: hashlib.sha256(json.dumps(asked[name], sort_keys=True).encode()).hexdigest()[:16] for name in ASKED}


class PlannedRange(NamedTuple):
    """The records of one partition that a run is to read: from ``start``, and none at or behind ``end``."""

    start: int
    end: int
    asked: Mapping[str, str]
    """As ``checksums``."""
    topics: str = ""
    """As ``marks``; empty in a plan of a release that noted none."""

    def note(self) -> str:
        """The text that is kept beside ``end``."""
        said = {"format": FORMAT, "start": self.start, "asked": dict(self.asked)}
        return json.dumps({**said, "topics": self.topics} if self.topics else said)

    @classmethod
    def read(cls, end: int, note: str) -> PlannedRange:
        """Raises PlanUnreadable for a note of a newer release, and for what is none."""
        try:
            said = json.loads(note)
            if said["format"] != FORMAT:
                raise PlanUnreadable(
                    f"is of format {said['format']}, and this release of Rexstream reads {FORMAT}; use the one that "
                    "began it"
                )
            asked = {name: str(said["asked"][name]) for name in ASKED}
            return cls(int(said["start"]), end, asked, str(said.get("topics", "")))
        except (ValueError, TypeError, KeyError):
            raise PlanUnreadable("was not written by a shadow run") from None


def differences(plan: Mapping[Partition, PlannedRange], asked: Mapping[str, str]) -> list[str]:
    """What of ``ASKED`` is another now than when the run began."""
    return [name for name in ASKED if any(each.asked[name] != asked[name] for each in plan.values())]


def marks(ids: Mapping[str, str]) -> str:
    """A mark of each topic with the id that brokers gave it when it was created.

    Six digits each: brokers take 4,096 bytes of text beside an offset, and a run may write to hundreds of topics.
    """
    return "".join(sorted(_mark(topic, found) for topic, found in ids.items()))


def replaced(plan: Mapping[Partition, PlannedRange], ids: Mapping[str, str]) -> list[str]:
    """Topics that were deleted and created again since the run began, of those with these ids now."""
    noted = {each.topics[at : at + _MARK] for each in plan.values() for at in range(0, len(each.topics), _MARK)}
    return [topic for topic, found in ids.items() if noted and _mark(topic, found) not in noted]


_MARK = 6


def _mark(topic: str, found: str) -> str:
    return hashlib.sha256(json.dumps([topic, found]).encode()).hexdigest()[:_MARK]


class Progress(NamedTuple):
    """How far a run is, in offsets: gaps in a log count as records."""

    done: int
    total: int

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left."""
        return self.done == self.total


def progress(plan: Mapping[Partition, PlannedRange], committed: Mapping[Partition, int]) -> Progress:
    """``committed``: the group's offsets; a partition without one has not begun."""
    done = total = 0
    for partition, each in plan.items():
        total += max(0, each.end - each.start)
        done += max(0, min(each.end, committed.get(partition, each.start)) - each.start)
    return Progress(done, total)


class Deleted:
    """Counts the records of a range that were deleted before they were done, as by the retention of the input.

    Offsets, as in ``Progress``; what was in flight when it was deleted counts, too.
    """

    def __init__(self, plan: Mapping[Partition, PlannedRange]) -> None:
        self._counted = {partition: each.start for partition, each in plan.items()}
        self._plan = plan
        self.offsets = 0

    def look(self, committed: Mapping[Partition, int], first: Mapping[Partition, int]) -> None:
        """``committed`` as for ``progress``; ``first``: the first offset that each partition still holds."""
        for partition, each in self._plan.items():
            done = max(self._counted[partition], committed.get(partition, each.start))
            gone = min(each.end, first.get(partition, 0))
            if gone > done:
                self.offsets += gone - done
                self._counted[partition] = gone


class Pace:
    """Spaces records evenly, at ``rate`` a second. What was not used before is not made up for."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Seconds that the next record waits at ``now`` (monotonic seconds)."""
        at = max(self._next, now)
        self._next = at + self._interval
        return at - now
