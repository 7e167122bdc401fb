"""How well the demo's model did: its labels and facts against those of the samples' author, and its mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consumer.evaluation.figures import counted, f1_figure
from consumer.evaluation.intervals import Resamples
from consumer.evaluation.paths import Named, reduced

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from consumer.evaluation.figures import Figure
    from consumer.evaluation.paths import NamedPath
    from consumer.local.demo_events import DemoEvent
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


def facts(seen: Seen, key: str) -> frozenset[NamedPath]:
    """What the model found in a review."""
    result = seen.results.get((key, "product_features"))
    paths = result["extractions"] if result else ()
    return frozenset(tuple(Named(fact["type"], fact["span"], fact["start"], fact["end"]) for fact in p) for p in paths)


def annotated(samples: Sequence[DemoEvent]) -> list[tuple[str, frozenset[NamedPath]]]:
    """Keys and facts of the reviews that have gold, also where that is that there is none."""
    return [(event.key, event.facts) for event in samples if event.facts is not None]


def fact_figure(samples: Sequence[DemoEvent], seen: Seen) -> Figure:
    """Strict F1 over the annotated reviews, as ``rexstream evaluate`` counts it."""
    pairs = [(reduced("strict", facts(seen, key)), reduced("strict", gold)) for key, gold in annotated(samples)]
    return f1_figure("all", "strict", counted(pairs), Resamples(len(pairs)))


def fact_mistakes(samples: Sequence[DemoEvent], seen: Seen) -> Counter[str]:
    """How often each of ``MISTAKES`` was made.

    A wrong fact whose last part, the opinion, is one of the gold has the wrong polarity (the aspect is right) or a
    wrong aspect; one whose opinion shares characters with one of the gold has other words; every other is invented.
    An opinion of the gold that shares no character with a predicted one was missed.
    """
    kinds: Counter[str] = Counter()
    for key, gold in annotated(samples):
        found = facts(seen, key)
        kinds.update(_mistake(path, gold) for path in found - gold)
        opinions = set(map(_opinion, found))
        kinds["missed"] += sum(not _touches(place, opinions) for place in set(map(_opinion, gold)))
    return +kinds


def _mistake(path: NamedPath, gold: Collection[NamedPath]) -> str:
    same_words = [other for other in gold if _opinion(other) == _opinion(path)]
    if any(other[0] == path[0] for other in same_words):
        return "polarity"
    if same_words:
        return "aspect"
    return "words" if _touches(_opinion(path), set(map(_opinion, gold))) else "invented"


def _opinion(path: NamedPath) -> tuple[int, int]:
    """First character of a fact's last part and the one behind it; nothing where it has no words."""
    return path[-1].start or 0, path[-1].end or 0


def _touches(place: tuple[int, int], others: Collection[tuple[int, int]]) -> bool:
    """Whether a place shares a character with one of the others."""
    return any(start < place[1] and place[0] < end for start, end in others)


def worst_mistakes(samples: Sequence[DemoEvent], seen: Seen) -> str:
    """One sentence on the most frequent mistakes of this run: two kinds in facts, one in each classification."""
    found = sum(len(facts(seen, key)) for key, _ in annotated(samples))
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
