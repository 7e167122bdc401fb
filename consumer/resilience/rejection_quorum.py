"""Whether windows that the model refuses are bad input, or the model is at fault. Pure and without a clock.

A model may answer the small known-good window and yet refuse most real ones: a wrong table, a wrong export, a limit.
To dead-letter a stream for it would be wrong, so the windows of a fault are counted against those that were answered.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

CERTAIN = 5
"""Events that a model must have refused before it can be to blame rather than they. Below it, a short batch with one or
two bad events in it would stop the worker. At it, a stream in which one event in a thousand is bad looks like a fault
of the model by chance once in 10^15 events; and a model that breaks before it ever answered anything, at a load of
one event a batch, costs four dead letters before it is noticed, which can be replayed."""


class RejectionQuorum:
    """Counts guilty windows by the event that they come from, since one bad event has any number of windows.

    Two rules. In one batch: most windows are guilty, and they come from ``CERTAIN`` events or more. Across batches: a
    guilty event adds one, a window answered takes one away, never below zero; at ``CERTAIN`` it is the model. So a
    run of failures without a success between them counts in full however small the batches are, old successes never
    outweigh it, and bad events that are a minority are forgotten among the good ones.
    """

    # Events remembered, so that one that is refused again and again (its tasks, its levels) counts once.
    MEMORY = 64

    def __init__(self) -> None:
        self._score = 0
        self._events: deque[Hashable] = deque(maxlen=self.MEMORY)

    def answered(self, windows: int) -> None:
        """A batch without guilty windows was answered."""
        self._score = max(0, self._score - windows)
        if not self._score:
            self._events.clear()

    def blames_model(self, guilty: Sequence[Hashable], answered: int) -> bool:
        """The verdict on one batch, before any of its windows is refused.

        ``guilty`` has the event of each guilty window, ``answered`` is the number of its other windows. When the model
        is to blame nothing is counted; call ``acquit`` once it is mended.
        """
        events = set(guilty)
        if len(events) >= CERTAIN and len(guilty) > answered:
            return True
        new = events.difference(self._events)
        score = self._score + len(new) - answered
        if score >= CERTAIN:
            return True
        self._score = max(0, score)
        if self._score:
            self._events.extend(new)
        else:
            self._events.clear()
        return False

    def acquit(self) -> None:
        """The model was mended: what it refused before is no evidence any more."""
        self._score = 0
        self._events.clear()
