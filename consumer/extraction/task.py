"""A task: what to extract, as data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.events import TaskKind

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
