"""Where the fields of an event come from, as ``routes.fields`` writes it: paths, constants and lists of them.

Parsed when a configuration is checked, and once more when a route with a mapping begins to work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from consumer.config.problems import KeyPath, kind_of, nearest
from consumer.events import TaskKind

Field = Literal[
    "text", "event_id", "product_id", "source", "language", "created_at", "attributes", "tasks", "schema", "kind"
]
FIELDS: tuple[Field, ...] = get_args(Field)
"""What an event has, and so what may be mapped."""

ASKED_FOR = ("tasks", "schema", "kind")
"""Fields that are read only where they are named: a producer's own ``schema`` or ``kind`` is something else."""

Unit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds", "days", "iso"]
UNITS: tuple[Unit, ...] = get_args(Unit)
"""Of a time: numbers since 1970, or text as ISO 8601 has it."""

Place = Literal["value", "$key", "$headers", "$timestamp"]
PLACES: tuple[Place, ...] = get_args(Place)

_CONSTANTS: Mapping[str, str] = {
    "text": "every review would say the same",
    "event_id": "every event would have the same id",
    "created_at": "every review would be of the same time",
    "tasks": "write them as the route's tasks",
    "schema": "write it as a task file, and the task in the route's tasks",
    "attributes": "name each attribute: {shop: {value: a}}",
}
"""Fields that cannot be constants, and why, or what to do instead."""

_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
_OFFSET = re.compile(r"([+-])(\d{1,2}):([0-5]\d)")
_MOST_MINUTES = 14 * 60
_STEPS_MOST = 32


class Path(NamedTuple):
    """One way to a value. ``written`` is what the configuration says."""

    written: str
    place: Place
    steps: tuple[str, ...]
    """Names and array indexes, one after the other; of ``$headers`` the header's name."""


@dataclass(frozen=True, slots=True)
class FieldSource:
    """The first of ``paths`` that leads to something that is not null, else ``constant``."""

    paths: tuple[Path, ...] = ()
    constant: Any = None
    unit: Unit | None = None
    """Of a time; one of ``UNITS``."""
    utc_offset: int = 0
    """Minutes that a time without a zone is ahead of UTC."""


Sources = dict[Field, FieldSource | dict[str, FieldSource] | None]
"""Field -> its source; for attributes perhaps one for each name, and None for what is not read at all."""


class Fault(NamedTuple):
    """What is wrong below ``routes.N.fields``: the keys that lead there, and the way out."""

    keys: KeyPath
    what: str
    fix: str


def parse_fields(fields: Mapping[str, Any]) -> tuple[Sources, list[Fault]]:
    """The sources of a mapping, and all that is wrong with it."""
    sources: Sources = {}
    faults: list[Fault] = []
    for name, written in fields.items():
        if name not in FIELDS:
            guess = nearest(name, FIELDS)
            fix = f"did you mean {guess}?" if guess else f"the fields of an event are {', '.join(FIELDS)}"
            faults.append(Fault((name,), "is no field of an event", fix))
            continue
        field = name
        try:
            if field == "attributes" and isinstance(written, Mapping):
                sources[field] = {
                    str(each): _source("attributes", (name, each), below) for each, below in written.items()
                }
            elif written is None and field != "text":
                sources[field] = None
            else:
                sources[field] = _source(field, (name,), written)
        except _FaultError as error:
            faults.append(error.fault)
    return sources, faults


class _FaultError(Exception):
    def __init__(self, keys: KeyPath, what: str, fix: str) -> None:
        super().__init__(what)
        self.fault = Fault(keys, what, fix)


def _source(field: Field, keys: KeyPath, written: object) -> FieldSource:
    if isinstance(written, Mapping):
        return _explained(field, keys, written)
    constant = None
    paths = []
    listed = written if isinstance(written, (list, tuple)) else (written,)
    if not listed:
        raise _FaultError(keys, "is an empty list", "name a path, or null to read nothing")
    for number, each in enumerate(listed):
        here = (*keys, number) if isinstance(written, (list, tuple)) else keys
        if isinstance(each, Mapping):
            if number < len(listed) - 1:
                raise _FaultError(here, "is a mapping, and what stands behind it is never read", "put a constant last")
            if set(each) != {"value"}:
                what = "is a mapping other than a constant, which lists do not have"
                raise _FaultError(here, what, "write {value: …} for a constant, or a path")
            constant = _constant(field, (*here, "value"), each["value"])
        else:
            paths.append(_path(here, each))
    return FieldSource(tuple(paths), constant)


