from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from cells import cells_of
from hypothesis import given
from hypothesis import strategies as st

from consumer.batching.queue import padded_length
from consumer.events import BadInput
from consumer.extraction.task import ReferenceCrash
from consumer.extraction.window import Cells, Window
from consumer.offline import ATTEMPTS, CALL_TOKENS, MAX_TOKENS, Driver, Unanswered, batches
from consumer.serving.protocol import Answer, Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.extraction.engine import Extraction

REJECTED = 499
"""A window of this length is refused by ``Model``."""


def window(length: int) -> Window:
    zeros = np.zeros(length, np.int32)
    return Window(zeros, zeros, zeros, 3)


class Levels:
    """Stands in for an extraction: asks one window a level, of these lengths, and keeps the answers."""

    def __init__(self, *lengths: int, end: Exception | None = None) -> None:
        self._left = list(lengths)
        self._end = end
        self.answers: list[int] = []

    @property
    def windows(self) -> tuple[Window, ...]:
        return (window(self._left[0]),) if self._left else ()

    def advance(self, cells: Sequence[Cells]) -> None:
        self.answers += [int(one.rows[0]) for one in cells]
        self._left.pop(0)
        if not self._left and self._end is not None:
            raise self._end


class Model:
    """Answers a window with one cell in the row of its length. ``script`` is what the first calls do instead."""

    def __init__(self, *script: ServingError | str) -> None:
        self.script = list(script)
        self.batches: list[list[int]] = []

    async def predict(self, windows: Sequence[Window], padded: int, timeout: float) -> Answer:
        assert timeout > 0
        lengths = [one.length for one in windows]
        assert padded == padded_length(max(lengths))
        self.batches.append(lengths)
        version = "1"
        if self.script:
            order = self.script.pop(0)
            if isinstance(order, ServingError):
                raise order
            version = order
        if REJECTED in lengths:
            raise ServingError(Failure.BATCH_FAULT, "INVALID_ARGUMENT", "bad row")
        cells = tuple(cells_of({(length, length): 1.0}) for length in lengths)
        return Answer(cells, "m", version, "serving_default", 0.5)

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        return


def run(model: Model, *starts: Callable[[], Levels], pauses: list[float] | None = None) -> list[Any]:
    async def sleep(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)

    driver = Driver(model, sleep=sleep)
    return asyncio.run(driver.run([cast("Callable[[], Extraction]", start) for start in starts]))


@given(st.lists(st.integers(min_value=1, max_value=512), max_size=400))
def test_batches_hold_every_window_once_within_the_caps(lengths: list[int]) -> None:
    """Nothing is lost, no batch is over its tokens, and padding never costs more than a call would."""
    made = batches(lengths)
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        padded = [padded_length(lengths[index]) for index in batch]
        assert len(batch) == 1 or len(batch) * max(padded) <= MAX_TOKENS
        assert sum(max(padded) - one for one in padded) <= CALL_TOKENS


def test_windows_of_many_texts_share_calls_level_by_level_and_each_gets_its_own_cells() -> None:
    """Two texts with two levels are two calls, and the answers find their way."""
    model = Model()
    one, other = run(model, lambda: Levels(40, 30), lambda: Levels(44, 20))
    assert [sorted(batch) for batch in model.batches] == [[40, 44], [20, 30]]
    assert (one.extraction.answers, other.extraction.answers) == ([40, 30], [44, 20])
    assert (one.model.name, one.model.version, one.model_seconds) == ("m", "1", 1.0)


def test_a_text_without_windows_needs_no_call() -> None:
    """It is finished, and no model is named."""
    model = Model()
    (done,) = run(model, lambda: Levels())
    assert (model.batches, done.model, done.failure) == ([], None, None)


def test_what_is_wrong_with_one_text_is_its_own_failure() -> None:
    """Failures at the start and in the middle leave the neighbours alone."""

    def refuse() -> Levels:
        raise BadInput("validate", "EmptyText", "empty")

    late = BadInput("extract", "TooManyModelCalls", "too many")
    crash = ReferenceCrash("KeyError: x")
    done = run(Model(), refuse, lambda: Levels(9), lambda: Levels(9, end=late), lambda: Levels(9, end=crash))
    assert [getattr(one.failure, "reason", one.failure) for one in done] == [
        "EmptyText",
        None,
        "TooManyModelCalls",
        crash,
    ]
    assert [one.extraction is None for one in done] == [True, False, True, True]


def test_a_rejected_window_is_found_and_only_its_text_fails() -> None:
    """A batch that the model refuses is halved until the window stands alone."""
    starts = [lambda length=length: Levels(length) for length in (490, 491, REJECTED, 492, 493)]
    done = run(Model(), *starts)
    assert [one.failure.reason if one.failure else None for one in done] == [None, None, "BatchFault", None, None]


def test_a_batch_that_is_too_large_for_the_server_is_halved_without_waiting() -> None:
    """Memory is not won by repeating the same call."""
    pauses: list[float] = []
    full = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "OOM", Relief.SMALLER_MEMORY)
    model = Model(full)
    done = run(model, lambda: Levels(40), lambda: Levels(40), pauses=pauses)
    assert [len(batch) for batch in model.batches] == [2, 1, 1]
    assert (pauses, [one.failure for one in done]) == ([], [None, None])


def test_a_short_outage_is_waited_out_with_growing_pauses() -> None:
    """A server that restarts costs time, not results."""
    pauses: list[float] = []
    down = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "connection refused")
    (done,) = run(Model(down, down, down), lambda: Levels(40), pauses=pauses)
    assert done.failure is None
    assert 0.1 <= pauses[0] <= 0.2 <= pauses[1] <= 0.4 <= pauses[2] <= 0.8


def test_a_lasting_outage_ends_the_run() -> None:
    """After the last attempt the server's own words are raised."""
    down = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "connection refused")
    model = Model(*[down] * ATTEMPTS)
    with pytest.raises(Unanswered, match="UNAVAILABLE: connection refused"):
        run(model, lambda: Levels(40), pauses=[])
    assert len(model.batches) == ATTEMPTS


def test_a_model_that_does_not_fit_ends_the_run_at_once() -> None:
    """Repeating cannot repair a deployment fault."""
    model = Model(ServingError(Failure.DEPLOYMENT, "CONTRACT", "another tokenizer"))
    with pytest.raises(Unanswered, match="another tokenizer"):
        run(model, lambda: Levels(40))
    assert len(model.batches) == 1


def test_a_version_that_changes_between_levels_starts_the_text_again() -> None:
    """One result never mixes models."""
    model = Model("1", "2")
    (done,) = run(model, lambda: Levels(40, 30))
    assert model.batches == [[40], [30], [40], [30]]
    assert (done.extraction.answers, done.model.version) == ([40, 30], "1")


def test_versions_that_alternate_for_ever_end_the_run() -> None:
    """Two servers that disagree are named instead of being asked for ever."""
    model = Model(*["1", "2"] * 20)
    with pytest.raises(Unanswered, match="different versions"):
        run(model, lambda: Levels(40, 30))
