"""One task on one text as a state machine: windows out, cells in, until it is finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.extraction.facts import Extracted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from consumer.extraction.facts import Path
    from consumer.extraction.window import Cells, Window
    from consumer.extraction.windows import View

ReferenceOutput = list[list[dict[str, object]]]
"""Paths of ``{"type": str, "span": str, "offset": [start, end]}``, as the reference prints them."""


class Extraction:
    """Knows no clock and no IO. Made by ``Engine``; not safe to share between threads."""

    __slots__ = ("_paths", "_reference", "_run", "_warnings", "finished", "level", "model_calls", "windows")

    def __init__(
        self,
        run: Generator[list[View], Sequence[Cells], None],
        paths: Callable[[], tuple[Path, ...]],
        warnings: Callable[[], tuple[str, ...]],
        reference: Callable[[], ReferenceOutput] | None = None,
    ) -> None:
        """Lays out the first level. Raises BadInput ``TooManyModelCalls``; in compatibility mode ReferenceCrash."""
        self._run = run
        self._paths = paths
        self._warnings = warnings
        self._reference = reference
        self.windows: tuple[Window, ...] = ()
        """To be answered now, in one go and in this order. Empty when the extraction is finished or has failed."""
        self.finished = False
        """Whether ``result`` is there. Stays False when ``advance`` has raised."""
        self.level = 0
        """Rounds of windows that were answered so far."""
        self.model_calls = 0
        """Windows that were answered so far."""
        self._show(next(run, None))

    def advance(self, answers: Sequence[Cells]) -> None:
        """Take the cells of all current windows, in order, and lay out the next level.

        Raises ValueError when the number of answers is wrong, otherwise what the constructor raises.
        """
        if not self.windows:
            state = "finished" if self.finished else "failed"
            raise ValueError(f"the extraction is {state}: it has no windows to be answered")
        if len(answers) != len(self.windows):
            raise ValueError(f"{len(answers)} answers for {len(self.windows)} windows; answer all of them, in order")
        self.model_calls += len(answers)
        self.level += 1
        self.windows = ()
        try:
            views = self._run.send(answers)
        except StopIteration:
            views = None
        self._show(views)

    def result(self) -> Extracted:
        """The outcome. Raises RuntimeError before the last level is answered, and after a failure."""
        self._require_finished()
        return Extracted(self._paths(), self._warnings(), self.model_calls)

    def reference_output(self) -> ReferenceOutput:
        """What the reference's predict variant prints. Raises ReferenceCrash where it raises after its last model call.

        Raises RuntimeError before the last level is answered, and for extractions that ``Engine.start`` made.
        """
        self._require_finished()
        if self._reference is None:
            raise RuntimeError("only an extraction made by start_reference has a reference output")
        return self._reference()

    def _show(self, views: list[View] | None) -> None:
        self.windows = tuple(view.window for view in views or ())
        self.finished = views is None

    def _require_finished(self) -> None:
        if not self.finished:
            waiting = f"{len(self.windows)} windows are waiting for an answer; advance first"
            raise RuntimeError(waiting if self.windows else "the extraction has failed; it has no result")