def _explained(field: Field, keys: KeyPath, written: Mapping[str, Any]) -> FieldSource:
    """``{value: …}`` or ``{from: …, unit: …, utc_offset: …}``."""
    known = ("from", "value", "unit", "utc_offset")
    for key in written:
        if key not in known:
            guess = nearest(str(key), known)
            fix = f"did you mean {guess}?" if guess else f"the keys here are {', '.join(known)}"
            raise _FaultError((*keys, key), "is no key of a field's source", fix)
    if "from" in written and "value" in written:
        raise _FaultError(keys, "has both from and value", "keep from for a path, or value for a constant")
    if "value" in written:
        for key in ("unit", "utc_offset"):
            if key in written:
                raise _FaultError((*keys, key), "is set beside a constant", "it goes with from; remove it")
        return FieldSource((), _constant(field, (*keys, "value"), written["value"]))
    if "from" not in written:
        raise _FaultError(keys, "has neither from nor value", "write from: and a path, or value: and a constant")
    if isinstance(written["from"], Mapping):
        raise _FaultError((*keys, "from"), "is a mapping", "write a path, or a list of paths")
    source = _source(field, (*keys, "from"), written["from"])
    for key in ("unit", "utc_offset"):
        if key in written and field != "created_at":
            raise _FaultError((*keys, key), "is for times", "only created_at is one; remove it")
    unit = written.get("unit")
    if unit is not None and unit not in UNITS:
        guess = nearest(str(unit), UNITS)
        what = f"is {kind_of(unit)} ({str(unit)[:60]}), but must be one of {', '.join(UNITS)}"
        raise _FaultError((*keys, "unit"), what, f"did you mean {guess}?" if guess else "choose one of them")
    return FieldSource(source.paths, source.constant, unit, _utc_offset((*keys, "utc_offset"), written))


def _utc_offset(keys: KeyPath, written: Mapping[str, Any]) -> int:
    """Minutes. YAML reads ``+10:00`` without quotes as the number 600, which is the same."""
    offset = written.get("utc_offset", 0)
    match = _OFFSET.fullmatch(offset) if isinstance(offset, str) else None
    if match is not None:
        minutes = (int(match[2]) * 60 + int(match[3])) * (-1 if match[1] == "-" else 1)
    elif isinstance(offset, int) and not isinstance(offset, bool) and offset % 15 == 0:  # 8 is meant to be hours
        minutes = offset
    else:
        raise _FaultError(keys, f"is {kind_of(offset)}, but must be hours and minutes", 'write it as "+08:00"')
    if abs(minutes) > _MOST_MINUTES:
        raise _FaultError(keys, "is more than 14 hours", 'write hours and minutes, as in "+08:00"')
    return minutes


def _constant(field: Field, keys: KeyPath, value: object) -> object:
    is_attribute = field == "attributes" and isinstance(keys[1], str)  # of one name, not of all of them
    if field in _CONSTANTS and not is_attribute:
        raise _FaultError(keys, "is a constant, which this field cannot be", _CONSTANTS[field])
    if field == "kind" and value not in _KINDS:
        raise _FaultError(keys, f"is {kind_of(value)}", f"choose one of {', '.join(_KINDS)}")
    if not isinstance(value, str):
        raise _FaultError(keys, f"is {kind_of(value)}, but must be text", "put it in quotes")
    return value


def _path(keys: KeyPath, written: object) -> Path:
    if not isinstance(written, str):
        fix = "write one path" if isinstance(written, (list, tuple)) else "put it in quotes"
        raise _FaultError(keys, f"is {kind_of(written)}, but must be a path, which is text", fix)
    if not written or written != written.strip():
        what = "is an empty path" if not written.strip() else "is a path with white space at an end"
        raise _FaultError(keys, what, "write names with dots between them, as in payload.after.content")
    if written.startswith("$headers.") and len(written) > len("$headers."):
        return Path(written, "$headers", (written.removeprefix("$headers."),))
    steps = _steps(keys, written)
    if not written.startswith("$"):
        return Path(written, "value", steps)
    place = next((each for each in PLACES if each == steps[0]), None)
    if steps[0] == "$":
        raise _FaultError(keys, "begins with $., as JSONPath does", f"leave that away: {written[2:] or 'a.b'}")
    if place is None:
        guess = nearest(steps[0], PLACES[1:]) or "$key, $headers.NAME or $timestamp"
        raise _FaultError(keys, f"there is no {steps[0]}", f"did you mean {guess}? A name with a $ is written \\$")
    if place == "$headers":
        raise _FaultError(keys, "names no header", "write $headers.NAME")
    if place == "$timestamp" and len(steps) > 1:
        raise _FaultError(keys, "leads into the record's timestamp, which is a number", "write $timestamp")
    return Path(written, place, steps[1:])


def _steps(keys: KeyPath, written: str) -> tuple[str, ...]:
    """The names of a path. Behind a backslash stands a dot, or another character, that is a part of a name."""
    steps, name, escaped = [], "", False
    for character in written:
        if escaped:
            name, escaped = name + character, False
        elif character == "\\":
            escaped = True
        elif character == ".":
            steps.append(name)
            name = ""
        elif character == "[":
            raise _FaultError(keys, "has a bracket", r"write the index as a step, as in images.0.url; or \[ in a name")
        else:
            name += character
    steps.append(name)
    if escaped:
        raise _FaultError(keys, "ends with a backslash", r"write \\ for a backslash in a name")
    if "" in steps:
        what = "has two dots in a row, or one at an end"
        raise _FaultError(keys, what, r"write names with one dot between them; \. is a dot in a name")
    if len(steps) > _STEPS_MOST:
        raise _FaultError(keys, f"has {len(steps)} steps, more than {_STEPS_MOST}", "shorten it")
    return tuple(steps)
