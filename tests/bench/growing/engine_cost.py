"""CPU of the engine for one task on one text, by the size of the schema and by the length of the text.

No model and no Kafka: answers are made beforehand, three cells a window, which are one span of the hint's first type.
Measured is what the worker's event loop does with them: tokenise, lay windows out, read cells, plan the next level and
make the result.
"""

from __future__ import annotations

import itertools
import time
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from bench.growing.reviews import sample_reviews

from consumer.config.shipped import shipped
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits, PromptTokenizer, with_markers
from consumer.extraction.task import INLINE, ExtractionLimits, Task
from consumer.extraction.window import Cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window

TYPES: Final = (3, 6, 12, 25, 50, 100, 200)
CHARACTERS: Final = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
TEXT: Final = 100
"""Characters of the text where the schema grows."""
ONE_LEVEL: Final = Task("one-level", "extract", {"属性": None, "观点": None, "品牌": None})
TWO_LEVELS: Final = Task("two-levels", "extract", {"属性": {"好评": None, "差评": None, "中评": None}})
ROUND_SECONDS: Final = 0.01


class Cost(NamedTuple):
    """Of one task on one text."""

    milliseconds: float
    windows: int


def demo_engine() -> Engine:
    """With the demo model's tokenizer, and room for texts of 20,000 characters."""
    tokenizer = PromptTokenizer(with_markers((shipped("deploy/demo-model") / "tokenizer.json").read_bytes()))
    return Engine(tokenizer, PromptLimits(), ExtractionLimits(text_chars=max(CHARACTERS)))


def review_text(characters: int) -> str:
    """The sample reviews one after the other, from the first on, cut."""
    endless = itertools.chain.from_iterable(itertools.cycle(sample_reviews()))
    return "".join(itertools.islice(endless, characters))


def has_letters(text: str) -> bool:
    """Whether the tokenizer library is asked about a part of it: letters and digits, also full-width ones."""
    return any(unicodedata.category(each) in ("Ll", "Lu", "Nd") for each in text)


def flat_task(types: int, name: str) -> Task:
    """One level of so many types."""
    return Task(name, "extract", {f"属性{number}": None for number in range(types)})


def with_the_event(types: int) -> Task:
    """The same as an event brings it: parsed and packed for that event alone."""
    return flat_task(types, INLINE)


def configured(types: int) -> Task:
    """The same as a task file says it: prepared once."""
    return flat_task(types, f"flat-{types}")


def measured(engine: Engine, cases: Sequence[tuple[str, Task]], rounds: int) -> list[Cost]:
    """For each text and task the least CPU time of ``rounds`` rounds, each of ``ROUND_SECONDS`` or one run.

    All cases are run in turn: what disturbs the machine for a while disturbs all.
    """
    prepared = [_Case(engine, text, task) for text, task in cases]
    for _ in range(rounds):
        for case in prepared:
            case.run()
    return [Cost(case.best * 1000, case.windows) for case in prepared]


class _Case:
    """One text and task, with the answers to all of its windows."""

    def __init__(self, engine: Engine, text: str, task: Task) -> None:
        self._engine, self._task = engine, task
        # The engine keeps the tokens of the last text. Two of this case alone, equal but not the same, are tokenised
        # each time.
        self._texts = itertools.cycle((f"{text} "[:-1], f" {text}"[1:]))
        self._answers = _answers(engine, text, task)
        self._runs = 1
        self.windows = sum(map(len, self._answers))
        self.best = float("inf")
        self.run()
        self._runs = max(1, round(ROUND_SECONDS / self.best))

    def run(self) -> None:
        began = time.process_time()
        for _ in range(self._runs):
            _run(self._engine, next(self._texts), self._task, self._answers)
        self.best = min(self.best, (time.process_time() - began) / self._runs)


def _run(engine: Engine, text: str, task: Task, answers: list[list[Cells]]) -> None:
    extraction = engine.start(text, task)
    for level in answers:
        for _ in extraction.windows:
            pass
        extraction.advance(level)
    extraction.result()


def _answers(engine: Engine, text: str, task: Task) -> list[list[Cells]]:
    extraction = engine.start(text, task)
    levels = []
    while not extraction.finished:
        levels.append([_one_span(window, engine.tokenizer.type) for window in extraction.windows])
        extraction.advance(levels[-1])
    return levels


def _one_span(window: Window, type_token: int) -> Cells:
    """Two tokens in the text are a span of the first type in the hint."""
    first = window.text_start + 1
    last = min(first + 1, window.length - 2)
    head = int((window.input_ids == type_token).argmax())
    cells = np.array([(first, last), (first, head), (head, last)], np.int32)
    return Cells(cells[:, 0].copy(), cells[:, 1].copy(), np.full(3, 2.0, np.float32))
