"""Schema trees: what a caller may send, and the form in which the engine walks them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.extraction.limits import ExtractionLimits
    from consumer.extraction.task import SchemaTree

MAX_NAME_CHARS: Final = 512
"""A name of more than 124 tokens is skipped anyway; the bound keeps what is tokenised and cached small."""


_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """The text with every lone surrogate replaced by U+FFFD: same length, and it can be written as UTF-8."""
    return _SURROGATE.sub("\ufffd", text)


class Branch:
    """One parent's types in prompt order, by Unicode code point. Children are compiled when asked for."""

    __slots__ = ("_children", "_tree", "names")

    def __init__(self, tree: SchemaTree) -> None:
        self._tree = tree
        self.names: tuple[str, ...] = tuple(sorted(tree))
        self._children: list[Branch | None] | None = None

    def child(self, index: int) -> Branch | None:
        """The branch under ``names[index]``, None for a leaf."""
        if self._children is None:
            subtrees = (self._tree[name] for name in self.names)
            self._children = [Branch(subtree) if subtree else None for subtree in subtrees]
        return self._children[index]


def parse_schema(raw: object, limits: ExtractionLimits) -> SchemaTree:
    """Read an inline schema: JSON text or a mapping of type name to children (None or an empty mapping for a leaf).

    Names are stripped of outer whitespace. Raises BadInput at stage ``validate``: ``InvalidSchema``,
    ``SchemaTooDeep`` or ``SchemaTooWide``.
    """
    if isinstance(raw, str | bytes):
        raw = _decoded(raw)
    if not isinstance(raw, Mapping):
        raise _invalid(f"a schema is a mapping of type names, not {_kind(raw)}")
    if not raw:
        raise _invalid('the schema names no type; send at least one, for example {"优点": null}')
    return _Checker(limits).check(raw)


def legal_leaves(tree: SchemaTree) -> frozenset[tuple[str, ...]]:
    """Every root-to-leaf path of names, as they are written. Any depth: nothing here recurses."""
    return frozenset(_leaves(tree))


def shown(name: str) -> str:
    """A type name as it may stand in messages and warnings: at most 40 characters."""
    return name if len(name) <= 40 else name[:39] + "…"


def _leaves(tree: SchemaTree) -> Iterator[tuple[str, ...]]:
    stack: list[tuple[tuple[str, ...], SchemaTree]] = [((), tree)]
    while stack:
        path, children = stack.pop()
        for name, below in children.items():
            if below:
                stack.append(((*path, name), below))
            else:
                yield (*path, name)


def _decoded(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise BadInput("validate", "SchemaTooDeep", "the schema's JSON is nested too deeply to be read") from None
    except ValueError as error:
        position = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise _invalid(f"the schema is not JSON{position}; send an object of type names") from None


class _Checker:
    def __init__(self, limits: ExtractionLimits) -> None:
        self._limits = limits
        self._total = 0

    def check(self, raw: Mapping[Any, Any], depth: int = 1) -> dict[str, SchemaTree | None]:
        if depth > self._limits.schema_depth:
            limit = self._limits.schema_depth
            raise BadInput("validate", "SchemaTooDeep", f"the schema has more than {limit} levels; flatten it")
        self._count(len(raw))
        tree: dict[str, SchemaTree | None] = {}
        for written, children in raw.items():
            name = self._name(written)
            if name in tree:
                raise _invalid(f"type {shown(name)!r} stands twice under one parent; outer spaces do not count")
            if children is None:
                tree[name] = None
            elif isinstance(children, Mapping):
                tree[name] = self.check(children, depth + 1) if children else None
            else:
                raise _invalid(f"type {shown(name)!r} has {_kind(children)} as children; send null or an object")
        return tree

    def _count(self, types: int) -> None:
        limit = self._limits.types_per_level
        if types > limit:
            what = f"{types} types stand under one parent of the schema; at most {limit} are allowed"
            raise BadInput("validate", "SchemaTooWide", what)
        self._total += types
        if self._total > limit * self._limits.schema_depth:
            what = f"the schema has more than {limit * self._limits.schema_depth} types in all; split it into tasks"
            raise BadInput("validate", "SchemaTooWide", what)

    @staticmethod
    def _name(written: object) -> str:
        if not isinstance(written, str):
            raise _invalid(f"a type name is text, not {_kind(written)}")
        name = encodable(written).strip()
        if not name:
            raise _invalid("a type name is empty; name the type or remove it")
        if len(name) > MAX_NAME_CHARS:
            raise _invalid(f"type {shown(name)!r} has {len(name)} characters; at most {MAX_NAME_CHARS} are allowed")
        return name


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), type(value).__name__)


def _invalid(message: str) -> BadInput:
    return BadInput("validate", "InvalidSchema", message)
