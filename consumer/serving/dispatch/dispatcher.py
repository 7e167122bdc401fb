"""From single windows to model calls and back: asks the policy, sends batches, bisects, retries, and waits out outages.

Runs on one event loop; nothing here is thread-safe. A window that was handed in is answered, refused with the reason,
or still waiting: it is never dropped, and an unreachable model server refuses nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from consumer.batching.policy import Endpoint, LengthQueue, Pending
from consumer.resilience.backoff import Backoff
from consumer.resilience.call_limits import CallLimits, RetryBudget
from consumer.resilience.crash_evidence import BROKEN_OFF
from consumer.serving.dispatch.batch import Entry, Group
from consumer.serving.dispatch.calls import ModelCalls
from consumer.serving.dispatch.outage import OutageRecovery
from consumer.serving.dispatch.poison_isolation import PoisonIsolation
from consumer.serving.dispatch.rejections import RejectionReview, dies_of_all
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.refused import State, WindowAnswer, WindowRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence

    from consumer.batching.policy import Policy
    from consumer.extraction.window import Window
    from consumer.serving.protocol import Answer, ModelClient
    from consumer.serving.refused import DispatchObserver

__all__ = ["Dispatcher", "State", "WindowAnswer", "WindowRefused"]


class Dispatcher:
    """Owns the queue of windows and every call to the model server."""

    def __init__(
        self,
        client: ModelClient,
        policy: Policy,
        known_good: Window,
        model: str,
        observer: DispatchObserver,
        on_state: Callable[[State, ServingError | None], None],
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        """``known_good`` is a window that any healthy model answers; it tells a bad window from a bad server.

        ``model`` is the configured name, for calls that fail before an answer could say it. ``on_state`` is called
        when sending stops for an outage or a deployment fault, and when it goes on. ``clock`` is the event loop's.
        """
        self._policy = policy
        self._observer = observer
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._caps = CallLimits(policy.max_tokens, policy.max_in_flight)
        self._budget = RetryBudget()
        self._calls = ModelCalls(client, known_good, model, observer, clock)
        self._recovery = OutageRecovery(self._calls, self._backoff, observer, on_state, clock)
        self._court = RejectionReview(self._calls, self._recovery, self._backoff, self._spawn, self._by_itself, clock)
        self._quarantine = PoisonIsolation(self._calls.exposure, clock, self._backoff.uniform)
        self._queue = LengthQueue()
        self._entries: dict[int, Entry] = {}
        self._retries: list[Group] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._in_flight: dict[Group, int] = {}
        self._trying = self._controlling = False
        self._draining_since: float | None = None
        self._not_before = 0.0
        self._busy_in_a_row = 0
        self._last_id = 0
        self._wake = asyncio.Event()

    # -- windows in ---------------------------------------------------------------------------------------------

    def submit(
        self, window: Window, deadline: float, level: int, origin: Hashable = None
    ) -> asyncio.Future[WindowAnswer]:
        """Queue one window; the future is answered however long that takes, or raises WindowRefused.

        ``deadline`` (seconds of the clock) only orders the work. ``origin`` is the event that the window comes from:
        however many windows of one are refused, they count as one bad event; None stands for one of its own.
        Cancelling the future withdraws the window.
        """
        self._last_id += 1
        pending = Pending(self._last_id, window.length, deadline, level, self._clock())
        future: asyncio.Future[WindowAnswer] = asyncio.get_running_loop().create_future()
        entry = Entry(window, pending, future, object() if origin is None else origin)
        self._enqueue([entry])
        return future

    async def known_good_answer(self) -> None:
        """Return once the known-good window was answered: the model is there and fits this worker."""
        await self.submit(self._calls.known_good, self._clock(), 0)

    @property
    def state(self) -> State:
        """Whether windows are being sent."""
        return self._recovery.state

    @property
    def waiting(self) -> int:
        """Windows that wait for a batch, or for what becomes of them."""
        retries = sum(len(group.entries) for group in self._retries)
        held = self._recovery.waiting + self._court.held + self._quarantine.waiting
        return len(self._queue) + retries + held

    @property
    def in_flight(self) -> int:
        """Windows at the model server."""
        return sum(self._in_flight.values())

    # -- the loop -----------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Send batches until cancelled. Exactly one task runs this."""
        try:
            while True:
                self._wake.clear()
                if (fault := self._recovery.fault) is not None:
                    await self._recover(fault)
                    continue
                wake_at = self._send_due()
                self._observer.in_flight_windows(self.waiting + self.in_flight)
                timeout = None if wake_at is None else max(0.0, wake_at - self._clock())
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._tasks:
                task.cancel()

    def _send_due(self) -> float | None:
        """Send what may leave now; when to look again."""
        now = self._clock()
        if now < self._not_before:
            return self._not_before
        if self._trying or self._try_suspect(now):
            return None
        for group in [group for group in self._retries if group.not_before <= now]:
            if len(self._in_flight) >= self._caps.max_in_flight:
                break
            self._retries.remove(group)
            self._send(group, group.length, "retry")
        self._policy.max_tokens = self._caps.max_tokens
        self._policy.max_in_flight = self._caps.max_in_flight
        decision = self._policy.decide(now, self._queue, (Endpoint(0, len(self._in_flight)),))
        for batch in decision.batches:
            self._budget.called()
            group = Group([self._entries.pop(pending.id) for pending in batch.windows])
            self._send(group, batch.padded_length, batch.reason)
        if decision.batches:
            # Withdrawn windows may have left an endpoint idle.
            self._wake.set()
        control_at = None if self._controlling else self._quarantine.control_at()
        if control_at is not None and control_at <= now:
            self._controlling = True
            self._spawn(self._control(), ())
        later = [group.not_before for group in self._retries if group.not_before > now]
        others = (decision.wake_at, self._quarantine.wake_at())
        return min([*later, *(at for at in others if at is not None)], default=None)

    def _send(self, group: Group, length: int, reason: str) -> None:
        if not group.drop_withdrawn():
            self._court.left(group)
            return
        rows = len(group.entries)
        self._observer.batch_sent(rows, sum(entry.window.length for entry in group.entries), rows * length, reason)
        self._court.sent(group)
        self._in_flight[group] = rows
        self._spawn(self._call(group, length), group.entries)

    def _try_suspect(self, now: float) -> bool:
        """Send the suspect that is due, if there is one, as soon as nothing else is in flight; nothing else until then.

        Whether there is one.
        """
        suspect = self._quarantine.due()
        if suspect is None:
            self._draining_since = None
            return False
        if self._draining_since is None:
            self._draining_since = now
        if not (self._in_flight or self._controlling or self._court.judging):
            self._quarantine.take(suspect)
            self._trying = True
            self._spawn(self._trial(suspect, self._draining_since), suspect.entries)
            self._draining_since = None
        return True

    async def _trial(self, suspect: Group, began: float) -> None:
        """One suspect with the server for itself, right after the known-good window."""
        try:
            self._in_flight[suspect] = rows = len(suspect.entries)
            if not await self._healthy(self._calls.probe(suspect.length)):
                del self._in_flight[suspect]
                self._quarantine.add(suspect, 0.0)
            else:
                suspect.crash.tried(self._calls.exposure, self._clock())
                self._court.sent(suspect)
                useful = sum(entry.window.length for entry in suspect.entries)
                self._observer.batch_sent(rows, useful, rows * suspect.length, "retry")
                await self._call(suspect, suspect.length, suspect_alone=True)
        finally:
            self._trying = False
            self._quarantine.tried(began)

    async def _control(self) -> None:
        """Let the server show that it lives without the suspects: it answers a real window and the known-good one."""
        try:
            length = self._quarantine.control_length()
            if (canary := self._calls.canary(length)) is None or await self._healthy(self._calls.ask(canary), canary):
                await self._healthy(self._calls.probe(length))
        finally:
            self._controlling = False

    async def _healthy(self, question: Coroutine[Any, Any, None], canary: Window | None = None) -> bool:
        """Whether the server answers what it must; if it does not, nothing that was in flight is to blame."""
        try:
            await question
        except ServingError as error:
            if error.relief is Relief.FEWER_IN_FLIGHT:
                self._quarantine.busy()
            else:
                self._recovery.control_failed(error, canary)
            return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, Any], entries: Iterable[Entry]) -> None:
        """Run beside the pump; a defect of ours reaches those who wait, or they would wait for ever."""

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

    async def _call(self, group: Group, length: int, *, suspect_alone: bool = False) -> None:
        windows = [entry.window for entry in group.entries]
        sent_at = self._clock()
        try:
            answer = await self._calls.work(windows, length, group.patience, suspect_alone=suspect_alone)
        except ServingError as error:
            now = self._clock()
            group.failed(error, now, now - sent_at, suspect_alone=suspect_alone)
            self._failed(group, error)
        else:
            self._answered(group, answer)
        finally:
            del self._in_flight[group]

    def _answered(self, group: Group, answer: Answer) -> None:
        self._busy_in_a_row = 0
        self._caps.answered(self._clock())
        self._court.answered(group)
        if answer.overflowed:
            self._observer.windows_overflowed(len(answer.overflowed))
        overflowed = frozenset(answer.overflowed)
        for index, (entry, cells) in enumerate(zip(group.entries, answer.cells, strict=True)):
            if not entry.future.done():
                entry.future.set_result(WindowAnswer(cells, answer, index in overflowed))

    # -- failures -----------------------------------------------------------------------------------------------

    def _failed(self, group: Group, error: ServingError) -> None:
        alone = len(group.entries) == 1
        match error.failure, error.relief:
            case Failure.BATCH_FAULT, _ if alone:
                self._court.charge(group, "BatchFault", error, group.suspicion.attempts + 1)
            case Failure.BATCH_FAULT, _:
                # Halve until the guilty are alone, each half in a call of its own. These calls are no retries of a
                # server that struggles, and their number is bounded: the budget does not count them.
                for half in self._court.split(group):
                    self._by_itself(half)
            case Failure.TRANSIENT, Relief.FEWER_IN_FLIGHT:
                # The server has no thread left. Smaller batches would be more calls; and it is there, so this is no
                # outage however often it happens.
                self._caps.fewer_in_flight(self._clock())
                self._busy_in_a_row += 1
                self._again([group])
            case Failure.TRANSIENT, Relief.SMALLER_MEMORY | Relief.FEWER_BYTES if not alone:
                self._caps.fewer_tokens(self._clock())
                self._court.left(group)
                self._again(group.halves() if group.quarantined else [group])
            case _:
                self._court.left(group)
                self._recovery.suspect(group, error)

    def _enqueue(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries[entry.pending.id] = entry
            self._queue.add(entry.pending)
        self._wake.set()

    def _again(self, groups: Sequence[Group]) -> None:
        """Send the windows again after a pause, batched anew under the lowered caps; but suspects by themselves."""
        self._observer.model_retried()
        now = self._clock()
        self._not_before = now + max(self._backoff.pause(self._busy_in_a_row), self._budget.delay(now))
        for group in groups:
            self._court.left(group)
            if group.quarantined:
                self._quarantine.add(group, 0.0)
            else:
                self._enqueue(group.entries)

    def _by_itself(self, group: Group, pause: float = 0.0) -> None:
        """Send these windows again, together and with nobody else, in ``pause`` seconds."""
        self._observer.model_retried()
        group.not_before = self._clock() + pause
        self._retries.append(group)
        self._wake.set()

    async def _recover(self, fault: ServingError) -> None:
        """Wait until the server answers, then see to the windows that waited for it."""
        recovered = await self._recovery.wait()
        if recovered.failures:
            self._caps.after_outage()
        if recovered.proved:
            self._court.mended()
        self._enqueue(recovered.held)
        for suspect in recovered.suspects:
            if recovered.failures:
                suspect.suspicion.outage()
            self._settle(suspect, fault, server_was_healthy=not recovered.failures)

    def _settle(self, suspect: Group, fault: ServingError, *, server_was_healthy: bool) -> None:
        """What becomes of windows that failed, now that the server answers."""
        error = suspect.last_error or fault
        broke_off = error.code in BROKEN_OFF
        send_again = self._isolate if broke_off or suspect.quarantined else self._by_itself
        if len(suspect.entries) > 1:
            for half in suspect.halves():
                send_again(half, self._budget.delay(self._clock()))
            return
        if broke_off:
            if suspect.quarantined and self._court.crashed(suspect.entries[0]):
                guilty = [*suspect.entries, *self._quarantine.crashed_alone()]
                self._recovery.fault_proved(dies_of_all(error, len(guilty)), guilty)
                return
            if suspect.crash.poison:
                self._court.charge(suspect, "Poison", error, suspect.crash.crashes)
                return
        elif server_was_healthy:
            final = self._calls.most_patient(suspect.length, suspect.patience)
            reason = suspect.suspicion.failed_alone(error.code, deadline_final=final)
            if reason is not None:
                self._court.charge(suspect, reason, error, suspect.suspicion.attempts)
                return
        pause = suspect.suspicion.pause(self._backoff.first, self._backoff.limit)
        send_again(suspect, max(pause, self._budget.delay(self._clock())))

    def _isolate(self, group: Group, pause: float) -> None:
        self._observer.model_retried()
        self._quarantine.add(group, pause)
        self._wake.set()
