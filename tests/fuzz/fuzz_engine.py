"""Targets: schema trees, and the engine between a text and a model that answers anything at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from cells import cells_of
from fuzzing import JSON_TOKENS, Target, a_schema, a_text, a_value, bad, damaged, require
from stub_model import TOKENIZER_JSON

from consumer.events import BadInput, encodable
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer
from consumer.extraction.task import INLINE, ExtractionLimits, Task, legal_leaves, parse_schema
from consumer.extraction.window import Cells

if TYPE_CHECKING:
    from random import Random

    from consumer.events import TaskKind
    from consumer.extraction.engine import Extraction
    from consumer.extraction.task import Extracted
    from consumer.extraction.window import Window

FACTS, CALLS = 20, 60
LIMITS = ExtractionLimits(facts=FACTS, model_calls=CALLS)
ENGINE = Engine(PromptTokenizer(TOKENIZER_JSON), PromptLimits(), LIMITS)


# -- schema trees -----------------------------------------------------------------------------------------------------


def a_raw_schema(random: Random) -> Any:
    """A tree, its JSON text whole or damaged, or any other value."""
    roll = random.random()
    if roll < 0.05:
        return a_value(random)
    tree: Any = a_schema(random, random.choice((1, 3, 9)))
    if roll < 0.1:
        tree = {f"t{number}": None for number in range(random.choice((511, 512, 513, 900)))}
    elif roll < 0.12:
        tree = {"x" * random.choice((512, 513, 60_000)): None}
    elif roll < 0.14:
        for _ in range(random.choice((7, 8, 400, 990))):
            tree = {"a": tree}
    if roll < 0.5:
        return tree
    try:
        text = json.dumps(tree, ensure_ascii=random.random() < 0.5).encode(errors="backslashreplace")
    except RecursionError:
        return tree
    text = damaged(random, text, JSON_TOKENS, text)
    return text if random.random() < 0.5 else text.decode(errors="surrogateescape")


def check_schema(raw: Any) -> str:
    try:
        tree = parse_schema(raw, LIMITS)
    except BadInput as error:
        return bad(error)
    leaves = legal_leaves(tree)
    require(leaves and all(len(path) <= LIMITS.schema_depth for path in leaves), "no leaf, or one too deep")
    require(all(name == name.strip() != "" and len(name) <= 512 for path in leaves for name in path), "a name")
    level = [tree]
    while level:
        for branch in level:
            require(0 < len(branch) <= LIMITS.types_per_level, "a branch too wide")
            "".join(branch).encode()
        level = [below for branch in level for below in branch.values() if below is not None]
    return "schema"


# -- the engine -------------------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """A text, a task, and what decides the model's answers."""

    text: str
    task: Task
    seed: int
    density: float


def a_question(random: Random) -> Question:
    text = a_text(random)
    if random.random() < 0.01:
        text = (a_text(random, 6) or "很轻，") * random.choice((90, 3000, 10_001))
        text = text[: random.choice((1000, 3000, 9_999, 10_000, 10_001))]
    kind: TaskKind = random.choice(("extract", "extract", "classify", "multi_classify"))
    schema = a_schema(random)
    aspect = random.choice((None, None, "#", a_text(random, 2)))
    threshold = random.choice((None, None, 0.0, 0.7, 1.0))
    task = Task(random.choice((INLINE, "t")), kind, schema, implicit_aspect=aspect, threshold=threshold)
    return Question(text, task, random.getrandbits(32), random.choice((0.0, 0.2, 0.5, 1.0, 2.0)))


_LOGITS = np.array((3.0, 1.0, 0.5, 1e-7, 0.0, -0.0, -1.0, -80.0, 90.0, 3.4e38, -3.4e38, 1e-45), np.float32)


