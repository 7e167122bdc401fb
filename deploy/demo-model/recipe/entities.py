"""Samples of flat and nested extraction: entities, opinion targets, and any level of a nested schema."""

from __future__ import annotations

from collections import defaultdict
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from recipe.reviews import WHOLE
from recipe.rows import IMPLICIT
from recipe.samples import LONGEST as LONGEST_SAMPLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from recipe.naming import Naming
    from recipe.rows import Row, Span
    from recipe.samples import Layout, Sample

LONGEST: Final = 160
"""Characters of a text; of a longer one a window is cut out, mostly around something annotated."""
MOST_TYPES: Final = 10
"""Of a schema of one level, in one sample."""
MOST_PARENTS: Final = 4
"""In one sample, or fewer where it would be longer than is trained on."""


class EntitySamples:
    """Named entities and targets."""

    def __init__(self, sets: dict[str, list[Row]], shares: dict[str, float], layout: Layout, naming: Naming) -> None:
        self._names = [name for name in shares if sets.get(name)]
        self._shares = [shares[name] for name in self._names]
        self._sets, self._layout, self._naming = sets, layout, naming

    def entities(self, rng: Random) -> Sample:
        """All types of the set, or some, or what the shipped task calls them."""
        name = rng.choices(self._names, self._shares)[0]
        row = rng.choice(self._sets[name])
        spans = [path[0] for path in row.paths]
        every = list(row.schema)
        if every == ["评价对象"]:
            target = rng.choice(self._naming.raw["targets"])
            return flat(
                self._layout, row.text, [span._replace(type=target) for span in spans], [target], "entities", rng
            )
        shipped = {each: name for each, name in self._naming.raw["entities_of_ner"].items() if each in every}
        if shipped and rng.random() < 0.2:
            spans = [span._replace(type=shipped[span.type]) for span in spans if span.type in shipped]
            return flat(self._layout, row.text, spans, list(dict.fromkeys(shipped.values())), "entities", rng)
        names = self._naming.of_entities(every, rng)
        asked = every
        if len(every) > 2 and rng.random() < 0.3:
            asked = rng.sample(every, rng.randint(1, len(every) - 1))
            present = [span.type for span in spans if span.type not in asked]
            asked += rng.sample(present, 1) if present and rng.random() < 0.6 else []
        types = [names[each] for each in asked]
        if rng.random() < 0.1:
            types += self._naming.absent(row.text, [*every, *types], 2, rng)
        spans = [span._replace(type=names[span.type]) for span in spans if span.type in asked]
        return flat(self._layout, row.text, spans, types, "entities", rng)


def flat(layout: Layout, text: str, spans: Sequence[Span], types: Sequence[str], kind: str, rng: Random) -> Sample:
    """One level of types; a long text is cut to a window."""
    start, end = _window(text, spans, spans, rng)
    number = {name: index for index, name in enumerate(types)}
    inside = [
        (0, number[span.type], span.start - start, span.end - start)
        for span in spans
        if span.type in number and span.start >= start and span.end <= end
    ]
    return layout.extraction(text[start:end], [("", list(types))], inside, kind)


def _window(text: str, first: Sequence[Span], spans: Sequence[Span], rng: Random) -> tuple[int, int]:
    """LONGEST characters, mostly around one of ``first``, or a little less, so that none of ``spans`` is cut in two."""
    if len(text) <= LONGEST:
        return 0, len(text)
    middle = rng.choice(first).start if first and rng.random() < 0.8 else rng.randrange(len(text))
    start = max(0, min(middle - rng.randint(10, LONGEST - 30), len(text) - LONGEST))
    end = start + LONGEST
    for span in sorted(spans, key=lambda span: span.start):
        if span.start < start < span.end < end:
            start = span.end
    for span in sorted(spans, key=lambda span: -span.end):
        if start < span.start < end < span.end:
            end = span.start
    return start, end


class NestedSamples:
    """Sets with schemas of several levels: dialogues, relations, events."""

    def __init__(self, sets: dict[str, list[Row]], shares: dict[str, float], layout: Layout) -> None:
        self._names = [name for name in shares if sets.get(name)]
        self._shares = [shares[name] for name in self._names]
        self._sets, self._layout = sets, layout

    def nested(self, rng: Random) -> Sample:
        """A random level of a random row."""
        row = rng.choice(self._sets[rng.choices(self._names, self._shares)[0]])
        text, paths = windowed(row, rng)
        return level_of(self._layout, text, paths, row.schema, "nested", rng)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw from."""
        return not self._names


def windowed(row: Row, rng: Random) -> tuple[str, list[tuple[Span, ...]]]:
    """A window of a row's text, and what of each path lies in it: its beginning, up to the first span outside.

    A ``#`` in front of the text, which stands for the product as a whole, stays there.
    """
    start, end = _window(row.text, [path[0] for path in row.paths], [span for path in row.paths for span in path], rng)
    whole = start > 0 and row.text.startswith(IMPLICIT)

    def inside(span: Span) -> bool:
        return (start <= span.start and span.end <= end) or (whole and (span.start, span.end) == WHOLE)

    def moved(span: Span) -> Span:
        by = 0 if span.start < start else whole - start
        return span._replace(start=span.start + by, end=span.end + by)

    paths = [tuple(map(moved, takewhile(inside, path))) for path in row.paths]
    return IMPLICIT * whole + row.text[start:end], [path for path in dict.fromkeys(paths) if path]


def some_types(types: Sequence[str], present: set[str], rng: Random) -> list[str]:
    """All types, or where they are more than MOST_TYPES, as many of them: up to half are ``present``.

    The worker, too, asks a long schema in several hints. All in one would be too long to be trained on.
    """
    if len(types) <= MOST_TYPES:
        return list(types)
    there = [name for name in types if name in present]
    chosen = rng.sample(there, min(len(there), MOST_TYPES // 2))
    others = [name for name in types if name not in present]
    return chosen + rng.sample(others, min(len(others), MOST_TYPES - len(chosen)))


def level_of(
    layout: Layout, text: str, paths: Sequence[tuple[Span, ...]], schema: dict[str, Any], kind: str, rng: Random
) -> Sample:
    """A random level of ``schema`` that ``paths`` reach, asked below at most MOST_PARENTS parents."""
    deepest = max((len(path) for path in paths), default=1)
    depth = rng.randint(1, deepest)
    first = [path[0] for path in paths]
    asked = some_types(list(schema), {span.type for span in first}, rng)
    if depth == 1:
        return flat(layout, text, first, asked, kind, rng)
    below: dict[tuple[tuple[str, str], ...], list[Span]] = defaultdict(list)
    for path in paths:
        if len(path) >= depth - 1:
            key = tuple((span.type, text[span.start : span.end]) for span in path[: depth - 1])
            below[key] += path[depth - 1 : depth]
    groups: list[tuple[str, list[str]]] = []
    spans: list[tuple[int, int, int, int]] = []
    for key in rng.sample(list(below), min(len(below), MOST_PARENTS)):
        types = schema
        for name, _ in key:
            types = types.get(name) or {}
        if types:
            names = list(types)
            spans += [(len(groups), names.index(s.type), s.start, s.end) for s in below[key] if s.type in types]
            groups.append((",".join(f"{name}: {words}" for name, words in key), names))
    if not groups:
        return flat(layout, text, first, asked, kind, rng)
    sample = layout.extraction(text, groups, spans, kind)
    while sample.length > LONGEST_SAMPLE and len(groups) > 1:  # else it would not be trained on at all
        groups.pop()
        sample = layout.extraction(text, groups, [span for span in spans if span[0] < len(groups)], kind)
    return sample
