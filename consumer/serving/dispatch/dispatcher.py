"""Sends windows to the model servers: asks the policy for batches, calls the model, and hands the answers over.

Runs on one event loop; nothing here is thread-safe. A window that was handed in is answered, refused with the reason,
or still waiting: it is never dropped, and an unreachable model server refuses nothing. ``docs/fault-isolation.md``
describes what happens when calls fail; the parts are ``endpoint`` (one server), ``decisions`` (which action follows a
failure), ``outage``, ``rejections``, ``poison_isolation`` and, between several endpoints, ``transfers``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consumer.batching.pinned import Pinned, drained
from consumer.batching.policy import Load
from consumer.batching.queue import LANE, LengthQueue, by_lane
from consumer.serving.dispatch.batch import Entry, Group
from consumer.serving.dispatch.calls import FOREIGN_TRIES, Learned, ModelCalls
from consumer.serving.dispatch.endpoint import Endpoint, EndpointStatus, together
from consumer.serving.dispatch.outage import IDLE_SECONDS, PAUSES
from consumer.serving.dispatch.transfers import transfer
from consumer.serving.protocol import ServingError
from consumer.serving.refused import State, WindowAnswer, WindowRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Hashable, Iterable, Mapping

    from consumer.batching.policy import CallCost, LeastTime, ReleaseReason
    from consumer.extraction.window import Window
    from consumer.resilience.backoff import Backoff
    from consumer.serving.protocol import Answer, ModelClient
    from consumer.serving.refused import DispatchObserver

__all__ = ["Dispatcher", "State", "WindowAnswer", "WindowRefused"]


class Dispatcher:
    """Owns the queue of windows and every call to the model servers."""

    def __init__(
        self,
        clients: Mapping[str, ModelClient],
        policy: LeastTime,
        probe_window: Window,
        model: str,
        observer: DispatchObserver,
        on_state: Callable[[State, ServingError | None], None],
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
        on_endpoint: Callable[[str, str], None] = lambda address, reason: None,  # noqa: ARG005
        lanes: Mapping[str, float] | None = None,
        *,
        trial: bool = False,
    ) -> None:
        """``clients`` are one or more, by address. ``probe_window`` is a window that any healthy model answers.

        ``model`` is the configured name, for calls that fail before any answer has named it. ``on_state`` is called
        when sending stops, since every endpoint has an outage or a deployment fault, and when it goes on; of several,
        ``on_endpoint`` with one's address and why it cannot be used, or nothing when it can. ``clock`` is the loop's,
        ``lanes`` the weights of all lanes. ``trial``: also a single endpoint is tried out before it gets a window.
        """
        self._policy, self._clock = policy, clock
        self._probe_window, self._model, self._observer = probe_window, model, observer
        self._on_state, self._on_endpoint = on_state, on_endpoint
        self._backoff = backoff or PAUSES
        self._queue, self.pinned = (queue := LengthQueue(lanes)), Pinned(policy, lanes, queue.over_share)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last_id, self._wake = 0, asyncio.Event()
        self._defect: BaseException | None = None
        self._trial, self.learned, self.over_share = trial, Learned(policy.cost), queue.over_share
        self.state = State.OK
        """Whether windows are being sent."""
        self._endpoints: dict[str, Endpoint] = {}
        self._add(clients)

    @property
    def addresses(self) -> Collection[str]:
        """Of every endpoint that is not closed."""
        return self._endpoints.keys()

    @property
    def endpoints(self) -> list[EndpointStatus]:
        """Every endpoint at this moment."""
        return [endpoint.status for endpoint in self._endpoints.values()]

    @property
    def servers(self) -> Collection[Endpoint]:
        """The endpoints themselves."""
        return self._endpoints.values()

    def costs(self, cost: CallCost) -> None:
        """Expect calls to cost so much from now on."""
        self._policy.cost = cost
        self.learned.measured(cost)
        for endpoint in self._endpoints.values():
            endpoint.costs(cost)

    def resolved(self, addresses: Collection[str], connect: Callable[[str], ModelClient]) -> None:
        """``addresses``, one at least, are those of the model servers now; ``connect`` makes the client of a new one.

        An endpoint whose address is not among them gets no new windows, and is closed once it holds none. Raises what
        ``connect`` raises; nothing has changed then.
        """
        new = {address: connect(address) for address in addresses if address not in self._endpoints}
        for address, endpoint in self._endpoints.items():
            endpoint.gone = address not in addresses
        self._add(new)
        self._report(None)

    def _add(self, clients: Mapping[str, ModelClient]) -> None:
        trial = self._trial or len(clients) + len(self._endpoints) > 1
        for address, client in clients.items():
            endpoint = self._endpoints[address] = Endpoint(
                ModelCalls(client, self._probe_window, self._model, self._observer, self._clock, address, self.learned),
                self._policy,
                self._backoff,
                trial=trial,
                spawn=self._spawn,
                call=lambda endpoint, group, reason: self._call(endpoint, group, group.length, reason),
                enqueue=self._enqueue,
                elsewhere=lambda one: any(each.usable for each in self._endpoints.values() if each is not one),
                on_state=self._endpoint_state,
            )
            endpoint.calls.tries = FOREIGN_TRIES if self._trial else 1
            if trial:
                self._spawn(endpoint.try_out(), ())

    def _endpoint_state(self, endpoint: Endpoint, error: ServingError | None) -> None:
        if len(self._endpoints) > 1:
            self._on_endpoint(endpoint.address, endpoint.reason)
        self._report(error)

    def _report(self, error: ServingError | None) -> None:
        """Report the state of all together if it changed, perhaps by ``error``."""
        self._wake.set()
        state, reasons = together(self._endpoints.values(), self.state)
        if state is not self.state:
            self.state = state
            self._on_state(state, error if error and reasons and len(self._endpoints) == 1 else reasons)

    def submit(
        self,
        window: Window,
        deadline: float,
        level: int,
        origin: Hashable = None,
        lane: str = LANE,
        over_share: bool = False,
        on_overflow: Callable[[WindowAnswer], None] | None = None,
        version: str = "",
        *,
        apart: Callable[[Entry], Iterable[Entry]] | None = None,
    ) -> asyncio.Future[WindowAnswer]:
        """Queue one window; the future is answered however long that takes, or raises WindowRefused.

        ``deadline`` (seconds of the clock) only orders the work. ``origin`` is the event that the window comes from,
        None one of its own: however many of its windows are refused, it counts once. ``version``: of the model that is
        to answer, if an endpoint has it. ``apart`` gets the window first; what it returns is queued. Cancelling
        withdraws it.
        """
        self._last_id = number = self._last_id + 1
        future: asyncio.Future[WindowAnswer] = asyncio.Future()
        now, origin = self._clock(), object() if origin is None else origin
        entry = Entry(
            number, window.length, deadline, level, now, lane, over_share, version, window, future, origin, on_overflow
        )
        self._enqueue((entry,) if apart is None else apart(entry))
        return future

    async def health_probe(self) -> None:
        """Return once an endpoint answered the probe window: the model is there and fits this worker."""
        await self.submit(self._probe_window, self._clock(), 0, lane=self._queue.lanes[0])

    def forget_withdrawn(self) -> None:
        """Take those that nobody waits for out of the queue: while nothing can be sent, nothing else would."""
        waiting: list[Any] = list(drained(self._queue))
        self._enqueue(entry for entry in waiting if not entry.future.done())

    @property
    def waiting(self) -> int:
        """Windows that wait for a batch, a retry or a decision."""
        windows = len(self._queue) + self.pinned.size
        for each in self._endpoints.values():
            if each.retries or each.review.rejections or each.recovery.fault or each.isolation.active:
                windows += each.waiting
        return windows

    @property
    def in_flight(self) -> int:
        """Windows at the model servers."""
        return sum(call.rows for endpoint in self._endpoints.values() for call in endpoint.calls.in_flight.values())

    async def pump(self) -> None:
        """Send batches until cancelled. Exactly one task runs this."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._wake.clear()
                if self._defect is not None:
                    raise self._defect
                wake_at = self._send_due()
                self._observer.in_flight_windows(self.waiting + self.in_flight)
                # Not ``asyncio.timeout``, which costs 4 us more: this runs once for every few events.
                timer = None if wake_at is None else loop.call_later(wake_at - self._clock(), self._wake.set)
                await self._wake.wait()
                if timer is not None:
                    timer.cancel()
        finally:
            for task in self._tasks:
                task.cancel()

    def _send_due(self) -> float | None:
        """Send what may leave now; when to look again."""
        now = self._clock()
        times: list[float | None] = []
        if len(self._endpoints) > 1 and any(each.gone or each.recovery.fault for each in self._endpoints.values()):
            moved, again_at = transfer(self._endpoints.values(), now)
            if moved:
                self._enqueue(moved)
            times.append(again_at)
            for endpoint in [each for each in self._endpoints.values() if each.gone and not each.holds]:
                del self._endpoints[endpoint.address]
                endpoint.close()
        endpoints, loads, isolated = list(self._endpoints.values()), [], []
        for endpoint in endpoints:
            limits, takes_windows = endpoint.limits, self._ready(endpoint, now, times)
            if takes_windows and endpoint.isolation.active:
                isolated.append(endpoint.isolation)
            takes_windows = takes_windows and not (endpoint.gone or endpoint.trial)
            calls = endpoint.calls.in_flight.values()
            loads.append(Load(calls, endpoint.times, limits.max_tokens, limits.max_in_flight, takes_windows))
        if len(endpoints) > 1 or self.pinned.size:
            served = [each.calls.version if each.usable else None for each in endpoints]
            decision = self.pinned.decide(now, self._queue, loads, served)
        else:
            decision = self._policy.decide(now, self._queue, loads)
        for batch in decision.batches:
            endpoint = endpoints[batch.endpoint]
            endpoint.retry_budget.first_calls += 1
            windows: Any = batch.windows  # each is an ``Entry``
            for lane, (rows, waited) in by_lane(batch.windows, now).items():
                self._observer.lane_sent(lane, rows * batch.padded_length, waited)
            group = Group([entry for entry in windows if not entry.future.done()])
            if group.entries:
                self._spawn(self._call(endpoint, group, batch.padded_length, batch.reason), group.entries)
        if decision.batches:
            self._wake.set()  # withdrawn windows may have left a server idle
        times += [decision.wake_at, *(isolation.watch() for isolation in isolated)]
        return min((at for at in times if at is not None), default=None)

    def _ready(self, endpoint: Endpoint, now: float, times: list[float | None]) -> bool:
        """Send what waits for this endpoint, and look after it; whether it may get other windows.

        ``times`` gets when to look again.
        """
        recovery, isolation, in_flight = endpoint.recovery, endpoint.isolation, endpoint.calls.in_flight
        if recovery.fault is not None:
            if endpoint.recovering is None or endpoint.recovering.done():
                endpoint.recovering = self._spawn(self._recover(endpoint), ())
            return False
        if now < endpoint.not_before:
            times.append(endpoint.not_before)
            return False
        if isolation.active and isolation.send_next(idle=not (in_flight or endpoint.review.probing)):
            return False
        if recovery.check_at is not None and recovery.check_at <= now:
            self._spawn(recovery.check(), ())
        times.append(recovery.check_at)
        if endpoint.retries:
            times.append(endpoint.send_retries(now))
        if not (in_flight or endpoint.trial):
            if endpoint.calls.ended_at + IDLE_SECONDS <= now:
                endpoint.calls.ended_at = now
                self._spawn(recovery.check(), ())
            times.append(endpoint.calls.ended_at + IDLE_SECONDS)
        return True

    def _enqueue(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            (self.pinned if entry.version in self.pinned.versions else self._queue).add(entry)
        self._wake.set()

    def _spawn(self, work: Coroutine[Any, Any, Any], entries: Iterable[Entry]) -> asyncio.Task[Any]:
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
        return task

    async def _recover(self, endpoint: Endpoint) -> None:
        try:
            await endpoint.recover()
        except Exception as error:
            self._defect = error  # windows that nobody knows of any more: the pump ends with it, and so the worker
            raise

    def _call(self, endpoint: Endpoint, group: Group, length: int, reason: ReleaseReason) -> Coroutine[Any, Any, None]:
        """The call of a group, to be awaited. It counts as in flight from now on."""
        rows = len(group.entries)
        self._observer.batch_sent(rows, sum(entry.window.length for entry in group.entries), rows * length, reason)
        endpoint.calls.begin(group, length)
        return self._answer(endpoint, group, length, isolated=group.isolated)

    async def _answer(self, endpoint: Endpoint, group: Group, length: int, *, isolated: bool) -> None:
        windows, sent_at = [entry.window for entry in group.entries], self._clock()
        try:
            answer = await endpoint.calls.work(windows, length, group.timeout_factor, isolated=isolated)
        except ServingError as error:
            endpoint.failed(group, error, self._clock() - sent_at, isolated=isolated)
        except Exception as error:
            if not endpoint.defect(group, error):
                raise
        else:
            endpoint.times.answered(endpoint.calls.in_flight[group], self._clock())
            self._answered(endpoint, group, answer)
        finally:
            del endpoint.calls.in_flight[group]

    def _answered(self, endpoint: Endpoint, group: Group, answer: Answer) -> None:
        endpoint.busy_in_a_row = 0
        endpoint.retry_budget.answered = True
        # For speed, what handles failures is not called for a success while nothing has failed.
        if endpoint.limits.lowered:
            endpoint.limits.answered(self._clock())
        if endpoint.review.attentive or group.batch is not None:
            endpoint.review.answered(group)
        uptime = endpoint.calls.uptime
        if uptime.watched and not (endpoint.isolation.active or endpoint.recovery.fault or uptime.crashes_in_a_row):
            uptime.watched = False
        if answer.overflowed:
            self._observer.windows_overflowed(len(answer.overflowed))
        overflowed = answer.overflowed and frozenset(answer.overflowed)
        call = replace(answer, cells=())  # or one window's answer would keep those of the whole batch
        for index, (entry, cells) in enumerate(zip(group.entries, answer.cells, strict=True)):
            if not entry.future.done():
                its = WindowAnswer(cells, call, index in overflowed)
                if its.overflowed and entry.on_overflow is not None:
                    entry.on_overflow(its)
                entry.future.set_result(its)
