"""Annotated examples through a model, as a worker would ask it, for ``rexstream evaluate``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from consumer.evaluation.categories import PAIR, category_level, category_names, pair_words, split
from consumer.evaluation.paths import Case, predictions
from consumer.events import BadInput
from consumer.extraction.task import legal_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from consumer.cli.model_source import Session
    from consumer.evaluation.paths import Example, NamedPath
    from consumer.extraction.engine import Extraction
    from consumer.extraction.task import Task
    from consumer.extraction.window import Cells
    from consumer.offline import Extracting

CHUNK: Final = 512
"""Texts whose windows are batched together."""


@dataclass(slots=True)
class Run:
    """The examples of one evaluation on their way through a model. ``temperature`` divides all logits.

    ``failures`` counts the texts that could not be processed, by reason; ``models`` are those that answered: name,
    version, signature.
    """

    session: Session
    temperature: float = 1.0
    failures: Counter[str] = field(default_factory=Counter)
    models: dict[tuple[str, str, str], None] = field(default_factory=dict)

    def cases(self, examples: Sequence[Example], progress: Callable[[int], None]) -> list[Case]:
        """What the model makes of each example. ``progress`` is told how many are done."""
        names = category_names(examples)
        firsts = {path[0].type for example in examples for path in example.gold if len(path) > 1}
        aspect = firsts.pop() if len(firsts) == 1 else None
        levels: dict[int, int | None] = {}
        found = []
        for example, done in zip(
            examples, self._done([(each.text, each.task) for each in examples], progress), strict=True
        ):
            if isinstance(done.failure, BadInput):
                self.failures[done.failure.reason] += 1
            task = example.task
            if (key := id(task)) not in levels:
                extracts = names and task.kind == "extract"
                levels[key] = category_level(task.schema, names) if extracts else None
            case = Case(example.text, task.kind, example.gold, _paths(done), example.categories)
            if (level := levels[key]) is not None:
                paths, categories = split(case.predicted, level, aspect)
                case = replace(case, predicted=paths, categories=categories)
            found.append(case)
        return found

    def categorised(self, cases: Sequence[Case], task: Task) -> list[Case]:
        """The cases with the category of each predicted pair, as ``task`` classifies the pair's words.

        Of a task with several labels the surest counts. Texts whose gold has no categories stay as they are.
        """
        asked = {
            words: None
            for case in cases
            if case.gold_categories is not None
            for path in case.predicted
            if len(path) >= PAIR and (words := pair_words(path))
        }
        answers = {}
        for words, done in zip(asked, self._done([(words, task) for words in asked]), strict=True):
            best = max(_paths(done).items(), key=lambda item: item[1][-1], default=None)
            if best is not None:
                answers[words] = best[0][-1].type
        found = []
        for case in cases:
            if case.gold_categories is None:
                found.append(case)
                continue
            named = {(path, answers[words]) for path in case.predicted if (words := pair_words(path)) in answers}
            found.append(replace(case, categories=frozenset(named)))
        return found

    def _done(
        self, asked: Sequence[tuple[str, Task]], progress: Callable[[int], None] | None = None
    ) -> Iterator[Extracting]:
        """Ask all, CHUNK texts at a time, and remember which models answered. ``progress`` is told how many did."""
        for first in range(0, len(asked), CHUNK):
            starts = [partial(self._start, text, task) for text, task in asked[first : first + CHUNK]]
            for done in self.session.run(starts):
                if done.model is not None:
                    self.models[done.model.name, done.model.version, done.model.signature] = None
                yield done
            if progress is not None:
                progress(first + len(starts))

    def _start(self, text: str, task: Task) -> Extraction:
        extraction = self.session.engine.start(text, task)
        if self.temperature == 1:
            return extraction
        return cast("Extraction", _Tempered(extraction, self.temperature))


class _Tempered:
    """An extraction whose answers are divided by a temperature, as they would be with it folded into the weights."""

    def __init__(self, extraction: Extraction, temperature: float) -> None:
        self._extraction = extraction
        self._temperature = temperature

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extraction, name)

    def advance(self, answers: Sequence[Cells]) -> None:
        """As Extraction's."""
        self._extraction.advance([cells._replace(logits=cells.logits / self._temperature) for cells in answers])


def _paths(done: Extracting) -> dict[NamedPath, tuple[float, ...]]:
    """What was found; nothing where the text could not be processed."""
    return predictions(() if done.extraction is None else done.extraction.result().paths)


def notes(examples: Sequence[Example], cases: Sequence[Case]) -> list[str]:
    """What a reader of the figures should know about the data, in sentences."""
    found = []
    if beyond := _beyond(examples):
        found.append(
            f"{beyond} gold paths are none that the schema can report (other types, or no opinion): they are missed"
        )
    categories = category_names(examples)
    if categories and all(case.categories is None for case in cases):
        found.append(
            f"the gold has categories ({len(categories)}) and the schema predicts none: they were left out; put them "
            "below the polarity or in place of the aspect's type, or name a task for pairs with --categories-task"
        )
    elif categories and (without := sum(bool(example.gold) and example.categories is None for example in examples)):
        found.append(f"{without} texts have no category for each of their paths: quadruples leave them out")
    return found


def _beyond(examples: Iterable[Example]) -> int:
    """Gold paths that no prediction can equal. Where a schema asks for categories, paths are compared without them."""
    examples = list(examples)
    names = category_names(examples)
    legal: dict[int, frozenset[tuple[str, ...]] | None] = {}
    beyond = 0
    for example in examples:
        task = example.task
        if (key := id(task)) not in legal:
            paths = task.legal_paths if task.legal_paths is not None else legal_leaves(task.schema)
            level = category_level(task.schema, names) if names else None
            legal[key] = None if level == 0 else frozenset(path[:level] for path in paths)
        known = legal[key]
        if known is not None:
            beyond += sum(tuple(fact.type for fact in path) not in known for path in example.gold)
    return beyond
