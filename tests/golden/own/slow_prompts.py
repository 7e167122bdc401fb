"""Prompts made the slow way, without the engine: one string, encoded as a pair, cut by the tokenizer itself.

Positions and segments are counted token by token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Tokenizer
from vocabulary import tokenizer_json

MARKERS = ["[PREFIX]", "[TYPE]", "[CLASSIFY]", "[MULTICLASSIFY]"]

Json = dict[str, Any]
Group = tuple[str, list[str]]
"""Prefix string, and its types in the order of the hint."""


@dataclass(frozen=True)
class Fact:
    """A span the model links to a type below a prefix, wherever a window holds all of it."""

    prefix: str
    type: str
    span: str
    nth: int = 0
    logits: tuple[float, float, float] = (2.0, 2.0, 2.0)


@dataclass(frozen=True)
class Ballot:
    """Logits of marker, head and tail cell of one type, in the windows with these numbers (None: in all)."""

    prefix: str
    type: str
    logits: tuple[float, float, float]
    windows: tuple[int, ...] | None = None


@dataclass
class Level:
    hints: list[list[Group]]
    facts: list[Fact] = field(default_factory=list)
    ballots: list[Ballot] = field(default_factory=list)


class Prompts:
    def __init__(self) -> None:
        self.tokenizer = Tokenizer.from_str(tokenizer_json().decode())
        self.tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in MARKERS])
        stripped = json.loads(tokenizer_json())
        stripped["added_tokens"] = []
        stripped["post_processor"] = None
        self.plain = Tokenizer.from_str(json.dumps(stripped))
        """Knows no special token at all: how text has to be read whose markers are ordinary characters."""

    def id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        assert isinstance(found, int)
        return found

    def windows(self, groups: list[Group], text: str, overlap: int, marker: str | None) -> list[Json]:
        """``text`` as the reference gets it, with marker or aspect in front."""
        hint = "".join(f"[PREFIX]{prefix}" + "".join(f"[TYPE]{name}" for name in names) for prefix, names in groups)
        self.tokenizer.enable_truncation(512, stride=overlap, strategy="only_second")
        first = self.tokenizer.encode(hint, text)
        self.tokenizer.no_truncation()
        made = []
        for number, encoding in enumerate([first, *first.overflowing]):
            ids, offsets = list(encoding.ids), list(encoding.offsets)
            start = encoding.type_ids.index(1)
            if marker and number:
                ids = [*[*ids[:start], self.id(marker), *ids[start:-1]][:511], ids[-1]]
                offsets = [*[*offsets[:start], (0, 0), *offsets[start:-1]][:511], (0, 0)]
            made.append(self.window(hint, groups, ids, offsets, start, number))
        return made

    def plain_window(self, groups: list[Group], text: str) -> Json:
        """One window of a short text in which markers are ordinary characters."""
        (empty,) = self.windows(groups, "。", 0, None)
        encoding = self.plain.encode(text, add_special_tokens=False)
        start = empty["text_start"]
        ids = [*empty["ids"][:start], *encoding.ids, self.id("[SEP]")]
        offsets = [*empty["offsets"][:start], *encoding.offsets, (0, 0)]
        return self.window(empty["hint"], groups, ids, offsets, start, 0)

    def window(
        self, hint: str, groups: list[Group], ids: list[int], offsets: list[tuple[int, int]], start: int, number: int
    ) -> Json:
        positions, segments = self.layout(ids[: start - 1])
        positions += range(max(positions) + 1, max(positions) + 2 + len(ids) - start)
        segments += [0] * (len(ids) - len(segments))
        types = {}
        slots = [(prefix, name) for prefix, names in groups for name in names]
        at = -1
        for slot in slots:
            at = hint.index("[TYPE]", at + 1)
            types[slot] = next(i for i in range(1, start) if offsets[i] == (at, at + 6))
        return {
            "hint": hint,
            "number": number,
            "ids": ids,
            "offsets": offsets,
            "positions": positions,
            "segments": segments,
            "text_start": start,
            "types": types,
        }

    def layout(self, hint_ids: list[int]) -> tuple[list[int], list[int]]:
        """Token by token, without ``[SEP]``: docs/extraction.md, sections 6 and 7."""
        positions, segments = [0], [0]
        prefix = kind = 0
        prefix_end = here = 0
        for token in hint_ids[1:]:
            if token == self.id("[PREFIX]"):
                prefix, kind, here = prefix + 1, 0, 0
            elif token == self.id("[TYPE]"):
                kind, here = kind + 1, prefix_end
            here += 1
            if kind == 0:
                prefix_end = here
            positions.append(here)
            segments.append(prefix * 256 + kind)
        return positions, segments


def run_lengths(values: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return runs


def span_cells(window: Json, facts: list[Fact], text: str) -> dict[tuple[int, int], float]:
    cells: dict[tuple[int, int], float] = {}
    for fact in facts:
        token = window["types"].get((fact.prefix, fact.type))
        if token is None:
            continue
        start = -1
        for _ in range(fact.nth + 1):
            start = text.index(fact.span, start + 1)
        ends = range(window["text_start"], len(window["ids"]) - 1)
        heads = [i for i in ends if window["offsets"][i][0] == start]
        tails = [i for i in ends if window["offsets"][i][1] == start + len(fact.span)]
        if heads and tails:
            cells[heads[0], tails[0]], cells[heads[0], token], cells[token, tails[0]] = fact.logits
    return cells


def ballot_cells(window: Json, ballots: list[Ballot]) -> dict[tuple[int, int], float]:
    marker = window["text_start"]
    cells = {(marker, marker): -3.0}
    for token in window["types"].values():
        cells[marker, token] = cells[token, marker] = -3.0
    for ballot in ballots:
        token = window["types"].get((ballot.prefix, ballot.type))
        if token is not None and (ballot.windows is None or window["number"] in ballot.windows):
            cells[marker, marker], cells[marker, token], cells[token, marker] = ballot.logits
    return cells


class Book:
    def __init__(self) -> None:
        self.prompts = Prompts()
        self.extract: list[Json] = []
        self.classify: list[Json] = []

    def spans(
        self,
        name: str,
        text: str,
        schema: Json,
        levels: list[Level],
        expected: list[list[list[Any]]],
        *,
        aspect: str | None = None,
        literal: bool = False,
        warnings: tuple[str, ...] = (),
        **task: Any,
    ) -> None:
        calls = []
        for depth, level in enumerate(levels):
            for groups in level.hints:
                seen = (aspect or "") + text
                windows = (
                    [self.prompts.plain_window(groups, seen)]
                    if literal
                    else self.prompts.windows(groups, seen, 32, None)
                )
                calls += [call(depth, window, span_cells(window, level.facts, seen)) for window in windows]
        self.extract.append(
            {
                "id": name,
                "text": text,
                "task": {"kind": "extract", "schema": schema, "implicit_aspect": aspect, **task},
                "calls": calls,
                "expected": expected,
                "warnings": list(warnings),
            }
        )

    def votes(
        self,
        name: str,
        text: str,
        schema: Json,
        levels: list[Level],
        expected: list[list[list[Any]]],
        *,
        kind: str = "classify",
        warnings: tuple[str, ...] = (),
        **task: Any,
    ) -> None:
        marker = {"classify": "[CLASSIFY]", "multi_classify": "[MULTICLASSIFY]"}[kind]
        calls = []
        for depth, level in enumerate(levels):
            for groups in level.hints:
                windows = self.prompts.windows(groups, marker + text, 0, marker)
                calls += [call(depth, window, ballot_cells(window, level.ballots)) for window in windows]
        self.classify.append(
            {
                "id": name,
                "text": text,
                "task": {"kind": kind, "schema": schema, **task},
                "calls": calls,
                "expected": expected,
                "warnings": list(warnings),
            }
        )


def call(level: int, window: Json, cells: dict[tuple[int, int], float]) -> Json:
    return {
        "level": level,
        "hint": window["hint"],
        "text_start": window["text_start"],
        "input_ids": window["ids"],
        "position_ids": window["positions"],
        "segments": run_lengths(window["segments"]),
        "cells": [[row, column, logit] for (row, column), logit in sorted(cells.items())],
    }


def one(prefix: str, *names: str) -> list[Group]:
    return [(prefix, list(names))]


def cost(book: Book, names: list[str]) -> int:
    hint = "[PREFIX]" + "".join(f"[TYPE]{name}" for name in names)
    return len(book.prompts.tokenizer.encode(hint).ids)


FILLER = "这句话只是为了把评价写长一点。"
"""15 characters, 15 tokens."""
