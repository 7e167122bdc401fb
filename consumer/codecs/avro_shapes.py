"""Shapes of writer schemas by which a few bytes could end a worker, although the schema is valid Avro."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def holds_itself(named: Mapping[str, Any]) -> bool:
    """Whether a type among ``named`` (full name -> parsed definition) can hold another one of its own kind.

    A datum of such a type may nest as deep as it is long, deeper than the stack of a compiled reader.
    """
    try:
        TopologicalSorter({name: set(_mentioned(definition)) for name, definition in named.items()}).prepare()
    except CycleError:
        return True
    return False


def has_endless_array(schema: Any, named: Mapping[str, Any]) -> bool:
    """Whether a parsed schema has an array of items that take no bytes, such as nulls.

    Ten bytes can announce any number of those, and a reader would make them all.
    """
    return any(
        part["type"] == "array" and _is_weightless(part["items"], named, frozenset())
        for definition in (schema, *named.values())
        for part in _parts(definition)
    )


def _mentioned(definition: Any) -> Iterator[str]:
    """Names of the types that a named type's definition uses, nested definitions not looked into."""
    for field in definition.get("fields", ()):
        stack = [field["type"]]
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


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every definition in a schema, nested ones too."""
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, list):
            stack += part
        elif isinstance(part, dict):
            yield part
            stack += [part[key] for key in ("type", "items", "values") if key in part]
            stack += [field["type"] for field in part.get("fields", ())]


def _is_weightless(schema: Any, named: Mapping[str, Any], above: frozenset[str]) -> bool:
    """Whether a datum of this schema takes no bytes."""
    if isinstance(schema, str) and schema in named:
        schema = named[schema]
    if schema == "null":
        return True
    if not isinstance(schema, dict):
        return False  # a union starts with its branch's number
    match schema["type"]:
        case "fixed":
            return bool(schema["size"] == 0)
        case "record" | "error":
            if schema["name"] in above:
                return True
            inner = above | {schema["name"]}
            return all(_is_weightless(field["type"], named, inner) for field in schema["fields"])
        case "array" | "map" | "enum":
            return False
        case other:
            return _is_weightless(other, named, above)
