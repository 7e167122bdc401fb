"""How good the weights are, while they are trained: the worker's own engine on validation rows, scored as
``rexstream evaluate`` does it.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import torch

from consumer.evaluation.classification_scores import Labelled, classification_figures
from consumer.evaluation.extraction_scores import SEVERAL, extraction_figures
from consumer.evaluation.intervals import Resamples
from consumer.evaluation.paths import Case, Named, predictions
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import MAX_CELLS_PER_WINDOW, PromptLimits
from consumer.extraction.task import ExtractionLimits, Task
from consumer.offline import Driver
from consumer.serving.protocol import Answer
from consumer.serving.tensors import GraphContract, legal_cells, pad
from recipe.naming import INTENTS, POLARITIES, AspectNames
from recipe.reviews import WHOLE, review_of
from recipe.rows import IMPLICIT
from recipe.sources import intents_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.evaluation.paths import NamedPath
    from consumer.extraction.prompts import PromptTokenizer
    from consumer.extraction.task import SchemaTree
    from consumer.extraction.window import Window
    from recipe.naming import Naming
    from recipe.network import RexUniNLU
    from recipe.reviews import Review
    from recipe.rows import Row, Span
    from recipe.sources import Sources

_Text = TypeVar("_Text", "Review", "Row")

MOST_CHARACTERS: Final = 400
"""Longer validation rows are left out: there are few, and they cost as much as a hundred others."""


class TorchModel:
    """Weights in training as a model client of the engine."""

    def __init__(self, model: RexUniNLU, tokenizer: PromptTokenizer) -> None:
        self._model = model
        classes = frozenset((tokenizer.classify, tokenizer.multiclassify))
        self._agreed = GraphContract(0, MAX_CELLS_PER_WINDOW, tokenizer.pad, tokenizer.type, classes)

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:  # noqa: ARG002
        """Run one batch in bfloat16."""
        started = time.monotonic()
        inputs = pad(windows, padded_length, self._agreed.pad)
        tensors = [torch.from_numpy(inputs[name]).long() for name in ("input_ids", "position_ids", "segment")]
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self._model(*tensors).numpy()
        cells = tuple(legal_cells(window, row, self._agreed) for window, row in zip(windows, logits, strict=True))
        return Answer(cells, "training", "0", "dense", time.monotonic() - started)

    async def ready(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to close."""


class Question(NamedTuple):
    """A text, what is asked of it, and the paths that belong to it."""

    text: str
    task: Task
    gold: frozenset[NamedPath]


class Suite:
    """Questions by the name of the set, and their figures for given weights."""

    def __init__(self, questions: dict[str, list[Question]], tokenizer: PromptTokenizer) -> None:
        self._questions, self._tokenizer = questions, tokenizer

    @property
    def extractions(self) -> Suite:
        """The sets that ask for spans, without those of classes."""
        chosen = {name: each for name, each in self._questions.items() if each[0].task.kind == "extract"}
        return Suite(chosen, self._tokenizer)

    def cases(self, model: RexUniNLU) -> dict[str, list[Case]]:
        """What the weights answer to every question."""
        engine = Engine(self._tokenizer, PromptLimits(), ExtractionLimits())
        driver = Driver(TorchModel(model.eval(), self._tokenizer))
        cases = {name: asyncio.run(_cases(driver, engine, each)) for name, each in self._questions.items()}
        model.train()
        return cases

    def figures(self, model: RexUniNLU) -> dict[str, float]:
        """The main figure of each set: strict F1, or accuracy; of aspects that of several aspects, too."""
        found: dict[str, float] = {}
        for name, cases in self.cases(model).items():
            resamples = Resamples(len(cases), resamples=1)
            if cases[0].kind == "extract":
                figures = extraction_figures(cases, resamples)
            else:
                figures = classification_figures(Labelled.of(cases), resamples)
            found[name] = figures[0].main
            found |= {f"{name}, {SEVERAL}": figure.main for figure in figures if figure.name == SEVERAL}
        return found


async def _cases(driver: Driver, engine: Engine, questions: Sequence[Question]) -> list[Case]:
    runs = await driver.run([partial(engine.start, each.text, each.task) for each in questions])
    cases = []
    for question, run in zip(questions, runs, strict=True):
        paths = run.extraction.result().paths if run.extraction is not None else ()
        cases.append(Case(question.text, question.task.kind, question.gold, predictions(paths)))
    return cases


