"""Dead letters counted where there are too many to list: by input topic, stage, class, task and hour.

Counts, not letters, are kept, and both rows and what copies are recognised by are bounded, so memory does not grow with
the topic.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from consumer.delivery.letters import read_letter

if TYPE_CHECKING:
    from consumer.delivery.letters import Markers, Selection
    from consumer.events import SourceRecord

HOUR_MS = 3_600_000

MOST_ROWS = 10_000
"""Rows that are counted: a month of hours with fourteen causes in each. 7 MiB with usual names, 12 with the longest."""

REMEMBERED = 250_000
"""Letters whose copies are recognised, at least; up to twice as many hashes are kept, 70 bytes each: 35 MiB."""

_NAME_CHARS = 249
"""Longest name of a topic in Kafka; other headers may hold anything."""


class Cause(NamedTuple):
    """What letters have in common that one change would mend."""

    topic: str
    """That the failed records came from."""
    stage: str
    reason: str
    task: str | None
    """As it is shown: several with commas between them, None where the failure came before they were known."""


@dataclass(slots=True)
class LetterSummary:
    """Counts the records of a dead-letter topic, each once, by the same rules as ``LetterFilter``."""

    selection: Selection
    markers: Markers
    """Of the letters that were replayed."""
    most_rows: int = MOST_ROWS
    remembered: int = REMEMBERED
    rows: Counter[tuple[Cause, int | None]] = field(default_factory=Counter)
    """(cause, start of the hour of the failure in milliseconds since 1970, None where it is unknown) -> letters."""
    others: int = 0
    """Letters of rows beyond the first ``most_rows``."""
    replayed: int = 0
    younger: int = 0
    copies: int = 0
    other_records: int = 0
    """These four as in ``LetterFilter``."""
    _seen: set[int] = field(default_factory=set)
    """Hashes of marker keys. Copies come from a worker that was restarted, so they are close to each other."""
    _seen_before: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        """All letters that were counted."""
        return self.rows.total() + self.others

    @property
    def forgetful(self) -> bool:
        """Whether letters were forgotten, so that a copy far from the first was counted as another letter."""
        return bool(self._seen_before)

    def take(self, record: SourceRecord) -> None:
        """Count ``record``."""
        letter = read_letter(record)
        self.other_records += letter is None
        if letter is None or not self.selection.takes(letter):
            return
        key = hash(letter.marker_key)
        if key in self._seen or key in self._seen_before:
            self.copies += 1
            return
        if len(self._seen) >= self.remembered:
            self._seen_before, self._seen = self._seen, set()
        self._seen.add(key)
        at = letter.failed_at_ms
        if (replayed_at := self.markers.replayed_at(letter)) is not None:
            self.replayed += 1
            self.younger += (at or 0) > replayed_at
            return
        names = letter.topic[:_NAME_CHARS], letter.stage[:_NAME_CHARS], letter.reason[:_NAME_CHARS]
        cause = Cause(*names, letter.shown_task and letter.shown_task[:_NAME_CHARS])
        row = cause, None if at is None else at - at % HOUR_MS
        if row in self.rows or len(self.rows) < self.most_rows:
            self.rows[row] += 1
        else:
            self.others += 1
