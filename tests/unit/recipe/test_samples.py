"""What the recipe trains on: rows of files, reviews put together, names, and samples as the worker's windows are."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from recipe.aspects import AspectSamples
from recipe.naming import CANONICAL, Naming
from recipe.reviews import WHOLE, Bank, Fact, Review, Swaps, clauses, review_of, with_final_le
from recipe.rows import DataError, Row, Span, kept_for_validation, read_rows, row_of, split
from recipe.samples import batched, collate
from recipe.sources import Sources, makers
from recipe.tuning import OwnSamples, sides

from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits
from consumer.extraction.task import ExtractionLimits, Task

if TYPE_CHECKING:
    from recipe.samples import Layout, Sample

FOLDER = Path(__file__).parents[3] / "deploy/demo-model"
TEXT = "#屏幕很清晰，充电太慢了，包装和物流都不错"
REVIEW = Review(
    TEXT,
    (
        Fact((1, 3), (3, 6), "positive"),
        Fact((7, 9), (9, 12), "negative"),
        Fact((13, 15), (19, 21), "positive"),
        Fact((16, 18), (19, 21), "positive"),
    ),
    CANONICAL,
)


def spoken(layout: Layout, sample: Sample) -> list[tuple[int | None, str]]:
    """Slots and words of a sample's cells."""
    words = {number: word for word, number in layout.tokenizer._matching.get_vocab().items()}
    return [(slot, "".join(words[i].removeprefix("##") for i in sample.text[a : b + 1])) for slot, a, b in sample.cells]


def strings(value: Any) -> list[str]:
    """Every string of a parsed file."""
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (str(key), *strings(each))]
    return [text for each in value for text in strings(each)] if isinstance(value, list) else [str(value)]


class TestRows:
    """The three forms of a line."""

    def test_rexuninlu_shop_and_written_lines_are_told_apart(self, tmp_path: Path) -> None:
        """A classification marker goes, the sign of an annotated review stays, and other columns are kept."""
        path = tmp_path / "rows.jsonl.gz"
        aspect = {"type": "属性词", "span": "屏幕", "offset": [1, 3]}
        opinion = {"type": "正向情感(情感词)", "span": "清晰", "offset": [3, 5]}
        lines: list[dict[str, Any]] = [
            {"text": "#屏幕清晰", "info_list": [[aspect, opinion]], "schema": {"属性词": {"正向情感(情感词)": None}}},
            {
                "text": "[CLASSIFY]好",
                "info_list": [[{"type": "正", "span": "[CLASSIFY]", "offset": [0, 10]}]],
                "schema": {},
            },
            {"review_id": "os-1", "text": "好", "label": 1, "category": "手机"},
            {"text": "屏幕大，音量也大", "features": [["屏幕", "大", "正"], ["音量", "大", "负", {"opinion": 1}]]},
        ]
        path.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode()))
        annotated, labelled, shop, own = read_rows(path)
        assert [(span.type, span.start, span.end) for span in annotated.paths[0]] == [
            ("属性词", 1, 3),
            ("正向情感(情感词)", 3, 5),
        ]
        assert (labelled.text, labelled.kind, labelled.types) == ("好", "classify", {"正"})
        assert (shop.text, shop.fields["label"], shop.fields["category"]) == ("好", 1, "手机")
        assert [[own.text[span.start : span.end] for span in path] for path in own.paths] == [
            ["屏幕", "大"],
            ["音量", "大"],
        ]
        assert own.paths[1][1].start == 8

    def test_a_span_that_is_not_where_it_says_names_file_and_line(self, tmp_path: Path) -> None:
        """Data whose offsets are off by one would teach nonsense."""
        path = tmp_path / "off.jsonl"
        path.write_text(
            '{"text": "好看", "info_list": [[{"type": "t", "span": "看", "offset": [0, 1]}]], "schema": {"t": null}}\n'
        )
        with pytest.raises(DataError, match=r"off\.jsonl, line 1: .*'看' is not at 0:1"):
            read_rows(path)

    def test_a_text_is_on_one_side_whatever_its_marker_and_spaces(self) -> None:
        """Otherwise a validation text would be trained on in another set."""
        texts = [f"第{number}条评论 很好" for number in range(2000)]
        kept = {text for text in texts if kept_for_validation(text)}
        assert 60 <= len(kept) <= 140
        assert {text for text in texts if kept_for_validation("#" + text.replace(" ", ""))} == kept
        assert {text for text in texts if kept_for_validation("[CLASSIFY]" + text)} == kept
        rows = [Row(text) for text in texts]
        assert {row.text for row in split(rows, validation=True)} == kept

    def test_written_reviews_are_annotated_within_themselves(self, written: list[Row]) -> None:
        """Reading them checks every span; labels are legal, and no text stands twice."""
        assert len(written) > 1500
        assert len({row.text for row in written}) == len(written)
        assert {row.fields["intent"] for row in written} == {"yes", "no", "none"}
        assert {row.fields["sentiment"] for row in written} == {"正", "负", "混"}

    def test_samples_and_gold_are_not_among_the_written_reviews(self, written: list[Row]) -> None:
        """What the demo is measured on must not train its model."""
        rows = [*written, *read_rows(FOLDER / "written_intents.jsonl")]
        trained = {"".join(row.text.removeprefix("#").split()) for row in rows}
        for name in ("reviews", "purchase_intention"):
            lines = (FOLDER.parents[1] / f"schemas/samples/{name}.jsonl").read_text("utf-8").splitlines()
            assert not trained & {"".join(json.loads(line)["text"].split()) for line in lines}


