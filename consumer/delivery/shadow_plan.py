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

    def note(self) -> str:
        """The text that is kept beside ``end``."""
        return json.dumps({"format": FORMAT, "start": self.start, "asked": dict(self.asked)})

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
            return cls(int(said["start"]), end, {name: str(said["asked"][name]) for name in ASKED})
        except (ValueError, TypeError, KeyError):
            raise PlanUnreadable("was not written by a shadow run") from None


def differences(plan: Mapping[Partition, PlannedRange], asked: Mapping[str, str]) -> list[str]:
    """What of ``ASKED`` is another now than when the run began."""
    return [name for name in ASKED if any(each.asked[name] != asked[name] for each in plan.values())]


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
    for partition, (start, end, _) in plan.items():
        total += max(0, end - start)
        done += max(0, min(end, committed.get(partition, start)) - start)
    return Progress(done, total)


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
