from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cells import cells_of

from consumer.events import BadInput
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits
from consumer.extraction.task import INLINE, ExtractionLimits, Fact, Task
from consumer.extraction.window import Cells, Window

if TYPE_CHECKING:
    from consumer.extraction.engine import Extraction
    from consumer.extraction.prompts import PromptTokenizer

Mark = Callable[[Window, Sequence[tuple[int, int, int]]], Cells]

NONE = cells_of({})
ASPECTS = Task("aspects", "extract", {"属性": {"优点": None, "缺点": None}}, implicit_aspect="#")
FEELINGS = Task("feelings", "classify", {"喜欢": None, "讨厌": None})


def facts(extraction: Extraction) -> list[list[tuple[str, str | None, int | None, int | None]]]:
    return [[(fact.type, fact.span, fact.start, fact.end) for fact in path] for path in extraction.result().paths]


def slugs(extraction: Extraction) -> list[str]:
    return [warning.split(":")[0] for warning in extraction.result().warnings]


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u0000\ufffd", "\ud800"])
@pytest.mark.parametrize("task", [ASPECTS, FEELINGS])
def test_a_text_without_a_token_is_empty(engine: Engine, text: str, task: Task) -> None:
    """There is nothing to ask about, with or without a marker or an aspect in front."""
    with pytest.raises(BadInput) as caught:
        engine.start(text, task)
    assert (caught.value.stage, caught.value.reason) == ("validate", "EmptyText")


def test_a_text_over_the_limit_is_bad_input(small_engine: Callable[..., Engine]) -> None:
    """The message names the size and the limit, never the text."""
    engine = small_engine(text_chars=10)
    assert engine.start("一二三四五六七八九十", ASPECTS).windows
    with pytest.raises(BadInput) as caught:
        engine.start("一二三四五六七八九十十", ASPECTS)
    assert caught.value.reason == "TextTooLong"
    assert "11 characters; 10 are allowed (limits.text_chars)" in caught.value.message
    assert "九" not in caught.value.message


@pytest.mark.parametrize("name", [INLINE, "configured"])
def test_a_task_with_a_bad_schema_is_bad_input(engine: Engine, name: str) -> None:
    """Whether the schema came with the event or with the configuration."""
    schema: Any = {"a": {"": None}}
    with pytest.raises(BadInput, match="empty"):
        engine.start("好", Task(name, "extract", schema))


def test_level_0_is_laid_out_once_for_a_task(engine: Engine) -> None:
    """Events of a task share their hint's arrays; only text differs."""
    one, other = (engine.start(text, ASPECTS).windows[0] for text in ("杯子漏。", "壶不漏。"))
    assert one.text_start == other.text_start
    assert one.input_ids[: one.text_start].tolist() == other.input_ids[: other.text_start].tolist()
    assert one.input_ids.tolist() != other.input_ids.tolist()


def test_answers_are_asked_for_in_full(engine: Engine) -> None:
    """A state machine that is misused says so and keeps its state."""
    extraction = engine.start("杯子漏。", ASPECTS)
    with pytest.raises(ValueError, match="0 answers for 1 windows"):
        extraction.advance([])
    with pytest.raises(RuntimeError, match="1 windows are waiting"):
        extraction.result()
    assert (extraction.level, extraction.finished, extraction.model_calls) == (0, False, 0)
    extraction.advance([NONE])
    assert (extraction.level, extraction.finished, extraction.model_calls) == (1, True, 1)
    assert extraction.windows == ()
    assert extraction.result().paths == ()
    with pytest.raises(ValueError, match="finished"):
        extraction.advance([])
    with pytest.raises(RuntimeError, match="start_reference"):
        extraction.reference_output()


def test_names_are_stripped(engine: Engine, mark: Mark) -> None:
    """A parent with outer spaces reports its children all the same (Q12)."""
    extraction = engine.start("杯子漏。", Task("t", "extract", {" 物 ": {" 事 ": None}}))
    for _ in range(2):
        extraction.advance([mark(window, [(0, 1, 0)]) for window in extraction.windows])
    assert facts(extraction) == [[("物", "杯子", 0, 2), ("事", "杯子", 0, 2)]]