class TestReviews:
    """New reviews out of annotated ones."""

    @pytest.mark.parametrize(
        ("text", "start", "end", "whole"),
        [
            ("充电太慢了", 2, 4, "太慢了"),
            ("充电太慢", 2, 4, "太慢"),
            ("充电很慢了", 2, 4, "很慢"),
            ("太了", 0, 1, "太"),
        ],
    )
    def test_le_behind_tai_belongs_to_the_opinion(self, text: str, start: int, end: int, whole: str) -> None:
        """And behind nothing else."""
        assert text[slice(*with_final_le(text, start, end))] == whole

    def test_an_opinion_of_unknown_polarity_is_refused(self) -> None:
        """It would be an aspect that gets no opinion, taught against the data."""
        row = Row("#屏幕大", ((Span("属性词", 1, 3), Span("好评", 3, 4)),))
        with pytest.raises(DataError, match="'#屏幕大': opinion type '好评' starts with none of 正, 负, 中"):
            review_of(row, CANONICAL)

    def test_clauses_hold_one_aspect_whole(self) -> None:
        """The last clause has two aspects with one opinion, so it is none."""
        found = [
            (each.text, [(each.text[slice(*f.aspect)], each.text[slice(*f.opinion or WHOLE)]) for f in each.facts])
            for each in clauses(REVIEW)
        ]
        assert found == [("#屏幕很清晰", [("屏幕", "很清晰")]), ("#充电太慢了", [("充电", "太慢了")])]

    def test_joined_and_swapped_reviews_keep_their_words_in_place(self, written: list[Row]) -> None:
        """Every span of a new review has words that were a span of an old one."""
        reviews = [review_of(row, CANONICAL) for row in written[:600]]
        words = {
            review.text[slice(*span)]
            for review in reviews
            for fact in review.facts
            for span in (fact.aspect, fact.opinion or WHOLE)
        }
        bank, swaps, rng = Bank(reviews), Swaps(reviews), Random(3)
        for number in range(400):
            new = bank.joined(rng) if number % 2 else swaps.swapped(rng.choice(reviews), rng)
            assert new.text.startswith("#")
            for fact in new.facts:
                assert new.text[slice(*fact.aspect)] in words
                assert new.text[slice(*fact.opinion or WHOLE)] in words
        assert any(len(bank.joined(rng).explicit) > 1 for _ in range(10))

    def test_a_swapped_opinion_takes_the_le_behind_it(self) -> None:
        """Otherwise 太慢 and 太慢了 would both be taught, against the rule."""
        swaps = Swaps([Review("#充电太慢", (Fact((1, 3), (3, 5), "negative"),), CANONICAL)])
        review = Review("#屏幕碎了。", (Fact((1, 3), (3, 4), "negative"),), CANONICAL)
        new = swaps.swapped(review, Random(1), share=1)
        assert new.text == "#充电太慢了。"
        assert [new.text[slice(*fact.opinion or WHOLE)] for fact in new.facts] == ["太慢了"]

    def test_words_that_are_aspect_and_opinion_are_not_swapped(self) -> None:
        """One place cannot get two words."""
        swaps = Swaps([Review("#充电太慢", (Fact((1, 3), (3, 5), "negative"),), CANONICAL)])
        review = Review("#好用。", (Fact((1, 3), (1, 3), "positive"),), CANONICAL)
        assert swaps.swapped(review, Random(1), share=1) is review


