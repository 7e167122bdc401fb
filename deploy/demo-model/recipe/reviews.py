"""Reviews with aspects and opinions as facts, and how new ones are made of them. Pure: values in, values out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from recipe.rows import IMPLICIT, POLARITIES, DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from recipe.rows import Row

WHOLE: Final = (0, 1)
"""The aspect ``#``, the product as a whole."""
Offsets = tuple[int, int]


class Fact(NamedTuple):
    """An aspect and, where the set has one, an opinion on it: code points of the review's text, half-open."""

    aspect: Offsets
    opinion: Offsets | None
    polarity: str | None
    """``positive``, ``negative``, ``neutral``, or None without an opinion."""


@dataclass(frozen=True, slots=True)
class Review:
    """A text that starts with ``#``, and all that it says of aspects."""

    text: str
    facts: tuple[Fact, ...]
    style: str
    """How its spans are annotated, which decides on the names to ask under: ``canonical`` or a key of ``styles``."""
    categories: tuple[str, ...] = ()

    @property
    def explicit(self) -> set[Offsets]:
        """Aspects that stand in the text."""
        return {fact.aspect for fact in self.facts if fact.aspect != WHOLE}

    @property
    def polarities(self) -> set[str]:
        """Polarities of the facts on explicit aspects."""
        return {fact.polarity for fact in self.facts if fact.polarity and fact.aspect != WHOLE}


def review_of(row: Row, style: str) -> Review:
    """A review from a row whose paths are aspects, or aspects with opinions. Of 太X了 the 了 is made part.

    Raises DataError for an opinion of no known polarity: nothing would ask for it, and it would be taught as wrong.
    """
    facts = []
    for path in row.paths:
        aspect = (path[0].start, path[0].end)
        if len(path) == 1:
            facts.append(Fact(aspect, None, None))
        else:
            kind = path[1].type
            polarity = POLARITIES.get(kind[:1], kind)
            if polarity not in POLARITIES.values():
                raise DataError(f"{row.text[:20]!r}: opinion type {kind!r} starts with none of {', '.join(POLARITIES)}")
            facts.append(Fact(aspect, with_final_le(row.text, path[1].start, path[1].end), polarity))
    return Review(row.text, tuple(dict.fromkeys(facts)), style, tuple(row.fields.get("pair_categories", ())))


def with_final_le(text: str, start: int, end: int) -> Offsets:
    """An opinion 太X with the 了 behind it. Three quarters of the annotations of such opinions have it.

    Without the rule a model learns both, and finds 太慢 and 太慢了 in the same place.
    """
    if end - start >= 2 and text[start] == "太" and text[end : end + 1] == "了":
        return start, end + 1
    return start, end


_CLAUSE_END = re.compile(r"[，,。！!；;~\s、？?]+")
_SHORTEST, _LONGEST = 2, 24


def clauses(review: Review) -> Iterable[Review]:
    """Clauses that hold one aspect with its opinions, whole, and nothing of another fact; ``#`` is put in front."""
    text, begin = review.text, 1
    cuts = [match.span() for match in _CLAUSE_END.finditer(text)] + [(len(text), len(text))]
    for end, following in cuts:
        start, begin = begin, following
        if not _SHORTEST <= end - start <= _LONGEST:
            continue
        inside = [fact for fact in review.facts if _touches(fact, start, end)]
        if not inside or not all(_within(fact, start, end) for fact in inside):
            continue
        if len({fact.aspect for fact in inside}) == 1:
            moved = tuple(_moved(fact, 1 - start) for fact in inside)
            yield Review(IMPLICIT + text[start:end], moved, review.style)


def _spans(fact: Fact) -> list[Offsets]:
    return [span for span in (fact.aspect, fact.opinion) if span is not None and span != WHOLE]


def _touches(fact: Fact, start: int, end: int) -> bool:
    return any(span[0] < end and span[1] > start for span in _spans(fact))


def _within(fact: Fact, start: int, end: int) -> bool:
    return fact.opinion is not None and all(span[0] >= start and span[1] <= end for span in _spans(fact))


def _moved(fact: Fact, by: int) -> Fact:
    def moved(span: Offsets) -> Offsets:
        return span if span == WHOLE else (span[0] + by, span[1] + by)

    return Fact(moved(fact.aspect), moved(fact.opinion) if fact.opinion else None, fact.polarity)