def test_a_literal_marker_in_a_name_or_text_changes_nothing(
    engine: Engine, tokenizer: PromptTokenizer, mark: Mark
) -> None:
    """They are ordinary characters in every place that a caller can reach, found spans and prompts included."""
    task = Task("t", "extract", {"新[TYPE]款": {"[PREFIX]": None}})
    extraction = engine.start("写着[TYPE]字", task)
    (window,) = extraction.windows
    pieces = len(tokenizer.ids("[TYPE]"))
    assert window.length - window.text_start - 1 == 3 + pieces
    extraction.advance([mark(window, [(2, 1 + pieces, 0)])])
    (window,) = extraction.windows
    assert window.input_ids.tolist().count(tokenizer.type) == 1
    assert window.input_ids.tolist().count(tokenizer.prefix) == 1
    extraction.advance([mark(window, [(2, 1 + pieces, 0)])])
    assert facts(extraction) == [[("新[TYPE]款", "[TYPE]", 2, 8), ("[PREFIX]", "[TYPE]", 2, 8)]]


def test_an_aspect_of_several_characters(engine: Engine, mark: Mark) -> None:
    """Any span inside the aspect means the aspect; a span out of it is dropped; offsets are the caller's."""
    task = Task("t", "extract", {"属性": {"优点": None}}, implicit_aspect="整体")
    extraction = engine.start("很稳。", task)
    extraction.advance([mark(extraction.windows[0], [(0, 1, 0), (1, 2, 0)])])
    (window,) = extraction.windows
    extraction.advance([mark(window, [(2, 3, 0)])])
    assert facts(extraction) == [[("属性", None, None, None), ("优点", "很稳", 0, 2)]]
    assert slugs(extraction) == ["aspect-crossed"]


def test_a_crossing_span_is_dropped_also_before_a_last_space(engine: Engine, mark: Mark) -> None:
    """Leading spaces are skipped in the text only, never counted from its end."""
    extraction = engine.start("稳 ", ASPECTS)
    extraction.advance([mark(extraction.windows[0], [(0, 1, 0)])])
    assert facts(extraction) == []
    assert slugs(extraction) == ["aspect-crossed"]


def test_a_classification_has_no_aspect(engine: Engine) -> None:
    """An implicit aspect belongs to extraction."""
    task = Task("t", "classify", FEELINGS.schema, implicit_aspect="#")
    assert (
        engine.start("好", task).windows[0].input_ids.tolist()
        == engine.start("好", FEELINGS).windows[0].input_ids.tolist()
    )


def test_spans_are_of_the_text_as_it_was_sent(engine: Engine, mark: Mark) -> None:
    """Case, full width and astral characters are the caller's; a lone surrogate comes back as U+FFFD."""
    extraction = engine.start("Ａ𠮷 Good\ud800", Task("t", "extract", {"物": None}))
    (window,) = extraction.windows
    last = window.length - window.text_start - 2
    extraction.advance([mark(window, [(0, 0, 0), (0, last, 0)])])
    for path in extraction.result().paths:
        (fact,) = path
        assert fact.span == "Ａ𠮷 Good\ufffd"[fact.start : fact.end]
        fact.span.encode()


def test_the_cap_on_facts_is_visible(small_engine: Callable[..., Engine], mark: Mark) -> None:
    """The first facts stay, the rest is dropped, and a warning says so; at the cap itself there is none."""
    task = Task("t", "extract", {"物": None})
    for found, warned in ((3, []), (4, ["facts-capped"])):
        extraction = small_engine(facts=3).start("一二三四五六", task)
        extraction.advance([mark(extraction.windows[0], [(i, i, 0) for i in range(found)])])
        assert [path[0].span for path in extraction.result().paths] == list("一二三")
        assert slugs(extraction) == warned


def test_the_cap_bounds_the_parents_of_a_level(small_engine: Callable[..., Engine], mark: Mark) -> None:
    """Many found parents make a next level of a bounded size."""
    extraction = small_engine(facts=3).start("一二三四五六", Task("t", "extract", {"物": {"评": None}}))
    extraction.advance([mark(extraction.windows[0], [(i, i, 0) for i in range(6)])])
    (window,) = extraction.windows
    extraction.advance([mark(window, [(0, 0, 0), (0, 0, 1), (0, 0, 2)])])
    assert [path[0].span for path in extraction.result().paths] == list("一二三")
    assert slugs(extraction) == ["facts-capped"]


def test_the_cap_bounds_the_paths_of_all_levels_together(small_engine: Callable[..., Engine], mark: Mark) -> None:
    """What was reported on an earlier level counts."""
    extraction = small_engine(facts=3).start("一二三四五六", Task("t", "extract", {"店": None, "物": {"评": None}}))
    extraction.advance([mark(extraction.windows[0], [(0, 0, 0), (1, 1, 0), (2, 2, 1)])])
    extraction.advance([mark(extraction.windows[0], [(3, 3, 0), (4, 4, 0)])])
    assert [path[-1].span for path in extraction.result().paths] == list("一二四")
    assert slugs(extraction) == ["facts-capped"]


