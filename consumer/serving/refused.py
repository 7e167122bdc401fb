"""What becomes of a window that no call answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.serving.protocol import ServingError


class WindowRefused(Exception):  # noqa: N818 - an outcome, not a fault of the program
    """The model server cannot answer this one window, although it answers others.

    ``reason`` is ``BatchFault`` (an operation refused it), ``Poison`` (the server went away five times in a row when it
    had this window alone, and lived without it: ``consumer.resilience.crashes``; or alone in its call it failed five
    times for another reason, a known-good window before and after each try did not) or ``UnusableAnswer`` (the same,
    twenty times, with answers that are not finite or of a wrong shape). ``failing_seconds`` have passed since it failed
    first; ``model_version`` is the one that answered others meanwhile, None when no answer told it.
    """

    def __init__(
        self,
        reason: str,
        error: ServingError,
        attempts: int,
        failing_seconds: float = 0.0,
        model_version: str | None = None,
    ) -> None:
        super().__init__(f"{reason}: {error}")
        self.__cause__ = error
        self.reason = reason
        self.error = error
        self.attempts = attempts
        self.failing_seconds = failing_seconds
        self.model_version = model_version
