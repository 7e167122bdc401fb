"""A comparison: all that is measured of two sides' answers to the same texts, as one value and as a JSON object."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from consumer.evaluation.agreement import Agreement, agreements, by_task, moves, scores
from consumer.evaluation.calibration import Calibration, calibration
from consumer.evaluation.classification_scores import one_class
from consumer.evaluation.figures import Difference, counted, f1_difference
from consumer.evaluation.intervals import Resamples
from consumer.evaluation.paired_times import PairedTimes, Turn, paired_times
from consumer.evaluation.paths import Case, class_of, reduced
from consumer.evaluation.report import rounded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumer.evaluation.agreement import Compared, Move, Scores, Side
    from consumer.evaluation.paths import Metric, NamedPath

SIDES: Final[tuple[Side, Side]] = ("old", "new")
MOST_MOVES: Final = 50
"""Of a JSON object; a schema of many classes has their square."""
_SLACK: Final = 1e-9
"""Below what a bound may be missed by: 0.90 - 0.89 is not 0.01 in binary."""


@dataclass(frozen=True, slots=True)
class Gain:
    """F1 of both sides against gold, of one task or, with ``type``, of its paths of these types.

    ``metric`` is accuracy where each text has exactly one class, else strict, as ``evaluate`` has them; of a type it is
    strict. ``gold`` counts what it is measured on: texts for accuracy, else paths.
    """

    task: str
    type: str | None
    metric: Metric
    f1: Difference
    gold: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is measured. ``agreements`` has the tasks by name, each with its types behind it, as ``gains`` has."""

    agreements: tuple[Agreement, ...]
    moves: tuple[Move, ...]
    scores: tuple[Scores, ...]
    times: PairedTimes | None
    gains: tuple[Gain, ...]
    """Nothing without gold."""
    calibrations: tuple[Calibration | None, Calibration | None]
    """Of old and new against the gold. None without gold, or without facts."""
    failed_both: int
    failed_old: int
    """By the old side alone."""
    failed_new: int

    def crossed(self, min_agreement: float | None, max_drop: float | None) -> list[str]:
        """In sentences, which tasks are beyond a bound: agree less, or lose more F1 than ``max_drop``."""
        said = [
            f"agreement of task {each.task} is {each.value:.4f}, and at least {min_agreement:g} is asked for"
            for each in self.agreements
            if min_agreement is not None and each.type is None and each.value < min_agreement - _SLACK
        ]
        return said + [
            f"{_measure(each)} of task {each.task} drops by {-each.f1.value:.4f}, and at most {max_drop:g} is allowed"
            for each in self.gains
            if max_drop is not None and each.type is None and -each.f1.value > max_drop + _SLACK
        ]


def comparison(compared: Sequence[Compared], turns: Sequence[Turn] = ()) -> Comparison:
    """Measure. Gold counts where every text has some (an empty set says that nothing is to be found)."""
    judged = bool(compared) and all(case.gold is not None for case in compared)
    old, new = (sum(getattr(case, side) is None for case in compared) for side in SIDES)
    both = sum(case.old is None and case.new is None for case in compared)
    return Comparison(
        tuple(agreements(compared)),
        tuple(moves(compared)),
        tuple(scores(compared)),
        paired_times(turns),
        tuple(_gains(compared)) if judged else (),
        (calibration(_cases(compared, "old")), calibration(_cases(compared, "new"))) if judged else (None, None),
        both,
        old - both,
        new - both,
    )


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison as a JSON object, without review text."""
    return {
        "failed": {"both": found.failed_both, "old": found.failed_old, "new": found.failed_new},
        "agreement": [
            rounded(
                {
                    "task": each.task,
                    "type": each.type,
                    "agreement": each.value,
                    "interval": each.interval,
                    "texts": each.texts,
                    "same": each.same,
                    "both": each.both,
                    "only_old": each.old - each.both,
                    "only_new": each.new - each.both,
                }
            )
            for each in found.agreements
        ],
        "moves": [asdict(each) for each in found.moves[:MOST_MOVES]],
        "scores": [rounded(asdict(each)) for each in found.scores],
        "times": None if found.times is None else _times_json(found.times),
        "gold": None if not found.gains else _gold_json(found),
    }


def example_json(case: Compared) -> dict[str, Any]:
    """A text with what one side alone found, its paths as results have them."""

    def listed(paths: Mapping[NamedPath, tuple[float, ...]]) -> list[dict[str, Any]]:
        return [{"path": [fact._asdict() for fact in path], "score": each[-1]} for path, each in paths.items()]

    return {
        "line": case.number,
        "task": case.task,
        "text": case.text,
        "only_old": listed(case.only_old),
        "only_new": listed(case.only_new),
    }


def _gains(compared: Sequence[Compared]) -> Iterable[Gain]:
    resamples = cache(Resamples)
    for task, cases in by_task(compared).items():
        old, new = (_cases(cases, side) for side in SIDES)
        metric: Metric = "accuracy" if one_class(new) else "strict"
        draws = resamples(len(cases))
        before, after = (
            counted((reduced(metric, case.predicted), reduced(metric, case.gold)) for case in side)
            for side in (old, new)
        )
        yield Gain(task, None, metric, f1_difference(before, after, draws), int(before[:, 1].sum()))
        support = Counter(class_of(path) for case in new for path in case.gold)
        for name in sorted(support, key=lambda name: (-support[name], name)):
            before, after = (
                counted((_of_type(case.predicted, name), _of_type(case.gold, name)) for case in side)
                for side in (old, new)
            )
            yield Gain(task, name, "strict", f1_difference(before, after, draws), support[name])


def _cases(compared: Iterable[Compared], side: Side) -> list[Case]:
    return [
        Case(case.text, case.kind, case.gold or frozenset(), (case.old if side == "old" else case.new) or {})
        for case in compared
    ]


def _of_type(paths: Iterable[NamedPath], name: str) -> set[NamedPath]:
    return {path for path in paths if class_of(path) == name}


def _times_json(times: PairedTimes) -> dict[str, Any]:
    found: dict[str, Any] = rounded(
        {
            "turns": times.turns,
            "old_ms": times.old._asdict(),
            "new_ms": times.new._asdict(),
            "ratio": times.ratio,
            "interval": times.interval,
        }
    )
    return found


def _gold_json(found: Comparison) -> dict[str, Any]:
    return {
        "difference": [
            rounded(
                {
                    "task": each.task,
                    "type": each.type,
                    "metric": each.metric,
                    "old": each.f1.old,
                    "new": each.f1.new,
                    "difference": each.f1.value,
                    "interval": each.f1.interval,
                    "gold": each.gold,
                }
            )
            for each in found.gains
        ],
        "calibration": {
            side: None if each is None else rounded(asdict(each))
            for side, each in zip(SIDES, found.calibrations, strict=True)
        },
    }


def _measure(gain: Gain) -> str:
    return "accuracy" if gain.metric == "accuracy" else "F1"
