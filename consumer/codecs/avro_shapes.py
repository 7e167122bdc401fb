"""Shapes of writer schemas by which a few bytes could end a worker, although the schema is valid Avro.

``avro_codec`` checks every schema that it parses. Each type is visited once: a schema comes from outside, and this
check of it must not run without end itself.
"""

from __future__ import annotations

from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MOST_NOTHINGS = 1000
"""Most values that take no bytes (null, empty records) in one record. Real schemas have hardly any; sixty records, each
of which holds the next one twice, come to a billion billions."""

MOST_LEVELS = 100
"""Most types each in the next that the compiled reader is given."""

_RECORDS = ("record", "error")
_NAMED = (*_RECORDS, "enum", "fixed")


def nests_deep(named: Mapping[str, Any]) -> bool:
    """Whether a type among ``named`` (full name -> parsed definition) can hold another one of its own kind, or
    ``MOST_LEVELS`` others each in the next.

    A datum of such a type may nest deeper than the stack of a compiled reader bears.
    """
    held = {name: set(_mentioned(definition)) & named.keys() for name, definition in named.items()}
    levels: dict[str, int] = {}
    try:
        for name in TopologicalSorter(held).static_order():
            levels[name] = 1 + max((levels[other] for other in held[name]), default=0)
    except CycleError:
        return True
    return max(levels.values(), default=0) > MOST_LEVELS


def within_arrays(schema: Any, named: Mapping[str, Any], *, everywhere: bool) -> Iterator[dict[str, Any]]:
    """Records, arrays and maps, each once, that an array or a map of a parsed schema may repeat; or all of them."""
    seen: set[tuple[int, bool]] = set()
    stack = [(schema, everywhere)]
    while stack:
        part, inside = stack.pop()
        if isinstance(part, list):
            stack += [(branch, inside) for branch in part]
            continue
        if isinstance(part, str):
            part = named.get(part)
        if part is None or (id(part), inside) in seen:
            continue
        seen.add((id(part), inside))
        kind = part["type"]
        if kind in ("array", "map"):
            stack.append((part["items" if kind == "array" else "values"], True))
        stack += [(field["type"], inside) for field in part.get("fields", ())]
        if inside and kind in ("record", "array", "map"):
            yield part


def holds_endless_nothings(schema: Any, named: Mapping[str, Any]) -> bool:
    """Whether a parsed schema has an array of items that take no bytes, or a record of over ``MOST_NOTHINGS`` such.

    Ten bytes can announce any number of such items, such a record takes no bytes at all, and a reader would create
    every value.
    """
    parts = list(_parts((schema, *named.values())))
    nothings = _nothings(parts)
    return any(
        nothings[_name_of(part["items"])] > 0
        if part["type"] == "array"
        else MOST_NOTHINGS < sum(nothings[_name_of(field["type"])] for field in part.get("fields", ())) < inf
        for part in parts
    )


def _mentioned(definition: Any) -> Iterator[str]:
    """Names of the types that a named type's definition uses, nested definitions not looked into."""
    stack = [field["type"] for field in definition.get("fields", ())]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, list):
            stack += part
        elif "name" in part:
            yield part["name"]
        else:
            stack += [part[key] for key in ("type", "items", "values") if key in part]


def _parts(schemas: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Every definition in some schemas, nested ones too, those of a name once."""
    seen: set[str] = set()
    stack = list(schemas)
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack += part
        elif isinstance(part, dict):
            if part["type"] in _NAMED:
                if part["name"] in seen:
                    continue
                seen.add(part["name"])
            yield part
            stack += [part[key] for key in ("type", "items", "values") if key in part]
            stack += [field["type"] for field in part.get("fields", ())]


def _name_of(schema: Any) -> str:
    """Name of the type that a schema is, a primitive's too; empty for arrays, maps and unions."""
    while isinstance(schema, dict):
        if schema["type"] in _NAMED:
            return str(schema["name"])
        if schema["type"] in ("array", "map"):
            return ""
        schema = schema["type"]
    # A union starts with its branch's number, so it takes a byte like the other two.
    return schema if isinstance(schema, str) else ""


def _nothings(parts: Sequence[dict[str, Any]]) -> Mapping[str, float]:
    """How many values a reader creates without reading a byte, by type name: 0 for a type that takes bytes.

    A record counts itself and what it holds, as far as ``MOST_NOTHINGS`` + 1. One that holds itself and takes no bytes
    comes to infinity: reading it never ends, and is left to what ``holds_itself`` is for.
    """
    empty = {"null"} | {part["name"] for part in parts if part["type"] == "fixed" and part["size"] == 0}
    fields = {
        part["name"]: [_name_of(field["type"]) for field in part["fields"]]
        for part in parts
        if part["type"] in _RECORDS
    }
    holders = defaultdict(list)
    for record, held in fields.items():
        for name in held:
            holders[name].append(record)
    known = {name: float(name in empty) for name in {*holders, *empty} - fields.keys()}
    known |= {record: 1.0 for record, held in fields.items() if not held}
    left = {record: len(held) for record, held in fields.items()}
    sums = dict.fromkeys(fields, 1.0)
    # Each number that becomes known is added once to the sum of every field of its type.
    fresh = list(known)
    while fresh:
        name = fresh.pop()
        for record in holders[name]:
            if record in known:
                continue
            left[record] -= 1
            sums[record] = min(sums[record] + known[name], MOST_NOTHINGS + 1)
            if known[name] == 0 or left[record] == 0:
                known[record] = sums[record] if known[name] else 0.0
                fresh.append(record)
    return defaultdict(float, dict.fromkeys(fields, inf) | known)
