"""Waiting until the model server can be used again: one call at a time, with growing pauses."""

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
    from consumer.serving.refused import DispatchObserver


class Recovered(NamedTuple):
    """What waited, and what was learnt meanwhile."""

    suspects: list[Group]
    """Failed for a reason that may be the server's or their own."""
    held: list[Entry]
    """Refused by the model, and nobody knows yet whose fault it is."""
    failures: int
    """Probes that failed: with none the server was healthy all the time."""
    proved: bool
    """Whether real windows had to be answered for it, not only the known-good one."""


class OutageRecovery:
    """The breaker, why it is open, and the windows that wait for it. While there is a ``fault``, nothing is sent."""

    def __init__(
        self,
        calls: ModelCalls,
        backoff: Backoff,
        observer: DispatchObserver,
        on_state: Callable[[State, ServingError | None], None],
        clock: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._observer = observer
        self._on_state = on_state
        self._clock = clock
        self._breaker = CircuitBreaker(backoff)
        self._suspects: list[Group] = []
        self._held: list[Entry] = []
        self._witness: Window | None = None
        self._control_failed = False
        self._needs_proof = False
        self.fault: ServingError | None = None
        self.state = State.OK

    @property
    def waiting(self) -> int:
        """Windows that wait for the server."""
        return sum(len(group.entries) for group in self._suspects) + len(self._held)

    def suspect(self, group: Group, error: ServingError) -> None:
        """These failed, and the known-good window will tell whether the server did."""
        self._suspects.append(group)
        self._begin(error)

    def hold(self, windows: list[Entry]) -> None:
        """The model refused these while there was a fault, so they are tried again after it."""
        self._held += windows

    def fault_found(self, error: ServingError, windows: list[Entry], canary: Window | None) -> None:
        """Before ``windows`` could be refused the probe failed, with ``canary`` in it if there is one.

        A canary window must be answered again, it or one of ``windows``, before sending goes on.
        """
        self._held += windows
        self._witness = canary
        self._needs_proof = self._needs_proof or canary is not None
        self._begin(error)
        self._set_state(error)

    def control_failed(self, error: ServingError, canary: Window | None) -> None:
        """The known-good window was not answered, or ``canary`` beside it: nothing that was in flight is to blame.

        A canary window must be answered again before sending goes on.
        """
        self._control_failed = canary is not None
        self.fault_found(error, [], canary)

    def fault_proved(self, error: ServingError, windows: list[Entry]) -> None:
        """The model refuses ``windows``, too many to be refused; one of them must be answered before sending goes on.

        If all of them are truly bad input, such a flood of it stops the worker until somebody acts, as it should.
        """
        self._needs_proof = True
        self.fault_found(error, windows, None)

    async def wait(self) -> Recovered:
        """Send nothing but one probe at a time until the server answers."""
        failures = 0
        while True:
            await asyncio.sleep(max(0.0, self._breaker.try_at - self._clock()))
            self._breaker.half_open(max(self._clock(), self._breaker.try_at))
            self._observer.breaker(self._breaker.state)
            try:
                await self._calls.probe(max((s.length for s in self._suspects if len(s.entries) == 1), default=0))
                if (proof := self._proof(failures)) is not None:
                    await self._calls.ask(proof)
            except ServingError as error:
                if error.relief is not Relief.FEWER_IN_FLIGHT:  # that one says nothing, for good or ill
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

    def _proof(self, failures: int) -> Window | None:
        """Another one each time, since some of them may be bad input as well; None when none is wanted or left."""
        if not self._needs_proof:
            return None
        # Nobody waits any more, as after a revocation: then there is nobody to harm either.
        windows = [entry.window for entry in self._held if not entry.future.done()]
        if not windows and self._control_failed:
            return self._witness
        if windows and self._witness is not None:
            # Every other time: the server healed when this one is answered, whatever the others are.
            if failures % 2 == 0:
                return self._witness
            failures //= 2
        return windows[failures % len(windows)] if windows else None

    def _end(self, failures: int) -> Recovered:
        done = Recovered(self._suspects, self._held, failures, self._needs_proof)
        self._suspects, self._held = [], []
        self._witness, self._control_failed, self._needs_proof, self.fault = None, False, False, None
        self._breaker.close()
        self._observer.breaker(self._breaker.state)
        if self.state is not State.OK:
            self.state = State.OK
            self._on_state(State.OK, None)
        return done

    def _set_state(self, error: ServingError) -> None:
        state = State.OUTAGE if error.failure is Failure.TRANSIENT else State.DEPLOYMENT_FAULT
        if state is not self.state:
            self.state = state
            self._on_state(state, error)
