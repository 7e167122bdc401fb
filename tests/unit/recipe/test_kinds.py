"""Samples of each kind: what they must not teach."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from recipe.aspects import AspectSamples
from recipe.entities import LONGEST, EntitySamples, NestedSamples, windowed
from recipe.naming import CANONICAL, Naming
from recipe.reviews import Fact, Review
from recipe.rows import Row, Span
from recipe.tuning import OwnSamples

if TYPE_CHECKING:
    from recipe.samples import Layout, Sample

NAMING = Naming.read()


def words_of(layout: Layout, ids: object) -> str:
    """Tokens as text."""
    words = {number: word for word, number in layout.tokenizer._matching.get_vocab().items()}
    return "".join(words[int(i)].removeprefix("##") for i in ids)  # type: ignore[attr-defined]


def cells(layout: Layout, sample: Sample) -> list[tuple[int | None, str]]:
    """Slots and words of a sample's cells."""
    return [(slot, words_of(layout, sample.text[a : b + 1])) for slot, a, b in sample.cells]


def asked(layout: Layout, sample: Sample) -> list[str]:
    """Names of a sample's types, in the order of slots."""
    hint = words_of(layout, sample.hint.ids[1:-1]).replace("[PREFIX]", "[TYPE]>")
    return [name for name in hint.split("[TYPE]") if name and not name.startswith(">")]


class TestAspects:
    """Aspects and opinions."""

    @pytest.mark.timeout(10)
    def test_reviews_of_one_aspect_alone_can_be_drawn(self, layout: Layout) -> None:
        """A user's set may have none with several."""
        review = Review("#很慢", (Fact((0, 1), (1, 3), "negative"),), CANONICAL)
        maker = AspectSamples({"one": [review]}, {"one": 1.0}, layout, NAMING)
        for seed in range(60):
            assert {words for _, words in cells(layout, maker.links(Random(seed)))} <= {"很慢"}

    def test_complaints_about_the_whole_product_are_no_praise(self, layout: Layout) -> None:
        """Praise is drawn less often, and only praise."""
        bad = Review("#很慢", (Fact((0, 1), (1, 3), "negative"),), CANONICAL)
        good = Review("#很快", (Fact((0, 1), (1, 3), "positive"),), CANONICAL)
        maker = AspectSamples({"all": [bad, good]}, {"all": 1.0}, layout, NAMING)
        rng = Random(4)
        drawn = [maker.opinions(rng) for _ in range(3000)]
        slow = sum(words_of(layout, sample.text) == "#很慢" for sample in drawn)
        assert slow / len(drawn) == pytest.approx(0.5625, abs=0.025)  # 1/2 + 1/2 * 1/4 * 1/2

    def test_an_aspect_that_stands_twice_gets_the_opinions_on_both(self, layout: Layout) -> None:
        """The prompt has only its word, so no opinion on one of the two is wrong."""
        facts = (Fact((1, 3), (3, 4), "positive"), Fact((5, 7), (7, 8), "negative"))
        maker = AspectSamples({"one": [Review("#屏幕大，屏幕暗", facts, "diaasq")]}, {"one": 1.0}, layout, NAMING)
        sample = next(s for seed in range(99) if (s := maker.opinions(Random(seed))).hint.types == 3)
        assert sorted(words for _, words in cells(layout, sample)) == ["大", "暗"]


class TestEntities:
    """Flat and nested extraction."""

    FILLER = "了" * 300

    def test_no_entity_is_cut_by_a_window(self, layout: Layout) -> None:
        """Half of one would be taught as none."""
        text = "张小明" * 200
        spans = tuple((Span("姓名", at, at + 3),) for at in range(0, 600, 3))
        maker = EntitySamples({"one": [Row(text, spans, {"姓名": None})]}, {"one": 1.0}, layout, NAMING)
        for seed in range(30):
            sample = maker.entities(Random(seed))
            assert LONGEST - 4 <= len(sample.text) <= LONGEST
            assert 3 * len(sample.cells) == len(sample.text)

    def test_the_shipped_names_are_asked_of_sets_that_annotate_them(self, layout: Layout) -> None:
        """A set without places teaches nothing of places."""
        row = Row("张三在北京的银行", ((Span("姓名", 0, 2),),), {"姓名": None, "职位": None})
        maker = EntitySamples({"one": [row]}, {"one": 1.0}, layout, NAMING)
        names = {name for seed in range(300) for name in asked(layout, maker.entities(Random(seed)))}
        assert "人物" in names
        assert not {"地理位置", "组织机构"} & names

    def test_a_parent_stays_whose_children_lie_outside_the_window(self, layout: Layout) -> None:
        """It is found on its own level, and has none below."""
        text = "屏幕" + self.FILLER + "好"
        row = Row(text, ((Span("属性", 0, 2), Span("词", 302, 303)),), {"属性": {"词": None}})
        maker = NestedSamples({"one": [row]}, {"one": 1.0}, layout)
        seen = [maker.nested(Random(seed)) for seed in range(60)]
        assert all(cells(layout, sample) == [(0, "屏幕")] for sample in seen if "屏幕" in words_of(layout, sample.text))
        assert {sample.kind for sample in seen} == {"nested"}

    def test_long_rows_of_an_owner_are_cut_and_keep_their_sign(self, layout: Layout) -> None:
        """Longer samples than are trained on would be dropped in silence."""
        text = "#" + self.FILLER + "慢"
        paths = ((Span("方面", 0, 1), Span("坏", 301, 302)),)
        row = Row(text, paths, {"方面": {"坏": None}})
        found = [windowed(row, Random(seed)) for seed in range(40)]
        assert {len(words) <= LONGEST + 1 and words.startswith("#") for words, _ in found} == {True}
        for words, ((whole, *opinions),) in found:
            assert whole == Span("方面", 0, 1)
            assert [words[span.start : span.end] for span in opinions] == ["慢"] * ("慢" in words)
        seen = [OwnSamples([row], layout).own(Random(seed)) for seed in range(40)]
        assert {sample.kind for sample in seen} == {"own"}
        assert {tuple(cells(layout, sample)) for sample in seen} == {((0, "#"),), ((0, "慢"),)}
