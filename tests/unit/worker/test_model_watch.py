"""The addresses of the model servers: looked up again and again, and none is lost to a look-up that fails."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import virtual_time
from stub_server import write_bundle

from consumer.config.credential_files import CredentialFileError
from consumer.config.tree import ModelConfig
from consumer.serving.bundle import load_bundle
from consumer.worker import model_watch
from consumer.worker.model_watch import AGAIN_SECONDS, RESOLVE_SECONDS, ModelServers, watch_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from consumer.serving.dispatch.dispatcher import Dispatcher
    from consumer.serving.resolution import Name


class Told:
    """In the dispatcher's place: what it was told, and when."""

    def __init__(self) -> None:
        self.addresses: list[str] = ["serving:8500"]
        self.calls: list[tuple[float, list[str]]] = []
        self.refuses = False

    def resolved(self, addresses: list[str], connect: Callable[[str], Any]) -> None:
        for address in addresses:
            if address not in self.addresses:
                connect(address)
        if self.refuses:
            raise CredentialFileError("model.tls.ca_file: cannot be read")
        self.addresses = addresses
        self.calls.append((asyncio.get_running_loop().time(), addresses))


def watched(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seconds: float,
    look_up: Callable[[float], list[str]],
    beside: Callable[[ModelServers, Told], Any] = lambda *_: None,
) -> tuple[ModelServers, Told]:
    """Watch the name ``serving`` for so long."""

    async def at_once(look_up: Callable[[Name], list[str]], name: Name) -> list[str]:
        await asyncio.sleep(0)
        return look_up(name)

    monkeypatch.setattr(model_watch, "in_thread", at_once)
    monkeypatch.setattr(model_watch, "TfServingClient", lambda _model, _bundle, address: f"client of {address}")

    async def main() -> tuple[ModelServers, Told]:
        loop, told = asyncio.get_running_loop(), Told()
        model = ModelConfig(target="dns:///serving:8500")
        servers = ModelServers(model, load_bundle(write_bundle(tmp_path)), lambda _: look_up(loop.time()))
        run = asyncio.create_task(servers.run(cast("Dispatcher", told)))
        beside(servers, told)
        await asyncio.sleep(seconds)
        assert not run.done()
        run.cancel()
        return servers, told

    return virtual_time.run(main())


def test_a_name_is_looked_up_every_fifteen_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So a new replica is used after so long at most; until there are several it is gRPC's to look up."""

    def look_up(now: float) -> list[str]:
        return ["a:1"] if now < 20 else ["a:1", "b:1"] if now < 40 else ["b:1"]

    servers, told = watched(monkeypatch, tmp_path, 50.0, look_up)
    assert told.calls == [(2 * RESOLVE_SECONDS, ["a:1", "b:1"]), (3 * RESOLVE_SECONDS, ["b:1"])]
    assert list(servers.clients) == ["b:1"]


def test_a_look_up_that_fails_or_finds_nothing_loses_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor do files of model.tls that cannot be read now."""

    def look_up(now: float) -> list[str]:
        if 10 < now < 20:
            return []
        if 20 < now < 40:
            raise socket.gaierror("no DNS server answers")
        return ["a:1", "b:1"]

    _, told = watched(monkeypatch, tmp_path, 50.0, look_up)
    assert told.calls == [(0.0, ["a:1", "b:1"]), (45.0, ["a:1", "b:1"])]

    def refuse(_: ModelServers, told: Told) -> None:
        told.refuses = True

    servers, told = watched(monkeypatch, tmp_path, 50.0, look_up, refuse)
    assert told.calls == []
    assert list(servers.clients) == ["dns:///serving:8500"]


def test_soon_after_an_endpoint_fails_its_name_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And not more often than once a second."""
    times: list[float] = []

    def look_up(now: float) -> list[str]:
        times.append(now)
        return ["a:1", "b:1"]

    def fail(servers: ModelServers, _: Told) -> None:
        for after in (0.1, 5.0, 5.1, 5.2):
            asyncio.get_running_loop().call_later(after, servers.endpoint, "a:1", "UNAVAILABLE")
        asyncio.get_running_loop().call_later(8.0, servers.endpoint, "a:1", "")

    watched(monkeypatch, tmp_path, 10.0, look_up, fail)
    assert times == [0.0, AGAIN_SECONDS, 5.0, 5.0 + AGAIN_SECONDS]


class Client:
    """Says after so many seconds whether it has the model, or raises."""

    def __init__(self, seconds: float, answer: bool | Exception) -> None:
        self.seconds = seconds
        self.answer = answer
        self.unready = "why not"

    async def ready(self) -> bool:
        await asyncio.sleep(self.seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def found_after(*clients: Client) -> tuple[float, bool, str]:
    """When the first poll was over, what it found, and why not."""

    async def main() -> tuple[float, bool, str]:
        servers, health = SimpleNamespace(clients=dict(enumerate(clients))), SimpleNamespace(unavailable=None)
        found, loop = asyncio.Event(), asyncio.get_running_loop()
        watch = asyncio.create_task(watch_model(cast("Any", servers), ModelConfig(), cast("Any", health), found))
        while health.unavailable is None:
            await asyncio.sleep(0.01)
        took = loop.time()
        watch.cancel()
        await asyncio.wait([watch])
        assert asyncio.all_tasks() == {asyncio.current_task()}, "no poll is left"
        return took, found.is_set(), health.unavailable

    return virtual_time.run(main())


def test_the_model_is_there_as_soon_as_one_server_says_so() -> None:
    """However long another one hangs, and whatever a third says."""
    took, found, _ = found_after(Client(5.0, answer=False), Client(0.1, answer=True), Client(0.0, OSError("closed")))
    assert found
    assert took < 0.2


def test_the_model_is_not_there_when_all_have_said_so() -> None:
    """Then it is known why."""
    took, found, why = found_after(Client(5.0, answer=False), Client(0.1, OSError("closed")))
    assert not found
    assert 5.0 <= took < 5.1
    assert why == "0: why not; 1: why not"
