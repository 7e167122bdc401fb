"""Writer schemas, made ready for reading: what a registry accepts is read, whatever its records are called.

Of a producer's schema only what says how its bytes are laid out is kept, and the logical types that mean something
here. Defaults, documentation, orders and properties of other tools decide nothing, so nothing of theirs can be wrong.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import fastavro

from consumer.codecs.avro_logical import (
    CONTAINER,
    ENUM,
    ENUM_NAME,
    OWN_BYTES,
    RECORD,
    RENAMED,
    SYMBOLS,
    logical_type,
)
from consumer.codecs.avro_shapes import MOST_NOTHINGS, holds_endless_nothings, nests_deep, within_arrays
from consumer.config.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping

VALUE = "value"
"""The field of the record around every schema that holds its datum. A record adds no byte to what it holds, and what
it holds may be a union, a name or a plain type."""

_PREFIX = "writer."
"""Before each name: with a point in it, a name is a full one everywhere."""

_PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """What values were written with."""

    parsed: dict[str, Any]
    """fastavro's form of a record whose one field ``VALUE`` has the producer's schema."""
    named: Mapping[str, Any]
    """Definitions by full name."""
    is_deep: bool
    """Whether a datum may nest deeper than the compiled reader's stack bears."""


JSON_PAYLOAD = WriterSchema({}, {}, is_deep=False)
"""Stands for every JSON Schema: the values written with it are JSON, and it need not be known to read them."""


@cache
def event_schema() -> WriterSchema:
    """The shipped schema of events, which bare data are written with."""
    return parse_writer_schema(shipped("schemas/avro/review_event.avsc").read_text(encoding="utf-8"))


@cache
def event_fields() -> dict[str, Any]:
    """The fields of the shipped schema of events by name: the reader's side."""
    fields = json.loads(shipped("schemas/avro/review_event.avsc").read_text(encoding="utf-8"))["fields"]
    return {field["name"]: field for field in fields}


def parse_writer_schema(text: str, named: dict[str, Any] | None = None) -> WriterSchema:
    """Parse a schema's JSON text; ``named`` collects the types it defines, for the schemas that refer to them.

    Raises ValueError for what is not an Avro schema, and for one of which a few bytes could hold any number of values.
    """
    named = {} if named is None else named
    try:
        schema = _layout(json.loads(text), "", named, set())
        wrapped = {"type": "record", "name": "rexstream.Datum", "fields": [{"name": VALUE, "type": schema}]}
        parsed: Any = fastavro.parse_schema(wrapped, named_schemas=named)
        is_endless, is_deep = holds_endless_nothings(parsed, named), nests_deep(named)
        for part in within_arrays(parsed, named, everywhere=is_deep):
            _charge(part)
    except Exception as error:
        # Whatever is looked up in a text from outside may be missing, or of any type.
        raise ValueError(f"not an Avro schema ({type(error).__name__})") from None
    if not schema:
        raise ValueError("not an Avro schema (an empty union)")
    if is_endless:
        what = f"an array of items that take no bytes, or a record of more than {MOST_NOTHINGS} such"
        raise ValueError(f"it has {what}, and a few bytes can hold any number of those")
    return WriterSchema(parsed, named, is_deep)


def branches(writer: WriterSchema) -> list[Any]:
    """The types that a datum may be: those of a union, or the one that the schema is; each with its definition."""
    schema = writer.parsed["fields"][0]["type"]
    return [
        writer.named[part] if isinstance(part, str) and part not in _PRIMITIVES else part
        for part in (schema if isinstance(schema, list) else [schema])
    ]


