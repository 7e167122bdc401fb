"""Samples of aspects and opinions: level 0 asks for the aspects, level 1 for the opinions on the aspects found."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from recipe.naming import CANONICAL
from recipe.reviews import WHOLE, Bank, Swaps, aspect_word
from recipe.rows import IMPLICIT

if TYPE_CHECKING:
    from random import Random

    from recipe.naming import Naming
    from recipe.reviews import Fact, Offsets, Review
    from recipe.samples import Layout, Sample

MOST_ASPECTS: Final = 6
"""Aspects of one sample of level 1: more would make long hints, which the worker splits as well."""


class AspectSamples:
    """Draws reviews, varies them, and asks one of the two levels."""

    def __init__(
        self, reviews: dict[str, list[Review]], shares: dict[str, float], layout: Layout, naming: Naming
    ) -> None:
        """``reviews`` and ``shares`` (how often a set is drawn) by name of the set."""
        self._layout, self._naming = layout, naming
        self._sets = [reviews[name] for name in shares if reviews.get(name)]
        self._shares = [share for name, share in shares.items() if reviews.get(name)]
        by_style: dict[str, list[Review]] = defaultdict(list)
        for each in self._sets:
            for review in each:
                by_style[review.style].append(review)
        self._many, self._many_shares = [], []
        for each, share in zip(self._sets, self._shares, strict=True):
            if many := [review for review in each if len(review.explicit) > 1]:
                self._many.append(many)
                self._many_shares.append(share)
        self._banks = {style: Bank(each) for style, each in by_style.items()}
        self._swaps = {style: Swaps(each) for style, each in by_style.items()}
        self._words = sorted(
            {aspect_word(r, f) for each in self._sets for r in each for f in r.facts if f.aspect != WHOLE}
        )

    def aspects(self, rng: Random) -> Sample:
        """Level 0 of a review."""
        review = self._review(rng) if rng.random() < 0.7 else self._several(rng)
        names = self._naming.of_aspects(review.style, rng)
        types: list[tuple[str, set[Offsets]]] = [(names.aspect, {fact.aspect for fact in review.facts})]
        chance = rng.random()
        opinions = [(fact.opinion, fact.polarity) for fact in review.facts if fact.opinion]
        if chance < 0.05 and review.style == CANONICAL:
            types.append((rng.choice(self._naming.raw["opinions"]), {span for span, _ in opinions}))
        elif chance < 0.11:
            types += [(n, {s for s, q in opinions if q == polarity}) for polarity, n in names.polarities.items()]
        if rng.random() < 0.08:
            types += [(name, set()) for name in self._naming.absent(review.text, (), rng.randint(1, 3), rng)]
        spans = [(0, number, *span) for number, (_, found) in enumerate(types) for span in found]
        return self._layout.extraction(review.text, [("", [name for name, _ in types])], spans, "aspects")

    def opinions(self, rng: Random) -> Sample:
        """Level 1 of any review."""
        return self._level1(self._review(rng), rng, "opinions")

    def links(self, rng: Random) -> Sample:
        """Level 1 of a review with several aspects: which opinion is on which."""
        return self._level1(self._several(rng), rng, "links")

    def _drawn(self, rng: Random, *, several: bool = False) -> Review:
        """From all sets, or those reviews with several aspects, where there are any."""
        if several and self._many:
            return rng.choice(rng.choices(self._many, self._many_shares)[0])
        return rng.choice(rng.choices(self._sets, self._shares)[0])

    def _review(self, rng: Random) -> Review:
        review = self._drawn(rng)
        if {fact.polarity for fact in review.facts} <= {"positive"} and rng.random() < 0.25:
            review = self._drawn(rng)  # four fifths of all opinions are praise
        if review.style == CANONICAL and rng.random() < 0.15:
            review = self._swaps[review.style].swapped(review, rng)
        return review

    def _several(self, rng: Random) -> Review:
        if rng.random() < 0.4:
            style = CANONICAL if CANONICAL in self._banks and rng.random() < 0.75 else rng.choice(list(self._banks))
            if self._banks[style].explicit:
                return self._banks[style].joined(rng)
        review = self._drawn(rng, several=True)
        if {"positive", "negative"} - review.polarities and rng.random() < 0.4:
            review = self._drawn(rng, several=True)
        if review.style == CANONICAL and rng.random() < 0.3:
            review = self._swaps[review.style].swapped(review, rng)
        return review

    def _level1(self, review: Review, rng: Random, kind: str) -> Sample:
        names = self._naming.of_aspects(review.style, rng)
        found: dict[str, list[Fact]] = defaultdict(list)
        for fact in review.facts:
            found[aspect_word(review, fact)].append(fact)
        words = list(found)
        rng.shuffle(words)
        words = words[:MOST_ASPECTS]
        if rng.random() < 0.15 and (wrong := self._wrong(review, found, rng)):
            words.append(wrong)
        words = words or [IMPLICIT]
        asked = list(names.polarities.items())
        if rng.random() < 0.12:
            asked = rng.sample(asked, 2)
        spans = [
            (group, number, *fact.opinion)
            for group, word in enumerate(words)
            for number, (polarity, _) in enumerate(asked)
            for fact in found.get(word, ())
            if fact.polarity == polarity and fact.opinion
        ]
        groups = [(f"{names.aspect}: {word}", [name for _, name in asked]) for word in words]
        return self._layout.extraction(review.text, groups, spans, kind)

    def _wrong(self, review: Review, found: dict[str, list[Fact]], rng: Random) -> str | None:
        """An aspect that level 0 may find wrongly, and that must get no opinions."""
        chance = rng.random()
        if chance < 0.4:
            word = IMPLICIT
        elif chance < 0.7 or len(review.text) < 6:
            word = rng.choice(self._words or [IMPLICIT])
        else:
            start = rng.randrange(1, len(review.text) - 3)
            word = review.text[start : start + rng.randint(1, 4)]
        near = any(word in other or other in word for other in found if other != IMPLICIT or word == IMPLICIT)
        return None if near else word
