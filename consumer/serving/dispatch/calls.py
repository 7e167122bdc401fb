"""Calls to one server with their timeouts and metrics, and health probes, which tell a bad window from a bad server.

One ``ModelCalls`` belongs to one endpoint. The dispatcher makes calls for windows that somebody waits for (``work``);
the probes are made by outage recovery, the review of rejections and poison isolation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from consumer.batching.policy import ASSUMED, Call, CallTimeout
from consumer.batching.queue import PADDED_LENGTHS, padded_length
from consumer.resilience.crash_evidence import ServerUptime
from consumer.serving.protocol import Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.batching.policy import CallCost
    from consumer.extraction.window import Window
    from consumer.serving.dispatch.batch import Group
    from consumer.serving.protocol import Answer, ModelClient
    from consumer.serving.refused import DispatchObserver


PROBE_AGAIN_SECONDS = 3.0
"""A probe that is not answered for so long is made again beside the one that waits, if a server is waited for: a call
that was lost, with its connection or behind a proxy, is never answered, and its timeout may be two minutes."""

MOST_REPEATED = 2
BESIDE = 4
REPEATS = 3
"""``ModelCalls.repeat`` makes so many failed calls again beside so many short ones, so often. A server without batching
computes them in milliseconds each; with it, the third call at once waits for a thread together with the next one."""

FOREIGN_TRIES, FOREIGN_SECONDS = 8, 2.0
"""Calls of the same windows, where several bundles are tried, before answers of another version than this bundle's stop
the sending: behind one address that is balanced call by call, half of the model servers may have the other version for
a while. Eight calls in a row meet those once in 256 times; without a second try a worker did 0.2 events a second then,
with eight 128, and 320 where all servers had one version. After so many seconds none is begun: where all servers have
the other version each try only holds the events up, and a canary's call must not seem to hang
(``resilience.canary.HUNG_SECONDS``)."""


@dataclass(slots=True)
class Learned:
    """What the answers of one endpoint say about all of them."""

    cost: CallCost = ASSUMED
    canaries: dict[int, Window] = field(default_factory=dict)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    """How many times their cost the last calls took."""

    def measured(self, cost: CallCost) -> None:
        """Calls were measured just now, and cost so much."""
        self.cost = cost
        self.rates.clear()
        self.rates.append(1.0)


class ModelCalls:
    """Every call to one endpoint. Raises ServingError where the client does.

    Keeps the canary windows: the last real window that any endpoint answered of each padded length, 28 at most, some
    6 KB each. The probe window is short and of one kind; a model that was swapped for a broken one may answer it and
    yet reject what it, or another server, answered a minute ago. A call with that canary window shows such a model at
    the first window that fails.
    """

    def __init__(
        self,
        client: ModelClient,
        probe_window: Window,
        model: str,
        observer: DispatchObserver,
        clock: Callable[[], float],
        address: str = "",
        learned: Learned | None = None,
    ) -> None:
        """``observer``, ``clock`` and ``learned`` are those of the dispatcher and all its parts."""
        self.client = client
        self.address = address
        self.probe_window = probe_window
        self._model = model
        self.tries = 1
        """How often, at most, windows that somebody waits for are sent while the answers are another version's."""
        self.observer = observer
        self.clock = clock
        self._learned = learned or Learned()
        self._timeout = CallTimeout(self._learned.rates)
        self._canaries = self._learned.canaries
        self.uptime = ServerUptime()
        self.in_flight: dict[Group, Call] = {}
        """Calls of windows that somebody waits for, by their groups, in the order in which they were sent."""
        self.version: str | None = None
        """The model version that answered last; None before the first answer."""
        self.ended_at = clock()
        """When the last call ended."""
        self.answered = self.failed = 0
        """Calls that did, health probes included."""

    def measured(self) -> None:
        """Calls were measured just now: what they took of another cost says nothing."""
        self._timeout = CallTimeout(self._learned.rates)

    def begin(self, group: Group, length: int) -> None:
        """A call of ``group``, padded to ``length`` tokens, is in flight from now on; whoever began it takes it out."""
        self.in_flight[group] = Call(len(group.entries), length, self.clock())

    async def work(
        self, windows: Sequence[Window], length: int, timeout_factor: float, *, isolated: bool = False
    ) -> Answer:
        """Windows that somebody waits for, padded to ``length`` tokens.

        Only these calls are measured for the timeout: a probe is small, and its success proves no timeout too long.
        ``timeout_factor`` multiplies it. ``isolated``: no other call is in flight, so if the server goes away now, it
        was in this one.
        """
        tries, until = self.tries, self.clock() + FOREIGN_SECONDS
        while True:
            try:
                answer = await self._predict(windows, length, timeout_factor, isolated=isolated)
                break
            except ServingError as error:
                if error.code == "DEADLINE_EXCEEDED":
                    self._timeout.missed()
                tries -= 1
                is_foreign = error.failure is Failure.DEPLOYMENT and error.code in ("CONTRACT", "INVALID_ARGUMENT")
                if not (is_foreign and tries and self.clock() < until):
                    raise
        self._timeout.observe(self._learned.cost.seconds(len(windows), length), answer.seconds)
        for window in windows:
            if window is not self.probe_window:
                self._canaries[padded_length(window.length)] = window
        return answer

    async def probe(self, length: int, canary: Window | None = None) -> None:
        """A health probe: the probe window, with ``canary`` beside it, padded to ``length`` to cost what others cost.

        A model that rejects it does not fit this worker: what the client calls a batch fault is a deployment fault.
        """
        windows = [self.probe_window] if canary is None else [self.probe_window, canary]
        try:
            await self._predict(windows, max(length, *(padded_length(window.length) for window in windows)))
        except ServingError as error:
            if error.failure is not Failure.BATCH_FAULT:
                raise
            who = "a known-good window" if canary is None else "what it answered before, or a known-good window"
            what = f"the model refuses {who}: {error.message}"
            raise ServingError(Failure.DEPLOYMENT, error.code, what) from error

    async def probe_again(self, length: int, unanswered: Callable[[ServingError], None]) -> None:
        """As ``probe``, made again and again beside the first one while that is not answered; the first answer counts.

        Calls ``unanswered`` for those that fail once the first one has waited for longer than an answer takes. Raises
        ServingError when the first one fails.
        """
        began = self.clock()
        first = asyncio.ensure_future(self.probe(length))
        try:
            while not (await asyncio.wait({first}, timeout=PROBE_AGAIN_SECONDS))[0]:
                padded = max(length, padded_length(self.probe_window.length))
                try:
                    await self._predict([self.probe_window], padded, longest=PROBE_AGAIN_SECONDS)
                except ServingError as error:
                    if self.clock() - began >= CallTimeout.FLOOR:
                        unanswered(error)
                else:
                    return
            first.result()
        finally:
            first.cancel()

    async def repeat(self, groups: Sequence[Group]) -> None:
        """A health probe with failed calls as they were and short ones of other lengths, at once.

        It finds what a single short call cannot: a limit on rows, and batching on the server, which mixes calls that
        arrive together and fails them for their different lengths. Windows that are rejected for themselves pass.
        Answers are discarded.
        """
        calls = [([entry.window for entry in group.entries], group.length) for group in groups[:MOST_REPEATED]]
        shortest, used = padded_length(self.probe_window.length), {length for _, length in calls}
        lengths = [length for length in PADDED_LENGTHS if length >= shortest and length not in used]
        calls += [([self.probe_window], length) for length in lengths[:BESIDE]]
        for _ in range(REPEATS):
            for result in await asyncio.gather(*(self._predict(*call) for call in calls), return_exceptions=True):
                if isinstance(result, ServingError) and (
                    result.failure is Failure.BATCH_FAULT or result.relief is Relief.FEWER_IN_FLIGHT
                ):
                    continue
                if isinstance(result, BaseException):
                    raise result

    async def probe_with(self, window: Window) -> None:
        """A health probe with this window alone; its answer is discarded."""
        await self._predict([window], padded_length(window.length))

    def canary(self, length: int) -> Window | None:
        """A canary window of padded length ``length`` or as little longer as there is, else the longest; None for none.

        A longer one shows more: a limit on length that stops a short window stops it too.
        """
        longer = [known for known in self._canaries if known >= length]
        at = min(longer) if longer else max(self._canaries, default=None)
        return None if at is None else self._canaries[at]

    def timeout_is_final(self, length: int, timeout_factor: float) -> bool:
        """Whether a call of one window, padded to ``length`` tokens, already gets the longest timeout."""
        return self._seconds(1, length, timeout_factor) >= CallTimeout.CEILING

    def _seconds(self, rows: int, length: int, timeout_factor: float) -> float:
        cost = self._learned.cost.seconds(rows, length)
        return min(CallTimeout.CEILING, timeout_factor * self._timeout.seconds(cost))

    async def _predict(
        self,
        windows: Sequence[Window],
        length: int,
        timeout_factor: float = 1.0,
        *,
        isolated: bool = False,
        longest: float = CallTimeout.CEILING,
    ) -> Answer:
        started = self.clock()
        timeout = min(longest, self._seconds(len(windows), length, timeout_factor))
        try:
            answer = await self.client.predict(windows, length, timeout)
        except ServingError as error:
            self.ended_at = self.clock()
            self.failed += 1
            # A server that is alive has answered the others.
            if error.failure is Failure.TRANSIENT and error.code != "RESOURCE_EXHAUSTED":
                self.uptime.failed(self.ended_at, isolated=isolated)
            self.observer.model_called(self._model, self.version or "", error.code, self.ended_at - started)
            raise
        self.ended_at = self.clock()
        self.answered += 1
        if self.uptime.watched:
            real = sum(window is not self.probe_window for window in windows)
            self.uptime.answered(started, self.ended_at, real)
        self.version = answer.model_version
        self.observer.model_called(answer.model_name, answer.model_version, "OK", answer.seconds)
        return answer
