"""A dispatcher in virtual time before several model servers that die, hang, do not fit and come back as they are told.

Every call is checked: no window whose call broke off at one server may reach another one before that is back, or has
been away for a minute, ten where it broke off more than once, and then with no other call in flight there; and never a
third.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import virtual_time
from cells import cells_of
from dispatcher_harness import BATCH_FAULT, KNOWN_GOOD, WRONG_SIGNATURE, Observer, window

from consumer.batching.policy import LeastTime
from consumer.serving.dispatch.dispatcher import Dispatcher, State
from consumer.serving.dispatch.outage import PAUSES
from consumer.serving.dispatch.transfers import HELD_AGAIN_SECONDS, HELD_SECONDS
from consumer.serving.protocol import Answer, Failure, Relief, ServingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from consumer.extraction.window import Window

UNREACHED = ServingError(
    Failure.TRANSIENT, "UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN: Connection refused"
)
BROKEN = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "Socket closed")
BUSY = ServingError(Failure.TRANSIENT, "RESOURCE_EXHAUSTED", "", Relief.FEWER_IN_FLIGHT)
LATE = ServingError(Failure.TRANSIENT, "DEADLINE_EXCEEDED", "Deadline Exceeded")

Mode = Literal["up", "down", "hangs", "busy", "misfit", "rejects"]


class Server:
    """One model server, up at first. ``seconds`` a call; ``restart`` seconds after it died it is back, or never."""

    def __init__(self, cluster: Cluster, address: str, restart: float | None = 3.0) -> None:
        self.cluster = cluster
        self.address = address
        self.restart = restart
        self.seconds = 0.02
        self.version = "1"
        self.mode: Mode = "up"
        self.deaths = 0
        self.died_at = 0.0
        self.calls: list[list[int]] = []
        self.closed = False
        self.in_flight = 0
        self._ended = asyncio.Event()

    def die(self) -> None:
        """All its calls break off."""
        self.mode, self.died_at = "down", self.cluster.now()
        self.deaths += 1
        self._ended.set()
        self._ended = asyncio.Event()
        if self.restart is not None:
            asyncio.get_running_loop().call_later(self.restart, setattr, self, "mode", "up")

    def mend(self) -> None:
        """Unless it has died since."""
        if self.mode != "down":
            self.mode = "up"

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:  # noqa: ARG002
        assert not self.closed
        marks = [int(w.input_ids[0]) for w in windows]
        if self.mode == "down":
            await asyncio.sleep(0)
            raise UNREACHED
        self.cluster.check(self, marks)
        self.calls.append(marks)
        self.in_flight += 1
        try:
            return await self._answer(marks, timeout)
        finally:
            self.in_flight -= 1

    async def _answer(self, marks: list[int], timeout: float) -> Answer:
        ended = self._ended
        try:
            async with asyncio.timeout(timeout if self.mode == "hangs" else self.seconds):
                await ended.wait()
        except TimeoutError:
            if self.mode == "hangs":
                self.cluster.answered(marks)
                raise LATE from None
        if not ended.is_set() and self.cluster.poison.intersection(marks):
            self.die()
        if ended.is_set():
            self.cluster.broke_off(self, marks)
            raise BROKEN
        self.cluster.answered(marks)
        if self.mode == "busy":
            raise BUSY
        if self.mode == "misfit":
            raise WRONG_SIGNATURE
        if self.mode == "rejects" and marks != [KNOWN_GOOD]:
            raise BATCH_FAULT
        return Answer(tuple(cells_of({(m, 0): 1.0}) for m in marks), "m", self.version, "serving_default", self.seconds)

    async def ready(self) -> bool:
        return self.mode == "up"

    async def close(self) -> None:
        self.closed = True


class Cluster:
    """Three servers, their dispatcher, and what it reported. ``poison``: marks of windows that end a server."""

    def __init__(self, restart: float | None = 3.0, count: int = 3, jitter: int = 0) -> None:
        """``jitter`` is the seed of the dispatcher's pauses, so that a run can be repeated."""
        self.servers = [Server(self, f"{name}:1", restart) for name in "abcdef"[:count]]
        self.poison: set[int] = set()
        self.states: list[tuple[State, str]] = []
        self.reports: list[tuple[str, str]] = []
        self._broke_at: dict[int, list[Server]] = {}
        self._broke_last: dict[int, float] = {}
        self.observer = Observer()
        self.dispatcher = Dispatcher(
            {server.address: server for server in self.servers},
            LeastTime(16_384, 2),
            window(KNOWN_GOOD),
            "m",
            self.observer,
            lambda state, error: self.states.append((state, error.message if error else "")),
            self.now,
            backoff=replace(PAUSES, uniform=random.Random(jitter).uniform),
            on_endpoint=lambda address, reason: self.reports.append((address, reason)),
        )

    def __getitem__(self, name: str) -> Server:
        return next(server for server in self.servers if server.address == f"{name}:1")

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def connect(self, address: str) -> Server:
        """A server that is new."""
        self.servers.append(Server(self, address))
        return self.servers[-1]

    def check(self, server: Server, marks: list[int]) -> None:
        """Whether these windows may meet this server now."""
        for mark in set(marks) - {KNOWN_GOOD}:
            before = self._broke_at.get(mark, [])
            if not before or server in before:
                continue
            assert len(set(before)) == 1, f"{mark} took two servers and meets a third"
            # Not since that server last died: it may have come back and died again before a health probe saw it.
            held = self.now() - self._broke_last[mark]
            assert held >= HELD_SECONDS, f"{mark} meets a second server"
            assert len(before) == 1 or held >= HELD_AGAIN_SECONDS, f"{mark} does so soon"
            assert server.in_flight == 0, "isolated"

    def broke_off(self, server: Server, marks: list[int]) -> None:
        for mark in set(marks) - {KNOWN_GOOD}:
            self._broke_at.setdefault(mark, []).append(server)
            self._broke_last[mark] = self.now()

    def answered(self, marks: list[int]) -> None:
        """Or failed, and the server lives: they are suspected of nothing any more."""
        for mark in marks:
            self._broke_at.pop(mark, None)

    def status(self, name: str) -> str:
        """The state that people see."""
        return next(each.state for each in self.dispatcher.endpoints if each.address == f"{name}:1")


def run_cluster(
    body: Callable[[Cluster], Awaitable[None]], restart: float | None = 3.0, count: int = 3, jitter: int = 0
) -> Cluster:
    """Run ``body`` beside a dispatcher before so many servers, the same each time."""

    async def main() -> Cluster:
        cluster = Cluster(restart, count, jitter)
        pump = asyncio.create_task(cluster.dispatcher.pump())
        try:
            await asyncio.sleep(0.5)  # the first health probes
            async with asyncio.timeout(2000):
                await body(cluster)
            assert not pump.done()
        finally:
            pump.cancel()
        return cluster

    return virtual_time.run(main())
