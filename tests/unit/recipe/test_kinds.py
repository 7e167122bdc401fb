"""Samples of each kind: what they must not teach."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from recipe.aspects import AspectSamples
from recipe.naming import CANONICAL, Naming
from recipe.reviews import Fact, Review

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
