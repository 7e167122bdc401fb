"""``kafka.start``: what may be written there, and the moment that it names."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from consumer.config.problems import nearest

if TYPE_CHECKING:
    from consumer.config.problems import Check, KeyPath

EARLIEST, LATEST = "earliest", "latest"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLE = "2026-11-01T00:00:00Z"
_OTHER_NAMES = {"smallest": EARLIEST, "beginning": EARLIEST, "largest": LATEST, "end": LATEST, "now": LATEST}


def as_text(value: Any) -> Any:
    """A time that YAML has read already, as text again; anything else as it is."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, date) else value


def start_ms(start: str) -> int | None:
    """The time that ``start`` names, in milliseconds since 1970; None for ``earliest`` and ``latest``.

    Raises ValueError for what is no time, has no zone, or is before 1970.
    """
    if start in (EARLIEST, LATEST):
        return None
    found = datetime.fromisoformat(start)
    if found.tzinfo is None:
        raise ValueError("has no zone")
    # Below 0 the brokers read -1 as the end and -2 as the beginning.
    if found < _EPOCH:
        raise ValueError("is before 1970")
    return (found - _EPOCH) // timedelta(milliseconds=1)


def start_check(start: str) -> Check:
    """The check of ``kafka.start``."""
    path: KeyPath = ("kafka", "start")
    try:
        start_ms(start)
    except ValueError as error:
        if str(error) == "has no zone":
            time = datetime.fromisoformat(start).isoformat()
            return True, path, f"{start} has no zone, so it is another moment elsewhere", f"write {time}Z for UTC"
        if str(error) == "is before 1970":
            return True, path, f"{start} is before 1970", "write earliest"
        guess = _OTHER_NAMES.get(start.lower()) or nearest(start.lower(), (EARLIEST, LATEST))
        fix = f"did you mean {guess}?" if guess else f"write earliest, latest, or a time such as {_EXAMPLE}"
        return True, path, f"{start[:60]!r} is neither earliest nor latest nor a time", fix
    return False, path, "", ""
