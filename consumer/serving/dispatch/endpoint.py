"""One model server of the dispatcher: what its failed calls lead to, and the windows that wait for it.

Nothing here runs while the server answers: the dispatcher makes the calls, and what is decided about the windows of a
failed one is decided where it failed. Which windows go to another endpoint is in ``transfers``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from consumer.batching.policy import CallTimes
from consumer.resilience.call_limits import CallLimits, RetryBudget
from consumer.resilience.crash_evidence import BROKEN_OFF, CRASHES
from consumer.serving.dispatch.decisions import Action, decide, decide_after_probe
from consumer.serving.dispatch.outage import OutageRecovery, misfit
from consumer.serving.dispatch.poison_isolation import PoisonIsolation
from consumer.serving.dispatch.rejections import RejectionReview
from consumer.serving.errors import unreached
from consumer.serving.protocol import Failure, ServingError
from consumer.serving.refused import State

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
    from typing import Any

    from consumer.batching.policy import CallCost, LeastTime, ReleaseReason
    from consumer.resilience.backoff import Backoff
    from consumer.serving.dispatch.batch import Entry, Group
    from consumer.serving.dispatch.calls import ModelCalls

BUSY_SECONDS = 15.0
"""After a failed call a server may be too busy to answer a health probe: no outage, but its windows wait no longer."""


class EndpointStatus(NamedTuple):
    """One endpoint at this moment, for people."""

    address: str
    state: str
    """Of ``State``; or ``gone``, when its address vanished; ``trial``, before it answered anything; ``busy``, when a
    call failed, no health probe was answered since, and that is no outage yet: it gets no windows.
    """
    in_flight: int
    """Windows in calls."""
    answered: int
    """Calls since the start, health probes included."""
    failed: int
    suspected: int
    """Windows that wait for it since calls with them broke off: they may have ended the server."""
    reason: str
    """Why it cannot be used; empty while it can."""
    slowness: float
    """How many times as long as expected its calls take now, without unit: below 1 it is faster."""


class Endpoint:
    """A server behind one address, with the evidence that its calls are and the limits that it set."""

    def __init__(
        self,
        calls: ModelCalls,
        policy: LeastTime,
        backoff: Backoff,
        *,
        trial: bool,
        spawn: Callable[[Coroutine[Any, Any, Any], Iterable[Entry]], Any],
        call: Callable[[Endpoint, Group, ReleaseReason], Coroutine[Any, Any, None]],
        enqueue: Callable[[Iterable[Entry]], None],
        elsewhere: Callable[[Endpoint], bool],
        on_state: Callable[[Endpoint, ServingError | None], None],
    ) -> None:
        """``spawn`` runs a task beside the pump, ``call`` makes the isolated call of a group or any other at once.

        ``enqueue`` hands windows to whichever endpoint comes first, ``elsewhere`` says whether another one can be used,
        ``on_state`` hears when this one no longer can be, and when it can. With ``trial`` it gets no windows before it
        answered a health probe.
        """
        self.address = calls.address
        self.calls = calls
        self.limits = CallLimits(policy.max_tokens, policy.max_in_flight)
        self.times = CallTimes(policy.cost)
        self.retry_budget = RetryBudget()
        self.retries: list[Group] = []
        self.not_before = 0.0
        self.busy_in_a_row = 0
        self.trial = trial
        self.gone = False
        """Whether its address vanished: it gets no new windows."""
        self.reason = ""
        """Why it cannot be used; empty while it can."""
        self.recovering: asyncio.Task[Any] | None = None
        self._backoff = backoff
        self._observer = calls.observer
        self._clock = calls.clock
        self._spawn = spawn
        self._call = call
        self._enqueue = enqueue
        self._elsewhere = elsewhere
        self._on_state = on_state
        self.recovery = OutageRecovery(calls, backoff, self._changed)
        self.review = RejectionReview(calls, self.recovery, backoff, spawn, self.send_alone)
        self.isolation = PoisonIsolation(
            calls, self.recovery, backoff.uniform, spawn, lambda group: call(self, group, "retry")
        )

    @property
    def usable(self) -> bool:
        """Whether it gets new windows, unless it is busy."""
        return not (self.gone or self.trial or self.recovery.fault) and self.recovery.state is State.OK

    @property
    def out(self) -> bool:
        """Whether its health probes have failed for so long that its windows are not to wait for it."""
        return self.recovery.fault is not None and (
            self.recovery.state is not State.OK or self._clock() >= self.recovery.began + BUSY_SECONDS
        )

    @property
    def holds(self) -> bool:
        """Whether somebody waits for a window that is in flight here or waits for this endpoint."""
        review = self.review
        return bool(
            self.calls.in_flight
            or review.rejections
            or review.probing
            or any(group.still_waiting() for group in self.retries)
            or self.recovery.still_waiting()
            or self.isolation.still_waiting()
        )

    @property
    def waiting(self) -> int:
        """Windows that wait for a retry or a decision."""
        windows = sum(len(group.entries) for group in self.retries) + len(self.review.rejections)
        if self.recovery.fault is not None:
            windows += self.recovery.waiting
        if self.isolation.active:
            windows += self.isolation.waiting
        return windows

    @property
    def status(self) -> EndpointStatus:
        """What it does at this moment."""
        state, reason, fault = self.recovery.state.value, self.reason, self.recovery.fault
        if fault is not None and self.recovery.state is State.OK:
            state, reason = "busy", f"{fault.code}: {fault.message}"
        state = "gone" if self.gone else "trial" if self.trial and not self.reason else state
        return EndpointStatus(
            self.address,
            state,
            sum(call.rows for call in self.calls.in_flight.values()),
            self.calls.answered,
            self.calls.failed,
            sum(len(group.entries) for group in self.suspects()),
            reason,
            self.times.factor,
        )

    def suspects(self) -> dict[Group, Callable[[Group], None]]:
        """The groups that wait here and are suspected of having ended a server, each with what takes it out."""
        found = dict.fromkeys(self.recovery.suspects(), self.recovery.take_suspect)
        found |= dict.fromkeys(self.isolation.suspects(), self.isolation.take_suspect)
        return found | {group: self.retries.remove for group in self.retries if group.suspected}

    def costs(self, cost: CallCost) -> None:
        """Expect calls to cost so much from now on."""
        self.times.cost = cost
        self.calls.measured()

    def close(self) -> None:
        """It is gone and holds nothing."""
        if self.recovering is not None:
            self.recovering.cancel()
        self._spawn(self.calls.client.close(), ())

    async def try_out(self) -> None:
        """A health probe before the first window; if it fails, the endpoint is an outage's or does not fit."""
        await self.recovery.check()
        if self.recovery.fault is None:
            self._tried()

    def send_retries(self, now: float) -> float | None:
        """Send the retries that are due and that the budget lets through; when to look again."""
        for group in [group for group in self.retries if group.not_before <= now]:
            if len(self.calls.in_flight) >= self.limits.max_in_flight:
                return None
            # The calls that look for a rejected window are no retries: the server has answered, and they are few.
            if group.batch is None and (wait := self.retry_budget.take(now)):
                return now + wait
            self.retries.remove(group)
            group.entries = [entry for entry in group.entries if not entry.future.done()]
            if group.entries:
                self._spawn(self._call(self, group, "retry"), group.entries)
            else:
                self.review.leave(group)
        return min((group.not_before for group in self.retries), default=None)

    def defect(self, group: Group, error: Exception) -> bool:
        """A defect of ours, perhaps over one window: found in halves, so that its neighbours are answered.

        False if there are none, or if it was none over a window.
        """
        if len(group.entries) == 1 or isinstance(error, (MemoryError, OSError)):
            self.review.leave(group)
            return False
        for half in self.review.split(group):
            self.send_alone(half)
        return True

    def failed(self, group: Group, error: ServingError, seconds: float, *, isolated: bool) -> None:
        """Its call, which lasted ``seconds``, failed."""
        never_sent = unreached(error)
        if never_sent:
            group.first_failed_at = self._clock() if group.first_failed_at is None else group.first_failed_at
        else:
            group.failed(error, self._clock(), seconds, self.address, isolated=isolated)
        action = decide(error, alone=len(group.entries) == 1)
        if action not in (Action.REVIEW, Action.SPLIT):
            self.review.leave(group)
            self.retry_budget.failed(self._clock())
        match action:
            case Action.REVIEW:
                self.review.reject(group, "BatchFault", error, group.lone_failures.attempts + 1)
            case Action.SPLIT:
                for half in self.review.split(group):
                    self.send_alone(half)
            case Action.FEWER_CALLS:
                self.limits.fewer_in_flight(self._clock())
                self.busy_in_a_row += 1
                self._again([group])
            case Action.FEWER_TOKENS:
                self.limits.fewer_tokens(self._clock())
                self._again(group.halves() if group.isolated else [group])
            case _ if never_sent and not group.suspected and self._elsewhere(self):
                self.recovery.begin(error)
                self._observer.model_retried()
                self._enqueue(group.entries)
            case _:
                self.recovery.probe_for(group, error)

    def send_alone(self, group: Group, pause: float = 0.0, *, isolated: bool = False) -> None:
        """Send these windows again in ``pause`` seconds, in one call; ``isolated``: with no other in flight."""
        self._observer.model_retried()
        if isolated:
            self.isolation.add(group, pause)
        else:
            group.not_before = self._clock() + pause
            self.retries.append(group)

    async def recover(self) -> None:
        """Wait until the server answers, then send or decide on the windows that waited for it."""
        recovered = await self.recovery.wait()
        if recovered.failed_probes:
            self.limits.after_outage()
        if recovered.canary_answered:
            self.review.reset()
        if self.trial:
            self._tried()
        self._enqueue(recovered.held)
        for group, error in recovered.failed:
            if recovered.failed_probes:
                group.lone_failures.outage()
            if unreached(error):
                self.send_alone(group, self._backoff.longest(0), isolated=group.isolated)
            else:
                self._probed(group, error, healthy=not recovered.failed_probes, away=recovered.away)

    # -- what follows -----------------------------------------------------------------------------------------------

    def _tried(self) -> None:
        self.trial = False
        self._changed(self.recovery.state, None)

    def _changed(self, state: State, error: ServingError | None) -> None:
        self.reason = "" if state is State.OK else f"{error.code}: {error.message}" if error else self.reason
        self._on_state(self, error)

    def _again(self, groups: Sequence[Group]) -> None:
        """Send the windows again after a pause, batched anew under the lowered limits; isolated ones by themselves."""
        self._observer.model_retried()
        self.not_before = self._clock() + self._backoff.pause(self.busy_in_a_row)
        for group in groups:
            if group.isolated:
                self.isolation.add(group, 0.0)
            else:
                self._enqueue(group.entries)

    def _probed(self, group: Group, error: ServingError, *, healthy: bool, away: bool) -> None:
        """Its call failed, and the server answers now; ``healthy``: it failed no health probe meanwhile."""
        alone, crash = len(group.entries) == 1, group.crash
        broke_off = error.code in BROKEN_OFF
        isolated = (broke_off and crash.server_is_back(away=away)) or group.isolated
        server_dies_of_all, given_up, attempts = False, None, crash.crashes
        if alone and broke_off:
            server_dies_of_all = crash.proven and self.review.crashed(group.entries[0])
            given_up = "Poison" if crash.crashes >= CRASHES else None
        elif alone and healthy:
            final = self.calls.timeout_is_final(group.length, group.timeout_factor)
            given_up = group.lone_failures.failed_alone(error.code, deadline_final=final)
            attempts = group.lone_failures.attempts
        blameless = crash.broken == 1 or misfit(error)
        match decide_after_probe(alone=alone, blameless=blameless, dies_of_all=server_dies_of_all, given_up=given_up):
            case Action.SPLIT:
                for half in group.halves():
                    self.send_alone(half, isolated=isolated)
            case Action.STOP:
                windows = [*group.entries, *self.isolation.take_crashed_alone()]
                because = (
                    f"the model server went away in the calls of {len(windows)} windows, one by one, and answered no "
                    "other window in between, though the known-good one"
                )
                self.recovery.stop(error, windows, because=because)
            case Action.REVIEW:
                self.review.reject(group, str(given_up), error, attempts)
            case _:
                failures = max(group.lone_failures.tries, crash.broken, 1)
                self.send_alone(group, self._backoff.longest(failures - 1), isolated=isolated)


