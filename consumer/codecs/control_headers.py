"""The control headers: what a replay of a dead letter tells the worker about a record. Anyone can write them.

Decoding, the routes and the event processor read them here; a replay writes them (``delivery.letters``). A record
without headers comes nowhere near this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.events import BadInput, header_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.events import Header

EVENT_ID = "rexstream-event-id"
"""The default id that the event had before its replay: it is made of coordinates, which a replay changes. An id in the
value wins over this header: a replay cannot read every value, and consumers join results by that id."""

ONLY_TASKS = "rexstream-only-tasks"
"""Names, joined by commas, of the tasks to run among those that the event would run."""

ONLY_ROWS = "rexstream-only-rows"
"""Numbers of the rows to run, of a value that has several: ``3,7,41-60``."""

REPLAY_GROUP = "rexstream-replay-group"
"""The consumer group that the record is replayed for. Every group that reads the topic gets it; only this one runs it,
since the others have no dead letter of it."""

REPLAY_COUNT = "rexstream-dlq-replay-count"
"""How often the record was replayed, for readers: a replay itself counts by its markers."""

REPLAY_FORMAT = "rexstream-replay-format"
"""What the other control headers mean, a number. Without it 1, which is all that this release writes and reads."""

CONTROL_HEADERS = frozenset({EVENT_ID, ONLY_TASKS, ONLY_ROWS, REPLAY_GROUP, REPLAY_COUNT, REPLAY_FORMAT})
"""What a replay tells a worker. Ignored on routes with ``control_headers: false``, and never copied to results."""

MAX_ROWS = 1000
"""Rows of one value. Each is an event, with a result or dead letter for each of its tasks."""

EVENT_ID_CHARS = 512
"""An id goes into every log line about its event, and into every result."""

MAX_HEADERS = 256
HEADERS_BYTES = 65_536
"""Of a record's other headers, which are copied to each of its results. Of more, none is."""

CONTROL_BYTES = 16_384
"""Of all control headers together, which do not count among the others: a replay must be able to add them to any
record. It writes at most 64 task names of 64 characters, an id, a count and a group."""


def too_many_headers(headers: Sequence[Header]) -> str:
    """Why the record's own headers, which no replay set, are not copied to its results; empty where they are.

    Raises BadInput (stage ``validate``) for control headers that are too large to be a replay's (HeadersTooLarge), or
    those of a newer release, which may mean something else (InvalidHeader).
    """
    own = without_control(headers)
    size = header_bytes(own)
    if len(own) < len(headers):
        if (control := header_bytes(headers) - size) > CONTROL_BYTES:
            what = f"the headers that a replay sets have {control} bytes; at most {CONTROL_BYTES} are allowed"
            raise BadInput("validate", "HeadersTooLarge", what)
        if (written := control_text(headers, REPLAY_FORMAT)) not in ("", "1"):
            what = (
                f"header {REPLAY_FORMAT} of {len(written)} characters is not 1: a newer release of Rexstream replayed "
                "this record, or nobody did; replay its dead letter again when all workers have that release"
            )
            raise BadInput("validate", "InvalidHeader", what)
    if len(own) > MAX_HEADERS or size > HEADERS_BYTES:
        return f"({len(own)} of {size} bytes) are more than {MAX_HEADERS} or {HEADERS_BYTES} bytes"
    return ""


def without_control(headers: Sequence[Header]) -> tuple[Header, ...]:
    """The headers but the control headers."""
    return tuple(header for header in headers if header[0] not in CONTROL_HEADERS)


def is_for_another_group(headers: Sequence[Header], group: str) -> bool:
    """Whether the record is a replay for another group than ``group``."""
    wanted = last_value(headers, REPLAY_GROUP)
    return bool(wanted) and wanted != group.encode()


def default_event_id(headers: Sequence[Header]) -> str:
    """The id that a replay's header names, empty when there is none. Raises BadInput InvalidHeader."""
    event_id = control_text(headers, EVENT_ID)
    if len(event_id) > EVENT_ID_CHARS:
        what = f"header {EVENT_ID} has {len(event_id)} characters; at most {EVENT_ID_CHARS} are allowed"
        raise BadInput("validate", "InvalidHeader", what)
    return event_id


def only_tasks_of(headers: Sequence[Header]) -> frozenset[str] | None:
    """The tasks that the headers narrow the event to, or None. Raises BadInput InvalidHeader (stage ``validate``)."""
    names = control_text(headers, ONLY_TASKS).split(",")
    return frozenset(filter(None, map(str.strip, names))) or None


def only_rows_of(headers: Sequence[Header]) -> frozenset[int] | None:
    """The rows that the headers narrow the value to, or None. Raises BadInput InvalidHeader (stage ``validate``)."""
    text = control_text(headers, ONLY_ROWS)
    rows: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers = [int(each) for each in (first, last or first) if each.isascii() and each.isdigit() and len(each) < 5]
        if len(numbers) < 2 or numbers[1] > MAX_ROWS:
            what = f"header {ONLY_ROWS} of {len(text)} characters is no list of numbers; replay the dead letter again"
            raise BadInput("validate", "InvalidHeader", what)
        rows.update(range(numbers[0], numbers[1] + 1))
    return frozenset(rows) or None


def row_numbers(rows: Sequence[int]) -> str:
    """Rows in ascending order as the header has them, neighbours joined."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def control_text(headers: Sequence[Header], name: str) -> str:
    """The text of a control header, empty when there is none. Raises BadInput InvalidHeader (stage ``validate``)."""
    value = last_value(headers, name) or b""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        what = f"header {name} is not UTF-8 at byte {error.start} of {len(value)}; replay the dead letter again"
        raise BadInput("validate", "InvalidHeader", what) from None


def last_value(headers: Sequence[Header], name: str) -> bytes | None:
    """The last value of a header that has one: the nearest hop's."""
    return next((value for key, value in reversed(headers) if key == name and value is not None), None)
