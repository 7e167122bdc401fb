"""Dead letters as they are read back: what their headers say, and which of them an operator means."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from consumer.delivery.dead_letters import KIP_1191, MAX_DIGITS, PREFIX

if TYPE_CHECKING:
    from collections.abc import Container

    from consumer.events import SourceRecord


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. ``topic``, ``partition`` and ``offset`` are those of the record that failed."""

    id: str
    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    task: str | None
    message: str
    replay_count: int
    failed_at_ms: int | None
    """Milliseconds since 1970; None when its header cannot be read."""
    record: SourceRecord
    """The dead letter itself, with its own place."""

    @property
    def value_omitted(self) -> bool:
        """Whether the dead-letter topic was too small for the value: it is not here, and cannot be replayed."""
        # A record without a value is dropped, never dead-lettered.
        return self.record.value is None


def read_letter(record: SourceRecord) -> Letter | None:
    """The dead letter in ``record``, or None when it is none of ours: it lacks an id, or the place of its record."""
    said = header_texts(record)
    partition, offset = said.get(KIP_1191 + "partition", ""), said.get(KIP_1191 + "offset", "")
    if not (said.get(PREFIX + "id") and said.get(KIP_1191 + "topic") and _is_number(partition) and _is_number(offset)):
        return None
    count = said.get(PREFIX + "replay-count", "")
    return Letter(
        id=said[PREFIX + "id"],
        topic=said[KIP_1191 + "topic"],
        partition=int(partition),
        offset=int(offset),
        stage=said.get(PREFIX + "stage", ""),
        reason=said.get(PREFIX + "class", ""),
        task=said.get(PREFIX + "task"),
        message=said.get(KIP_1191 + "message", ""),
        replay_count=int(count) if _is_number(count) else 0,
        failed_at_ms=_milliseconds(said.get(PREFIX + "failed-at", "")),
        record=record,
    )


def header_texts(record: SourceRecord) -> dict[str, str]:
    """Headers as text; of a repeated name the last, since what is said of a failure stands behind what was carried."""
    return {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant: each filter that is not empty must name the letter."""

    ids: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    """Topics that the failed records came from."""
    since_ms: int | None = None
    """Failed at this time or later, milliseconds since 1970."""
    until_ms: int | None = None
    """Failed before this time."""

    def takes(self, letter: Letter) -> bool:
        """Whether ``letter`` is meant. With a limit of time, one that does not say when it failed is not."""
        named = (
            (self.ids, letter.id),
            (self.reasons, letter.reason),
            (self.stages, letter.stage),
            (self.tasks, letter.task),
            (self.topics, letter.topic),
        )
        if any(wanted and value not in wanted for wanted, value in named):
            return False
        if self.since_ms is None and self.until_ms is None:
            return True
        at = letter.failed_at_ms
        return (
            at is not None
            and (self.since_ms is None or at >= self.since_ms)
            and (self.until_ms is None or at < self.until_ms)
        )


@dataclass(slots=True)
class Sieve:
    """Sorts the records of a dead-letter topic, once each: letters to work on, and what is left out and why."""

    selection: Selection
    replayed_ids: Container[str]
    """Ids of the letters that were replayed: those that have a marker."""
    replayed: int = 0
    """Selected letters that were replayed already."""
    copies: int = 0
    """Further copies of a selected letter: at least once, a restarted worker writes some again."""
    strangers: int = 0
    """Records that are no dead letters."""
    by_class: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stage, class) -> letters that were let through."""
    _with_value: dict[str, bool] = field(default_factory=dict)

    def take(self, record: SourceRecord) -> Letter | None:
        """The letter to work on in ``record``, or None, counted."""
        letter = read_letter(record)
        if letter is None:
            self.strangers += 1
            return None
        if not self.selection.takes(letter):
            return None
        first = letter.id not in self._with_value
        # A copy that still has its value is worth more than one that came before it without.
        if not first and (self._with_value[letter.id] or letter.value_omitted):
            self.copies += 1
            return None
        self._with_value[letter.id] = not letter.value_omitted
        if letter.id in self.replayed_ids:
            self.replayed += first
            return None
        self.by_class[letter.stage, letter.reason] += first
        return letter


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def _milliseconds(text: str) -> int | None:
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
