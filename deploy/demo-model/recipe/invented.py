"""Samples of tasks without annotated reviews: events, relations, questions, matching and inference.

Sentences are filled from ``templates.yaml``; people, places and organisations come from the entity sets.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from recipe.entities import flat, level_of
from recipe.naming import CANONICAL
from recipe.reviews import WHOLE, aspect_word
from recipe.rows import Span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from recipe.reviews import Review
    from recipe.rows import Row
    from recipe.samples import Layout, Sample

FILE: Final = Path(__file__).parent / "templates.yaml"
_PAIR = re.compile(r"段落1：(.*)；段落2：(.*)", re.DOTALL)
_EVENTFUL: Final = re.compile("[退换修补]|重发|寄回")
_ANSWERING: Final = re.compile("给|送|帮|替|用了|[天周月年]")
_EVENT_TYPES: Final = {
    "退货": {"goods": "商品", "reason": "原因", "time": "时间"},
    "维修": {"goods": "商品", "fault": "故障", "time": "时间"},
    "补发": {"goods": "商品", "time": "时间"},
}
"""The arguments of the task event."""
_NAMES: Final = {"person": ("姓名", "人名"), "place": ("地址", "行政区名"), "org": ("公司", "组织机构")}


class InventedSamples:
    """One kind after the other in equal shares."""

    def __init__(
        self, reviews: Sequence[Review], entities: Sequence[Row], pairs: Sequence[Row], layout: Layout
    ) -> None:
        """``pairs`` are rows of two texts (段落1, 段落2) that say the same or not."""
        self._layout = layout
        self._raw: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
        self._lists: dict[str, list[str]] = {**self._raw["lists"], **_named(entities)}
        self._reviews = [review for review in reviews if review.explicit and len(review.text) <= 120]
        # A real review behind an invented sentence must not have an event or answer a question itself.
        self._eventless = [review for review in self._reviews if not _EVENTFUL.search(review.text)]
        answers = [word for slot in self._raw["questions"].values() for word in self._raw["lists"][slot]]
        self._silent = [
            review
            for review in self._eventless
            if not _ANSWERING.search(review.text) and not any(word in review.text for word in answers)
        ]
        # One style: the sets of others annotate more or less of the same words under names of their own.
        self._asked = [review for review in self._reviews if review.style == CANONICAL] or self._reviews
        self._pairs = [(match.groups(), row) for row in pairs if (match := _PAIR.fullmatch(row.text))]

    def invented(self, rng: Random) -> Sample:
        """A sample of one of the kinds."""
        kinds = [self._event, self._relation, self._question]
        if self._reviews:
            kinds += [self._question_on_aspect, self._inference]
        return rng.choice([*kinds, self._match, self._match] if self._pairs else kinds)(rng)

    def _filled(self, template: str, own: dict[str, str], rng: Random) -> tuple[str, dict[str, tuple[int, int]]]:
        text, at = "", {}
        for piece in re.split(r"(\{\w+\})", template):
            if piece.startswith("{"):
                slot = piece[1:-1]
                words = own.get(slot) or rng.choice(self._lists[slot])
                at[slot] = (len(text), len(text) + len(words))
                text += words
            else:
                text += piece
        return text, at

    def _event(self, rng: Random) -> Sample:
        kind, template, triggers = rng.choice(self._raw["events"])
        text, at = self._filled(template, {kind: rng.choice(triggers)} if kind else {}, rng)
        if self._eventless and rng.random() < 0.4:
            text += "，" + rng.choice(self._eventless).text[1:]
        schema = {f"{k}(事件触发词)": dict.fromkeys(a.values()) for k, a in _EVENT_TYPES.items()}
        paths: list[tuple[Span, ...]] = []
        if kind:
            trigger = Span(f"{kind}(事件触发词)", *at[kind])
            arguments = _EVENT_TYPES[kind]
            paths = [(trigger, Span(arguments[slot], *span)) for slot, span in at.items() if slot in arguments]
        return level_of(self._layout, text, paths, schema, "invented", rng)

    def _relation(self, rng: Random) -> Sample:
        template, triples = rng.choice(self._raw["relations"])
        text, at = self._filled(template, {}, rng)
        schema = {
            "人物": dict.fromkeys(("出生地(地理位置)", "毕业院校(组织机构)", "任职单位(组织机构)")),
            "组织机构": dict.fromkeys(("创始人(人物)", "总部地点(地理位置)")),
        }
        paths = [(Span(one, *at[a]), Span(other, *at[b])) for one, a, other, b in triples]
        return level_of(self._layout, text, paths, schema, "invented", rng)

    def _question(self, rng: Random) -> Sample:
        text, at = self._filled(rng.choice(self._raw["answers"]), {}, rng)
        questions = self._raw["questions"]
        spans = [Span(question, *at[slot]) for question, slot in questions.items() if slot in at]
        if "退" not in text and "换" not in text:
            spans = [span for span in spans if questions[span.type] != "reason"]
        rest = rng.choice(self._silent).text[1:] if self._silent else "挺好的"
        asked = list(questions) if rng.random() < 0.7 else rng.sample(list(questions), 2)
        return flat(self._layout, text + rest, spans, asked, "invented", rng)

    def _question_on_aspect(self, rng: Random) -> Sample:
        review = rng.choice(self._asked)
        fact = rng.choice([fact for fact in review.facts if fact.aspect != WHOLE])
        word = aspect_word(review, fact)
        question = rng.choice(self._raw["questions_on_aspects"]).format(word)
        spans = [
            Span(question, other.opinion[0] - 1, other.opinion[1] - 1)
            for other in review.facts
            if other.opinion and aspect_word(review, other) == word
        ]
        return flat(self._layout, review.text[1:], spans, [question], "invented", rng)

    def _inference(self, rng: Random) -> Sample:
        review = rng.choice(self._reviews)
        fact = rng.choice([fact for fact in review.facts if fact.aspect != WHOLE])
        word = aspect_word(review, fact)
        polarities = {other.polarity for other in review.facts if aspect_word(review, other) == word}
        entailed, contradicted, open_ = self._raw["relations_of_texts"]
        claimed = rng.choice(("positive", "negative"))
        if rng.random() < 0.3 or polarities not in ({"positive"}, {"negative"}):
            other_word = aspect_word(other := rng.choice(self._reviews), other.facts[0])
            spare = (other_word, *self._raw["lists"]["goods"])
            word, fits = next(each for each in spare if each not in review.text), open_
        else:
            fits = entailed if claimed in polarities else contradicted
        hypothesis = rng.choice(self._raw["hypotheses"][claimed]).format(word)
        form = rng.choice(self._raw["forms_of_relations"])
        types = [form.format(name) for name in self._raw["relations_of_texts"]]
        text = f"段落1：{review.text[1:]}；段落2：{hypothesis}"
        return self._layout.classification(text, types, {form.format(fits)}, "invented", multi=False)

    def _match(self, rng: Random) -> Sample:
        (first, second), row = rng.choice(self._pairs)
        same = not any("不" in name for name in row.types)
        if rng.random() < 0.12 and (other := rng.choice(self._pairs)[0][1]) != second:
            second, same = other, False
        if rng.random() < 0.5:
            first, second = second, first
        names = rng.choice(self._raw["matching"][:1] * 3 + self._raw["matching"])
        text = f"段落1：{first}；段落2：{second}"
        return self._layout.classification(text, names, {names[0] if same else names[1]}, "invented", multi=False)


def _named(entities: Sequence[Row]) -> dict[str, list[str]]:
    """Names for the templates' slots out of entity sets, or a few made-up ones where there are none."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in entities:
        for path in row.paths:
            words = row.text[path[0].start : path[0].end]
            if 2 <= len(words) <= 12:
                found[path[0].type].add(words)
    lists = {slot: sorted({w for kind in kinds for w in found[kind]}) for slot, kinds in _NAMES.items()}
    lists["school"] = [name for name in lists["org"] if name.endswith(("大学", "学院", "中学"))]
    spare = {
        "person": ["林晓", "周文博"],
        "place": ["无锡", "成都"],
        "org": ["远山书店", "青石科技"],
        "school": ["江南大学"],
    }
    return {slot: names or spare[slot] for slot, names in lists.items()}
