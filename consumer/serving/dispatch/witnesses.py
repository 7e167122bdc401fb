"""Real windows that the model answered, kept to ask it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.batching.shapes import padded_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window


class Witnesses:
    """The last window answered of each padded length: 28 at most, some 6 KB each.

    The known-good window is short and of one kind; a model that was swapped for a broken one may answer it and yet
    refuse what it answered a minute ago. Asking for that again tells the two apart at the first window that fails.
    """

    def __init__(self) -> None:
        self._latest: dict[int, Window] = {}

    def answered(self, windows: Sequence[Window]) -> None:
        """The model answered these."""
        for window in windows:
            self._latest[padded_length(window.length)] = window

    def like(self, length: int) -> Window | None:
        """One of padded length ``length`` or as little longer as there is, else the longest; None when there is none.

        A longer one says more: a limit on length that stops a short window stops it too.
        """
        longer = [known for known in self._latest if known >= length]
        at = min(longer) if longer else max(self._latest, default=None)
        return None if at is None else self._latest[at]
