"""A task: what to extract, as data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.events import TaskKind


# The one exception of compatibility mode.


class ReferenceCrash(Exception):  # noqa: N818 - it says what happens, to the reference
    """The reference implementation raises on this input. The message is what it raises, such as ``KeyError: …``."""


# How much one event may ask for.


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """Bounds on one task of one event. Beyond them the event is bad input, except ``facts``, which is a visible cap."""

    text_chars: int = 50_000
    """Unicode code points of a review."""
    types_per_level: int = 512
    """Types under one parent. The whole tree may hold ``types_per_level * schema_depth``."""
    schema_depth: int = 8
    facts: int = 1000
    """Facts accepted on one level, and paths reported in all. What exceeds it is dropped with a warning."""
    model_calls: int = 4096
    """Windows over all levels."""


SchemaTree: TypeAlias = "Mapping[str, SchemaTree | None]"
"""Type name -> its children, or None (or an empty mapping) for a leaf. Names are the prompt: free text."""

INLINE = "inline"
"""Task name of a schema that came with its event."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What to extract from a text.

    ``implicit_aspect`` is put in front of an extraction text so that "the product as a whole" has a place to stand.
    ``threshold`` drops paths whose mean score is lower, after decoding; None keeps the reference's own rule (above 0.5
    for extract and classify, 0.9 with the best one as fallback for multi_classify).
    ``legal_paths`` replaces the root-to-leaf paths of the schema as the paths that may be reported.
    """

    name: str
    kind: TaskKind
    schema: SchemaTree
    implicit_aspect: str | None = None
    threshold: float | None = None
    description: str = ""
    legal_paths: frozenset[tuple[str, ...]] | None = None

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with everything that changes the answer. Part of the result's id."""
        canonical = json.dumps(
            [self.kind, self.schema, self.implicit_aspect, self.threshold, sorted(self.legal_paths or ())],
            ensure_ascii=False,
            sort_keys=True,
        )
        return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:16]


# Schema trees: what a caller may send, and the form in which the engine walks them.

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


# What comes out of an extraction.


@dataclass(frozen=True, slots=True)
class Fact:
    """One element of a path. Offsets are Unicode code points of the caller's text, half-open.

    Classification facts and implicit aspects have neither span nor offsets. ``score`` is the mean of the sigmoids of
    the span, head and tail cells, rounded to 4 decimals.
    """

    type: str
    span: str | None
    start: int | None
    end: int | None
    score: float


Path = tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Extracted:
    """The outcome of one task on one text. ``warnings`` name what was skipped or capped, without review text."""

    paths: tuple[Path, ...]
    warnings: tuple[str, ...]
    model_calls: int
    """Windows that were answered by the model."""


# What an extraction has to say about itself besides its facts.

_NAMED = 5
"""Skipped types that a warning lists by name."""


@dataclass(slots=True)
class Notes:
    """Collects what was skipped, dropped or capped. Never holds review text."""

    skipped_types: dict[str, None] = field(default_factory=dict)
    """Used as an ordered set."""
    skipped_parents: int = 0
    crossed_aspect: int = 0
    capped_at: int | None = None
    fallback: bool = False

    def warnings(self, type_limit: int, prefix_limit: int) -> tuple[str, ...]:
        """One line for each kind of event, starting with a stable slug. Limits in tokens."""
        lines = []
        if self.skipped_types:
            names = [shown(name) for name in list(self.skipped_types)[:_NAMED]]
            more = len(self.skipped_types) - len(names)
            listed = ", ".join(names) + (f" and {more} more" if more else "")
            lines.append(f"types-skipped: {len(self.skipped_types)} over {type_limit} tokens: {listed}")
        if self.skipped_parents:
            lines.append(
                f"children-skipped: {self.skipped_parents} found facts over {prefix_limit} tokens were not expanded"
            )
        if self.crossed_aspect:
            lines.append(f"aspect-crossed: {self.crossed_aspect} spans from the implicit aspect into the text dropped")
        if self.capped_at is not None:
            lines.append(f"facts-capped: more than {self.capped_at} facts on a level or paths; the rest was dropped")
        if self.fallback:
            lines.append("fallback: no type scored above 0.5; the best guess is reported")
        return tuple(lines)
