"""Annotated rows out of the user's files, and which of them are kept for validation. Pure but for reading the files."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from consumer.events import TaskKind

_KINDS: Final[dict[str, TaskKind]] = {"": "extract", "[CLASSIFY]": "classify", "[MULTICLASSIFY]": "multi_classify"}
MARKERS: Final = tuple(_KINDS)[1:]
IMPLICIT: Final = "#"
"""Stands in front of a review whose aspects are annotated, for the product as a whole: the aspect with offsets 0, 1."""

POLARITIES: Final = {"正": "positive", "负": "negative", "中": "neutral"}


class DataError(Exception):
    """A file that cannot be read. The message names the file, the line and what was expected."""


class Span(NamedTuple):
    """One element of a path; ``start`` and ``end`` are code points of the row's text, half-open."""

    type: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Row:
    """One annotated text.

    ``text`` is without its classification marker and with a leading ``#``. ``fields`` are other columns of the file:
    ``label`` and ``category`` of a shop review, ``intent`` of a written one, ``pair_categories``.
    """

    text: str
    paths: tuple[tuple[Span, ...], ...] = ()
    schema: dict[str, Any] = field(default_factory=dict)
    kind: TaskKind = "extract"
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def types(self) -> set[str]:
        """Types of the first elements: the classes, in a classification row."""
        return {path[0].type for path in self.paths}


def key_of(text: str) -> str:
    """A text without marker, ``#``, spaces and case: what makes two rows the same text."""
    for marker in MARKERS:
        text = text.removeprefix(marker)
    return "".join(text.removeprefix(IMPLICIT).lower().split())


def kept_for_validation(text: str, percent: int = 5) -> bool:
    """Whether a text is on the validation side: the same in every file, whatever else is in it."""
    digest = hashlib.sha1(f"val:{key_of(text)}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) % 100 < percent


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers from 1 and lines of a text file (gzipped or not); empty ones are left out. Raises DataError."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; --data or recipe.yaml names another place") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; expected UTF-8 text, or its gzip as .gz") from error


def read_rows(path: Path) -> list[Row]:
    """Read JSON lines (gzipped or not) in one of three forms, recognised line by line.

    RexUniNLU's (``text``, ``info_list``, ``schema``), a shop review's (``text``, ``label``, ``category``), and the
    written one of this folder (``text``, ``features``). Raises DataError.
    """
    rows = []
    for number, line in lines_of(path):
        try:
            rows.append(row_of(json.loads(line)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(f"{path}, line {number}: {error!r}; see deploy/demo-model/README.md") from error
    return rows


def row_of(record: dict[str, Any]) -> Row:
    """A row from one parsed line. Raises KeyError, ValueError or TypeError for what is none of the three forms."""
    if "info_list" in record:
        return _annotated(record)
    others = {name: record[name] for name in record if name not in ("text", "features")}
    if "features" in record:
        return _written(record, others)
    return Row(str(record["text"]), fields=others)


def _annotated(record: dict[str, Any]) -> Row:
    text = str(record["text"])
    marker = next((marker for marker in MARKERS if text.startswith(marker)), "")
    paths = tuple(tuple(Span(element["type"], *element["offset"]) for element in path) for path in record["info_list"])
    if not marker:
        for path in record["info_list"]:
            for element in path:
                start, end = element["offset"]
                if text[start:end] != element["span"]:
                    raise ValueError(f"{element['span']!r} is not at {start}:{end} of the text")
    fields = {"pair_categories": record["pair_categories"]} if "pair_categories" in record else {}
    return Row(text.removeprefix(marker), paths, record["schema"], _KINDS[marker], fields)


def _written(record: dict[str, Any], others: dict[str, Any]) -> Row:
    text = IMPLICIT + record["text"]
    paths = []
    for aspect, opinion, polarity, *occurrences in record["features"]:
        which = occurrences[0] if occurrences else {}
        first = (0, 1) if aspect == IMPLICIT else _located(text, aspect, which.get("aspect", 0))
        last = _located(text, opinion, which.get("opinion", 0))
        paths.append((Span("aspect", *first), Span(POLARITIES[polarity], *last)))
    return Row(text, tuple(paths), fields=others)


def _located(text: str, words: str, occurrence: int) -> tuple[int, int]:
    start = 0
    for _ in range(occurrence + 1):
        start = text.index(words, start + 1)
    return start, start + len(words)


def split(rows: Iterable[Row], *, validation: bool) -> Iterator[Row]:
    """The rows of one side."""
    return (row for row in rows if kept_for_validation(row.text) == validation)
