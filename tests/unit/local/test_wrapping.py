"""Lines of mixed Chinese and Latin text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from consumer.local.wrapping import sentence, wrapped


def test_a_word_is_not_broken_and_a_mark_begins_no_line() -> None:
    """WiFi moves to the next line whole, and so does the character in front of a comma that does not fit."""
    assert wrapped("第二台WiFi搜不到", 8) == ["第二台", "WiFi搜不", "到"]
    assert wrapped("颜色正，很好", 6) == ["颜色", "正，很", "好"]


def test_what_is_cut_off_ends_with_an_ellipsis() -> None:
    """Also where the last line was full."""
    assert wrapped("一二三四五六七", 4, lines=2) == ["一二", "三…"]
    assert wrapped("一二三四", 4, lines=2) == ["一二", "三四"]


def test_names_in_a_sentence_are_not_broken() -> None:
    """A line may be filled to its last cell."""
    assert sentence("it reads 手机 as 平板", 13) == ["it reads 手机", "as 平板"]
    assert sentence("it reads 手机 as 平板", 12) == ["it reads", "手机 as 平板"]


@given(st.text("一，。aB1 🐔", max_size=60), st.integers(2, 12), st.none() | st.integers(1, 3))
@pytest.mark.parametrize("whole", [False, True])
def test_lines_fit_and_lose_nothing_but_space(whole: bool, text: str, width: int, lines: int | None) -> None:
    """No line is wider than it may be; without a limit the characters are those of the text."""
    made = sentence(text, width) if whole else wrapped(text, width, lines)
    assert all(cell_len(line) <= width for line in made)
    if whole or lines is None:
        assert "".join("".join(made).split()) == "".join(text.split())
    else:
        assert len(made) <= lines
