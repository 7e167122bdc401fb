"""Calls to the model with their timeouts and metrics, and the questions that tell a bad window from a bad server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.batching.deadlines import CallTimeout
from consumer.batching.policy import padded_length
from consumer.resilience.crash_evidence import ServerUptime
from consumer.serving.protocol import Failure, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.extraction.window import Window
    from consumer.serving.protocol import Answer, ModelClient
    from consumer.serving.refused import DispatchObserver


_ALIVE = frozenset({"RESOURCE_EXHAUSTED", "ANSWER"})
"""Codes of calls that failed and yet were answered by a server that is there."""


class ModelCalls:
    """Every call of one dispatcher. Raises ServingError where the client does."""

    def __init__(
        self,
        client: ModelClient,
        known_good: Window,
        model: str,
        observer: DispatchObserver,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self.known_good = known_good
        self._model = model
        self._observer = observer
        self._clock = clock
        self._timeout = CallTimeout()
        self._canaries = CanaryWindows()
        self.exposure = ServerUptime()
        self.version: str | None = None
        """The model version that answered last; None before the first answer."""

    async def work(
        self, windows: Sequence[Window], length: int, patience: float = 1.0, *, suspect_alone: bool = False
    ) -> Answer:
        """Windows that somebody waits for, padded to ``length`` tokens.

        Only these teach the timeout: a probe is small, and its success proves no patience too long. ``patience``
        multiplies it. ``suspect_alone``: if the server goes away now, these were the only ones in flight.
        """
        try:
            answer = await self._predict(windows, length, patience, suspect_alone=suspect_alone)
        except ServingError as error:
            if error.code == "DEADLINE_EXCEEDED":
                self._timeout.missed()
            raise
        self._timeout.observe(len(windows) * length, answer.seconds)
        self._canaries.answered([window for window in windows if window is not self.known_good])
        return answer

    async def probe(self, length: int, canary: Window | None = None) -> None:
        """Ask for the known-good window, padded to ``length`` to cost what a suspect costs; with ``canary`` beside it.

        A model that refuses it does not fit this worker: what the client calls a batch fault is a deployment fault.
        """
        windows = [self.known_good] if canary is None else [self.known_good, canary]
        try:
            await self._predict(windows, max(length, *(padded_length(window.length) for window in windows)))
        except ServingError as error:
            if error.failure is not Failure.BATCH_FAULT:
                raise
            who = "a known-good window" if canary is None else "what it answered before, or a known-good window,"
            what = f"the model refuses {who}: {error.message}"
            raise ServingError(Failure.DEPLOYMENT, error.code, what) from error

    async def ask(self, window: Window) -> None:
        """Ask for one window of which only the fact of an answer is wanted."""
        await self._predict([window], padded_length(window.length))

    def canary(self, length: int) -> Window | None:
        """A real window of about this padded length that was answered before."""
        return self._canaries.like(length)

    def most_patient(self, tokens: int, patience: float = 1.0) -> bool:
        """Whether a call of so many tokens already gets all the time there is."""
        return self._seconds(tokens, patience) >= CallTimeout.CEILING

    def _seconds(self, tokens: int, patience: float) -> float:
        return min(CallTimeout.CEILING, patience * self._timeout.seconds(tokens))

    async def _predict(
        self, windows: Sequence[Window], length: int, patience: float = 1.0, *, suspect_alone: bool = False
    ) -> Answer:
        started = self._clock()
        try:
            answer = await self._client.predict(windows, length, self._seconds(len(windows) * length, patience))
        except ServingError as error:
            if error.failure is not Failure.BATCH_FAULT and error.code not in _ALIVE:
                self.exposure.failed(self._clock(), suspect_alone=suspect_alone)
            self._observer.model_called(self._model, "", error.code, self._clock() - started)
            raise
        real = sum(window is not self.known_good for window in windows)
        self.exposure.answered(started, self._clock(), real)
        self.version = answer.model_version
        self._observer.model_called(answer.model_name, answer.model_version, "OK", answer.seconds)
        return answer


# Real windows that the model answered, kept to ask it again.


class CanaryWindows:
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