def suite(sources: Sources, naming: Naming, tokenizer: PromptTokenizer, rows: int, seed: int) -> Suite:
    """At most ``rows`` rows of each set of the validation side; sets without any are left out."""
    some = partial(_some, rows=rows, rng=Random(seed))
    own = naming.raw["styles"]
    held = naming.raw["held_out"]
    cosmetics = some([r for name in ("absa_makeup", "zj2_makeup") for r in sources.reviews.get(name, ())])
    questions: dict[str, list[Question]] = {"cosmetics": [aspect_question(r, naming.canonical) for r in cosmetics]}
    for number, polarities in enumerate(held["polarities"]):
        names = AspectNames(held["aspects"][number], dict(zip(POLARITIES, polarities, strict=True)))
        questions[f"cosmetics as {names.aspect}"] = [aspect_question(r, names) for r in cosmetics]
    bdci = AspectNames(own["bdci"]["aspects"][0], dict(zip(POLARITIES, own["bdci"]["polarities"], strict=True)))
    questions["all goods"] = [aspect_question(r, bdci) for r in some(sources.reviews.get("bdci17", []))]
    written = [review_of(row, "canonical") for row in sources.written if row.paths]
    questions["written"] = [aspect_question(r, naming.canonical) for r in some(written)]
    other = held["categories"]
    shop = [row for row in some(sources.shop) if row.fields.get("label") in (0, 1)]
    placed = [row for row in shop if row.fields.get("category") in other]
    signs = naming.raw["canonical"]["sentiments"]
    questions["sentiment"] = [class_question(r.text, signs, signs[1 - r.fields["label"]]) for r in shop]
    questions["category"] = [class_question(r.text, list(other), r.fields["category"]) for r in placed]
    questions["category as 书刊 …"] = [
        class_question(r.text, list(other.values()), other[r.fields["category"]]) for r in placed
    ]
    intents = dict(zip(INTENTS, naming.raw["canonical"]["intents"], strict=True))
    questions["intent"] = [
        class_question(text, list(intents.values()), intents[intent]) for text, intent in intents_of(sources)
    ]
    for name in ("cluener", "titles"):
        questions[name] = [row_question(row) for row in some(sources.rows["entities"].get(name, []))]
    return Suite({name: each for name, each in questions.items() if each}, tokenizer)


def _some(values: Sequence[_Text], rows: int, rng: Random) -> list[_Text]:
    short = [value for value in values if len(value.text) <= MOST_CHARACTERS]
    return rng.sample(short, min(rows, len(short)))


def aspect_question(review: Review, names: AspectNames) -> Question:
    """Aspects and opinions of a review, under these names."""
    task = Task("aspects", "extract", {names.aspect: dict.fromkeys(names.polarities.values())}, implicit_aspect="#")

    def named(kind: str, span: tuple[int, int]) -> Named:
        if span == WHOLE:
            return Named(kind, None, None, None)
        return Named(kind, review.text[slice(*span)], span[0] - 1, span[1] - 1)

    gold = frozenset(
        (named(names.aspect, fact.aspect), named(names.polarities[fact.polarity], fact.opinion))
        for fact in review.facts
        if fact.opinion and fact.polarity
    )
    return Question(review.text[1:], task, gold)


def class_question(text: str, names: Sequence[str], fitting: str) -> Question:
    """One class of a text."""
    task = Task("classes", "classify", dict.fromkeys(names))
    return Question(text, task, frozenset({(Named(fitting, None, None, None),)}))


def row_question(row: Row) -> Question:
    """Whatever a row in RexUniNLU's form asks, under its own names."""
    if row.kind != "extract":
        gold = frozenset(tuple(Named(span.type, None, None, None) for span in path) for path in row.paths)
        return Question(row.text, Task("own", row.kind, row.schema), gold)
    implicit = row.text.startswith(IMPLICIT) and any(depth for depth in row.schema.values())
    task = Task("own", "extract", row.schema, implicit_aspect=IMPLICIT if implicit else None)

    def named(span: Span) -> Named:
        if implicit and (span.start, span.end) == WHOLE:
            return Named(span.type, None, None, None)
        return Named(span.type, row.text[span.start : span.end], span.start - implicit, span.end - implicit)

    gold = frozenset(tuple(map(named, path)) for path in row.paths if _is_leaf(path, row.schema))
    return Question(row.text[implicit:], task, gold)


def row_questions(rows: Sequence[Row]) -> dict[str, list[Question]]:
    """Questions of held-out rows, those of extraction and of classes apart: they have figures of their own."""
    kinds: dict[str, list[Question]] = {"held out": [], "held out, classes": []}
    for row in rows:
        kinds["held out" if row.kind == "extract" else "held out, classes"].append(row_question(row))
    return {name: questions for name, questions in kinds.items() if questions}


def _is_leaf(path: Sequence[Span], schema: SchemaTree) -> bool:
    below: SchemaTree | None = schema
    for span in path:
        below = (below or {}).get(span.type)
    return not below


def report(figures: dict[str, float], log: Callable[[str], None]) -> float:
    """Write the figures on one line each; their mean is the score by which weights are compared."""
    for name, value in figures.items():
        log(f"  {name}: {value:.3f}")
    score = sum(figures.values()) / max(1, len(figures))
    log(f"  mean of {len(figures)}: {score:.4f}")
    return score


def summary(figures: dict[str, float], before: dict[str, float]) -> str:
    """A small table, beside the figures of before."""
    width = max(map(len, figures), default=0)
    lines = []
    for name, value in figures.items():
        earlier = f"  (before: {before[name]:.3f})" if name in before else ""
        lines.append(f"{name:<{width}}  {value:.3f}{earlier}")
    return "\n".join(lines)
