"""Whether windows that the model rejects are bad input, or the model is at fault. Pure and without a clock.

A model may answer the small window of a health probe and yet reject most real ones: a wrong table, a wrong export, a
limit. To dead-letter a stream for it would be wrong, so rejected windows are counted against those that were answered.
Owned by ``serving.dispatch.rejections``, which has a second instance for windows in whose calls the server crashed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

QUORUM = 5
"""Events that a model must have rejected before the model, and not the events, is taken to be at fault. Below it, a
short batch with one or two bad events in it would stop the worker. At it, a stream in which one event in a thousand is
bad looks like a fault of the model by chance once in 10^15 events; and a model that breaks before it ever answered
anything, at a load of one event a batch, costs four dead letters before it is noticed, which can be replayed."""


class RejectionQuorum:
    """Counts rejected windows by the event that they come from, since one bad event has any number of windows.

    Two rules. In one batch: most windows are rejected, and they come from ``QUORUM`` events or more. Across batches: an
    event rejected adds one, a window answered takes one away, never below zero; at ``QUORUM`` the model is at fault. So
    a run of rejections without a success between them counts in full however small the batches are, old successes never
    outweigh it, and bad events that are a minority are forgotten among the good ones.
    """

    # Events remembered, so that one that is rejected again and again (its tasks, its levels) counts once.
    MEMORY = 64

    def __init__(self) -> None:
        self.score = 0
        """The count across batches. While it is 0, ``answered`` need not be called."""
        self._events: deque[Hashable] = deque(maxlen=self.MEMORY)

    def answered(self, windows: int) -> None:
        """A batch without rejected windows was answered."""
        self._set_score(self.score - windows)

    def model_at_fault(self, rejected: Sequence[Hashable], answered: int) -> bool:
        """Decide on one batch, before any of its windows is given up.

        ``rejected`` has the event of each rejected window, ``answered`` is the number of its other windows. When the
        model is at fault nothing is counted; call ``reset`` once it is repaired.
        """
        events = set(rejected)
        new = events.difference(self._events)
        score = self.score + len(new) - answered
        if score >= QUORUM or (len(events) >= QUORUM and len(rejected) > answered):
            return True
        self._set_score(score, new)
        return False

    def reset(self) -> None:
        """The model was repaired: what it rejected before no longer counts."""
        self._set_score(0)

    def _set_score(self, score: int, new: Iterable[Hashable] = ()) -> None:
        self.score = max(0, score)
        if self.score:
            self._events.extend(new)
        else:
            self._events.clear()
