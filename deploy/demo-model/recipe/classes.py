"""Samples of classification: sentiment, category, purchase intention, topics, and sets of any other classes."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from recipe.naming import INTENTS
from recipe.reviews import WHOLE, aspect_word
from recipe.rows import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from recipe.naming import Naming
    from recipe.reviews import Review
    from recipe.rows import Row
    from recipe.samples import Layout, Sample

LONGEST: Final = 160
"""Characters of a text to be classified; of a longer one the beginning and the end are kept, or the beginning."""

_EVENED: Final = 0.9
"""Power of a category's size by which it is drawn: 1 would be as the data have them, 0 all alike."""
_SENTENCE_END = re.compile(r"[。！!\n]")


class ShopSamples:
    """Sentiment, category and intention of shop reviews.

    A text with a label: ``(text, positive)``, ``(text, category)``, ``(text, intent)``.
    """

    def __init__(
        self,
        sentiments: Sequence[tuple[list[tuple[str, bool]], float]],
        categories: Sequence[tuple[str, str]],
        intents: Sequence[tuple[str, str]],
        layout: Layout,
        naming: Naming,
    ) -> None:
        """``sentiments`` are sets with the share in which each is drawn. Raises DataError for an unknown category."""
        self._layout, self._naming = layout, naming
        self._sentiments, self._sentiment_shares = [s for s, _ in sentiments if s], [n for s, n in sentiments if s]
        self._by_category: dict[str, list[str]] = defaultdict(list)
        for text, category in categories:
            self._by_category[category].append(text)
        if unknown := self._by_category.keys() - naming.raw["categories"].keys():
            raise DataError(
                f"category {', '.join(sorted(unknown))} of a review is not among the categories of recipe/naming.yaml, "
                "which has the names that each is asked under; add it there"
            )
        self._category_weights = [len(texts) ** _EVENED for texts in self._by_category.values()]
        self._by_intent: dict[str, list[str]] = defaultdict(list)
        for text, intent in intents:
            self._by_intent[intent].append(text)

    def sentiment(self, rng: Random) -> Sample:
        """Praise or complaint."""
        text, positive = rng.choice(rng.choices(self._sentiments, self._sentiment_shares)[0])
        names = list(self._naming.of_sentiment(rng))
        fitting = {names[0] if positive else names[1]}
        if rng.random() < 0.05:
            names += self._naming.absent(text, (), 1, rng)
        return self._layout.classification(shortened(text, rng), names, fitting, "sentiment", multi=False)

    def category(self, rng: Random) -> Sample:
        """Frequent categories more often, though less than in the data: a review without any hint is one of theirs."""
        names = self._naming.of_categories(rng)
        shop = list(self._naming.raw["held_out"]["categories"])
        category = rng.choices(list(self._by_category), self._category_weights)[0]
        text = rng.choice(self._by_category[category])
        if len(text) > 30 and rng.random() < 0.2:
            parts = [part for part in _SENTENCE_END.split(text) if len(part) > 6]
            text = rng.choice(parts) if parts else text
        asked = shop if names[shop[0]] == shop[0] and rng.random() < 0.75 else [n for n in names if rng.random() < 0.6]
        asked = asked if category in asked else [*asked, category]
        types = [names[name] for name in asked]
        return self._layout.classification(shortened(text, rng), types, {names[category]}, "category", multi=False)

    def intent(self, rng: Random) -> Sample:
        """All three equally often."""
        intent = rng.choice([intent for intent in INTENTS if self._by_intent[intent]])
        text = rng.choice(self._by_intent[intent])
        names = self._naming.of_intents(rng)
        return self._layout.classification(
            shortened(text, rng), list(names.values()), {names[intent]}, "intent", multi=False
        )


