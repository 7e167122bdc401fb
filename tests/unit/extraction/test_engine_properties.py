"""What holds for any text, any schema and any answer of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cells import cells_of
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from consumer.events import BadInput, encodable
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import MARKERS, PromptLimits, PromptTokenizer
from consumer.extraction.reference import Quirks, start_reference
from consumer.extraction.task import ExtractionLimits, ReferenceCrash, Task, legal_leaves
from consumer.extraction.window import Cells, Window

if TYPE_CHECKING:
    from consumer.events import TaskKind
    from consumer.extraction.engine import Extraction

FACTS, CALLS, ROUNDS = 20, 60, 20

PIECES = st.sampled_from(
    [*MARKERS, "[SEP]", "[CLS]", "物流", "很快，", " ", "e\u0301", "𠮷🎉", "Ａ1", "\u200b", "\ud800", "#"]
)
TEXTS = st.lists(PIECES | st.text(st.characters(), max_size=5), max_size=12).map("".join)
LONG_TEXTS = TEXTS | st.tuples(TEXTS, st.integers(1, 130)).map(lambda pair: pair[0] * pair[1])
NAMES = (
    st.lists(PIECES | st.text(st.characters(), max_size=3), min_size=1, max_size=3)
    .map("".join)
    .filter(lambda name: encodable(name).strip() != "")
)
LEVEL_2 = st.dictionaries(NAMES, st.none(), min_size=1, max_size=3)
LEVEL_1 = st.dictionaries(NAMES, LEVEL_2 | st.none(), min_size=1, max_size=3)
SCHEMAS = st.dictionaries(NAMES, LEVEL_1 | LEVEL_2 | st.none(), min_size=1, max_size=4)
KINDS: st.SearchStrategy[TaskKind] = st.sampled_from(["extract", "classify", "multi_classify"])


@pytest.fixture(scope="module")
def bounded(tokenizer: PromptTokenizer) -> Engine:
    return Engine(tokenizer, PromptLimits(), ExtractionLimits(facts=FACTS, model_calls=CALLS))


def answer(window: Window, seed: int, density: float) -> Cells:
    """Random cells, a tenth of them where nothing may be, the others in bunches that make spans."""
    random = np.random.default_rng(seed)
    size, start = window.length, window.text_start
    count = int(density * 40)
    wild = random.integers(-2, size + 2, (count // 10, 2))
    text = random.integers(start, max(start + 1, size - 1), (count, 2))
    types = np.flatnonzero(np.diff(window.segment) != 0) + 1
    kinds = random.choice(types, count)
    heads = np.stack((text[:, 0], kinds), axis=1)
    tails = np.stack((kinds, text[:, 1]), axis=1)
    # The marker's own cells, so that classifications find something.
    front = np.array([(start, start), *((start, kind) for kind in types), *((kind, start) for kind in types)])
    cells = np.concatenate((wild, text, heads, tails, front)).astype(np.int32)
    logits = random.normal(1.0, 2.0, len(cells)).astype(np.float32)
    return Cells(cells[:, 0], cells[:, 1], logits)


def drive(extraction: Extraction, seed: int, density: float) -> list[Window]:
    seen: list[Window] = []
    while not extraction.finished:
        assert extraction.level < ROUNDS
        seen += extraction.windows
        extraction.advance([answer(window, seed + i, density) for i, window in enumerate(extraction.windows)])
    return seen


def types_of(extraction: Extraction) -> list[tuple[str, ...]]:
    return [tuple(fact.type for fact in path) for path in extraction.result().paths]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    text=LONG_TEXTS,
    schema=SCHEMAS,
    kind=KINDS,
    aspect=st.none() | st.just("#") | NAMES,
    threshold=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**32),
    density=st.floats(0, 2),
)
def test_any_input_ends_in_facts_of_its_own_text(
    bounded: Engine,
    text: str,
    schema: dict[str, Any],
    kind: TaskKind,
    aspect: str | None,
    threshold: float | None,
    seed: int,
    density: float,
) -> None:
    """No crash, no endless recursion, no false offset, no illegal path, no marker that the engine did not place, no
    window over its size, no count over its cap; or bad input that says why.
    """
    task = Task("t", kind, schema, implicit_aspect=aspect, threshold=threshold)
    try:
        extraction = bounded.start(text, task)
        windows = drive(extraction, seed, density)
    except BadInput as error:
        event(error.reason)
        return
    event(f"{kind}, levels: {extraction.level}")
    result = extraction.result()
    assert result.model_calls == len(windows) <= CALLS
    assert len(result.paths) <= FACTS
    legal = {tuple(encodable(name).strip() for name in path) for path in legal_leaves(schema)}
    assert set(types_of(extraction)) <= legal
    for path in result.paths:
        for fact in path:
            assert 0 <= fact.score <= 1
            if fact.span is None:
                assert (fact.start, fact.end) == (None, None)
                assert kind != "extract" or aspect is not None
            else:
                assert kind == "extract"
                assert fact.start is not None
                assert fact.end is not None
                assert 0 <= fact.start < fact.end <= len(text)
                assert encodable(text)[fact.start : fact.end] == fact.span
    assert len({tuple((fact.type, fact.start, fact.end) for fact in path) for path in result.paths}) == len(
        result.paths
    )
    for window in windows:
        check_window(bounded, window, kind)
    for warning in result.warnings:
        assert warning.split(":")[0] in (
            "types-skipped", "children-skipped", "aspect-crossed", "facts-capped", "fallback",
        )  # fmt: skip


def check_window(engine: Engine, window: Window, kind: TaskKind) -> None:
    marks = engine.tokenizer
    start = window.text_start
    assert start <= 256
    assert window.length <= 512
    hint, text = window.input_ids[:start].tolist(), window.input_ids[start:].tolist()
    assert hint[0] == marks.cls
    assert hint[-1] == text[-1] == marks.sep
    groups = window.segment // 256
    assert hint.count(marks.prefix) == groups.max()
    assert hint.count(marks.type) == len({label for label in window.segment.tolist() if label % 256})
    assert marks.sep not in hint[:-1]
    assert marks.cls not in hint[1:]
    placed = {"extract": [], "classify": [marks.classify], "multi_classify": [marks.multiclassify]}[kind]
    assert text[: len(placed)] == placed
    special = {marks.cls, marks.sep, marks.prefix, marks.type, marks.classify, marks.multiclassify}
    assert not special & set(text[len(placed) : -1])
    assert set(hint) & {marks.classify, marks.multiclassify} <= set(placed)
    assert window.position_ids.min() == 0
    assert window.position_ids.max() < 512
    for array in (window.input_ids, window.position_ids, window.segment):
        assert array.dtype == np.int32
        assert len(array) == window.length


@settings(deadline=None)
@given(text=TEXTS.filter(str.strip), marker=st.sampled_from(MARKERS), seed=st.integers(0, 2**32), kind=KINDS)
def test_a_marker_literal_is_worth_as_much_as_any_other_word(
    bounded: Engine, text: str, marker: str, seed: int, kind: TaskKind
) -> None:
    """Braces in the place of brackets make other ids, but the same windows, and the same facts for the same cells."""
    schema = {"物": {"评": None, "价": None}, "店": None}
    neutral = "{" + marker[1:-1] + "}"
    marks = bounded.tokenizer
    assert len(marks.ids(marker)) == len(marks.ids(neutral))
    results: list[Any] = []
    for word in (marker, neutral):
        extraction = bounded.start(f"{word} {text} {word}", Task("t", kind, schema))
        try:
            windows = drive(extraction, seed, 0.5)
        except BadInput as error:
            event(error.reason)
            results.append(error.reason)
            continue
        paths = [[(fact.type, fact.start, fact.end, fact.score) for fact in path] for path in extraction.result().paths]
        event(f"{kind}, levels: {extraction.level}, paths: {bool(paths)}")
        results.append(([(window.length, window.segment.tolist()) for window in windows], paths))
    assert results[0] == results[1]


@settings(deadline=None)
@given(count=st.integers(1, 3000), kind=KINDS)
def test_windows_cover_the_text(engine: Engine, count: int, kind: TaskKind) -> None:
    """Together they hold every token in order; only classifications lose one a full later window, to the marker."""
    text = "".join(chr(0x4E00 + number) for number in range(count))
    windows = engine.start(text, Task("t", kind, {"物": None, "价": None})).windows
    whole = list(engine.tokenizer.ids(text))
    pieces = [window.input_ids[window.text_start : -1].tolist() for window in windows]
    if kind == "extract":
        assert [token for number, piece in enumerate(pieces) for token in piece[32 * (number > 0) :]] == whole
        return
    marker = pieces[0][0]
    capacity = 511 - windows[0].text_start
    own = [[marker, *whole][start : start + capacity] for start in range(0, count + 1, capacity)]
    assert pieces == [own[0], *([marker, *piece][:capacity] for piece in own[1:])]


ORDINARY = st.text("物流很快，a1 #。", min_size=1, max_size=40).filter(str.strip)


@settings(deadline=None)
@given(
    text=ORDINARY | st.tuples(ORDINARY, st.integers(1, 60)).map(lambda pair: pair[0] * pair[1]),
    kind=KINDS,
    seed=st.integers(0, 2**32),
)
def test_both_modes_ask_the_same_about_an_ordinary_text(
    tokenizer: PromptTokenizer, text: str, kind: TaskKind, seed: int
) -> None:
    """A caller's text here is the marked text there: same windows on every level, same facts, offsets moved."""
    engine = Engine(tokenizer, PromptLimits(), ExtractionLimits())
    schema = {"物": {"评": None, "价": {"高": None}}, "店": None}
    front = {"extract": "#", "classify": "[CLASSIFY]", "multi_classify": "[MULTICLASSIFY]"}[kind]
    ours = engine.start(text, Task("t", kind, schema, implicit_aspect="#"))
    theirs = start_reference(engine, front + text, schema, quirks=Quirks(expand_all=False))
    while not ours.finished:
        assert [window.input_ids.tolist() for window in ours.windows] == [
            window.input_ids.tolist() for window in theirs.windows
        ]
        assert [window.position_ids.tolist() for window in ours.windows] == [
            window.position_ids.tolist() for window in theirs.windows
        ]
        # Few cells, so that no fact crosses the border of the aspect and no cap is met.
        answers = [one_span(window, seed + number, kind) for number, window in enumerate(ours.windows)]
        ours.advance(answers)
        theirs.advance(answers)
    assert theirs.finished
    assert ours.result().warnings in ((), ("fallback: no type scored above 0.5; the best guess is reported",))
    for path, expected in zip(ours.result().paths, theirs.reference_output(), strict=True):
        assert [fact.type for fact in path] == [fact["type"] for fact in expected]
        if kind == "extract":
            assert [[fact.start + 1, fact.end + 1] for fact in path if fact.start is not None and fact.end] == [
                fact["offset"] for fact in expected
            ]


