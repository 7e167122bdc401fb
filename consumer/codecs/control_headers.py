"""Headers that tell the worker something: those that a replay of a dead letter sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.events import Header

EVENT_ID = "rexstream-event-id"
"""The default id that the event had before its replay: it is made of coordinates, which a replay changes. An id of the
event's own stays what it is: whoever replays cannot read every value, and whoever joins results knows events by it."""

ONLY_TASKS = "rexstream-only-tasks"
"""Names, joined by commas, of the tasks to run among those that the event would run."""


def event_id_of(headers: Sequence[Header]) -> str | None:
    """The event id that the headers carry, or None. Raises BadInput InvalidHeader (stage ``validate``)."""
    return _last(headers, EVENT_ID) or None


def only_tasks_of(headers: Sequence[Header]) -> frozenset[str] | None:
    """The tasks that the headers narrow the event to, or None. Raises BadInput InvalidHeader (stage ``validate``)."""
    value = _last(headers, ONLY_TASKS)
    names = [] if value is None else [name.strip() for name in value.split(",")]
    return frozenset(filter(None, names)) or None


def _last(headers: Sequence[Header], name: str) -> str | None:
    """The value of the last header of that name: the nearest hop's."""
    for key, value in reversed(headers):
        if key == name and value is not None:
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                what = f"header {name} is not UTF-8 at byte {error.start} of {len(value)}; replay the dead letter again"
                raise BadInput("validate", "InvalidHeader", what) from None
    return None
