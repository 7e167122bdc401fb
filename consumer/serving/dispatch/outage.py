"""Waiting until the model server can be used again: one health probe at a time, with growing pauses.

The dispatcher's loop calls ``wait`` while there is a ``fault``, and ``check`` from time to time while there is none.
The dispatcher, the review of rejections and poison isolation report one with the windows that must wait for its end.

A fault is not the same as a ``state``: sending stops at the first failed call and goes on at the first answered probe,
many times a minute behind a network that loses calls. The state, which the worker logs and pauses for, follows only
what lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from consumer.resilience.backoff import Backoff
from consumer.resilience.circuit_breaker import CircuitBreaker
from consumer.resilience.crash_evidence import AWAY_SECONDS, BROKEN_OFF
from consumer.serving.dispatch.batch import Group
from consumer.serving.dispatch.calls import MOST_REPEATED
from consumer.serving.errors import unreached
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.refused import State

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from consumer.extraction.window import Window
    from consumer.serving.dispatch.batch import Entry
    from consumer.serving.dispatch.calls import ModelCalls


PAUSES = Backoff(limit=1.5, least=0.5)
"""Between two health probes, or two tries of a window: together with the connection's own pause, everything is tried
again within 3 s of the server's return."""

IDLE_SECONDS = 60.0
"""Without a window for so long, a health probe shows whether the model still fits."""

CONFIRM_SECONDS = 1.5
"""How long health probes must fail, all for the same kind of reason, to be an outage or a deployment fault. Where three
of ten calls are lost, five probes or so in a row fail once in 400 times."""

SETTLE_SECONDS, UNSTEADY_SETTLE_SECONDS = 1.0, 8.0
STEADY_SECONDS = 60.0
"""After ``SETTLE_SECONDS`` the state is ok again, if since the first answered probe no call has failed, and then
another probe is answered: after ``UNSTEADY_SETTLE_SECONDS`` if a model did not fit again within ``STEADY_SECONDS``."""

REPEATED_SECONDS = 60.0
"""A model that does not fit a second time within so many seconds is at fault, though its health probes are answered."""

FOR_ALL_CALLS = frozenset({"NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED"})
"""Status names of what is wrong with the address, not with what is sent there: any health probe meets it too."""

MOST_SHOWN = 32
"""Windows that an endpoint rejected which are asked again, in turn, though others answer them: more than a quorum's."""

