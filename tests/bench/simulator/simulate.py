"""Runs one policy on one trace against simulated servers: discrete events, no real clock, the same for the same seed.

The client is the worker in outline: at most 2,000 events in flight, of which each lane has a share as if it were a
topic, the windows of a level handed to the policy together, those of the next level once all of them were answered, a
bound on the tokens that one event has there, and one thread that prepares calls one after the other. A policy sees its
windows, its calls in flight and their round trips, which contain preparation, network and whatever waits at the server;
never the server itself.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from bench.simulator.outcome import Outcome
from bench.simulator.server import Server, Slowdown
from bench.simulator.trace import WINDOW_TOKENS

from consumer.batching.policy import ASSUMED, full_rows
from consumer.batching.queue import PADDED_LENGTHS, EventShare, Pending, event_deadline, padded_length

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from bench.simulator.server import Profile
    from bench.simulator.trace import Event

    from consumer.batching.policy import Batch, CallCost, Decision

MAX_TOKENS: Final = 16_384
"""Padded tokens of a call at most: what the servers were warmed up for, ``batching.max_tokens``."""
MAX_CALLS: Final = 4
"""Calls in flight for each server at most. TensorFlow Serving refuses what exceeds its threads."""
EVENT_TOKENS: Final = 3 * MAX_TOKENS
"""Of one event's windows at the policy, as in ``worker/lifecycle.py``: a call more than two in flight."""
EVENTS: Final = 2_000
"""``limits.in_flight_events``. Half of it is divided among the lanes, the rest is for whoever comes first."""
OBJECTIVE: Final = 1.0
"""``batching.latency_objective_ms`` in seconds; orders the work."""
DELAY: Final = 0.0007
"""Seconds on the network, each way."""
CALL_SECONDS: Final = 0.0008
ROW_SECONDS: Final = 0.00004
"""What the client's thread takes to prepare a call, and more for each row of it."""
OTHERS_CALL: Final = (16, 96)
"""Rows and padded length of a call of other clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What the worker and its network take, in seconds, and its limits in tokens."""

    delay: float = DELAY
    call_seconds: float = CALL_SECONDS
    row_seconds: float = ROW_SECONDS
    max_tokens: int = MAX_TOKENS
    event_tokens: int = EVENT_TOKENS
    cost: CallCost = ASSUMED
    """Of calls, as the worker knows it."""


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call in flight, as the client knows it. ``sent_at`` is when the policy decided."""

    batch: Batch
    sent_at: float


class Policy(Protocol):
    """Decides which windows share a call and when it leaves.

    One that also has ``failed(call)`` chooses the server, ``batch.endpoint``, and is told by a call that failed there
    that it is lost. Calls of the others take turns among the servers that are there, as behind a balancer.
    """

    def add(self, window: Pending) -> None:
        """A window waits: a new one, or one whose call failed."""

    def decide(self, now: float, calls: Collection[Call]) -> Decision:
        """What to send at ``now`` beside the calls in flight; asked whenever the client learns something."""

    def answered(self, call: Call, now: float) -> None:
        """The answer of a call has arrived."""


class PolicyError(Exception):
    """A policy did what no policy may."""


class Lost(NamedTuple):
    """From ``at`` on this server is gone."""

    at: float
    server: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """What the calls go to."""

    profile: Profile
    count: int = 1
    slow: Slowdown | None = None
    """Of the first server."""
    lost: Lost | None = None
    others: float = 0.0
    """Share of each server's time that calls of other clients take."""

    @property
    def max_calls(self) -> int:
        """Calls that a client may have in flight."""
        return MAX_CALLS * self.count


Kind = Literal["reaches", "answered", "failed", "others", "lost"]


@dataclass(slots=True, eq=False)
class _Run:
    """An event in flight."""

    event: Event
    deadline: float
    level: int = -1
    unsent: deque[int] = field(default_factory=deque)
    waiting: int = 0
    tokens: int = 0
    """Of its windows at the policy or at a server."""
    sent: int = 0
    """Tokens of all windows that it ever handed over."""
    windows: int = 0
    """Of all levels that it began."""


