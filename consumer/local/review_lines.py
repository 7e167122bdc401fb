"""Files of reviews as records for ``rexstream send``: lines as they are, a table's rows as events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from consumer.events import BadInput
from consumer.kafka.tools.sender import NewRecord
from consumer.local.review_files import InputForm, as_text, open_reviews

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from consumer.events import Header


@dataclass(slots=True)
class ReviewLines:
    """The records of a file, or of standard input (``-``), which can be read only once.

    Iterating reads the file anew ``repeat`` times and stops after ``limit`` records. From the second time on ``~2``,
    ``~3``, … is appended to each ``event_id``, so that no two events have the same id. Empty lines are passed over;
    lines that hold no event are counted in ``bad_lines`` with the reason and yield nothing.
    """

    path: str
    form: InputForm = InputForm()  # noqa: RUF009 - frozen
    as_events: bool = False
    """Whether lines of text become JSON events. If not, they are sent as they are."""
    key_field: str | None = None
    """JSON field or column whose value is the record's key; a line without it has no key."""
    headers: tuple[Header, ...] = ()
    repeat: int = 1
    limit: int | None = None
    bad_lines: dict[int, str] = field(default_factory=dict)
    """Line number (from 1) -> what is wrong with it."""

    def __iter__(self) -> Iterator[NewRecord]:
        """Raises InputError when the file cannot be read."""
        records = (record for cycle in range(1, self.repeat + 1) for record in self._records(cycle))
        return islice(records, self.limit)

    def _records(self, cycle: int) -> Iterator[NewRecord]:
        with open_reviews(self.path, self.form) as reviews:
            for row in reviews:
                label = f"line {row.number}" if cycle == 1 else f"line {row.number} (time {cycle})"
                if reviews.form.format == "text" and not self.as_events:
                    yield NewRecord(label, None, row.content, self.headers)
                    continue
                try:
                    fields = reviews.form.fields(row)
                except BadInput as bad:
                    self.bad_lines[row.number] = bad.message
                    continue
                event = reviews.form.event(row, fields)
                if cycle > 1 and event.get("event_id") is not None:
                    event = {**event, "event_id": f"{as_text(event['event_id'])}~{cycle}"}
                # A line of JSON that needs no change is sent byte for byte.
                content = row.content if event is fields and reviews.form.format == "json" else _encoded(event)
                key = fields.get(self.key_field) if self.key_field else None
                is_empty = key is None or (key == "" and row.cells is not None)
                encoded = None if is_empty else as_text(key).encode("utf-8", "replace")
                yield NewRecord(label, encoded, content, self.headers)


def _encoded(event: dict[str, Any]) -> bytes:
    try:
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can only hold as an escape.
        return json.dumps(event, separators=(",", ":")).encode()
