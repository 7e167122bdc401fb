"""From single windows to model calls and back: asks the policy, sends batches, bisects, retries, and waits out outages.

Runs on one event loop; nothing here is thread-safe. A window that was handed in is answered, refused with the reason,
or still waiting: it is never dropped, and an unreachable model server refuses nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from consumer.batching.caps import Caps
from consumer.batching.deadlines import CallTimeout
from consumer.batching.policy import Endpoint
from consumer.batching.queue import LengthQueue, Pending
from consumer.batching.shapes import padded_length
from consumer.batching.suspicion import Suspicion
from consumer.serving.protocol import Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.batching.policy import Policy
    from consumer.extraction.window import Cells, Window
    from consumer.serving.protocol import Answer, ModelClient


class State(Enum):
    """Whether windows are being sent."""

    OK = "ok"
    OUTAGE = "outage"
    DEPLOYMENT_FAULT = "deployment_fault"


class WindowRefused(Exception):  # noqa: N818 - an outcome, not a fault of the program
    """The model server cannot answer this one window, although it answers others.

    ``reason`` is ``BatchFault`` (an operation refused it), ``Poison`` (alone in its call it failed five times, a
    known-good window before and after each try did not) or ``UnusableAnswer`` (the same, twenty times, with answers
    that are not finite or of a wrong shape).
    """

    def __init__(self, reason: str, error: ServingError, attempts: int) -> None:
        super().__init__(f"{reason}: {error}")
        self.reason = reason
        self.error = error
        self.attempts = attempts


class WindowAnswer(NamedTuple):
    """What one window got."""

    cells: Cells
    answer: Answer
    overflowed: bool


class DispatchObserver(Protocol):
    """Metric hooks; ``Metrics`` of the telemetry package has them. Called on the event loop; must be quick."""

    def batch_sent(self, rows: int, useful_tokens: int, padded_tokens: int, reason: str) -> None:
        """A batch of ``rows`` windows left; ``padded_tokens`` = rows x padded length."""

    def model_called(self, model: str, version: str, code: str, seconds: float) -> None:
        """A model call ended. ``code`` is OK or the gRPC status name."""

    def model_retried(self) -> None:
        """The windows of a failed call will be sent again."""

    def in_flight_windows(self, windows: int) -> None:
        """How many windows wait for a batch or are at the model server."""

    def windows_overflowed(self, windows: int) -> None:
        """So many windows found more cells than the compact signature returns."""


@dataclass(eq=False, slots=True)
class _Entry:
    window: Window
    pending: Pending
    future: asyncio.Future[WindowAnswer]


@dataclass(eq=False, slots=True)
class _Group:
    """Windows that are sent together. After a failure they stay by themselves, so they harm nobody else twice."""

    entries: list[_Entry]
    suspicion: Suspicion = field(default_factory=Suspicion)
    last_error: ServingError | None = None
    not_before: float = 0.0

    @property
    def length(self) -> int:
        """Padded length in tokens."""
        return padded_length(max(entry.window.length for entry in self.entries))


class Dispatcher:
    """Owns the queue of windows and every call to the model server."""

    BACKOFF_FIRST = 0.1
    BACKOFF_LIMIT = 10.0

    def __init__(
        self,
        client: ModelClient,
        policy: Policy,
        known_good: Window,
        model: str,
        observer: DispatchObserver,
        on_state: Callable[[State, ServingError | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``known_good`` is a window that any healthy model answers; it tells a bad window from a bad server.

        ``model`` is the configured name, for calls that fail before an answer could say it. ``on_state`` is called
        when sending stops for an outage or a deployment fault, and when it goes on.
        """
        self._client = client
        self._policy = policy
        self._known_good = known_good
        self._model = model
        self._observer = observer
        self._on_state = on_state
        self._clock = clock
        self._caps = Caps(policy.max_tokens, policy.max_in_flight)
        self._timeout = CallTimeout()
        self._queue = LengthQueue()
        self._entries: dict[int, _Entry] = {}
        self._retries: list[_Group] = []
        self._suspects: list[_Group] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._windows_in_flight = 0
        self._not_before = 0.0
        self._busy_in_a_row = 0
        self._fault: ServingError | None = None
        self._last_id = 0
        self._wake = asyncio.Event()
        self.state = State.OK

    # -- windows in ---------------------------------------------------------------------------------------------

    def submit(self, window: Window, deadline: float, level: int) -> asyncio.Future[WindowAnswer]:
        """Queue one window; the future is answered however long that takes, or raises WindowRefused.

        ``deadline`` (seconds of the clock) only orders the work. Cancelling the future withdraws the window.
        """
        self._last_id += 1
        pending = Pending(self._last_id, window.length, deadline, level, self._clock())
        future: asyncio.Future[WindowAnswer] = asyncio.get_running_loop().create_future()
        self._entries[pending.id] = _Entry(window, pending, future)
        self._queue.add(pending)
        self._wake.set()
        return future

    async def known_good_answer(self) -> None:
        """Return once the known-good window was answered: the model is there and fits this worker."""
        await self.submit(self._known_good, self._clock(), 0)

    @property
    def waiting(self) -> int:
        """Windows that wait for a batch."""
        return len(self._queue) + sum(len(r.entries) for r in [*self._retries, *self._suspects])

    @property
    def in_flight(self) -> int:
        """Windows at the model server."""
        return self._windows_in_flight

    # -- the loop -----------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """Send batches until cancelled. Exactly one task runs this."""
        try:
            while True:
                self._wake.clear()
                if self._fault is not None:
                    await self._recover(self._fault)
                    continue
                wake_at = self._send_due()
                self._observer.in_flight_windows(self.waiting + self._windows_in_flight)
                timeout = None if wake_at is None else max(0.0, wake_at - self._clock())
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for call in self._calls:
                call.cancel()

    def _send_due(self) -> float | None:
        """Send what may leave now; when to look again."""
        now = self._clock()
        if now < self._not_before:
            return self._not_before
        for group in [group for group in self._retries if group.not_before <= now]:
            if len(self._calls) >= self._caps.max_in_flight:
                break
            self._retries.remove(group)
            self._send(group, group.length, "retry")
        self._policy.max_tokens = self._caps.max_tokens
        self._policy.max_in_flight = self._caps.max_in_flight
        decision = self._policy.decide(now, self._queue, (Endpoint(0, len(self._calls)),))
        for batch in decision.batches:
            group = _Group([self._entries.pop(pending.id) for pending in batch.windows])
            self._send(group, batch.padded_length, batch.reason)
        if decision.batches:
            # Withdrawn windows may have left an endpoint idle.
            self._wake.set()
        later = [group.not_before for group in self._retries if group.not_before > now]
        return min([*later, *([] if decision.wake_at is None else [decision.wake_at])], default=None)

    def _send(self, group: _Group, length: int, reason: str) -> None:
        group.entries = [entry for entry in group.entries if not entry.future.done()]
        if not group.entries:
            return
        rows = len(group.entries)
        useful = sum(entry.window.length for entry in group.entries)
        self._observer.batch_sent(rows, useful, rows * length, reason)
        self._windows_in_flight += rows
        call = asyncio.create_task(self._call(group, length))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, group: _Group, length: int) -> None:
        windows = [entry.window for entry in group.entries]
        try:
            try:
                answer = await self._timed_predict(windows, length)
            except ServingError as error:
                group.last_error = error
                if error.code == "DEADLINE_EXCEEDED":
                    self._timeout.missed()
                await self._failed(group, error)
            else:
                # Only real work teaches the timeout: a probe is small, and its success proves no patience too long.
                self._timeout.observe(len(windows) * length, answer.seconds)
                self._answered(group, answer)
        except Exception as bug:  # a defect of ours: the callers must see it, or they would wait for ever
            for entry in group.entries:
                if not entry.future.done():
                    entry.future.set_exception(bug)
        finally:
            self._windows_in_flight -= len(windows)
            # The task leaves the set only after this returns; the pump must see the free place.
            asyncio.get_running_loop().call_soon(self._wake.set)

    def _answered(self, group: _Group, answer: Answer) -> None:
        self._busy_in_a_row = 0
        self._caps.recover(self._clock())
        if answer.overflowed:
            self._observer.windows_overflowed(len(answer.overflowed))
        overflowed = frozenset(answer.overflowed)
        for index, (entry, cells) in enumerate(zip(group.entries, answer.cells, strict=True)):
            if not entry.future.done():
                entry.future.set_result(WindowAnswer(cells, answer, index in overflowed))

    async def _timed_predict(self, windows: Sequence[Window], length: int) -> Answer:
        tokens = len(windows) * length
        started = self._clock()
        try:
            answer = await self._client.predict(windows, length, self._timeout.seconds(tokens))
        except ServingError as error:
            self._observer.model_called(self._model, "", error.code, self._clock() - started)
            raise
        self._observer.model_called(answer.model_name, answer.model_version, "OK", answer.seconds)
        return answer

    # -- failures -----------------------------------------------------------------------------------------------

    async def _probe(self, length: int) -> None:
        """Ask the known-good window, padded to ``length`` to cost what a suspect costs. Raises ServingError."""
        await self._timed_predict([self._known_good], max(length, padded_length(self._known_good.length)))

    async def _failed(self, group: _Group, error: ServingError) -> None:
        now = self._clock()
        match error.failure, error.relief:
            case Failure.BATCH_FAULT, _:
                await self._bisect(group, error)
            case Failure.TRANSIENT, Relief.FEWER_IN_FLIGHT:
                # The server has no thread left. Smaller batches would be more calls; and it is there, so this is no
                # outage however often it happens.
                self._caps.fewer_in_flight(now)
                self._busy_in_a_row += 1
                self._again(group, now)
            case Failure.TRANSIENT, Relief.SMALLER_MEMORY | Relief.FEWER_BYTES if len(group.entries) > 1:
                self._caps.fewer_tokens(now)
                self._again(group, now)
            case _:
                self._suspects.append(group)
                self._fault = self._fault or error

    def _again(self, group: _Group, now: float) -> None:
        """Put the windows back to be batched anew under the lowered caps, after a pause."""
        self._observer.model_retried()
        for entry in group.entries:
            self._entries[entry.pending.id] = entry
            self._queue.add(entry.pending)
        pause = min(self.BACKOFF_LIMIT, self.BACKOFF_FIRST * 2 ** min(self._busy_in_a_row, 10))
        self._not_before = now + random.uniform(pause / 2, pause)  # noqa: S311 - jitter, not cryptography

    def _by_itself(self, group: _Group, pause: float = 0.0) -> None:
        """Send these windows again, together and with nobody else."""
        self._observer.model_retried()
        group.not_before = self._clock() + pause
        self._retries.append(group)

    async def _bisect(self, group: _Group, error: ServingError) -> None:
        """Halve the batch until the guilty windows are alone, each half in a call of its own."""
        if len(group.entries) > 1:
            self._halve(group)
            return
        try:
            await self._probe(group.length)
        except ServingError as probe:
            if probe.relief is Relief.FEWER_IN_FLIGHT:
                self._by_itself(group, self.BACKOFF_FIRST)
                return
            # The server refuses what it must accept, so the window is not to blame.
            self._suspects.append(group)
            if probe.failure is not Failure.TRANSIENT:
                what = f"a known-good window is refused: {probe.message}"
                probe = ServingError(Failure.DEPLOYMENT, probe.code, what)
            self._fault = probe
            self._set_state(probe)
        else:
            self._refuse(group, WindowRefused("BatchFault", error, group.suspicion.attempts + 1))

    def _halve(self, group: _Group) -> None:
        """Two groups that start without suspicion: what a crowd did says nothing about one window of it."""
        middle = (len(group.entries) + 1) // 2
        for half in (group.entries[:middle], group.entries[middle:]):
            self._by_itself(_Group(half, last_error=group.last_error))

    @staticmethod
    def _refuse(group: _Group, refused: WindowRefused) -> None:
        for entry in group.entries:
            if not entry.future.done():
                entry.future.set_exception(refused)

    async def _recover(self, fault: ServingError) -> None:
        """Send nothing but a known-good window, with growing pauses, until it is answered."""
        failures = refused_busy = 0
        while True:
            pause = min(self.BACKOFF_LIMIT, self.BACKOFF_FIRST * 2 ** min(failures + refused_busy, 10))
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter, not cryptography
            try:
                await self._probe(max((s.length for s in self._suspects if len(s.entries) == 1), default=0))
            except ServingError as error:
                if error.relief is Relief.FEWER_IN_FLIGHT:
                    refused_busy += 1
                    continue
                failures += 1
                self._set_state(error)
            else:
                break
        self._fault = None
        suspects, self._suspects = self._suspects, []
        for suspect in suspects:
            if failures:
                suspect.suspicion.outage()
            self._settle(suspect, fault, server_was_healthy=not failures)
        if self.state is not State.OK:
            self.state = State.OK
            self._on_state(State.OK, None)

    def _settle(self, suspect: _Group, fault: ServingError, *, server_was_healthy: bool) -> None:
        """What becomes of windows that failed, now that the server answers."""
        if len(suspect.entries) > 1:
            self._halve(suspect)
            return
        if server_was_healthy:
            error = suspect.last_error or fault
            final = self._timeout.seconds(suspect.length) >= CallTimeout.CEILING
            reason = suspect.suspicion.failed_alone(error.code, deadline_final=final)
            if reason is not None:
                self._refuse(suspect, WindowRefused(reason, error, suspect.suspicion.attempts))
                return
        self._by_itself(suspect, suspect.suspicion.pause(self.BACKOFF_FIRST, self.BACKOFF_LIMIT))

    def _set_state(self, error: ServingError) -> None:
        state = State.OUTAGE if error.failure is Failure.TRANSIENT else State.DEPLOYMENT_FAULT
        if state is not self.state:
            self.state = state
            self._on_state(state, error)