def shortened(text: str, rng: Random) -> str:
    """At most LONGEST characters."""
    if len(text) <= LONGEST:
        return text
    return text[:LONGEST] if rng.random() < 0.5 else text[: LONGEST // 2] + text[-LONGEST // 2 :]


class TopicSamples:
    """Which sides of a purchase a review speaks of, read from its aspects."""

    _TREE: Final = {"商品": ("质量", "外观", "功能"), "服务": ("物流", "客服", "售后"), "价格": ("优惠", "偏贵")}
    """The task hierarchical_topic."""
    _PLACE: Final = {
        "质量": ("商品", "质量"),
        "外观": ("商品", "外观"),
        "使用体验": ("商品", "功能"),
        "物流": ("服务", "物流"),
        "客服": ("服务", "客服"),
    }
    _PRICES: Final = (("positive", "优惠"), ("negative", "偏贵"))

    def __init__(self, reviews: Sequence[Review], layout: Layout, naming: Naming) -> None:
        self._layout, self._raw = layout, naming.raw
        self._words = {topic: set(each["words"].split()) for topic, each in self._raw["topics"].items()}
        placed = [(review, self.topics(review)) for review in reviews]
        self._reviews = [(review, topics) for review, topics in placed if topics or review.categories]
        self._categories = sorted({category for review in reviews for category in review.categories})

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw from."""
        return not self._reviews

    def topics(self, review: Review) -> set[str]:
        """Topics of a review, none where one of its aspects cannot be placed."""
        found: set[str] = set()
        for fact in review.facts:
            if fact.aspect == WHOLE:
                words = review.text[slice(*fact.opinion)] if fact.opinion else ""
                hints = self._raw["topic_of_opinion"]
                found |= {topic for topic, marks in hints.items() if any(mark in words for mark in marks)}
            else:
                word = aspect_word(review, fact)
                topics = [topic for topic, words in self._words.items() if any(word.endswith(each) for each in words)]
                if not topics:
                    return set()
                found.add(topics[0])
        return found

    def topic(self, rng: Random) -> Sample:
        """Several topics, the set's own categories, or a level of the tree."""
        review, topics = rng.choice(self._reviews)
        text = review.text[1:]
        if review.categories and (not topics or rng.random() < 0.25):
            own = set(review.categories)
            others = [category for category in self._categories if category not in own]
            types = sorted(own | set(rng.sample(others, min(len(others), rng.randint(2, 9)))))
            return self._layout.classification(text, types, own, "topics", multi=True)
        place = self._placed(review, topics)
        if place is None or rng.random() < 0.6:
            names = {t: t if rng.random() < 0.65 else rng.choice(self._raw["topics"][t]["names"]) for t in self._words}
            types = [names[topic] for topic in names if topic in topics or rng.random() < 0.92]
            return self._layout.classification(text, types, {names[t] for t in topics}, "topics", multi=True)
        if rng.random() < 0.5:
            return self._layout.classification(text, list(self._TREE), {place[0]}, "topics", multi=False)
        prompt = (f"{place[0]}: ", self._layout.tokenizer.classify)
        return self._layout.classification(text, self._TREE[place[0]], {place[1]}, "topics", multi=False, prompt=prompt)

    def _placed(self, review: Review, topics: set[str]) -> tuple[str, str] | None:
        if len(topics) != 1:
            return None
        (topic,) = topics
        if topic == "价格":
            polarities = {fact.polarity for fact in review.facts}
            sides = [side for polarity, side in self._PRICES if polarities == {polarity}]
            return ("价格", sides[0]) if sides else None
        if topic == "客服" and re.search("售后|退|换", review.text):
            return "服务", "售后"
        return self._PLACE.get(topic)


class OtherClasses:
    """Sets of other classes: they teach that names are read, and give the category task its breadth."""

    def __init__(
        self, sets: dict[str, list[Row]], shares: dict[str, float], forms: dict[str, list[str]], layout: Layout
    ) -> None:
        """``forms`` are patterns such as ``主题：{}`` for a set's names."""
        self._names = [name for name in shares if sets.get(name)]
        self._shares = [shares[name] for name in self._names]
        self._sets, self._forms, self._layout = sets, forms, layout
        self._by_class: dict[str, dict[str, list[Row]]] = {name: _by_class(sets[name]) for name in self._names}

    def classes(self, rng: Random) -> Sample:
        """A few classes of the set, those that fit among them; rare classes as often as frequent ones half the time."""
        name = rng.choices(self._names, self._shares)[0]
        classes = self._by_class[name]
        row = rng.choice(classes[rng.choice(list(classes))] if rng.random() < 0.5 else self._sets[name])
        fitting, every = row.types, list(row.schema)
        others = [each for each in every if each not in fitting]
        keep = len(others) if len(every) <= 6 and rng.random() < 0.6 else min(len(others), rng.randint(2, 12))
        types = [*sorted(fitting)[:6], *rng.sample(others, keep)]
        form = rng.choice(["{}"] * 6 + self._forms.get(name, []))
        named = {each: form.format(each) for each in types}
        return self._layout.classification(
            shortened(row.text, rng),
            list(named.values()),
            {named[t] for t in types if t in fitting},
            "classes",
            multi=row.kind == "multi_classify",
        )


def _by_class(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for each in sorted(row.types):  # of a set the order would be another in every process
            found[each].append(row)
    return found