def one_span(window: Window, seed: int, kind: TaskKind) -> Cells:
    random = np.random.default_rng(seed)
    start, size = window.text_start, window.length
    types = np.flatnonzero((np.diff(window.segment) != 0) & (window.segment[1:] % 256 != 0)) + 1
    cells = {}
    if kind == "extract":
        if size - start > 2:
            first = int(random.integers(start + 1, size - 1))
            token = int(random.choice(types))
            cells = dict.fromkeys([(first, first), (first, token), (token, first)], 1.0)
    else:
        cells[start, start] = float(random.normal())
        for token in types.tolist():
            cells[start, token], cells[token, start] = random.normal(size=2).tolist()
    return cells_of(cells)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(text=LONG_TEXTS, schema=SCHEMAS, seed=st.integers(0, 2**32), edited=st.booleans(), final_sep=st.booleans())
def test_compatibility_mode_ends_as_well(
    bounded: Engine, text: str, schema: dict[str, Any], seed: int, edited: bool, final_sep: bool
) -> None:
    """Anything goes in; facts, a crash of the reference or bad input come out, and offsets slice to spans."""
    quirks = Quirks(edited_text=edited, final_sep=final_sep)
    try:
        extraction = start_reference(bounded, text, schema, quirks=quirks)
        drive(extraction, seed, 0.2)
        output = extraction.reference_output()
    except (BadInput, ReferenceCrash):
        return
    event(f"paths: {bool(output)}")
    for path in output:
        for fact in path:
            offset: Any = fact["offset"]
            if "CLASSIFY]" not in str(fact["span"]):
                assert encodable(text)[offset[0] : offset[1]] == fact["span"]