def test_the_cap_bounds_parents_and_paths_of_a_classification(small_engine: Callable[..., Engine]) -> None:
    """The same limit, in both of its meanings."""
    tree = {name: {"甲": None, "乙": None} for name in "子丑寅"}
    extraction = small_engine(facts=2).start("随便。", Task("t", "multi_classify", tree))
    while not extraction.finished:
        extraction.advance([everything(window) for window in extraction.windows])
    assert extraction.model_calls == 2
    assert len(extraction.result().paths) == 2
    assert slugs(extraction) == ["facts-capped"]


def everything(window: Window) -> Cells:
    """All cells of the first text token, all positive: a classification that finds every type."""
    size, marker = window.length, window.text_start
    others = np.arange(size, dtype=np.int32)
    same = np.full(size, marker, dtype=np.int32)
    return Cells(np.concatenate((others, same)), np.concatenate((same, others)), np.full(2 * size, 5, dtype=np.float32))


def test_too_many_windows_are_bad_input_before_they_are_made(small_engine: Callable[..., Engine], mark: Mark) -> None:
    """At the start and on later levels; the windows of all levels count together."""
    long = Task("t", "extract", {"物": {"评": None}})
    with pytest.raises(BadInput) as caught:
        small_engine(text_chars=50_000, model_calls=105).start("长" * 50_000, long)
    assert (caught.value.stage, caught.value.reason) == ("extract", "TooManyModelCalls")
    said = (
        "50000 characters (50000 tokens) with 1 types need at least 106 model calls, and limits.model_calls allows 105"
    )
    assert said in caught.value.message
    # [CLS] [PREFIX] [TYPE] 物 [SEP]: 506 tokens fit, 1 + (50000 - 506) / 474 windows.
    assert len(small_engine(text_chars=50_000, model_calls=106).start("长" * 50_000, long).windows) == 106
    extraction = small_engine(model_calls=1).start("一二", long)
    with pytest.raises(BadInput, match=r"2 characters .* with 1 types below 1 facts need at least 2 .* allows 1;"):
        extraction.advance([mark(extraction.windows[0], [(0, 0, 0)])])
    with pytest.raises(RuntimeError, match="failed"):
        extraction.result()
    with pytest.raises(ValueError, match="failed"):
        extraction.advance([])


def test_a_classifications_message_has_the_texts_characters(small_engine: Callable[..., Engine]) -> None:
    """And not those of the marker, which stands in front of it. All hints of a level count, not only those that fit."""
    names = dict.fromkeys(f"第{number}种说法" for number in range(512))
    with pytest.raises(
        BadInput, match=r"^5000 characters \(\d+ tokens\) with 512 types need at least 2\d\d "
    ) as caught:
        small_engine(model_calls=20).start("长" * 5000, Task("t", "classify", names))
    assert "allows 20;" in caught.value.message


def test_a_wide_schema_over_a_long_text_stays_within_bounds(small_engine: Callable[..., Engine]) -> None:
    """At the limits of both there are a few thousand windows; beyond, none is made."""
    engine = small_engine(text_chars=50_000)
    text = "杯子很好用，" * 8333
    names = [f"第{number}种说法" for number in range(512)]
    windows = engine.start(text, Task("t", "extract", dict.fromkeys(names))).windows
    assert 2000 < len(windows) <= 4096
    assert all(window.length <= 512 for window in windows)
    with pytest.raises(BadInput, match="model_calls"):
        engine.start(text, Task("t", "extract", dict.fromkeys(name * 3 for name in names)))


def test_skipped_types_are_warned_of_for_every_event(engine: Engine) -> None:
    """Also when the hints come from the cache; and a task with no type left has an empty result."""
    names = [f"{number}" + "长" * 130 for number in range(7)]
    task = Task("t", "extract", dict.fromkeys(names))
    for _ in range(2):
        extraction = engine.start("好", task)
        assert extraction.finished
        (warning,) = extraction.result().warnings
        assert warning.startswith("types-skipped: 7 over 124 tokens: 0长")
        assert warning.endswith("and 2 more")
        assert max(map(len, warning.split(", "))) < 90
        assert extraction.result().model_calls == 0


def test_warnings_and_errors_hold_no_review_text(engine: Engine, mark: Mark, caplog: pytest.LogCaptureFixture) -> None:
    """A parent that is too long is counted, not shown; nothing is logged."""
    secret = "密" * 130
    with caplog.at_level(logging.DEBUG):
        extraction = engine.start(secret, Task("t", "extract", {"物": {"评": None}}))
        extraction.advance([mark(extraction.windows[0], [(0, 129, 0)])])
    assert slugs(extraction) == ["children-skipped"]
    assert "密" not in "".join(extraction.result().warnings)
    assert [record for record in caplog.records if record.thread == threading.get_ident()] == []


