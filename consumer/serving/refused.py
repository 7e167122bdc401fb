"""The outcomes of a window that is submitted to the dispatcher, and the dispatcher's metric hooks.

The dotted name of ``WindowRefused`` is published in dead letters (``consumer.serving.refused.WindowRefused``), so
neither it nor this file may be renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from consumer.resilience.crash_evidence import BROKEN_OFF

if TYPE_CHECKING:
    from consumer.batching.policy import ReleaseReason
    from consumer.extraction.window import Cells, Window
    from consumer.resilience.circuit_breaker import BreakerState
    from consumer.serving.protocol import Answer, ServingError


class WindowRefused(Exception):  # noqa: N818 - an outcome, not a fault of the program
    """The model server cannot answer this one window, although it answers others.

    ``reason`` is ``BatchFault`` (an operation refused it), ``Poison`` (the server went away five times in a row when it
    had this window alone, and lived without it: ``resilience.crash_evidence``; or alone in its call it failed five
    times for another reason, and the health probes before and after each try did not) or ``UnusableAnswer`` (the same,
    twenty times, with answers that are not finite or of a wrong shape). ``failing_seconds`` have passed since it failed
    first; ``model_version`` is the one that answered others meanwhile, None when there was no such answer. ``window``
    is the one, ``level`` its round, and ``address`` the server's.
    """

    def __init__(
        self,
        reason: str,
        error: ServingError,
        attempts: int,
        failing_seconds: float = 0.0,
        model_version: str | None = None,
        window: Window | None = None,
        level: int = 0,
        address: str = "",
    ) -> None:
        super().__init__(f"{reason}: {error}")
        self.__cause__ = error.with_traceback(None)  # its frames hold the future that this one is raised by: a cycle
        self.reason = reason
        self.error = error
        self.attempts = attempts
        self.failing_seconds = failing_seconds
        self.model_version = model_version
        self.window, self.level, self.address = window, level, address

    @property
    def ended_servers(self) -> bool:
        """Whether the server went away in its calls, as often as proves that it was the cause."""
        return self.reason == "Poison" and self.error.code in BROKEN_OFF


class State(Enum):
    """Whether windows are being sent."""

    OK = "ok"
    OUTAGE = "outage"
    DEPLOYMENT_FAULT = "deployment_fault"


@dataclass(slots=True, eq=False)
class WindowAnswer:
    """What one window got. ``answer`` is that of its call, without cells.

    ``overflowed``: it has more cells than the compact signature returns.
    """

    cells: Cells
    answer: Answer
    overflowed: bool


class DispatchObserver(Protocol):
    """Metric hooks; ``Metrics`` of the telemetry package has them. Called on the event loop; must be quick."""

    def batch_sent(self, rows: int, useful_tokens: int, padded_tokens: int, reason: ReleaseReason) -> None:
        """A batch of ``rows`` windows left; ``padded_tokens`` = rows x padded length."""

    def lane_sent(self, lane: str, padded_tokens: int, waited: float) -> None:
        """So many tokens of a batch are of ``lane``; the oldest of its windows in it waited so long (seconds)."""

    def model_called(self, model: str, version: str, code: str, seconds: float) -> None:
        """A model call ended. ``code`` is OK or the gRPC status name; ``version`` of one that failed is that of its
        server's last answer, empty before the first.
        """

    def model_retried(self) -> None:
        """The windows of a failed call will be sent again."""

    def in_flight_windows(self, windows: int) -> None:
        """How many windows wait for a batch or are at the model server."""

    def windows_overflowed(self, windows: int) -> None:
        """So many windows found more cells than the compact signature returns."""

    def breaker(self, state: BreakerState, endpoint: str) -> None:
        """The state of the breaker before this address now."""