def described(schema: Any, depth: int = 0) -> str:
    """A type in a few words: ``null or string``, ``array of int``, ``record com.shop.Body``."""
    if isinstance(schema, list):
        return " or ".join(described(branch, depth) for branch in schema[:8]) if depth < 4 else "union"
    if isinstance(schema, str):
        return schema.removeprefix(_PREFIX)[:200]
    kind = schema["type"]
    if ENUM_NAME in schema:
        return f"enum {schema[ENUM_NAME]}"[:200]
    if "name" in schema:
        return f"{kind} {schema['name'].removeprefix(_PREFIX)}"[:200]
    if kind in ("array", "map"):
        inner = schema["items" if kind == "array" else "values"]
        return f"{kind} of {described(inner, depth + 1)}" if depth < 4 else kind
    return str(kind)


def _layout(schema: Any, namespace: str, named: dict[str, Any], known: set[str]) -> Any:
    """The schema with what reading needs of it, and full names. ``known``: names that the text has defined so far."""
    if isinstance(schema, list):
        return [_layout(branch, namespace, named, known) for branch in schema]
    if isinstance(schema, str):
        return schema if schema in _PRIMITIVES else _reference(schema, namespace, named, known)
    kind = schema["type"]
    if kind == "array":
        return {"type": kind, "items": _layout(schema["items"], namespace, named, known)}
    if kind == "map":
        return {"type": kind, "values": _layout(schema["values"], namespace, named, known)}
    if kind in ("record", "error", "enum", "fixed"):
        return _named_layout(schema, kind, namespace, named, known)
    if kind in _PRIMITIVES:
        return logical_type(schema) or kind
    return _layout(kind, namespace, named, known)  # {"type": {"type": ...}}, {"type": "com.shop.Money"}


def _named_layout(schema: Any, kind: str, namespace: str, named: dict[str, Any], known: set[str]) -> Any:
    full = schema["name"]
    if "." not in full and (namespace := schema.get("namespace", namespace)):
        full = f"{namespace}.{full}"
    name = _PREFIX + full
    if name in known:
        raise ValueError("a type defined twice")
    known.add(name)
    if kind == "fixed":
        return logical_type(schema, name) or {"type": kind, "name": name, "size": int(schema["size"])}
    if kind == "enum":
        named[name] = {
            "type": "int",
            "logicalType": ENUM,
            ENUM_NAME: full,
            SYMBOLS: [str(symbol) for symbol in schema["symbols"]],
        }
        return named[name]
    if (decimal := logical_type(schema, name)) is not None:
        return decimal
    inner = full.rpartition(".")[0]
    fields = [
        {"name": field["name"], "type": _layout(field["type"], inner, named, known)} for field in schema["fields"]
    ]
    return {"type": "record", "name": name, "fields": fields, **_renamed(schema["fields"])}


def _reference(name: str, namespace: str, named: dict[str, Any], known: set[str]) -> str:
    """The full name of a type that is named: in the namespace where it is used, else in none."""
    for full in (name if "." in name or not namespace else f"{namespace}.{name}", name):
        if (prefixed := _PREFIX + full) in known or prefixed in named:
            return prefixed
    raise ValueError("an unknown type")


def _renamed(fields: list[Any]) -> dict[str, Any]:
    """How the events' fields are called in a record that has them under another name: an alias, theirs or ours."""
    names = {field["name"] for field in fields}
    aliases = {alias: field["name"] for field in fields for alias in _aliases(field)}
    aliases |= {name: name for name in names}
    renamed = {
        ours: aliases[alias]
        for ours, field in event_fields().items()
        if ours not in names
        for alias in (ours, *_aliases(field))
        if alias in aliases
    }
    return {"logicalType": RECORD, RENAMED: renamed} if renamed else {}


def _aliases(field: dict[str, Any]) -> list[str]:
    found = field.get("aliases")
    return [alias for alias in found if isinstance(alias, str)] if isinstance(found, list) else []


def _charge(part: dict[str, Any]) -> None:
    """Let a part that arrays can repeat count the memory that each value of it takes."""
    kind = part["type"]
    empty: Any = [] if kind == "array" else dict.fromkeys(range(len(part.get("fields", ()))))
    part.setdefault("logicalType", RECORD if kind == "record" else CONTAINER)
    part[OWN_BYTES] = sys.getsizeof(empty) + 24  # and what the collector and its holder add