class TestNames:
    """What is asked."""

    def test_names_held_out_are_never_asked(self) -> None:
        """They measure what happens with an owner's own names."""
        naming, rng = Naming.read(), Random(5)
        asked: set[str] = set()
        for _ in range(4000):
            for style in (CANONICAL, "bdci", "diaasq"):
                names = naming.of_aspects(style, rng)
                asked |= {names.aspect, *names.polarities.values()}
            asked |= {*naming.of_sentiment(rng), *naming.of_categories(rng).values(), *naming.of_intents(rng).values()}
        assert len(asked) > 300
        assert not asked & naming.held_out
        raw = {name: each for name, each in naming.raw.items() if name != "held_out"}
        templates = yaml.safe_load((FOLDER / "recipe/templates.yaml").read_text("utf-8"))
        assert not {*strings(raw), *strings(templates)} & naming.held_out

    def test_a_style_keeps_its_own_names_apart(self) -> None:
        """A model that is asked 主题 must answer as that set is annotated."""
        naming, rng = Naming.read(), Random(1)
        canonical = [naming.of_aspects(CANONICAL, rng) for _ in range(9000)]
        assert "主题" not in {names.aspect for names in canonical}
        of_styles = [tuple(style["polarities"]) for style in naming.raw["styles"].values()]
        assert not {tuple(names.polarities.values()) for names in canonical} & set(of_styles)
        assert sum(naming.of_aspects("bdci", rng).aspect == "主题" for _ in range(1000)) > 850

    def test_names_asked_in_vain_fit_nothing_in_the_text(self) -> None:
        """Where a text may have one, or its set annotates the like, it would be a fact taught as none."""
        naming, rng = Naming.read(), Random(2)

        def absent(text: str, *annotated: str) -> set[str]:
            return {name for _ in range(200) for name in naming.absent(text, annotated, 2, rng)}

        assert {"退货(事件触发词)", "书名", "时间", "人物"} <= absent("#质量差")
        assert not absent("#昨天退了，作者的书") & {"退货(事件触发词)", "书名", "时间", "日期", "人物"}
        assert not absent("张三到任", "姓名", "公司", "地址") & {"人物", "组织机构", "地理位置", "书名"}
        assert len(naming.absent("#质量差", (), 99, rng)) == len(naming.raw["absent"])


