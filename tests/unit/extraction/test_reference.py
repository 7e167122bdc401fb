from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cells import cells_of

from consumer.events import BadInput
from consumer.extraction.reference import Quirks, start_reference
from consumer.extraction.task import ReferenceCrash
from consumer.extraction.window import Cells, Window

if TYPE_CHECKING:
    from consumer.extraction.engine import Engine
    from consumer.extraction.prompts import PromptTokenizer

Mark = Callable[[Window, Sequence[tuple[int, int, int]]], Cells]

NONE = cells_of({})
FEELINGS = {"喜欢": None, "讨厌": None}


def test_nothing_is_validated(engine: Engine) -> None:
    """Empty text, an empty schema and an empty name are legal; the first two need no model call."""
    assert start_reference(engine, "", {"物": None}).reference_output() == []
    assert start_reference(engine, "好", {}).reference_output() == []
    assert start_reference(engine, "好", "{}").reference_output() == []
    assert len(start_reference(engine, "好", {"": None}).windows) == 1
    assert len(start_reference(engine, "  \n", {"物": None}).windows) == 1
    assert len(start_reference(engine, "长" * 60_000, '{"物": {}}').windows) > 100


@pytest.mark.parametrize("schema", ["{", "[]", 3, {"a": 1}, {"a": {"b": "c"}}, {4: None}])
def test_what_is_no_tree_of_names_is_bad_input(engine: Engine, schema: object) -> None:
    """The one thing that has to be right."""
    with pytest.raises(BadInput) as caught:
        start_reference(engine, "好", schema)
    assert caught.value.reason == "InvalidSchema"


def test_markers_are_tokens_wherever_they_stand(engine: Engine, tokenizer: PromptTokenizer, mark: Mark) -> None:
    """In text, names and found spans; also [SEP], which is harmless."""
    extraction = start_reference(engine, "好[MASK]看[SEP]吧", {"新[CLS]款": {"评": None}})
    (window,) = extraction.windows
    assert window.length - window.text_start - 1 == 5
    assert window.input_ids.tolist().count(tokenizer.cls) == 2
    extraction.advance([mark(window, [(0, 2, 0)])])
    (window,) = extraction.windows
    extraction.advance([mark(window, [(2, 2, 0)])])
    assert extraction.reference_output() == [
        [
            {"type": "新[CLS]款", "span": "好[MASK]看", "offset": [0, 8]},
            {"type": "评", "span": "看", "offset": [7, 8]},
        ]
    ]


def test_a_type_marker_in_the_text_changes_the_layout(engine: Engine) -> None:
    """As in the reference, the tokens behind it are a type segment of the last prefix."""
    (odd,) = start_reference(engine, "好[TYPE]看", {"物": None}).windows
    (even,) = start_reference(engine, "好[MASK]看", {"物": None}).windows
    assert odd.length == even.length
    assert odd.segment[: odd.text_start - 1].tolist() == even.segment[: even.text_start - 1].tolist()
    assert odd.segment[odd.text_start + 1 :].tolist() == [258, 258, 0]
    assert even.segment[even.text_start + 1 :].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("text", "schema"), [("好[PREFIX]看", {"物": None}), ("好", {"物[PREFIX]": None})])
def test_a_prefix_marker_without_a_type_crashes(engine: Engine, text: str, schema: dict[str, None]) -> None:
    """Before the first model call."""
    with pytest.raises(ReferenceCrash, match="IndexError"):
        start_reference(engine, text, schema)


def all_positive(window: Window) -> Cells:
    rows, columns = np.indices((window.length, window.length), dtype=np.int32)
    return Cells(rows.ravel(), columns.ravel(), np.ones(rows.size, dtype=np.float32))


@pytest.mark.parametrize("first", ["[CLASSIFY][MULTICLASSIFY]", "[MULTICLASSIFY][CLASSIFY]"])
def test_both_markers_crash_as_soon_as_there_is_a_result(engine: Engine, first: str) -> None:
    """Single-label voting takes place; its selection then leaves nothing for the multi-label one."""
    extraction = start_reference(engine, first + "好", FEELINGS)
    extraction.advance([all_positive(extraction.windows[0])])
    with pytest.raises(ReferenceCrash, match="KeyError: 'confidence'"):
        extraction.reference_output()


def test_a_marker_in_the_middle_finds_only_by_links_of_its_own(engine: Engine, mark: Mark) -> None:
    """The first pass finds it wherever it stands; the fallback looks at the first token alone."""
    extraction = start_reference(engine, "好[CLASSIFY]看", FEELINGS)
    extraction.advance([mark(extraction.windows[0], [(1, 1, 1)])])
    assert extraction.reference_output() == [[{"type": "讨厌", "span": "[CLASSIFY]", "offset": [0, 10]}]]
    extraction = start_reference(engine, "好[CLASSIFY]看", FEELINGS)
    extraction.advance([NONE])
    assert extraction.reference_output() == []


