"""Sends windows to the model server: asks the policy for batches, calls the model, and acts on each call's outcome.

Runs on one event loop; nothing here is thread-safe. A window that was handed in is answered, refused with the reason,
or still waiting: it is never dropped, and an unreachable model server refuses nothing. ``docs/fault-isolation.md``
describes what happens when calls fail (``decisions``, ``outage``, ``rejections``, ``poison_isolation``).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consumer.batching.queue import LANE, LengthQueue, Pending, by_lane
from consumer.resilience.call_limits import CallLimits, RetryBudget
from consumer.resilience.crash_evidence import BROKEN_OFF, CRASHES
from consumer.serving.dispatch.batch import Entry, Group
from consumer.serving.dispatch.calls import ModelCalls
from consumer.serving.dispatch.decisions import Action, decide, decide_after_probe
from consumer.serving.dispatch.outage import IDLE_SECONDS, PAUSES, OutageRecovery, misfit
from consumer.serving.dispatch.poison_isolation import PoisonIsolation
from consumer.serving.dispatch.rejections import RejectionReview
from consumer.serving.protocol import ServingError
from consumer.serving.refused import State, WindowAnswer, WindowRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence

    from consumer.batching.policy import LeastTime, ReleaseReason
    from consumer.extraction.window import Window
    from consumer.resilience.backoff import Backoff
    from consumer.serving.protocol import Answer, ModelClient
    from consumer.serving.refused import DispatchObserver

__all__ = ["Dispatcher", "State", "WindowAnswer", "WindowRefused"]


class Dispatcher:
    """Owns the queue of windows and every call to the model server."""

    def __init__(
        self,
        client: ModelClient,
        policy: LeastTime,
        probe_window: Window,
        model: str,
        observer: DispatchObserver,
        on_state: Callable[[State, ServingError | None], None],
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
        lanes: Mapping[str, float] | None = None,
    ) -> None:
        """``probe_window`` is a window that any healthy model answers; health probes ask for it.

        ``model`` is the configured name, for calls that fail before any answer has named it. ``on_state`` is called
        when sending stops for an outage or a deployment fault, and when it goes on. ``clock`` is the event loop's,
        ``lanes`` the weights of all lanes.
        """
        self._policy = policy
        self._observer = observer
        self._clock = clock
        self._backoff = backoff or PAUSES
        self._limits = CallLimits(policy.max_tokens, policy.max_in_flight)
        self._retry_budget = RetryBudget()
        self._queue = LengthQueue(lanes)
        self._entries: dict[int, Entry] = {}
        self._retries: list[Group] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._not_before = 0.0
        self._busy_in_a_row = 0
        self._last_id = 0
        self._wake = asyncio.Event()
        self._calls = ModelCalls(client, probe_window, model, observer, clock)
        self._in_flight = self._calls.in_flight
        self._recovery = OutageRecovery(self._calls, self._backoff, on_state)
        self._review = RejectionReview(self._calls, self._recovery, self._backoff, self._spawn, self._send_alone)
        self._isolation = PoisonIsolation(
            self._calls,
            self._recovery,
            self._backoff.uniform,
            self._spawn,
            lambda group: self._call(group, group.length, "retry", isolated=True),
        )

    def submit(
        self,
        window: Window,
        deadline: float,
        level: int,
        origin: Hashable = None,
        lane: str = LANE,
        over_share: bool = False,
        on_overflow: Callable[[WindowAnswer], None] | None = None,
    ) -> asyncio.Future[WindowAnswer]:
        """Queue one window; the future is answered however long that takes, or raises WindowRefused.

        ``deadline`` (seconds of the clock) only orders the work. ``origin`` is the event that the window comes from,
        None one of its own: however many of its windows are refused, it counts once. Cancelling withdraws the window.
        """
        self._last_id += 1
        pending = Pending(self._last_id, window.length, deadline, level, self._clock(), lane, over_share)
        future: asyncio.Future[WindowAnswer] = asyncio.get_running_loop().create_future()
        self._enqueue([Entry(window, pending, future, object() if origin is None else origin, on_overflow)])
        return future

    async def health_probe(self) -> None:
        """Return once the probe window was answered: the model is there and fits this worker."""
        await self.submit(self._calls.probe_window, self._clock(), 0, lane=self._queue.lanes[0])

    @property
    def state(self) -> State:
        """Whether windows are being sent."""
        return self._recovery.state

    @property
    def waiting(self) -> int:
        """Windows that wait for a batch, a retry or a decision."""
        windows = len(self._queue) + sum(len(group.entries) for group in self._retries) + len(self._review.rejections)
        if self._recovery.fault is not None:
            windows += self._recovery.waiting
        if self._isolation.active:
            windows += self._isolation.waiting
        return windows

    @property
    def in_flight(self) -> int:
        """Windows at the model server."""
        return sum(call.rows for call in self._in_flight.values())

    async def pump(self) -> None:
        """Send batches until cancelled. Exactly one task runs this."""
        try:
            while True:
                self._wake.clear()
                if self._recovery.fault is not None:
                    await self._recover()
                    continue
                wake_at = self._send_due()
                self._observer.in_flight_windows(self.waiting + self.in_flight)
                timeout = IDLE_SECONDS if wake_at is None else max(0.0, wake_at - self._clock())
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    if wake_at is None and not self._in_flight:
                        self._spawn(self._recovery.check(), ())
        finally:
            for task in self._tasks:
                task.cancel()

    def _send_due(self) -> float | None:
        """Send what may leave now; when to look again."""
        now = self._clock()
        if now < self._not_before:
            return self._not_before
        if self._isolation.active and self._isolation.send_next(idle=not (self._in_flight or self._review.probing)):
            return None
        if self._recovery.check_at is not None and self._recovery.check_at <= now:
            self._spawn(self._recovery.check(), ())
        retry_at = self._send_retries(now) if self._retries else None
        self._policy.max_tokens = self._limits.max_tokens
        self._policy.max_in_flight = self._limits.max_in_flight
        decision = self._policy.decide(now, self._queue, self._in_flight.values())
        for batch in decision.batches:
            self._retry_budget.first_calls += 1
            group = Group([self._entries.pop(pending.id) for pending in batch.windows])
            for lane, (rows, waited) in by_lane(batch.windows, now).items():
                self._observer.lane_sent(lane, rows * batch.padded_length, waited)
            self._send(group, batch.padded_length, batch.reason)
        if decision.batches:
            self._wake.set()  # withdrawn windows may have left the server idle
        watch_at = self._isolation.watch() if self._isolation.active else None
        wake_at = (decision.wake_at, watch_at, retry_at, self._recovery.check_at)
        return min((at for at in wake_at if at is not None), default=None)

    def _send_retries(self, now: float) -> float | None:
        """Send the retries that are due and that the budget lets through; when to look again."""
        for group in [group for group in self._retries if group.not_before <= now]:
            if len(self._in_flight) >= self._limits.max_in_flight:
                return None
            # The calls that look for a rejected window are no retries: the server has answered, and they are few.
            if group.batch is None and (wait := self._retry_budget.take(now)):
                return now + wait
            self._retries.remove(group)
            self._send(group, group.length, "retry")
        return min((group.not_before for group in self._retries), default=None)

    def _send(self, group: Group, length: int, reason: ReleaseReason) -> None:
        group.entries = [entry for entry in group.entries if not entry.future.done()]
        if group.entries:
            self._spawn(self._call(group, length, reason), group.entries)
        else:
            self._review.leave(group)

    def _spawn(self, work: Coroutine[Any, Any, Any], entries: Iterable[Entry]) -> None:
        """Run beside the pump; a defect of ours is raised by the windows' futures, which would otherwise never end."""

        def ended(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            self._wake.set()
            if not task.cancelled() and (bug := task.exception()) is not None:
                for entry in entries:
                    if not entry.future.done():
                        entry.future.set_exception(bug)

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _call(
        self, group: Group, length: int, reason: ReleaseReason, *, isolated: bool = False
    ) -> Coroutine[Any, Any, None]:
        """The call of a group, to be awaited. It counts as in flight from now on."""
        rows = len(group.entries)
        self._observer.batch_sent(rows, sum(entry.window.length for entry in group.entries), rows * length, reason)
        self._calls.begin(group, length)
        return self._answer(group, length, isolated=isolated)

    async def _answer(self, group: Group, length: int, *, isolated: bool) -> None:
        windows = [entry.window for entry in group.entries]
        sent_at = self._clock()
        try:
            answer = await self._calls.work(windows, length, group.timeout_factor, isolated=isolated)
        except ServingError as error:
            now = self._clock()
            group.failed(error, now, now - sent_at, isolated=isolated)
            self._failed(group, error)
        except Exception as error:
            # A defect of ours, perhaps over one window: found in halves, so that its neighbours are answered.
            if len(group.entries) == 1 or isinstance(error, (MemoryError, OSError)):
                self._review.leave(group)
                raise
            for half in self._review.split(group):
                self._send_alone(half)
        else:
            self._policy.times.answered(self._in_flight[group], self._clock())
            self._answered(group, answer)
        finally:
            del self._in_flight[group]

    def _answered(self, group: Group, answer: Answer) -> None:
        self._busy_in_a_row, self._retry_budget.answered = 0, True
        if self._limits.lowered:  # for speed, what handles failures is not called while nothing has failed
            self._limits.answered(self._clock())
        if self._review.attentive or group.batch is not None:
            self._review.answered(group)
        uptime = self._calls.uptime
        if uptime.watched and not (self._isolation.active or self._recovery.fault or uptime.crashes_in_a_row):
            uptime.watched = False
        if answer.overflowed:
            self._observer.windows_overflowed(len(answer.overflowed))
        call = replace(answer, cells=())  # or one window's answer would keep those of the whole batch
        for index, (entry, cells) in enumerate(zip(group.entries, answer.cells, strict=True)):
            if not entry.future.done():
                its = WindowAnswer(cells, call, index in answer.overflowed)
                if its.overflowed and entry.on_overflow is not None:
                    entry.on_overflow(its)
                entry.future.set_result(its)

    def _failed(self, group: Group, error: ServingError) -> None:
        action = decide(error, alone=len(group.entries) == 1)
        if action not in (Action.REVIEW, Action.SPLIT):
            self._review.leave(group)
            self._retry_budget.failed(self._clock())
        match action:
            case Action.REVIEW:
                self._review.reject(group, "BatchFault", error, group.lone_failures.attempts + 1)
            case Action.SPLIT:
                for half in self._review.split(group):
                    self._send_alone(half)
            case Action.FEWER_CALLS:
                self._limits.fewer_in_flight(self._clock())
                self._busy_in_a_row += 1
                self._again([group])
            case Action.FEWER_TOKENS:
                self._limits.fewer_tokens(self._clock())
                self._again(group.halves() if group.isolated else [group])
            case _:
                self._recovery.probe_for(group, error)

    def _enqueue(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries[entry.pending.id] = entry
            self._queue.add(entry.pending)
        self._wake.set()

    def _again(self, groups: Sequence[Group]) -> None:
        """Send the windows again after a pause, batched anew under the lowered limits; isolated ones by themselves."""
        self._observer.model_retried()
        self._not_before = self._clock() + self._backoff.pause(self._busy_in_a_row)
        for group in groups:
            if group.isolated:
                self._isolation.add(group, 0.0)
            else:
                self._enqueue(group.entries)

    def _send_alone(self, group: Group, pause: float = 0.0, *, isolated: bool = False) -> None:
        """Send these windows again in ``pause`` seconds, in one call; ``isolated``: with no other in flight."""
        self._observer.model_retried()
        if isolated:
            self._isolation.add(group, pause)
        else:
            group.not_before = self._clock() + pause
            self._retries.append(group)
        self._wake.set()

    async def _recover(self) -> None:
        """Wait until the server answers, then send or decide on the windows that waited for it."""
        recovered = await self._recovery.wait()
        if recovered.failed_probes:
            self._limits.after_outage()
        if recovered.canary_answered:
            self._review.reset()
        self._enqueue(recovered.held)
        for group, error in recovered.failed:
            if recovered.failed_probes:
                group.lone_failures.outage()
            self._probed(group, error, healthy=not recovered.failed_probes, away=recovered.away)

    def _probed(self, group: Group, error: ServingError, *, healthy: bool, away: bool) -> None:
        """Its call failed, and the server answers now; ``healthy``: it failed no health probe meanwhile."""
        alone, crash = len(group.entries) == 1, group.crash
        broke_off = error.code in BROKEN_OFF
        isolated = (broke_off and crash.server_is_back(away=away)) or group.isolated
        server_dies_of_all, given_up, attempts = False, None, crash.crashes
        if alone and broke_off:
            server_dies_of_all = crash.proven and self._review.crashed(group.entries[0])
            given_up = "Poison" if crash.crashes >= CRASHES else None
        elif alone and healthy:
            final = self._calls.timeout_is_final(group.length, group.timeout_factor)
            given_up = group.lone_failures.failed_alone(error.code, deadline_final=final)
            attempts = group.lone_failures.attempts
        blameless = crash.broken == 1 or misfit(error)
        match decide_after_probe(alone=alone, blameless=blameless, dies_of_all=server_dies_of_all, given_up=given_up):
            case Action.SPLIT:
                for half in group.halves():
                    self._send_alone(half, isolated=isolated)
            case Action.STOP:
                windows = [*group.entries, *self._isolation.take_crashed_alone()]
                because = (
                    f"the model server went away in the calls of {len(windows)} windows, one by one, and answered no "
                    "other window in between, though the known-good one"
                )
                self._recovery.stop(error, windows, because=because)
            case Action.REVIEW:
                self._review.reject(group, str(given_up), error, attempts)
            case _:
                failures = max(group.lone_failures.tries, crash.broken, 1)
                self._send_alone(group, self._backoff.longest(failures - 1), isolated=isolated)