def together(endpoints: Collection[Endpoint], before: State) -> tuple[State, ServingError | None]:
    """The state of all: one that can be used is enough. Where none can be, with the reasons of all.

    ``before`` while no address has shown anything.
    """
    here = [each for each in endpoints if not each.gone and (each.reason or not each.trial)]
    states = {each.recovery.state: each.reason for each in here}
    state = next((each for each in (State.OK, State.DEPLOYMENT_FAULT, State.OUTAGE) if each in states), before)
    if state is State.OK:
        return state, None
    failure = Failure.TRANSIENT if state is State.OUTAGE else Failure.DEPLOYMENT
    code = states.get(state, "").partition(":")[0]
    return state, ServingError(failure, code, "; ".join(f"{each.address}: {each.reason}" for each in here))


def unusable(endpoints: Collection[Endpoint]) -> str:
    """Why none of them can be used, in words; empty while one can, or while that may be a lost call.

    A model that does not fit is a reason at once: nothing that is sent there is answered.
    """
    reasons = []
    for each in (each for each in endpoints if not each.gone):
        fault = each.recovery.fault
        if not each.trial and (fault is None or (each.recovery.state is State.OK and not misfit(fault))):
            return ""
        reason = each.reason or "it has answered nothing yet"
        if fault is not None and (not each.trial or not each.reason):
            reason = f"{fault.code}: {fault.message}"
        reasons.append(f"{each.address}: {reason}")
    return "; ".join(reasons) or "it has no address"
