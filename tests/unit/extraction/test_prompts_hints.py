from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.extraction.hint import Found, Parent
from consumer.extraction.prompts import MAX_PROMPT_CHARS, HintBuilder, PromptLimits
from consumer.extraction.task import Notes

if TYPE_CHECKING:
    from consumer.extraction.hint import Packed
    from consumer.extraction.prompts import PromptTokenizer


@pytest.fixture(scope="module")
def builder(tokenizer: PromptTokenizer) -> HintBuilder:
    return HintBuilder(tokenizer, PromptLimits())


def parent(prompt: str, *names: str) -> Parent:
    return Parent((Found("t", "s", 0, 1, 0.5),), (prompt,) if prompt else (), dict.fromkeys(names))


def content(packed: list[Packed]) -> list[list[tuple[str, list[str]]]]:
    return [[(str(parent.prompt[0]) if parent.prompt else "", names) for parent, names in one.groups] for one in packed]


def test_a_hint_is_filled_to_its_last_token(builder: HintBuilder) -> None:
    """[CLS] [PREFIX] [SEP] and 11 types of 23 tokens are 256."""
    names = [f"{letter}" + "字" * 21 for letter in "一丁七万丈三上下不与丑"]
    notes = Notes()
    (full,) = builder.pack([parent("", *names)], notes, special=False)
    assert full.length == 256
    first, second = builder.pack([parent("", *names, "齐")], notes, special=False)
    assert (first.length, second.length) == (256, 5)
    assert content([second]) == [[("", ["齐"])]]


def test_a_split_prefix_is_repeated(builder: HintBuilder) -> None:
    """Types that do not fit beside their siblings take their prefix with them."""
    names = [letter + "字" * 99 for letter in "甲乙丙"]
    packed = list(builder.pack([parent("物: 杯", *names), parent("物: 壶", "丁")], Notes(), special=False))
    assert content(packed) == [
        [("物: 杯", sorted(names)[:2])],
        [("物: 杯", sorted(names)[2:]), ("物: 壶", ["丁"])],
    ]
    # Two characters, colon and marker; 100 characters and marker; "丁" and marker; [CLS] and [SEP].
    assert [one.length for one in packed] == [2 + 4 + 2 * 101, 2 + 4 + 101 + 4 + 2]


def test_a_prefix_moves_on_with_its_first_type(builder: HintBuilder) -> None:
    """There is never a prefix without a type."""
    packed = list(
        builder.pack(
            [parent("", *(x + "字" * 98 for x in "甲乙")), parent("物: 杯", "长" * 60)], Notes(), special=False
        )
    )
    assert [len(one.groups) for one in packed] == [1, 1]
    assert content(packed)[1] == [("物: 杯", ["长" * 60])]


def test_limits_of_names_and_prompts(builder: HintBuilder) -> None:
    """124 tokens pass, 125 are skipped and noted; so is a prompt of very many characters, whatever its tokens."""
    notes = Notes()
    passing, over = "长" * 124, "短" * 125
    parents = [
        parent("", passing, over),
        parent(over, "甲"),
        parent(passing, "甲"),
        parent(" " * MAX_PROMPT_CHARS + "a", "甲"),
    ]
    assert content(list(builder.pack(parents, notes, special=False))) == [
        [("", [passing]), (passing, ["甲"])],
    ]
    assert list(notes.skipped_types) == [over]
    assert notes.skipped_parents == 2


def test_types_are_packed_in_code_point_order(builder: HintBuilder) -> None:
    """Prompt order does not depend on how the schema was written; each type brings its children along."""
    tree = {"b": {"d": None}, "B": None, "啊": {}, "a": None}
    (chunk,) = builder.chunks([Parent((), (), tree)], Notes(), special=False)
    assert [name for _, name, _ in chunk.owners] == ["B", "a", "b", "啊"]
    assert [bool(children) for _, _, children in chunk.owners] == [False, False, True, False]
    assert chunk.owners[2][2] == {"d": None}


def test_equal_hints_are_built_once(builder: HintBuilder) -> None:
    """What every event of a task asks is made only once, whoever the parents are."""
    one, other = (
        builder.build(next(builder.pack([parent("物: 杯", "优点", "缺点")], Notes(), special=False)), special=False)
        for _ in range(2)
    )
    assert one.hint is other.hint
    assert one.owners[0][0] is not other.owners[0][0]


def test_markers_in_names_are_tokens_in_compatibility_mode_only(
    builder: HintBuilder, tokenizer: PromptTokenizer
) -> None:
    """The same name makes two different hints, also when both are cached."""
    packed = next(builder.pack([parent("", "新[TYPE]款")], Notes(), special=True))
    special, literal = (builder.build(packed, special=flag).hint for flag in (True, False))
    assert special.has_markers
    assert special.ids.tolist().count(tokenizer.type) == 2
    assert special.types == 1
    assert not literal.has_markers
    assert literal.ids.tolist().count(tokenizer.type) == 1


@given(
    parents=st.lists(
        st.tuples(
            st.text("甲乙 a,:", max_size=90),
            st.lists(st.text("丙丁ab ", min_size=1, max_size=130), min_size=1, max_size=30, unique=True),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_packing_loses_nothing_and_never_overfills(
    builder: HintBuilder, tokenizer: PromptTokenizer, parents: list[tuple[str, list[str]]]
) -> None:
    """Every type stands in exactly one hint, in order, unless it is noted; H is what was counted, at most 256."""
    notes = Notes()
    packed = list(builder.pack([parent(prompt, *names) for prompt, names in parents], notes, special=False))
    for one in packed:
        hint = builder.build(one, special=False).hint
        assert len(hint.ids) == one.length <= 256
        assert hint.ids.tolist().count(tokenizer.type) == hint.types == sum(len(names) for _, names in one.groups)
        assert hint.ids.tolist().count(tokenizer.prefix) == len(one.groups)
    assert notes.skipped_parents == 0
    kept = [(prompt, name) for prompt, names in parents for name in sorted(names) if name not in notes.skipped_types]
    assert [(prompt, name) for one in content(packed) for prompt, names in one for name in names] == kept
    assert all(len(tokenizer.ids(name)) > 124 for name in notes.skipped_types)
