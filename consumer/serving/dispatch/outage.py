"""Waiting until the model server can be used again: one health probe at a time, with growing pauses.

The dispatcher's loop calls ``wait`` while there is a ``fault``. The dispatcher, the review of rejections and poison
isolation report one with the windows that must wait for its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from consumer.resilience.circuit_breaker import CircuitBreaker
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.refused import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.extraction.window import Window
    from consumer.resilience.backoff import Backoff
    from consumer.serving.dispatch.batch import Entry, Group
    from consumer.serving.dispatch.calls import ModelCalls


class Recovered(NamedTuple):
    """The windows that waited, and what the probes showed."""

    failed: list[tuple[Group, ServingError]]
    """Groups whose failure the server or they themselves may have caused."""
    held: list[Entry]
    """Rejected by the model, and it is not known yet whether they or the model are at fault."""
    failed_probes: int
    """Health probes that failed; with 0 the server was healthy all the time."""
    canary_answered: bool
    """Whether real windows had to be answered to end it, not only the probe window."""


class OutageRecovery:
    """The circuit breaker, why it is open, and the windows that wait for it.

    While there is a ``fault``, nothing is sent but health probes.
    """

    def __init__(
        self, calls: ModelCalls, backoff: Backoff, on_state: Callable[[State, ServingError | None], None]
    ) -> None:
        """``on_state`` is called when sending stops for an outage or a deployment fault, and when it goes on."""
        self._calls = calls
        self._observer = calls.observer
        self._clock = calls.clock
        self._on_state = on_state
        self._breaker = CircuitBreaker(backoff)
        self.fault: ServingError | None = None
        self.state = State.OK
        self._forget()

    def _forget(self) -> None:
        self._failed: list[tuple[Group, ServingError]] = []
        self._held: list[Entry] = []
        self._canary: Window | None = None
        self._needs_canary = self._canary_failed = False

    @property
    def waiting(self) -> int:
        """Windows that wait for the server; none while there is no ``fault``."""
        return sum(len(group.entries) for group, _ in self._failed) + len(self._held)

    def probe_for(self, group: Group, error: ServingError) -> None:
        """Hold a failed group until health probes show whether the server failed too."""
        self._failed.append((group, error))
        self._begin(error)

    def hold(self, windows: list[Entry]) -> None:
        """Hold windows that the model rejected during a fault; they are sent again after it."""
        self._held += windows

    def stop(
        self, error: ServingError, windows: list[Entry], canary: Window | None = None, *, because: str = ""
    ) -> None:
        """The server or the model is at fault, so ``windows`` are held: a probe failed, with ``canary`` if it had one.

        ``because`` is given when the probe was answered, but ``windows`` fail and are too many to be given up. Then, or
        with a canary window, that or one of ``windows`` must be answered before sending goes on. If all of them are
        really bad input, so much of it stops the worker until somebody acts, which is intended.
        """
        if because:
            then = "nothing is dead-lettered, and some are asked again until one is answered"
            error = ServingError(Failure.DEPLOYMENT, error.code, f"{because}: {error.message}; {then}")
        self._held += windows
        self._canary = canary
        self._needs_canary |= bool(because) or canary is not None
        if not windows:
            self._canary_failed = canary is not None
        self._begin(error)
        self._set_state(error)

    async def wait(self) -> Recovered:
        """Send nothing but one health probe at a time until the server answers."""
        failures = 0
        while True:
            await asyncio.sleep(max(0.0, self._breaker.try_at - self._clock()))
            self._breaker.half_open(max(self._clock(), self._breaker.try_at))
            self._observer.breaker(self._breaker.state)
            try:
                await self._calls.probe(
                    max((group.length for group, _ in self._failed if len(group.entries) == 1), default=0)
                )
                if (canary := self._next_canary(failures)) is not None:
                    await self._calls.probe_with(canary)
            except ServingError as error:
                if error.relief is not Relief.FEWER_IN_FLIGHT:  # a busy server is neither healthy nor failed
                    failures += 1
                    self._set_state(error)
            else:
                return self._end(failures)
            self._breaker.open(self._clock())
            self._observer.breaker(self._breaker.state)

    def _begin(self, error: ServingError) -> None:
        if self.fault is None:
            self.fault = error
            self._breaker.open(self._clock())
            self._observer.breaker(self._breaker.state)

    def _next_canary(self, failures: int) -> Window | None:
        """The next probe's canary, another one each time: some may be bad input. None when none is needed or left."""
        if not self._needs_canary:
            return None
        windows = [entry.window for entry in self._held if not entry.future.done()]
        if not windows:
            # No window waits any more, as after a revocation, so none can be harmed.
            return self._canary if self._canary_failed else None
        if self._canary is not None:
            # Every other time: when this one is answered the server is healthy, whatever is wrong with the others.
            if failures % 2 == 0:
                return self._canary
            failures //= 2
        return windows[failures % len(windows)]

    def _end(self, failures: int) -> Recovered:
        recovered = Recovered(self._failed, self._held, failures, self._needs_canary)
        self._forget()
        self.fault = None
        self._breaker.close()
        self._observer.breaker(self._breaker.state)
        if self.state is not State.OK:
            self.state = State.OK
            self._on_state(State.OK, None)
        return recovered

    def _set_state(self, error: ServingError) -> None:
        state = State.OUTAGE if error.failure is Failure.TRANSIENT else State.DEPLOYMENT_FAULT
        if state is not self.state:
            self.state = state
            self._on_state(state, error)
