"""How well the demo's model did: its labels and facts against those of the samples' author, and its mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from consumer.local.demo_events import DemoEvent, Fact, Place
    from consumer.local.demo_outcome import Seen

NOTHING: Final = "nothing"
"""Stands for the label of a review that got none."""

MISTAKES: Final = {
    "aspect": "{count} of the {found} facts found have a right opinion on a wrong aspect",
    "polarity": "{count} of the {found} facts found have the wrong polarity",
    "words": "{count} of the {found} facts found begin or end at other words than annotated",
    "invented": "{count} of the {found} facts found are no annotated opinions",
    "missed": "{count} annotated opinions are missed altogether",
}
"""Kinds of mistakes in facts, and the clause that counts them; see ``fact_mistakes``."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """Reviews with one right label: how many got it, and how often which was taken for which."""

    right: int
    judged: int
    wrong: Counter[tuple[str, str]]
    """(the author's, the model's) -> reviews."""


@dataclass(frozen=True, slots=True)
class FactScore:
    """Strict counts over all reviews with gold facts: a fact is right when types and places of all its parts are."""

    reviews: int
    predicted: int
    gold: int
    correct: int

    @property
    def precision(self) -> float:
        """Share of the predicted facts that are right; 0 when there is none."""
        return self.correct / max(self.predicted, 1)

    @property
    def recall(self) -> float:
        """Share of the gold that was found; 0 when there is none."""
        return self.correct / max(self.gold, 1)

    @property
    def f1(self) -> float:
        """Micro F1, the harmonic mean of both: 2 c / (p + g)."""
        return 2 * self.correct / max(self.predicted + self.gold, 1)


def label(seen: Seen, key: str, task: str) -> str | None:
    """The class that the model gave to a review."""
    result = seen.results.get((key, task))
    return result["extractions"][0][0]["type"] if result and result["extractions"] else None


def label_score(samples: Sequence[DemoEvent], seen: Seen, task: str) -> LabelScore:
    """Accuracy of a classification over the reviews whose author meant one label; ``mixed`` is none."""
    judged = [event for event in samples if event.labels[task] != "mixed"]
    pairs = [(event.labels[task], label(seen, event.key, task) or NOTHING) for event in judged]
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    return LabelScore(len(judged) - wrong.total(), len(judged), wrong)


def facts(seen: Seen, key: str) -> frozenset[Fact]:
    """Types and places of what the model found in a review."""
    result = seen.results.get((key, "product_features"))
    paths = result["extractions"] if result else ()
    return frozenset(tuple((part["type"], part["start"], part["end"]) for part in path) for path in paths)


def fact_score(samples: Sequence[DemoEvent], seen: Seen) -> FactScore:
    """Over the reviews that have gold facts, also where those are that there is none."""
    pairs = [(facts(seen, event.key), event.facts) for event in samples if event.facts is not None]
    return FactScore(
        reviews=len(pairs),
        predicted=sum(len(found) for found, _ in pairs),
        gold=sum(len(gold) for _, gold in pairs),
        correct=sum(len(found & gold) for found, gold in pairs),
    )


def fact_mistakes(samples: Sequence[DemoEvent], seen: Seen) -> Counter[str]:
    """How often each of ``MISTAKES`` was made.

    A wrong fact whose last part, the opinion, is one of the gold has the wrong polarity (the aspect is right) or a
    wrong aspect; one whose opinion shares characters with one of the gold has other words; every other is invented.
    An opinion of the gold that shares no character with a predicted one was missed.
    """
    kinds: Counter[str] = Counter()
    for event in samples:
        if event.facts is None:
            continue
        found = facts(seen, event.key)
        kinds.update(_mistake(path, event.facts) for path in found - event.facts)
        opinions = {path[-1][1:] for path in found}
        kinds["missed"] += sum(not _touches(place, opinions) for place in {path[-1][1:] for path in event.facts})
    return +kinds


def _mistake(path: Fact, gold: Collection[Fact]) -> str:
    same_words = [other for other in gold if other[-1][1:] == path[-1][1:]]
    if any(other[0][1:] == path[0][1:] for other in same_words):
        return "polarity"
    if same_words:
        return "aspect"
    return "words" if _touches(path[-1][1:], {other[-1][1:] for other in gold}) else "invented"


def _touches(place: Place, others: Collection[Place]) -> bool:
    """Whether a place shares a character with one of the others."""
    start, end = place
    return any((a or 0) < (end or 0) and (start or 0) < (b or 0) for a, b in others)


def worst_mistakes(samples: Sequence[DemoEvent], seen: Seen) -> str:
    """One sentence on the most frequent mistakes of this run: two kinds in facts, one in each classification."""
    found = fact_score(samples, seen).predicted
    kinds = sorted(fact_mistakes(samples, seen).items(), key=lambda entry: (-entry[1], entry[0]))[:2]
    clauses = [MISTAKES[kind].format(count=f"{count:,}", found=f"{found:,}") for kind, count in kinds]
    for task in ("category", "sentiment"):
        wrong = label_score(samples, seen, task).wrong
        if wrong:
            (gold, given), count = min(wrong.items(), key=lambda entry: (-entry[1], entry[0]))
            of = sum(event.labels[task] == gold for event in samples)
            clauses.append(f"{gold} is taken for {given} ({count} of {of})")
    if not clauses:
        return "The model made no mistake that these samples show."
    return f"What the model gets wrong most: {'; '.join(clauses)}."
