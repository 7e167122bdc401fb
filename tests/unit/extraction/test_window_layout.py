from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.extraction.task import ReferenceCrash, Task
from consumer.extraction.window import marked_layout

if TYPE_CHECKING:
    from consumer.extraction.engine import Engine
    from consumer.extraction.prompts import PromptTokenizer

NAMES = st.lists(st.text("甲乙丙ab ,:", min_size=1, max_size=6), min_size=1, max_size=30, unique_by=str.strip)


@given(names=NAMES.filter(lambda names: all(map(str.strip, names))), text=st.text("丁戊x。", min_size=1, max_size=20))
def test_the_marked_layout_of_an_ordinary_window_is_its_own(engine: Engine, names: list[str], text: str) -> None:
    """The two ways to a layout agree wherever no marker stands in text or names."""
    for window in engine.start(text, Task("t", "extract", dict.fromkeys(names))).windows:
        positions, segments = marked_layout(window.input_ids.tolist(), engine.tokenizer)
        assert positions.tolist() == window.position_ids.tolist()
        assert segments.tolist() == window.segment.tolist()


def test_a_type_marker_in_the_text_opens_a_type_of_the_last_prefix(tokenizer: PromptTokenizer) -> None:
    """Positions are counted class by class and written down in token order; the last group reaches into the text."""
    marks, word = tokenizer, 700
    ids = [marks.cls, marks.prefix, marks.type, word, marks.prefix, word, marks.type, word, marks.sep]
    ids += [word, marks.type, word, word, marks.sep]
    positions, segments = marked_layout(ids, tokenizer)
    # Classes: [CLS]; prefix 1; its type (2 tokens); prefix 2 (2); its type (2); the text's type (3); SEP, word, SEP.
    assert positions.tolist() == [0, 1, 2, 3, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8]
    two = 2 * 256
    assert segments.tolist() == [0, 256, 257, 257, two, two, two + 1, two + 1, two, two, *[two + 2] * 3, 0]


def test_a_prefix_marker_without_a_type_crashes_the_reference(tokenizer: PromptTokenizer) -> None:
    """It looks for the last type of every prefix."""
    marks = tokenizer
    with pytest.raises(ReferenceCrash, match="IndexError: list index out of range"):
        marked_layout([marks.cls, marks.prefix, marks.type, marks.sep, marks.prefix, 700, marks.sep], tokenizer)


def test_more_types_than_labels_is_said(tokenizer: PromptTokenizer) -> None:
    """A segment label tells 255 types of a prefix apart."""
    marks = tokenizer
    with pytest.raises(ReferenceCrash, match="255"):
        marked_layout([marks.cls, marks.prefix, *[marks.type] * 256, marks.sep], tokenizer)
