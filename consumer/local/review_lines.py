"""Files of reviews, a line each, as records for ``rexstream send``: JSON objects (JSONL) or text, gzipped or not."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from consumer.kafka.tools.sender import NewRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.events import Header

LineFormat = Literal["json", "text"]

STDIN = "-"


@dataclass(slots=True)
class ReviewLines:
    """The records of a file, or of standard input (``-``), which can be read only once.

    Iterating reads the file anew ``repeat`` times and stops after ``limit`` records. From the second time on ``~2``,
    ``~3``, … is appended to each ``event_id``, so that no two events have the same id. Empty lines are passed over;
    lines that are not JSON objects are counted in ``bad_lines`` with the reason and yield nothing.
    """

    path: str
    format: LineFormat = "json"
    key_field: str | None = None
    """JSON field whose value is the record's key; a line without it has no key."""
    id_field: str | None = None
    """JSON field whose value is written to ``event_id`` too."""
    headers: tuple[Header, ...] = ()
    repeat: int = 1
    limit: int | None = None
    bad_lines: dict[int, str] = field(default_factory=dict)
    """Line number (from 1) -> what is wrong with it."""

    def __iter__(self) -> Iterator[NewRecord]:
        """Raises OSError when the file cannot be read, EOFError or zlib.error when a gzip file is damaged."""
        records = (record for cycle in range(1, self.repeat + 1) for record in self._records(cycle))
        return islice(records, self.limit)

    def _records(self, cycle: int) -> Iterator[NewRecord]:
        with _open(self.path) as lines:
            for number, line in enumerate(lines, 1):
                content = line.rstrip(b"\r\n")
                if content.strip() and (record := self._record(number, cycle, content)):
                    yield record

    def _record(self, number: int, cycle: int, content: bytes) -> NewRecord | None:
        label = f"line {number}" if cycle == 1 else f"line {number} (time {cycle})"
        if self.format == "text":
            return NewRecord(label, None, content, self.headers)
        try:
            review = json.loads(content)
        except (ValueError, RecursionError):
            self.bad_lines[number] = "not JSON"
            return None
        if not isinstance(review, dict):
            self.bad_lines[number] = "not a JSON object"
            return None
        key = review.get(self.key_field) if self.key_field else None
        event_id = review.get(self.id_field or "event_id")
        if event_id is not None and (cycle > 1 or self.id_field is not None):
            suffix = "" if cycle == 1 else f"~{cycle}"
            content = _encoded({**review, "event_id": _as_text(event_id) + suffix})
        encoded_key = None if key is None else _as_text(key).encode("utf-8", "replace")
        return NewRecord(label, encoded_key, content, self.headers)


def _encoded(review: dict[str, object]) -> bytes:
    try:
        return json.dumps(review, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can only hold as an escape.
        return json.dumps(review, separators=(",", ":")).encode()


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _open(path: str) -> BinaryIO:
    if path == STDIN:
        return sys.stdin.buffer
    if path.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return Path(path).open("rb")
