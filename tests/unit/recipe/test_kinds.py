"""Samples of each kind: what they must not teach."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from recipe.aspects import AspectSamples
from recipe.classes import OtherClasses, ShopSamples, TopicSamples
from recipe.entities import LONGEST, MOST_TYPES, EntitySamples, NestedSamples, windowed
from recipe.invented import InventedSamples
from recipe.naming import CANONICAL, Naming
from recipe.reviews import Fact, Review
from recipe.rows import DataError, Row, Span
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

    @pytest.mark.timeout(60)
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
        drawn = [maker._review(rng) for _ in range(3000)]
        slow = sum(review.text == "#很慢" for review in drawn)
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

    def test_fewer_parents_are_asked_where_all_would_be_too_long(self, layout: Layout) -> None:
        """A longer sample would be dropped, and its facts never taught."""
        text = "".join(f"第{number}个特别长的属性词好" for number in range(10, 16))
        parents = [Span("一个特别长的属性类型", at, at + 11) for at in range(0, 72, 12)]
        types = {f"一个特别特别长的情感类型{number}": None for number in range(5)}
        paths = tuple((span, Span(next(iter(types)), span.end, span.end + 1)) for span in parents)
        maker = NestedSamples({"one": [Row(text, paths, {parents[0].type: types})]}, {"one": 1.0}, layout)
        deep = [s for seed in range(20) if (s := maker.nested(Random(seed))).hint.types > 1]
        assert {(sample.length <= 300, len(sample.cells) == sample.hint.types // 5 > 0) for sample in deep} == {
            (True, True)
        }

    def test_of_a_long_schema_some_types_are_asked(self, layout: Layout) -> None:
        """All at once would be longer than what is trained on; those in the text are asked as often as others."""
        names = [f"第{number}类事件的触发词" for number in range(70)]
        paths = tuple((Span(name, 0, 2),) for name in names[:30])
        rows = [
            Row("屏幕碎了", paths, dict.fromkeys(names)),
            Row("屏幕碎了", paths[:1], dict.fromkeys(names), "classify"),
        ]
        for row, present in zip(rows, (MOST_TYPES // 2, 1), strict=True):
            for seed in range(10):
                sample = OwnSamples([row], layout).own(Random(seed))
                assert sample.hint.types == MOST_TYPES
                assert len(sample.cells) == present
                assert sample.length < 300


class TestInvented:
    """Made-up sentences with real reviews behind them."""

    def test_a_review_behind_an_invented_sentence_has_no_event_and_no_answer(self, layout: Layout) -> None:
        """Nothing in it is annotated, so whatever it had would be taught as nothing."""
        fact = (Fact((1, 3), (3, 4), "negative"),)
        texts = ("#质量差，退货了", "#质量差，给妈妈买的", "#质量差，用了三天", "#质量差，漏水", "#质量差")
        maker = InventedSamples([Review(text, fact, CANONICAL) for text in texts], [], [], layout)
        rng = Random(6)
        behind = {words_of(layout, maker._question(rng).text).split("质量差")[-1] for _ in range(200)}
        assert behind == {""}
        events = {words_of(layout, maker._event(rng).text).split("质量差")[-1] for _ in range(300)}
        assert not {text for text in events if text.startswith("，退货")}

    def test_a_claim_on_something_else_is_on_nothing_in_the_review(self, layout: Layout) -> None:
        """发票 stands in real reviews, too."""
        review = Review("#发票没给", (Fact((1, 3), (3, 5), "neutral"),), CANONICAL)
        maker = InventedSamples([review], [], [], layout)
        rng = Random(6)
        texts = [words_of(layout, maker._inference(rng).text) for _ in range(50)]
        assert not [text for text in texts if "发票" in text.split("段落2")[1]]

    def test_a_text_is_never_another_text_than_itself(self, layout: Layout) -> None:
        """A second text drawn at random may be the same one."""
        row = Row("段落1：甲；段落2：乙", ((Span("文本匹配：相似", 0, 0),),), {}, "classify")
        maker = InventedSamples([], [], [row], layout)
        assert {slot for seed in range(80) for slot, _ in cells(layout, maker._match(Random(seed)))} == {0}
        assert {maker.invented(Random(seed)).kind for seed in range(20)} == {"invented"}


class TestClasses:
    """Classification."""

    def test_a_neutral_price_is_neither_cheap_nor_dear(self, layout: Layout) -> None:
        """So it has no place in the tree of topics."""
        reviews = [
            Review(f"#价格{words}", (Fact((1, 3), (3, 5), polarity),), CANONICAL)
            for words, polarity in (("便宜", "positive"), ("偏贵", "negative"), ("一般", "neutral"))
        ]
        maker = TopicSamples(reviews, layout, NAMING)
        assert [maker._placed(review, {"价格"}) for review in reviews] == [("价格", "优惠"), ("价格", "偏贵"), None]
        assert TopicSamples([Review("#甲乙", (Fact((1, 2), (2, 3), "positive"),), CANONICAL)], layout, NAMING).empty

    def test_an_unknown_category_is_named_with_the_way_out(self, layout: Layout) -> None:
        """And not found out by the thread that draws samples."""
        with pytest.raises(DataError, match=r"category 汽车 of a review is not among .* add it there"):
            ShopSamples([], [("快", "汽车"), ("香", "洗发水")], [], layout, NAMING)

    def test_rows_of_several_classes_are_kept_in_one_order(self, layout: Layout) -> None:
        """Sets of strings have another order in every process, and one seed decides on the samples."""
        row = Row("文", tuple((Span(name, 0, 0),) for name in "丙甲丁乙"), dict.fromkeys("甲乙丙丁"), "multi_classify")
        assert list(OtherClasses({"one": [row]}, {"one": 1.0}, {}, layout)._by_class["one"]) == sorted("甲乙丙丁")