class Simulation:
    """One run, from the first arrival to the last answer."""

    def __init__(
        self, servers: Servers, events: Sequence[Event], policy: Policy, seed: int, client: Client | None = None
    ) -> None:
        """``events`` in order of arrival; ``seed`` draws the servers' noise and the calls of others."""
        self._servers = servers
        self._events = events
        self._policy = policy
        self._client = client or Client()
        full = self._client.max_tokens
        call = self._client.cost.seconds(full_rows(full, WINDOW_TOKENS), WINDOW_TOKENS)
        self._share = EventShare(full, OBJECTIVE, call)
        self._failed: Callable[[Call], None] | None = getattr(policy, "failed", None)
        self._machines = [
            Server(servers.profile, random.Random(f"{seed} server {number}"), None if number else servers.slow)
            for number in range(servers.count)
        ]
        self._changes = [math.inf] * servers.count
        self._alive = list(range(servers.count))
        self._others_rng = random.Random(f"{seed} others")
        self._heap: list[tuple[float, int, Kind, int]] = []
        self._order = 0
        self._turn = 0
        self._ready = 0.0
        self._arriving: dict[str, deque[Event]] = {}
        for event in events:
            self._arriving.setdefault(event.lane, deque()).append(event)
        self._in_flight = dict.fromkeys(self._arriving, 0)
        self._now = 0.0
        self._runs: dict[int, _Run] = {}
        self._owners: dict[int, _Run] = {}
        self._waiting: dict[int, Pending] = {}
        self._over_share: Counter[str] = Counter()
        self._calls: dict[int, Call] = {}
        self._at: dict[int, int] = {}
        self._window = 0
        self._call = 0
        self._answered = self._useful = self._padded = 0
        self._latencies: list[float] = []
        self._large: list[float] = []

    def run(self) -> Outcome:
        """Every window answered. Raises PolicyError."""
        if self._servers.others:
            for number in self._alive:
                self._next_of_others(number)
        if (lost := self._servers.lost) is not None:
            self._push(lost.at, "lost", lost.server)
        wake_at: float | None = None
        while len(self._latencies) + len(self._large) < len(self._events):
            at = min(self._next_arrival()[0], self._heap[0][0] if self._heap else math.inf, *self._changes)
            if wake_at is not None and wake_at < at:
                at = wake_at
            if at == math.inf or not (self._calls or wake_at is not None or self._next_arrival()[0] < math.inf):
                raise PolicyError(f"{len(self._waiting)} windows wait and nothing is going to send them")
            self._now = at
            learned = wake_at is not None and wake_at <= at
            for number, change in enumerate(self._changes):
                if change <= at:
                    self._advance(number)
            while self._heap and self._heap[0][0] <= at:
                _, _, kind, what = heapq.heappop(self._heap)
                learned |= self._happen(kind, what)
            while (arrival := self._next_arrival())[0] <= at:
                self._admit(self._arriving[arrival[1]].popleft())
                learned = True
            if learned:
                wake_at = self._ask()
        seconds = self._now - self._events[0].at
        return Outcome(
            tuple(self._latencies),
            tuple(self._large),
            seconds,
            self._answered,
            self._call,
            self._useful,
            self._padded,
        )

    # -- what happens ---------------------------------------------------------------------------------------------

    def _happen(self, kind: Kind, what: int) -> bool:
        """Whether the client learns of it."""
        match kind:
            case "reaches":
                server = self._at[what]
                if server not in self._alive:
                    self._push(self._now + self._client.delay, "failed", what)
                else:
                    self._advance(server)
                    batch = self._calls[what].batch
                    self._machines[server].arrive(self._now, what, len(batch.windows), batch.padded_length)
                    self._changes[server] = self._machines[server].next_change()
                return False
            case "answered":
                call = self._calls.pop(what)
                self._policy.answered(call, self._now)
                for window in call.batch.windows:
                    self._answer(window)
                return True
            case "failed":
                call = self._calls.pop(what)
                if self._failed is not None:
                    self._failed(call)
                for window in call.batch.windows:
                    self._hand_over(window)
                return True
            case "others":
                if what in self._alive:
                    self._advance(what)
                    self._machines[what].arrive(self._now, -1, *OTHERS_CALL)
                    self._changes[what] = self._machines[what].next_change()
                    self._next_of_others(what)
                return False
            case "lost":
                self._advance(what)
                self._alive.remove(what)
                for number in self._machines[what].lose():
                    if number > 0:
                        self._push(self._now + self._client.delay, "failed", number)
                self._changes[what] = math.inf
                return False

    def _advance(self, server: int) -> None:
        for number in self._machines[server].advance(self._now):
            if number > 0:
                self._push(self._now + self._client.delay, "answered", number)
        self._changes[server] = self._machines[server].next_change()

    def _next_of_others(self, server: int) -> None:
        mean = self._servers.profile.seconds(*OTHERS_CALL) / self._servers.others
        self._push(self._now + self._others_rng.expovariate(1 / mean), "others", server)

    def _push(self, at: float, kind: Kind, what: int) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, kind, what))

    # -- events ---------------------------------------------------------------------------------------------------

    def _next_arrival(self) -> tuple[float, str]:
        """When the next event can be taken, and its lane: not before it arrives, and not above its lane's bound."""
        own = EVENTS // (2 * len(self._arriving))
        lent = sum(max(0, count - own) for count in self._in_flight.values())
        can_be_taken = [
            (max(self._now, events[0].at), lane)
            for lane, events in self._arriving.items()
            if events and (self._in_flight[lane] < own or lent < EVENTS // 2)
        ]
        return min(can_be_taken, default=(math.inf, ""))

    def _admit(self, event: Event) -> None:
        deadline = event_deadline(
            int(event.at * 1000), fetched_wall=self._now, fetched_at=self._now, objective=OBJECTIVE
        )
        run = _Run(event, deadline)
        self._runs[id(run)] = run
        self._in_flight[event.lane] += 1
        self._go_on(run)

    def _go_on(self, run: _Run) -> None:
        """Hand over what an event may, level after level; it is done after the last."""
        while not (run.unsent or run.waiting):
            run.level += 1
            if run.level == len(run.event.levels):
                del self._runs[id(run)]
                self._in_flight[run.event.lane] -= 1
                (self._latencies if run.event.ordinary else self._large).append(self._now - run.event.at)
                return
            run.unsent.extend(run.event.levels[run.level])
            run.windows += len(run.unsent)
        while run.unsent and run.tokens < self._client.event_tokens:
            length = run.unsent.popleft()
            is_over = self._share.is_over(run.sent)
            deadline = run.deadline
            if is_over:
                lane = self._over_share[run.event.lane]
                deadline = self._share.deadline(deadline, self._now, run.tokens, run.windows, lane)
            run.waiting += 1
            run.tokens += length
            run.sent += length
            self._window += 1
            self._owners[self._window] = run
            self._hand_over(Pending(self._window, length, deadline, run.level, self._now, run.event.lane, is_over))

    def _hand_over(self, window: Pending) -> None:
        self._waiting[window.id] = window
        self._over_share[window.lane] += padded_length(window.length) * window.over_share
        self._policy.add(window)

    def _answer(self, window: Pending) -> None:
        run = self._owners.pop(window.id, None)
        if run is None:
            raise PolicyError(f"window {window.id} was answered twice")
        self._answered += 1
        run.waiting -= 1
        run.tokens -= window.length
        self._go_on(run)

    # -- the policy -----------------------------------------------------------------------------------------------

    def _ask(self) -> float | None:
        """Send what the policy decides; when to ask again."""
        decision = self._policy.decide(self._now, self._calls.values())
        for batch in decision.batches:
            self._send(batch)
        if decision.wake_at is not None and decision.wake_at <= self._now:
            raise PolicyError(f"asked at {self._now}, the policy wants to be asked again at {decision.wake_at}")
        return decision.wake_at

    def _send(self, batch: Batch) -> None:
        self._check(batch)
        self._call += 1
        self._useful += sum(window.length for window in batch.windows)
        self._padded += len(batch.windows) * batch.padded_length
        self._calls[self._call] = Call(batch, self._now)
        if self._failed is not None:
            self._at[self._call] = batch.endpoint
        else:
            self._at[self._call] = self._alive[self._turn % len(self._alive)]
            self._turn += 1
        took = self._client.call_seconds + self._client.row_seconds * len(batch.windows)
        self._ready = max(self._now, self._ready) + took
        self._push(self._ready + self._client.delay, "reaches", self._call)

    def _check(self, batch: Batch) -> None:
        """Raises PolicyError; takes the windows out of those that wait."""
        rows, length = len(batch.windows), batch.padded_length
        if not rows or length not in PADDED_LENGTHS:
            raise PolicyError(f"a call of {rows} windows padded to {length} tokens")
        if rows > 1 and rows * length > self._client.max_tokens:
            raise PolicyError(f"a call of {rows} x {length} tokens, more than {self._client.max_tokens}")
        if len(self._calls) >= self._servers.max_calls:
            raise PolicyError(f"a call beside {len(self._calls)} in flight")
        for window in batch.windows:
            if (known := self._waiting.pop(window.id, None)) is None:
                raise PolicyError(f"window {window.id} was sent and does not wait")
            # Of the lane that it came in: a policy that knows none may name another.
            self._over_share[known.lane] -= padded_length(known.length) * known.over_share
            if window.length > length:
                raise PolicyError(f"a window of {window.length} tokens in a call padded to {length}")
