"""A window that ends the server at both versions costs about as many crashes as without a canary.

Both are dispatchers of their own before one server, as two labels of one model are.
"""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import virtual_time
from dispatcher_harness import KNOWN_GOOD, UNAVAILABLE, Observer, StubClient, window

from consumer.batching.policy import LeastTime
from consumer.codecs.outputs import ModelUsed
from consumer.config.canary import CanaryConfig
from consumer.events import Partition, Place, Work
from consumer.resilience.canary import FEWEST_CALLS
from consumer.resilience.crash_evidence import CRASHES
from consumer.serving.dispatch.dispatcher import Dispatcher
from consumer.serving.refused import WindowRefused
from consumer.telemetry.metrics import Metrics
from consumer.worker.inference import Inference
from consumer.worker.variant import Variant
from consumer.worker.variant_router import VariantRouter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.extraction.window import Window
    from consumer.serving.protocol import Answer

MARKS = range(100, 116)
POISON = 107
MOST_DEATHS = math.ceil(math.log2(len(MARKS))) + CRASHES + 2
"""Of one poison window in a batch of so many, as ``resilience.crash_evidence`` promises."""


class Server:
    """Ends in the calls of the poison, those of ``deadly`` versions, and is back two seconds later."""

    def __init__(self, deadly: set[str]) -> None:
        self.deadly, self.deaths, self.back_at = deadly, 0, 0.0
        self.lives: asyncio.Event | None = None

    async def call(self, version: str, windows: Sequence[Window]) -> None:
        loop = asyncio.get_running_loop()
        self.lives = life = self.lives or asyncio.Event()
        if loop.time() < self.back_at:
            raise UNAVAILABLE
        marks = [int(each.input_ids[0]) for each in windows]
        if POISON in marks and version in self.deadly:
            self.deaths, self.back_at = self.deaths + 1, loop.time() + 2.0
            life.set()
            self.lives = None
        else:
            try:
                async with asyncio.timeout(0.01):
                    await life.wait()
            except TimeoutError:
                return
        raise UNAVAILABLE


class Client(StubClient):
    def __init__(self, server: Server, version: str) -> None:
        super().__init__()
        self.server, self.version = server, version

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:
        await self.server.call(self.version, windows)
        return await super().predict(windows, padded_length, timeout)


class Runner:
    """Sends the one window that a text is."""

    def __init__(self, dispatcher: Dispatcher, version: str) -> None:
        self.dispatcher, self.version = dispatcher, version

    async def infer(self, text: str, _task: Any, work: Work) -> Inference:
        await self.dispatcher.submit(window(int(text)), work.deadline, 0, work.place)
        return Inference(None, ModelUsed("m", self.version, ""), 0.0, 0.0, 0, 0)  # type: ignore[arg-type]


class Stage:
    """The router before one server, with a canary that has this share."""

    def __init__(self, server: Server, share: float, bundles: Sequence[str] = ("one", "one")) -> None:
        clock = asyncio.get_running_loop().time
        self.ways, self.pumps = list[Variant](), list[asyncio.Task[None]]()
        by_name = {name: SimpleNamespace(name=name) for name in bundles}
        for name, bundle in zip(("stable", "canary"), bundles, strict=True):
            dispatcher = Dispatcher(
                {"one:1": Client(server, name)},
                LeastTime(16_384, 2),
                window(KNOWN_GOOD),
                "m",
                Observer(),
                lambda *_: None,
                clock,
                trial=True,
            )
            self.pumps.append(asyncio.create_task(dispatcher.pump()))
            fields: Any = (name, by_name[bundle], None, None, None, dispatcher)
            way = Variant(*fields)
            way.runner = Runner(dispatcher, name)  # type: ignore[assignment]
            self.ways.append(way)
        canary = CanaryConfig(label="canary", share=share)
        self.metrics = Metrics()
        self.router = VariantRouter(self.ways, canary, self.metrics, lambda *_: None, clock)

    async def look(self) -> None:
        while True:
            self.router.look()
            await asyncio.sleep(0.5)

    async def answers(self, marks: Sequence[int]) -> list[Any]:
        """What becomes of one event for each mark."""
        task: Any = SimpleNamespace(name="sentiment")
        works = [Work(Place(Partition("t", 0), 0, mark), mark, 0, key=str(mark).encode()) for mark in marks]
        return await asyncio.gather(
            *(self.router.infer(str(mark), task, work) for mark, work in zip(marks, works, strict=True)),
            return_exceptions=True,
        )

    async def traffic(self) -> None:
        mark = 10_000
        while True:
            mark += 4
            self.others = asyncio.create_task(self.answers(range(mark, mark + 4)))
            await asyncio.sleep(0.5)


def outcome(
    deadly: set[str], share: float, bundles: Sequence[str] = ("one", "one"), slow_after: int = 10_000
) -> tuple[Server, list[Any], Stage]:
    """The batch beside traffic, once every event has its outcome.

    After ``slow_after`` deaths the canary's calls are so slow that it falls back.
    """
    server, stages = Server(deadly), list[Stage]()

    async def main() -> list[Any]:
        stage = Stage(server, share, bundles)
        stages.append(stage)
        looks = asyncio.create_task(stage.look())
        await stage.router.all_tried()
        others = asyncio.create_task(stage.traffic())
        await asyncio.sleep(2)
        found = asyncio.ensure_future(stage.answers(MARKS))
        while not found.done():
            await asyncio.sleep(0.1)
            if server.deaths >= slow_after:
                for way, rate in zip(stage.ways, (1.0, 9.0), strict=True):
                    way.dispatcher.learned.rates.extend([rate] * FEWEST_CALLS)
        for task in (looks, others, *stage.pumps):
            task.cancel()
        return found.result()

    return server, virtual_time.run(main()), stages[0]


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("bundles", [("one", "one"), ("one", "two")])
def test_poison_of_both_ends_the_server_once_more_at_most(share: float, bundles: Sequence[str]) -> None:
    """It alone is refused, and by the stable version; its neighbours are answered."""
    server, found, _ = outcome({"stable", "canary"}, share, bundles)
    for mark, answer in zip(MARKS, found, strict=True):
        if mark == POISON:
            assert isinstance(answer, WindowRefused)
            assert answer.reason == "Poison"
        else:
            assert isinstance(answer, Inference), (mark, answer)
    assert server.deaths <= MOST_DEATHS + (share > 0)


def test_what_only_the_canary_dies_of_is_answered_by_the_stable_version() -> None:
    """And one such window takes the canary's share: the stable version is on the same server."""
    server, found, stage = outcome({"canary"}, 1.0)
    assert all(isinstance(answer, Inference) for answer in found), found
    assert server.deaths <= MOST_DEATHS
    assert stage.router.fallback.reason == "refused"


@pytest.mark.parametrize("deaths", [2, 6, 9])
def test_what_is_suspected_when_the_canary_falls_back_stays_suspected(deaths: int) -> None:
    """At the stable version it has the crashes that it had, whenever that is."""
    server, found, stage = outcome({"stable", "canary"}, 1.0, slow_after=deaths)
    assert stage.router.fallback.reason == "slow"
    assert [mark for mark, each in zip(MARKS, found, strict=True) if not isinstance(each, Inference)] == [POISON]
    assert server.deaths <= MOST_DEATHS + 2