AWAY_PROBES = 4
"""Health probes that must fail, over ``AWAY_SECONDS`` at least, to show that the server's process has ended."""


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
    away: bool
    """Whether the server was gone for so long that its process has probably ended."""


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
        self.check_at: float | None = None
        """When ``check`` is to be called, in seconds of the clock, since sending goes on while the state is not ok."""
        self._misfit_at = -REPEATED_SECONDS
        self._ok_since = -STEADY_SECONDS
        self._settle_seconds = SETTLE_SECONDS
        self.began = self._failing_since = 0.0
        """When the ``fault`` began, in seconds of the clock: since then no health probe was answered."""
        self._failing = State.OK
        self._soon = asyncio.Event()
        self._forget()

    def _forget(self) -> None:
        self._failed: list[tuple[Group, ServingError]] = []
        self._held: list[Entry] = []
        # What showed the fault, and was answered elsewhere since, or will be: this one must answer it, too.
        self._shown_held: list[Entry] = []
        self._shown_misfit: list[Group] = []
        # The windows of ``_held``, past or present, with which a health probe broke off, and how the last one did.
        self._broke_off: dict[Group, ServingError] = {}
        self._canary: Window | None = None
        self._needs_canary = self._canary_failed = False
        self._length = 0

    @property
    def waiting(self) -> int:
        """Windows that wait for the server; none while there is no ``fault``."""
        return sum(len(group.entries) for group, _ in self._failed) + len(self._held)

    def probe_for(self, group: Group, error: ServingError) -> None:
        """Hold a failed group until health probes show whether the server failed too."""
        self._failed.append((group, error))
        if not misfit(error):
            self.begin(error)
        elif self.fault is None:
            now = self._clock()
            repeated = now - self._misfit_at < REPEATED_SECONDS and error.code not in FOR_ALL_CALLS
            self._misfit_at = now
            self.begin(error)
            if repeated:
                self._set_state(error)

    def hold(self, windows: list[Entry]) -> None:
        """Hold windows that the model rejected during a fault; they are sent again after it."""
        self._held += windows

    def still_waiting(self) -> bool:
        """Whether somebody waits for one of the windows that wait for the server."""
        return any(group.still_waiting() for group, _ in self._failed) or any(not e.future.done() for e in self._held)

    def suspects(self) -> list[Group]:
        """The groups that are suspected of having ended a server."""
        return [group for group, _ in self._failed if group.suspected]

    def take_suspect(self, group: Group) -> None:
        """Take out one of ``suspects``."""
        self._failed = [(other, error) for other, error in self._failed if other is not group]

    def take_unsuspected(self) -> list[Entry]:
        """Take out the windows that are suspected of nothing, for another endpoint.

        Those with which a health probe broke off become suspects: they may have ended the server. Where windows showed
        that the model does not fit, or rejects too much, they or others must still be answered before the fault ends.
        """
        others = [(group, error) for group, error in self._failed if not group.suspected]
        self._failed = [(group, error) for group, error in self._failed if group.suspected]
        self._shown_misfit = (self._shown_misfit + _unfit(others))[:MOST_REPEATED]
        self._shown_held = (self._shown_held + self._held)[-MOST_SHOWN:]
        entries = [entry for group, _ in others for entry in group.entries]
        suspects = {id(group.entries[0]): (group, error) for group, error in self._broke_off.items()}
        self._failed += [suspects[id(entry)] for entry in self._held if id(entry) in suspects]
        entries += [entry for entry in self._held if id(entry) not in suspects]
        self._held = []
        return entries

    def stop(
        self,
        error: ServingError,
        windows: list[Entry],
        canary: Window | None = None,
        *,
        length: int = 0,
        because: str = "",
    ) -> None:
        """The server or the model is at fault, so ``windows`` are held: a probe failed, with ``canary`` if it had one.

        It was padded to ``length`` tokens, and so are those that end the fault.

        ``because`` is given when the probe was answered, but ``windows`` fail and are too many to be given up. Then, or
        with a canary window, that or one of ``windows`` must be answered before sending goes on. If all of them are
        really bad input, so much of it stops the worker until somebody acts, which is intended.
        """
        if because:
            then = "nothing is dead-lettered, and some are asked again until one is answered"
            error = ServingError(Failure.DEPLOYMENT, error.code, f"{because}: {error.message}; {then}")
        self._held += windows
        self._length = max(self._length, length)
        self._canary = canary
        self._needs_canary |= bool(because) or canary is not None
        if not windows:
            self._canary_failed = canary is not None
        self.begin(error)
        if because:
            self._set_state(error)

    def check(self) -> Coroutine[Any, Any, None]:
        """A health probe beside the sending, to be awaited. It reports the state as ok, or stops."""
        self.check_at = None
        return self._check()

    async def _check(self) -> None:
        canary = self._calls.canary(0)
        try:
            await self._calls.probe(0, canary)
        except ServingError as error:
            # A busy server lives; whether its model fits is not known before it has answered anything.
            if error.relief is not Relief.FEWER_IN_FLIGHT or self._calls.version is None:
                self.stop(error, [], canary)
                return
            self._settle()
        else:
            if self.fault is None and self.check_at is None and self.state is not State.OK:
                self.state = State.OK
                self._ok_since = self._clock()
                self._on_state(State.OK, None)

    async def wait(self) -> Recovered:
        """Send nothing but one health probe at a time until the server answers."""
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._breaker.try_at - self._clock())):
                    await self._soon.wait()
            self._soon.clear()
            self._breaker.half_open(max(self._clock(), self._breaker.try_at))
            self._observer.breaker(self._breaker.state, self._calls.address)
            asked: list[Window] = []
            began = self._clock()
            try:
                alone = (group.length for group, _ in self._failed if len(group.entries) == 1)
                await self._calls.probe_again(max([self._length, *alone]), self._probe_failed)
                if (canary := self._next_canary(failures)) is not None:
                    asked, began = [canary], self._clock()
                    await self._calls.probe_with(canary)
                if unfit := self._shown_misfit + [group for group in _unfit(self._failed) if group.still_waiting()]:
                    asked, began = [entry.window for group in unfit for entry in group.entries], self._clock()
                    await self._calls.repeat(unfit)
            except ServingError as error:
                if error.relief is not Relief.FEWER_IN_FLIGHT:  # a busy server is neither healthy nor failed
                    failures += 1
                    self._asked(asked, error, self._clock() - began)
                    self._probe_failed(error)
            else:
                return self._end(failures)
            self._breaker.open(self._clock())
            self._observer.breaker(self._breaker.state, self._calls.address)

    def probe_soon(self) -> None:
        """Make the next health probe at once, if one is waited for."""
        if self.fault is not None:
            self._soon.set()

    def begin(self, error: ServingError) -> None:
        """Send nothing but health probes from now on."""
        if self.fault is None:
            self.fault = error
            self.check_at = None
            self._failing = _state_of(error)
            self.began = self._failing_since = self._clock()
            self._breaker.open(self.began)
            self._observer.breaker(self._breaker.state, self._calls.address)

    def _next_canary(self, failures: int) -> Window | None:
        """The next probe's canary, another one each time: some may be bad input. None when none is needed or left."""
        if not self._needs_canary:
            return None
        windows = [entry.window for entry in self._held if not entry.future.done()]
        windows += [entry.window for entry in self._shown_held if not _refused(entry)]
        if not windows:
            # No window waits any more, as after a revocation, so none can be harmed.
            return self._canary if self._canary_failed else None
        if self._canary is not None:
            # Every other time: when this one is answered the server is healthy, whatever is wrong with the others.
            if failures % 2 == 0:
                return self._canary
            failures //= 2
        return windows[failures % len(windows)]

    def _asked(self, windows: list[Window], error: ServingError, seconds: float) -> None:
        """A health probe with these windows failed after ``seconds``: if it broke off, they may have ended the server.

        With one server this changes nothing; another one must not meet them now (``take_unsuspected``).
        """
        if not windows or error.failure is not Failure.TRANSIENT or error.code not in BROKEN_OFF or unreached(error):
            return
        asked = {id(window) for window in windows}
        known = {id(group.entries[0]) for group in self._broke_off}
        for entry in self._held:
            if id(entry.window) in asked and id(entry) not in known:
                self._broke_off[Group([entry])] = error
        for group in {*self._broke_off, *(group for group, _ in self._failed)}:
            if not asked.isdisjoint(id(entry.window) for entry in group.entries):
                group.failed(error, self._clock(), seconds, self._calls.address, isolated=False)

    def _end(self, failures: int) -> Recovered:
        away = failures >= AWAY_PROBES and self._clock() - self.began >= AWAY_SECONDS
        recovered = Recovered(self._failed, self._held, failures, self._needs_canary, away)
        self._forget()
        self.fault = None
        self._breaker.close()
        self._observer.breaker(self._breaker.state, self._calls.address)
        self._settle()
        return recovered

    def _settle(self) -> None:
        if self.state is not State.OK and self.fault is None:
            self.check_at = self._clock() + self._settle_seconds

    def _probe_failed(self, error: ServingError) -> None:
        now, failing = self._clock(), _state_of(error)
        if failing is not self._failing:
            self._failing, self._failing_since = failing, now
        if now - self._failing_since >= CONFIRM_SECONDS:
            self._set_state(error)

    def _set_state(self, error: ServingError) -> None:
        state = _state_of(error)
        if state is not self.state:
            if self.state is State.OK:
                steady = not misfit(error) or self._clock() - self._ok_since >= STEADY_SECONDS
                self._settle_seconds = SETTLE_SECONDS if steady else UNSTEADY_SETTLE_SECONDS
            self.state = state
            self._on_state(state, error)


def _state_of(error: ServingError) -> State:
    return State.OUTAGE if error.failure is Failure.TRANSIENT else State.DEPLOYMENT_FAULT


def _unfit(failed: list[tuple[Group, ServingError]]) -> list[Group]:
    """Groups whose calls found a model that does not fit: what may fail for them only, must be answered."""
    return [group for group, error in failed if misfit(error) and error.code not in FOR_ALL_CALLS]


def _refused(entry: Entry) -> bool:
    """Whether this window was withdrawn, or refused by another server: then it shows nothing."""
    return entry.future.done() and (entry.future.cancelled() or entry.future.exception() is not None)


def misfit(error: ServingError) -> bool:
    """Whether the server says that model and worker do not fit. A single unusable answer does not say that."""
    return error.failure is Failure.DEPLOYMENT and error.code != "ANSWER"