def test_names_of_parents_are_stripped_and_leaves_are_not(engine: Engine, mark: Mark) -> None:
    """So a parent with outer spaces never reports anything, unless its stripped path is declared legal (Q12)."""
    schema = {" 店 ": {" 货 ": None}}
    for legal, count in ((None, 0), ([["店", " 货 "]], 1)):
        extraction = start_reference(engine, "老店卖鞋", schema, legal)
        extraction.advance([mark(extraction.windows[0], [(0, 1, 0)])])
        extraction.advance([mark(extraction.windows[0], [(3, 3, 0)])])
        output = extraction.reference_output()
        assert [[fact["type"] for fact in path] for path in output] == [["店", " 货 "]] * count


def test_leading_spaces_of_a_type_are_kept_apart(engine: Engine, mark: Mark) -> None:
    """Two names that differ in spaces are two types."""
    extraction = start_reference(engine, "老店", {"店": None, " 店": None})
    extraction.advance([mark(extraction.windows[0], [(0, 1, 0), (0, 1, 1)])])
    assert [path[0]["type"] for path in extraction.reference_output()] == [" 店", "店"]


def test_the_final_separator_is_text_only_on_request(engine: Engine) -> None:
    """Q3, mended and kept."""
    for final_sep, expected in ((False, 1), (True, 2)):
        extraction = start_reference(engine, "好", {"物": None}, quirks=Quirks(final_sep=final_sep))
        extraction.advance([all_positive(extraction.windows[0])])
        output = extraction.reference_output()
        assert len(output) == expected
        assert ([{"type": "物", "span": "", "offset": [0, 0]}] in output) == final_sep


def overlap_case(engine: Engine, quirks: Quirks, mark: Mark) -> list[Any]:
    extraction = start_reference(engine, "长" * 600, {"物": None}, quirks=quirks)
    # [CLS] [PREFIX] [TYPE] 物 [SEP]: 506 tokens fit, the second window starts at 474.
    extraction.advance([mark(extraction.windows[0], [(480, 481, 0)]), mark(extraction.windows[1], [(6, 7, 0)])])
    return extraction.reference_output()


def test_duplicates_are_kept_only_on_request(engine: Engine, mark: Mark) -> None:
    """Q2: what two windows share."""
    once = [[{"type": "物", "span": "长长", "offset": [480, 482]}]]
    assert overlap_case(engine, Quirks(), mark) == once
    assert overlap_case(engine, Quirks(keep_duplicates=True), mark) == once * 2


def test_a_parent_that_two_windows_share_is_looked_below_once(
    engine: Engine, tokenizer: PromptTokenizer, mark: Mark
) -> None:
    """Duplicates are a matter of the output only."""
    extraction = start_reference(engine, "长" * 600, {"物": {"评": None}}, quirks=Quirks(keep_duplicates=True))
    extraction.advance([mark(extraction.windows[0], [(480, 481, 0)]), mark(extraction.windows[1], [(6, 7, 0)])])
    assert extraction.windows[0].input_ids.tolist().count(tokenizer.prefix) == 1


@pytest.mark.parametrize(("edited", "votes"), [(False, True), (True, False)])
def test_the_third_window_votes_unless_the_text_is_edited(
    engine: Engine, mark: Mark, edited: bool, votes: bool
) -> None:
    """Q5: the reference looks for the marker in its third window at a place where it did not put it."""
    text = "[CLASSIFY]" + "这句话说了三遍。" * 150
    extraction = start_reference(engine, text, FEELINGS, quirks=Quirks(edited_text=edited))
    assert len(extraction.windows) == 3
    # H is 9. The reference drops the last token of every later window, also of the last, into which it would fit.
    assert extraction.windows[2].length == 9 + 1 + (1201 - 2 * 502) + 1 - edited
    marker_cells = [
        mark(window, [(0, 0, 1)] if number == 2 else []) for number, window in enumerate(extraction.windows)
    ]
    extraction.advance(marker_cells)
    found = [[{"type": "讨厌", "span": "[CLASSIFY]", "offset": [0, 10]}]]
    fallback = [[{"type": "喜欢", "span": "[CLASSIFY]", "offset": [0, 10]}]]
    assert extraction.reference_output() == (found if votes else fallback)


@pytest.mark.parametrize(("expand_all", "calls"), [(True, 2), (False, 1)])
def test_what_is_not_the_marker_is_looked_below_unless_told_otherwise(
    engine: Engine, mark: Mark, expand_all: bool, calls: int
) -> None:
    """The reference expands any span that it finds in a classification text."""
    extraction = start_reference(engine, "[CLASSIFY]好看", {"甲": {"乙": None}}, quirks=Quirks(expand_all=expand_all))
    extraction.advance([mark(extraction.windows[0], [(1, 1, 0)])])
    # Without a vote the fallback looks below the marker, in a round of its own.
    rounds = 1
    while not extraction.finished:
        rounds += 1
        extraction.advance([NONE for _ in extraction.windows])
    assert rounds == calls + 1