def test_every_window_of_a_long_classification_begins_with_the_marker(
    engine: Engine, tokenizer: PromptTokenizer
) -> None:
    """Full later windows lose one token to it, the last one none."""
    text = "".join(chr(0x4E00 + number) for number in range(1200))
    windows = engine.start(text, FEELINGS).windows
    seen = [window.input_ids[window.text_start : -1].tolist() for window in windows]
    assert [piece[0] for piece in seen] == [tokenizer.classify] * 3
    assert [window.length for window in windows] == [512, 512, 9 + 1 + (1201 - 2 * 502) + 1]
    whole = tokenizer.ids(text)
    assert seen[0][1:] == list(whole[:501])
    assert seen[1][1:] == list(whole[501:1002])
    assert seen[2][1:] == list(whole[1003:])


def test_the_fallback_asks_nothing_twice(engine: Engine) -> None:
    """Level 0 is read again from the same answers: one window, one call, one result with a warning."""
    extraction = engine.start("嗯", FEELINGS)
    extraction.advance([everything(extraction.windows[0])._replace(logits=np.full(20 + 4, -3, dtype=np.float32))])
    assert extraction.model_calls == 1
    assert slugs(extraction) == ["fallback"]
    assert extraction.result().paths == ((Fact("喜欢", None, None, None, 0.0474),),)


def test_a_path_that_several_parents_vote_for_is_reported_once(engine: Engine) -> None:
    """Each window's parent asks for itself, in a chunk of its own where they do not fit one; the first one counts."""
    children = [letter + "字" * 60 for letter in "甲乙丙"]
    extraction = engine.start("长" * 700, Task("t", "multi_classify", {"商品": dict.fromkeys(children)}))
    extraction.advance([everything(window) for window in extraction.windows])
    assert len(extraction.windows) == 2 * 3
    weaker = everything(extraction.windows[0])
    weaker = weaker._replace(logits=weaker.logits - 1)
    extraction.advance([weaker, *(everything(window) for window in extraction.windows[1:])])
    found = [[fact.type for fact in path] for path in extraction.result().paths]
    assert found == [["商品", child] for child in sorted(children)]
    assert [[fact.score for fact in path] for path in extraction.result().paths] == [[0.9933, 0.982]] * 3


def test_legal_paths_replace_the_leaves(engine: Engine) -> None:
    """A parent may be reported and a leaf may not, in classification as well; names are stripped like the schema's."""
    legal = frozenset({(" 商品 ",), ("商品", "质量")})
    task = Task("t", "multi_classify", {"商品": {"质量": None, "外观": None}}, legal_paths=legal)
    extraction = engine.start("好看", task)
    while not extraction.finished:
        extraction.advance([everything(window) for window in extraction.windows])
    assert facts(extraction) == [[("商品", None, None, None)], [("商品", None, None, None), ("质量", None, None, None)]]


@pytest.mark.parametrize(
    "limits",
    [PromptLimits(hint_max_len=251), PromptLimits(max_len=289), PromptLimits(stride_len=255)],
)
def test_prompt_limits_without_room_are_refused(tokenizer: PromptTokenizer, limits: PromptLimits) -> None:
    """Otherwise packing or cutting could not go on."""
    with pytest.raises(ValueError, match="does not fit this version"):
        Engine(tokenizer, limits, ExtractionLimits())


def test_a_dense_answer_is_read_in_bounded_time(small_engine: Callable[..., Engine]) -> None:
    """A model that finds everything everywhere fills the cap and no more. An exhaustive search would take hours."""
    names = [f"第{number}种" for number in range(40)]
    task = Task("t", "extract", {name: dict.fromkeys(names[:3]) for name in names})
    extraction = small_engine(facts=50).start("长" * 250, task)
    while not extraction.finished:
        answers = []
        for window in extraction.windows:
            rows, columns = np.indices((window.length, window.length), dtype=np.int32)
            answers.append(Cells(rows.ravel(), columns.ravel(), np.ones(rows.size, dtype=np.float32)))
        extraction.advance(answers)
    assert len(extraction.result().paths) == 50


def test_a_known_good_window_fits_any_limits(small_engine: Callable[..., Engine]) -> None:
    """A worker with the tightest limits starts; a longer text makes a longer window; the highest ids are in it."""
    engine = small_engine(types_per_level=1, schema_depth=1, facts=1, model_calls=1, text_chars=100)
    window = engine.known_good_window()
    assert engine.known_good_window("好" * 50).length > window.length
    assert {engine.tokenizer.classify, engine.tokenizer.type} <= set(window.input_ids.tolist())
