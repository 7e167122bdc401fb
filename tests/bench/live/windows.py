"""The windows of texts, level by level, as the model's answers make them; and how long calls of them take.

Both ask a live model server directly, with the worker's own client and no worker.
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections import Counter, defaultdict
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from consumer.batching.call_cost import Cell
from consumer.batching.policy import full_rows
from consumer.batching.queue import padded_length
from consumer.batching.tuning import shapes
from consumer.cli.load_test import LoadTest
from consumer.cli.model_source import ModelSource, opened
from consumer.cli.tuning_profile import cost_settings
from consumer.config.task_files import load_tasks
from consumer.local.demo import MAX_TOKENS, MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from consumer.batching.policy import CallCost
    from consumer.cli.model_source import Session
    from consumer.extraction.window import Cells, Window
    from consumer.serving.protocol import Answer, ModelClient

Levels = tuple[tuple["Window", ...], ...]
"""Of one text: its windows, level by level."""
TIMEOUT: Final = 60.0
"""Seconds of a call."""


def read_texts(path: Path, most: int) -> list[str]:
    """The first texts of a file of JSON lines with ``text``, gzipped or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in islice(lines, most)]


def session_on(target: str, bundle: Path) -> AbstractContextManager[Session]:
    """On the live model server."""
    return opened(ModelSource(None, target, bundle, MODEL))


def recorded(session: Session, task: str, texts: Sequence[str]) -> list[Levels]:
    """The windows of each text, all texts together, level after level."""
    started = [session.engine.start(text, load_tasks([])[task]) for text in texts]
    levels: list[Levels] = [() for _ in texts]
    while open_ones := [number for number, one in enumerate(started) if not one.finished]:
        for number in open_ones:
            levels[number] += (tuple(started[number].windows),)
        cells = _answered(session, [window for number in open_ones for window in levels[number][-1]])
        for number in open_ones:
            count = len(levels[number][-1])
            started[number].advance(cells[:count])
            del cells[:count]
    return levels


def timed(session: Session, windows: Sequence[Window], max_tokens: int, seconds: float) -> tuple[Cell, ...]:
    """Measure calls of these windows, one after the other, for ``seconds``, as ``rexstream tune`` does."""
    return _grid(session, session.client, windows, max_tokens, seconds)


def _grid(
    session: Session, client: ModelClient, windows: Sequence[Window], max_tokens: int, seconds: float
) -> tuple[Cell, ...]:
    counts = Counter(padded_length(window.length) for window in windows)
    test = LoadTest(client, windows, TIMEOUT, lambda _: None)
    return session.runner.run(test.grid(shapes(counts, max_tokens), time.monotonic() + seconds)).cells


class Metered(NamedTuple):
    """Calls one after the other."""

    cells: tuple[Cell, ...]
    """Their round trips."""
    work: tuple[Cell, ...]
    """The processor's time of the server in them."""

    @property
    def row_seconds(self) -> float:
        """By how much longer a round trip is for each row, beside what the server computes: writing and reading it."""
        found = [(cell.rows, cell.seconds - work.seconds) for cell, work in zip(self.cells, self.work, strict=True)]
        return max(0.0, statistics.linear_regression(*zip(*found, strict=True)).slope)


def metered(
    session: Session, windows: Sequence[Window], max_tokens: int, seconds: float, used: Callable[[], float]
) -> Metered:
    """As ``timed``, beside the processor's time of the server; ``used`` is what it has used up to now, in seconds."""
    meter = _Meter(session.client, used)
    cells = _grid(session, meter, windows, max_tokens, seconds)
    # The first call of each shape warms it up, as in the grid.
    return Metered(cells, tuple(Cell(*shape, tuple(meter.found[shape][1:])) for shape in map(_shape, cells)))


def _shape(cell: Cell) -> tuple[int, int]:
    return cell.rows, cell.length


class _Meter:
    """Implements ModelClient by another one, and keeps what each call cost the server, by rows and padded length."""

    def __init__(self, client: ModelClient, used: Callable[[], float]) -> None:
        self._client = client
        self._used = used
        self.found: defaultdict[tuple[int, int], list[float]] = defaultdict(list)

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        before = self._used()
        answer = await self._client.predict(windows, padded_length, timeout)
        self.found[len(windows), padded_length].append(self._used() - before)
        return answer

    async def ready(self) -> bool:
        return await self._client.ready()

    async def close(self) -> None:
        await self._client.close()


def batching(cost: CallCost, max_tokens: int, max_in_flight: int) -> dict[str, Any]:
    """The worker's ``batching``."""
    return {"max_tokens": max_tokens, "max_in_flight": max_in_flight, "cost": cost_settings(cost)}


def _answered(session: Session, windows: Sequence[Window]) -> list[Cells]:
    """Cells of each window, asked in calls of one padded length each."""
    lengths = [padded_length(window.length) for window in windows]
    found: dict[int, Cells] = {}
    for length, group in groupby(sorted(range(len(windows)), key=lengths.__getitem__), key=lengths.__getitem__):
        same = list(group)
        most = full_rows(MAX_TOKENS, length)
        for part in (same[first : first + most] for first in range(0, len(same), most)):
            call = session.client.predict([windows[number] for number in part], length, TIMEOUT)
            found.update(zip(part, session.runner.run(call).cells, strict=True))
    return [found[number] for number in range(len(windows))]
