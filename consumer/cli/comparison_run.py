"""The same texts through two models in turns, for ``rexstream compare``: what to ask, and what both answered."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from consumer.cli.annotated_data import read_examples
from consumer.cli.extract import Lines
from consumer.cli.options import Unreachable
from consumer.evaluation.agreement import Compared
from consumer.evaluation.comparison import SIDES
from consumer.evaluation.paired_times import Turn
from consumer.evaluation.paths import predictions
from consumer.events import BadInput
from consumer.local.review_files import open_reviews
from consumer.offline import Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from consumer.cli.annotated_data import Labels
    from consumer.cli.extract import Entry
    from consumer.cli.model_source import Session
    from consumer.evaluation.agreement import Found
    from consumer.evaluation.paths import NamedPath
    from consumer.events import TaskKind
    from consumer.extraction.engine import Engine, Extraction
    from consumer.extraction.task import Task
    from consumer.local.review_files import InputForm
    from consumer.offline import Extracting

CHUNK: Final = 64
"""Most extractions of a turn: their windows are batched together on each side. They fill a batch or two."""
LEAST: Final = 8
TURNS: Final = 10
"""Turns that few extractions are divided into, of LEAST or more each: one alone says nothing of time."""


class Asked(NamedTuple):
    """One task on one text, with what begins its extraction on each side, again if need be."""

    number: int
    """Of the line."""
    text: str
    task: str
    kind: TaskKind
    starts: tuple[Callable[[], Extraction], Callable[[], Extraction]]
    gold: frozenset[NamedPath] | None = None


@dataclass(slots=True)
class Reviews:
    """What a file asks. ``unreadable`` counts lines that neither side can read, by reason.

    ``alone`` are tasks that one side only has, with how many lines ask them.
    """

    asked: list[Asked] = field(default_factory=list)
    unreadable: Counter[str] = field(default_factory=Counter)
    alone: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    lines: int = 0


class Tasks(NamedTuple):
    """Tasks of one side by name."""

    old: Mapping[str, Task]
    new: Mapping[str, Task]


def read_reviews(
    source: str, form: InputForm, limit: int | None, engines: Sequence[Engine], tasks: Tasks, default: Sequence[str]
) -> Reviews:
    """Read a file as ``rexstream extract`` does; ``default`` are the tasks of lines that choose none.

    Raises InputError.
    """
    found = Reviews()
    with open_reviews(source, form) as reviews:
        sides = [
            Lines(engine, known, [name for name in default if name in known], reviews.form, reference=False)
            for engine, known in zip(engines, tasks, strict=True)
        ]
        for row in islice(reviews, limit):
            found.lines += 1
            read = [side.read(row) for side in sides]
            old, new = map(_by_task, read)
            if not old and not new:
                found.unreadable[_why(read[0][0])] += 1
            for name in {**old, **new}:
                if name in old and name in new:
                    text, kind, start = new[name]
                    found.asked.append(Asked(row.number, text, name, kind, (old[name][2], start)))
                else:
                    found.alone[0 if name in old else 1][name] += 1
    return found


def read_annotated(
    source: str,
    form: InputForm,
    limit: int | None,
    engines: Sequence[Engine],
    chosen: tuple[Task, Task] | None,
    labels: Labels,
) -> Reviews:
    """Read a file as ``rexstream evaluate`` does; ``chosen`` is the task of each side, None: the schema in the data.

    Raises InputError, DataError.
    """
    examples = read_examples(source, form, limit, None if chosen is None else chosen[1], labels)
    found = Reviews(lines=len(examples))
    for number, example in enumerate(examples, 1):
        tasks = chosen or (example.task, example.task)
        starts = [partial(engine.start, example.text, task) for engine, task in zip(engines, tasks, strict=True)]
        task = example.task
        found.asked.append(Asked(number, example.text, task.name, task.kind, (starts[0], starts[1]), gold=example.gold))
    return found


@dataclass(slots=True)
class Turns:
    """Both sides' answers. ``failures`` counts, for each side, the extractions that failed, by reason.

    ``models`` are those that answered on each side: name, version, signature.
    """

    sessions: tuple[Session, Session]
    turns: list[Turn] = field(default_factory=list)
    failures: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    models: tuple[dict[tuple[str, str, str], None], dict[tuple[str, str, str], None]] = field(
        default_factory=lambda: ({}, {})
    )

    def run(self, asked: Sequence[Asked], progress: Callable[[int], None]) -> list[Compared]:
        """Ask both sides the same extractions, in turns; who is first changes, so that it favours nobody.

        ``progress`` is told how many are done. Raises Unreachable, with the side's name.
        """
        found = []
        size = min(CHUNK, max(LEAST, len(asked) // TURNS))
        for turn, first in enumerate(range(0, len(asked), size)):
            chunk = asked[first : first + size]
            answers: list[list[Found | None]] = [[], []]
            seconds = [0.0, 0.0]
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                began = time.monotonic()
                done = self._answered(side, [each.starts[side] for each in chunk])
                seconds[side] = time.monotonic() - began
                answers[side] = [self._paths(side, each) for each in done]
            self.turns.append(Turn(len(chunk), *seconds))
            found += [
                Compared(each.number, each.text, each.task, each.kind, old, new, each.gold)
                for each, old, new in zip(chunk, *answers, strict=True)
            ]
            progress(len(found))
        return found

    def _answered(self, side: int, starts: Sequence[Callable[[], Extraction]]) -> list[Extracting]:
        try:
            return self.sessions[side].run(starts)
        except Unanswered as unanswered:
            raise Unreachable(f"{SIDES[side]}: the model server cannot be used: {unanswered}") from unanswered

    def _paths(self, side: int, done: Extracting) -> Found | None:
        """What was found; None where the text could not be processed."""
        if done.model is not None:
            self.models[side][done.model.name, done.model.version, done.model.signature] = None
        if done.extraction is None:
            reason = done.failure.reason if isinstance(done.failure, BadInput) else type(done.failure).__name__
            self.failures[side][reason] += 1
            return None
        return predictions(done.extraction.result().paths)


def _by_task(entries: Sequence[Entry]) -> dict[str, tuple[str, TaskKind, Callable[[], Extraction]]]:
    """Text, kind and start of each task of a line."""
    return {
        each.task.name: (each.event.text, each.task.kind, each.start)
        for each in entries
        if each.event is not None and each.task is not None
    }


def _why(entry: Entry) -> str:
    """The reason that an entry cannot be started."""
    try:
        entry.start()
    except BadInput as bad:
        return bad.reason
    return "NoTasks"