def any_cells(window: Window, seed: int, density: float) -> Cells:
    """Cells in bunches that make spans, cells where nothing may be, each logit from the edge of what float32 holds."""
    random = np.random.default_rng(seed)
    size, start = window.length, window.text_start
    count = int(density * 30)
    if not count:
        return cells_of({})
    text = random.integers(start, max(start + 1, size - 1), (count, 2))
    types = np.flatnonzero(np.diff(window.segment) != 0) + 1
    kinds = random.choice(types, count)
    own = np.array([(start, start), *((start, kind) for kind in types), *((kind, start) for kind in types)])
    wild = random.choice((-(2**31), -1, 0, size - 1, size, size + 1, 2**31 - 1), (count // 5, 2))
    heads, tails = np.stack((text[:, 0], kinds), 1), np.stack((kinds, text[:, 1]), 1)
    cells = np.concatenate((wild, text, heads, tails, own)).astype(np.int32)
    logits = np.where(
        random.random(len(cells)) < 0.8, random.normal(1, 2, len(cells)), random.choice(_LOGITS, len(cells))
    )
    return Cells(cells[:, 0], cells[:, 1], logits.astype(np.float32))


def drive(extraction: Extraction, seed: int, density: float) -> Extracted:
    """Answer until it is finished; check every window on the way."""
    asked = 0
    while not extraction.finished:
        require(extraction.level < 20, "too many levels")
        for window in extraction.windows:
            _check_window(window)
        answers = [any_cells(window, seed + n, density) for n, window in enumerate(extraction.windows, asked)]
        asked += len(answers)
        extraction.advance(answers)
    result = extraction.result()
    require(result.model_calls == asked <= CALLS, f"{result.model_calls} calls counted of {asked}")
    return result


def _check_window(window: Window) -> None:
    marks, start = ENGINE.tokenizer, window.text_start
    require(0 < start <= 256 and start < window.length <= 512, f"text from {start}, length {window.length}")
    hint, text = window.input_ids[:start].tolist(), window.input_ids[start:].tolist()
    require(hint[0] == marks.cls and hint[-1] == text[-1] == marks.sep, "a window without its frame")
    require(marks.sep not in hint[:-1] and marks.cls not in hint[1:], "a special token inside the hint")
    special = {marks.cls, marks.sep, marks.prefix, marks.type, marks.classify, marks.multiclassify}
    require(not special & set(text[1:-1]), "a special token inside the text")
    require(window.position_ids.min() >= 0 and window.position_ids.max() < 512, "a position outside the model")
    for array in (window.input_ids, window.position_ids, window.segment):
        require(array.dtype == np.int32 and len(array) == window.length, "an array of another kind")


def check_facts(question: Question, result: Extracted) -> None:
    """Check that every path is legal and every span stands where it says."""
    text, task = encodable(question.text), question.task
    legal = {tuple(encodable(name).strip() for name in path) for path in legal_leaves(task.schema)}
    require(len(result.paths) <= FACTS, f"{len(result.paths)} paths")
    seen = {tuple((fact.type, fact.start, fact.end) for fact in path) for path in result.paths}
    require(len(seen) == len(result.paths), "a path twice")
    for path in result.paths:
        require(tuple(fact.type for fact in path) in legal, "a path that the schema does not have")
        for fact in path:
            require(0 <= fact.score <= 1, f"score {fact.score}")
            if fact.span is None or fact.start is None or fact.end is None:
                require((fact.span, fact.start, fact.end) == (None, None, None), "half a span")
                require(task.kind != "extract" or task.implicit_aspect, "a fact without a span")
            else:
                require(task.kind == "extract", "a class with a span")
                require(0 <= fact.start < fact.end <= len(text), f"offsets {fact.start} to {fact.end}")
                require(text[fact.start : fact.end] == fact.span, "a span that does not stand there")


def check_engine(question: Question) -> str:
    try:
        result = drive(ENGINE.start(question.text, question.task), question.seed, question.density)
    except BadInput as error:
        return bad(error)
    check_facts(question, result)
    return f"{question.task.kind}, {'facts' if result.paths else 'nothing'}"


TARGETS = (
    Target("schemas", 60, a_raw_schema, check_schema),
    Target("engine", 50, a_question, check_engine),
)