_GLUE = (
    "，",
    "，",
    "，",
    ",",
    "。",
    " ",
    "！",
    "；",
    "，但是",
    "，但",
    "，不过",
    "，而且",
    "，就是",
    "，可惜",
    "，另外",
    "，虽然",
    "，同时",
)
_OPENINGS = (
    "刚收到",
    "用了几天了",
    "第二次买",
    "给家里买的",
    "对比了好久才下单",
    "朋友推荐的",
    "昨天到的",
    "趁活动买的",
)
_ENDINGS = ("", "", "。", "！", "~", "！！")


class Bank:
    """Clauses of many reviews, to be put together to new ones with several aspects, often of opposite polarity."""

    def __init__(self, reviews: Iterable[Review]) -> None:
        """Reviews of one style."""
        every = [clause for review in reviews for clause in clauses(review)]
        self.explicit = [clause for clause in every if clause.explicit]
        self.critical = [clause for clause in self.explicit if clause.polarities - {"positive"}]
        self.whole = [clause for clause in every if not clause.explicit]

    def joined(self, rng: Random) -> Review:
        """Two to four clauses; no aspect's word twice, since only the word would tell which of them is meant."""
        parts: list[Review] = []
        for _ in range(rng.choices((2, 3, 4), (5, 3, 1))[0]):
            chance = rng.random()
            pool = self.critical if chance < 0.38 else self.whole if chance > 0.86 and parts else self.explicit
            parts.append(rng.choice(pool or self.explicit))
        rng.shuffle(parts)
        text, facts, seen = IMPLICIT, [], set()
        for part in parts:
            word = aspect_word(part, part.facts[0])
            if word in seen and word != IMPLICIT:
                continue
            seen.add(word)
            if len(text) > 1:
                text += rng.choice(_GLUE)
            elif rng.random() < 0.08:
                text += rng.choice(_OPENINGS) + rng.choice("，,。 ")
            facts += [_moved(fact, len(text) - 1) for fact in part.facts]
            text += part.text[1:]
        return Review(text + rng.choice(_ENDINGS), tuple(facts), parts[0].style)


def aspect_word(review: Review, fact: Fact) -> str:
    """The words of a fact's aspect."""
    return review.text[slice(*fact.aspect)]


class Swaps:
    """Aspects with their opinions, to put others of the same style into a review's places."""

    def __init__(self, reviews: Sequence[Review]) -> None:
        """``reviews`` of one style."""
        self._pairs = [
            (aspect_word(review, fact), review.text[slice(*fact.opinion)], fact.polarity)
            for review in reviews
            for fact in review.facts
            if fact.opinion and fact.aspect != WHOLE
        ]

    def swapped(self, review: Review, rng: Random, share: float = 0.6) -> Review:
        """Some explicit aspects with exactly one opinion get another pair. The review itself where spans overlap.

        Of a new 太X in front of a 了 that stood behind the old opinion, the 了 becomes part (``with_final_le``).
        """
        opinions = {fact.opinion for fact in review.facts if fact.opinion}
        places = sorted({span for fact in review.facts for span in _spans(fact)})
        if review.explicit & opinions or any(one[1] > other[0] for one, other in pairwise(places)):
            return review
        new: dict[Offsets, str] = {}
        facts = list(review.facts)
        for number, fact in enumerate(facts):
            alone = sum(other.aspect == fact.aspect or other.opinion == fact.opinion for other in facts) == 1
            if fact.opinion and fact.aspect != WHOLE and alone and rng.random() < share:
                new[fact.aspect], new[fact.opinion], polarity = rng.choice(self._pairs)
                facts[number] = fact._replace(polarity=polarity)
        if not new:
            return review
        text, last, at = "", 0, {WHOLE: WHOLE}
        for place in places:
            text += review.text[last : place[0]]
            words = new.get(place, review.text[slice(*place)])
            at[place] = (len(text), len(text) + len(words))
            text += words
            last = place[1]
        text += review.text[last:]
        moved = tuple(
            Fact(at[fact.aspect], with_final_le(text, *at[fact.opinion]) if fact.opinion else None, fact.polarity)
            for fact in facts
        )
        return replace(review, text=text, facts=moved)
