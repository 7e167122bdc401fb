"""A report: all that is measured of a model's predictions, as one value, and as the rows of JSON and CSV files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consumer.evaluation.baseline import FOLDS, LEAST_TEXTS, NaiveBayes, cross_validated
from consumer.evaluation.calibration import LEAST_FACTS, Calibration, calibration
from consumer.evaluation.classification_scores import (
    MOST_CLASSES,
    Confusion,
    Labelled,
    class_figures,
    classification_figures,
    confusion,
)
from consumer.evaluation.extraction_scores import extraction_figures, quadruple_figures
from consumer.evaluation.figures import Figure, counted, f1_figure, share_figure
from consumer.evaluation.intervals import Resamples
from consumer.evaluation.paths import reduced

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from consumer.evaluation.paths import Case, Metric
    from consumer.evaluation.worst import Mistakes

DECIMALS: Final = 4
CSV_HEADER: Final = ("section", "name", "metric", "value", "low", "high", "support")


class Training(NamedTuple):
    """Texts with their classes that a baseline is trained on."""

    texts: Sequence[str]
    gold: Sequence[frozenset[str]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Figures of the bag of character n-grams (``baseline.NaiveBayes``) on the same texts."""

    trained_on: str
    """In words. Why there are no figures, where there are none."""
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All that is measured. ``headline`` is the figure of ``metric``, over all texts of any kind."""

    metric: Metric
    headline: Figure
    figures: tuple[Figure, ...]
    confusion: Confusion | None
    baseline: Baseline | None
    """None where nothing is classified."""
    calibration: Calibration | None
    notes: tuple[str, ...]
    """What a reader has to know about the figures, in sentences. Without review text."""


def measured(
    cases: Sequence[Case],
    metric: Metric,
    training: Training | None = None,
    notes: Iterable[str] = (),
) -> Report:
    """Measure predictions. ``training`` is what the baseline learns from instead of the cases themselves.

    Texts of tasks that extract and texts of tasks that classify have figures of their own.
    """
    extracting = [case for case in cases if case.kind == "extract"]
    classifying = [case for case in cases if case.kind != "extract"]
    resamples = Resamples(len(cases))
    figures: list[Figure] = []
    matrix = baseline = None
    if extracting:
        draws = resamples if not classifying else Resamples(len(extracting))
        figures += extraction_figures(extracting, draws) + quadruple_figures(extracting, draws)
    if classifying:
        draws = resamples if not extracting else Resamples(len(classifying))
        labelled = Labelled.of(classifying)
        figures += classification_figures(labelled, draws)
        figures += class_figures(labelled, draws)
        matrix = confusion(labelled)
        baseline = _baseline([case.text for case in classifying], labelled, training, draws)
    return Report(
        metric,
        headline(cases, metric, resamples),
        tuple(figures),
        matrix,
        baseline,
        calibration(cases),
        tuple(notes),
    )


def headline(cases: Iterable[Case], metric: Metric, resamples: Resamples) -> Figure:
    """The figure of one metric over all texts."""
    counts = counted((reduced(metric, case.predicted), reduced(metric, case.gold)) for case in cases)
    if metric == "accuracy":
        return share_figure("headline", metric, metric, counts, resamples)
    return f1_figure("headline", metric, counts, resamples)


def _baseline(texts: Sequence[str], labelled: Labelled, training: Training | None, resamples: Resamples) -> Baseline:
    classes = frozenset().union(*(labelled.gold if training is None else training.gold))
    if not 2 <= len(classes) <= MOST_CLASSES:
        return Baseline(f"left out: the number of classes is {len(classes)}, and it takes 2 to {MOST_CLASSES}")
    if training is None:
        if len(texts) < LEAST_TEXTS:
            return Baseline(
                f"left out: {len(texts)} texts, and {LEAST_TEXTS} are needed to train on four fifths of them"
            )
        predicted = cross_validated(texts, labelled.gold, single=labelled.single)
        trained_on = f"{FOLDS}-fold cross-validation on these {len(texts)} texts"
    else:
        known = set(texts)
        kept = [pair for pair in zip(*training, strict=True) if pair[0] not in known]
        if not kept:
            return Baseline("left out: all texts to train on are among those to be scored")
        model = NaiveBayes([text for text, _ in kept], [names for _, names in kept], single=labelled.single)
        predicted = model.predict(texts)
        trained_on = f"trained on {len(kept)} texts"
        if len(kept) < len(training.texts):
            trained_on += f" ({len(training.texts) - len(kept)} that are to be scored were left out)"
    guessed = Labelled(labelled.gold, tuple(map(frozenset, predicted)), labelled.single)
    return Baseline(trained_on, tuple(classification_figures(guessed, resamples, "baseline")))


def numbers(figure: Figure) -> dict[str, Any]:
    """The numbers of a metric by name, rounded, as the top of a JSON report has them."""
    if figure.name == "accuracy":
        values = {"accuracy": rounded(figure.main), "correct": figure.correct}
    else:
        values = {name: rounded(figure.values[name]) for name in ("precision", "recall", "f1")}
        values |= {"predicted": figure.predicted, "gold": figure.support, "correct": figure.correct}
    return {"metric": figure.name, **values, "interval": _interval(figure)}


def as_json(report: Report, temperature: float = 1.0) -> dict[str, Any]:
    """The report as a JSON object.

    All logits were already divided by ``temperature``; the temperature reported is the product of both, which is what
    belongs into the model's weights.
    """
    found: dict[str, Any] = numbers(report.headline)
    found["temperature"] = _temperature(report.calibration, temperature)
    found["figures"] = [_figure(figure) for figure in report.figures]
    found["confusion"] = None if report.confusion is None else asdict(report.confusion)
    found["baseline"] = None
    if report.baseline is not None:
        figures = [_figure(figure) for figure in report.baseline.figures]
        found["baseline"] = {"trained_on": report.baseline.trained_on, "figures": figures}
    found["calibration"] = None
    if report.calibration is not None:
        found["calibration"] = rounded(asdict(report.calibration)) | {"temperature": found["temperature"]}
    found["notes"] = list(report.notes)
    return found


def example_json(mistakes: Mistakes) -> dict[str, Any]:
    """A text with mistakes as a JSON object, its paths as results have them."""
    invented = [[fact._asdict() for fact in path] for path in mistakes.invented]
    return {
        "number": mistakes.number,
        "text": mistakes.text,
        "missing": [[fact._asdict() for fact in path] for path in mistakes.missing],
        "invented": [{"path": path, "score": score} for path, score in zip(invented, mistakes.scores, strict=True)],
    }


def csv_rows(report: Report, temperature: float = 1.0) -> Iterator[tuple[object, ...]]:
    """The report as rows of CSV_HEADER, one for each number; an empty cell is a number that there is not.

    ``temperature`` as in ``as_json``.
    """
    yield from _figure_rows(report.headline)
    for figure in report.figures:
        yield from _figure_rows(figure)
    if report.confusion is not None:
        names = (*report.confusion.classes, "none")
        for gold, counts in zip(report.confusion.classes, report.confusion.counts, strict=True):
            for name, count in zip(names, counts, strict=True):
                if count:
                    yield "confusion", gold, name, count, "", "", sum(counts)
    for figure in report.baseline.figures if report.baseline is not None else ():
        yield from _figure_rows(figure)
    found = report.calibration
    if found is None:
        return
    for metric in ("mean_score", "share_right", "ece", "ece_after"):
        if (value := getattr(found, metric)) is not None:
            yield "calibration", "", metric, rounded(value), "", "", found.facts
    if (fitted := _temperature(found, temperature)) is not None:
        yield "calibration", "", "temperature", fitted, "", "", found.facts
    for each in found.bins:
        for metric in ("mean_score", "share_right") if each.facts else ():
            value = rounded(getattr(each, metric))
            yield "calibration", f"{each.low:.2f}-{each.high:.2f}", metric, value, "", "", each.facts


def _temperature(found: Calibration | None, applied: float) -> float | None:
    return None if found is None or found.temperature is None else float(f"{found.temperature * applied:.4g}")


def few_facts(found: Calibration) -> str | None:
    """Why a calibration has no temperature; None where it has one."""
    return None if found.temperature is not None else f"{found.facts} facts, and {LEAST_FACTS} are needed to fit one"


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "section": figure.section,
        "name": figure.name,
        **{name: rounded(value) for name, value in figure.values.items()},
        "intervals": rounded(dict(figure.intervals)),
        "support": figure.support,
        "predicted": figure.predicted,
        "correct": figure.correct,
        "texts": figure.texts,
    }


def _figure_rows(figure: Figure) -> Iterator[tuple[object, ...]]:
    for metric, value in figure.values.items():
        low, high = rounded(figure.intervals.get(metric, ("", "")))
        yield figure.section, figure.name, metric, rounded(value), low, high, figure.support


def _interval(figure: Figure) -> list[float] | None:
    return None if figure.interval is None else [rounded(value) for value in figure.interval]


def rounded(value: Any) -> Any:
    """Floats in it rounded."""
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value
