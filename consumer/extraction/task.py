"""Input and output of an extraction as plain data: tasks, schema trees, limits, facts.

Read by every package that handles tasks (configuration, codecs, worker, commands); the engine is the one that works
with it. Nothing here is called for an ordinary event except what a task's schema needs when it is first compiled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from consumer.events import BadInput, encodable

if TYPE_CHECKING:
    from consumer.events import TaskKind

SchemaTree: TypeAlias = "Mapping[str, SchemaTree | None]"
"""Type name -> its children, or None (or an empty mapping) for a leaf. Names are the prompt: free text."""

INLINE = "inline"
"""Task name of a schema that came with its event."""


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """Bounds on one task of one event. Beyond them the event is bad input, except ``facts``, which is a visible cap."""

    text_chars: int = 10_000
    """Longest review, in Unicode code points."""
    types_per_level: int = 512
    """Most types under one parent. The whole tree may hold ``types_per_level * schema_depth``."""
    schema_depth: int = 8
    facts: int = 1000
    """Most facts accepted on one level, and most paths reported in all. What exceeds it is dropped with a warning."""
    model_calls: int = 8192
    """Most windows over all levels."""
    inline_model_calls: int = 256
    """The same for an inline schema, which ``model_calls`` bounds as well."""
    result_bytes: int = 524_288
    """Most bytes of paths in a result, as JSON. What exceeds it is dropped with a warning."""

    def text_too_long(self, text: str) -> BadInput:
        """Why a text of more than ``text_chars`` characters is bad input: ``TextTooLong``."""
        allowed = f"{self.text_chars} are allowed (limits.text_chars)"
        return BadInput("validate", "TextTooLong", f"the text has {len(text)} characters; {allowed}")


@dataclass(frozen=True, eq=False)
class Task:
    """What to extract from a text.

    ``implicit_aspect`` is put in front of an extraction text, so that a fact about the product as a whole has a span.
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

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with everything that changes the answer. Part of the result's id."""
        canonical = json.dumps(
            [self.kind, self.schema, self.implicit_aspect, self.threshold, sorted(self.legal_paths or ())],
            ensure_ascii=False,
            sort_keys=True,
        )
        return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:16]

    @cached_property
    def name_and_fingerprint(self) -> str:
        """Both as JSON strings, joined as in an array: the part of a result's id that all events of the task share."""
        return f"{json.dumps(self.name)}, {json.dumps(self.fingerprint)}"


@dataclass(slots=True, unsafe_hash=True)
class Fact:
    """One element of a path. Offsets are Unicode code points of the caller's text, half-open. Never changed: frozen it
    would take three times as long to make.

    Classification facts and implicit aspects have neither span nor offsets. ``score`` is the mean of the sigmoids of
    the span, head and tail cells, rounded to 4 decimals.
    """

    type: str
    span: str | None
    start: int | None
    end: int | None
    score: float


Path = tuple[Fact, ...]


@dataclass(slots=True)
class Extracted:
    """The outcome of one task on one text. ``warnings`` name what was skipped or capped, without review text."""

    paths: tuple[Path, ...]
    warnings: tuple[str, ...]
    model_calls: int
    """Windows that were answered by the model."""


@dataclass(slots=True)
class Notes:
    """What was skipped, dropped or capped in one extraction. Never holds review text."""

    skipped_types: dict[str, None] = field(default_factory=dict)
    """Types over their limit of tokens, as an ordered set."""
    skipped_parents: int = 0
    """Found facts over their limit of tokens, whose children were not looked for."""
    crossed_aspect: int = 0
    """Spans that reach from the implicit aspect into the text."""
    capped_at: int | None = None
    fallback: bool = False
    """Whether a classification found nothing above its threshold and reports the best guess."""


class ReferenceCrash(Exception):  # noqa: N818 - it says what happens, to the reference
    """The reference implementation raises on this input: compatibility mode only.

    The message is what it raises, such as ``KeyError: …``.
    """


INLINE_SCHEMA_CHARS: Final = 16_384
"""Most characters of all type names of an inline schema together: a hundred names of 20 characters are 2,000. Names are
tokenised before the first window can be counted, anew for every event, and a million characters take a second."""

MAX_NAME_CHARS: Final = 512
"""A name of more than 124 tokens is skipped anyway; the bound keeps what is tokenised and cached small."""


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
    return _Checker(limits).check(raw, 1)


def refuse_long_names(schema: SchemaTree) -> None:
    """Raise BadInput ``SchemaTooLarge`` for an inline schema of more than INLINE_SCHEMA_CHARS characters."""
    characters, stack = 0, [schema]
    while stack:
        tree = stack.pop()
        characters += sum(map(len, tree))
        stack += filter(None, tree.values())
    if characters > INLINE_SCHEMA_CHARS:
        raise BadInput(
            "validate",
            "SchemaTooLarge",
            f"the type names of the event's schema have {characters} characters; at most {INLINE_SCHEMA_CHARS} are "
            "allowed; shorten them, or make a task of the schema",
        )


def legal_leaves(tree: SchemaTree) -> frozenset[tuple[str, ...]]:
    """Every root-to-leaf path of names, as they are written. Any depth: nothing here recurses."""
    leaves = set()
    stack: list[tuple[tuple[str, ...], SchemaTree]] = [((), tree)]
    while stack:
        path, children = stack.pop()
        for name, below in children.items():
            if below:
                stack.append(((*path, name), below))
            else:
                leaves.add((*path, name))
    return frozenset(leaves)


def shown(name: str) -> str:
    """A type name as it may stand in messages and warnings: at most 40 characters."""
    return name if len(name) <= 40 else name[:39] + "…"


def _decoded(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except RecursionError:
        raise BadInput("validate", "SchemaTooDeep", "the schema's JSON is nested too deeply to be read") from None
    except ValueError as error:
        position = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise _invalid(f"the schema is not JSON{position}; send an object of type names") from None


@dataclass(slots=True)
class _Checker:
    """Checks and normalises a schema's mappings, and counts their types over all levels."""

    limits: ExtractionLimits
    types: int = 0

    def check(self, raw: Mapping[Any, Any], depth: int) -> dict[str, SchemaTree | None]:
        deepest, widest = self.limits.schema_depth, self.limits.types_per_level
        if depth > deepest:
            raise BadInput("validate", "SchemaTooDeep", f"the schema has more than {deepest} levels; flatten it")
        if len(raw) > widest:
            raise BadInput(
                "validate",
                "SchemaTooWide",
                f"{len(raw)} types stand under one parent of the schema; at most {widest} are allowed",
            )
        self.types += len(raw)
        if self.types > widest * deepest:
            raise BadInput(
                "validate",
                "SchemaTooWide",
                f"the schema has more than {widest * deepest} types in all; split it into tasks",
            )
        tree: dict[str, SchemaTree | None] = {}
        for written, children in raw.items():
            name = _name(written)
            if name in tree:
                raise _invalid(f"type {shown(name)!r} stands twice under one parent; outer spaces do not count")
            if not isinstance(children, Mapping | None):
                raise _invalid(f"type {shown(name)!r} has {_kind(children)} as children; send null or an object")
            tree[name] = self.check(children, depth + 1) if children else None
        return tree


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
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _invalid(message: str) -> BadInput:
    return BadInput("validate", "InvalidSchema", message)