class TestSamples:
    """The layout is the engine's."""

    def test_a_sample_is_the_window_that_the_worker_sends(self, layout: Layout) -> None:
        """Ids, positions and segments, with the aspect sign, in front of it the hint."""
        task = Task("t", "extract", {"属性词": {"好评": None}}, implicit_aspect="#")
        window = Engine(layout.tokenizer, PromptLimits(), ExtractionLimits()).start(TEXT[1:], task).windows[0]
        batch = collate([layout.extraction(TEXT, [("", ["属性词"])], [(0, 0, 1, 3)], "aspects")], layout.tokenizer.pad)
        length = window.length
        assert batch.ids[0, :length].tolist() == window.input_ids.tolist()
        assert batch.positions[0, :length].tolist() == window.position_ids.tolist()
        assert batch.segments[0, :length].tolist() == window.segment.tolist()
        assert (batch.segments[0, length:] == -1).all()

    def test_wanted_cells_are_span_head_and_tail(self, layout: Layout) -> None:
        """As decoding reads them: the span, its first token with the type, the type with its last token."""
        sample = layout.extraction(TEXT, [("", ["属性词"])], [(0, 0, 1, 3), (0, 0, 0, 1)], "aspects")
        start = len(sample.hint.ids)
        token = int(np.flatnonzero(np.array(sample.hint.slot_at) >= 0)[0])
        batch = collate([sample], layout.tokenizer.pad)
        found = {tuple(cell) for cell in np.argwhere(batch.wanted[0]).tolist()}
        screen = {(start + 1, start + 2), (start + 1, token), (token, start + 2)}
        assert found == screen | {(start, start), (start, token), (token, start)}
        assert not (batch.wanted & ~batch.legal).any()

    def test_opinions_are_asked_below_their_own_aspect(self, layout: Layout) -> None:
        """Each polarity of each aspect is a slot of its own."""
        maker = AspectSamples({"one": [replace(REVIEW, style="bdci")]}, {"one": 1.0}, layout, Naming.read())
        for seed in range(60):
            sample = maker.opinions(Random(seed))
            groups = max(int(segment) // 256 for segment in sample.hint.segments)
            per_group = sample.hint.types / groups
            found = [(int(slot // per_group), words) for slot, words in spoken(layout, sample) if slot is not None]
            assert {words for _, words in found} <= {"很清晰", "太慢了", "不错"}
            if per_group == 3:
                assert len(found) == 4
                assert len({group for group, _ in found}) == 4

    def test_every_kind_can_be_drawn_from_the_written_reviews_alone(self, written: list[Row], layout: Layout) -> None:
        """So that the short mode and fine-tuning need no other data."""
        raw = yaml.safe_load((FOLDER / "recipe.yaml").read_text("utf-8"))
        sources = Sources(
            reviews={"written": [review_of(row, CANONICAL) for row in written]},
            written=written,
            rows={group: {} for group in ("sentiments", "entities", "classes", "nested", "pairs")},
        )
        found = makers(sources, raw, layout, Naming.read())
        assert set(found) == {"aspects", "opinions", "links", "topics", "sentiment", "category", "intent", "invented"}
        rng = Random(8)
        samples = [make(rng) for make in found.values() for _ in range(25)]
        assert all(
            sample.cells or sample.kind in {"aspects", "opinions", "links", "nested", "invented"} for sample in samples
        )
        for batch in batched(samples, 2048, rng):
            assert len(batch) * max(sample.length for sample in batch) <= 2048 + 8 * len(batch) or len(batch) == 1
            assert not (laid := collate(batch, 0)).wanted[~laid.legal].any()

    def test_an_owners_rows_are_asked_under_their_own_names(self, layout: Layout) -> None:
        """Fine-tuning takes any schema, and a fifth of the rows is held out."""
        schema = {"评论方面": {"夸": None, "骂": None}}
        rows = [
            row_of(
                {
                    "text": f"#屏幕很清晰{number}",
                    "schema": schema,
                    "info_list": [
                        [
                            {"type": "评论方面", "span": "屏幕", "offset": [1, 3]},
                            {"type": "夸", "span": "很清晰", "offset": [3, 6]},
                        ]
                    ],
                }
            )
            for number in range(300)
        ]
        trained, held = sides(rows)
        assert len(trained) + len(held) == 300
        assert 35 <= len(held) <= 90
        own = OwnSamples(trained, layout)
        seen = {tuple(spoken(layout, own.own(Random(seed)))) for seed in range(20)}
        assert seen == {((0, "屏幕"),), ((0, "很清晰"),)}
        with pytest.raises(DataError, match="at least 20 of each are needed"):
            sides(rows[:30])
