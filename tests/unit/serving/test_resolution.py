"""Which endpoints a target stands for."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from consumer.serving.resolution import Name, in_thread, listed, look_up, name_in

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("ipv4:10.0.0.1:8500,10.0.0.2:8500", ["10.0.0.1:8500", "10.0.0.2:8500"]),
        ("ipv6:[::1]:8500,[::2]:8500", ["[::1]:8500", "[::2]:8500"]),
        ("ipv4:10.0.0.1:8500,10.0.0.1:8500", ["ipv4:10.0.0.1:8500,10.0.0.1:8500"]),
        ("ipv4:10.0.0.1:8500", ["ipv4:10.0.0.1:8500"]),
        ("tf-serving:8500", ["tf-serving:8500"]),
        ("unix:/run/serving,a.sock", ["unix:/run/serving,a.sock"]),
    ],
)
def test_a_target_lists_its_addresses_or_is_one_endpoint(target: str, addresses: list[str]) -> None:
    """What is not several gets to gRPC as it is."""
    assert listed(target) == addresses


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("tf-serving.example:8500", Name("tf-serving.example", 8500)),
        ("dns:///tf-serving.example:8500", Name("tf-serving.example", 8500)),
        ("dns:tf-serving.example:8500", Name("tf-serving.example", 8500)),
        ("dns://10.0.0.53/tf-serving.example:8500", None),
        ("10.0.0.1:8500", None),
        ("[::1]:8500", None),
        ("dns:///10.0.0.1:8500", None),
        ("ipv4:10.0.0.1:8500", None),
        ("unix:/run/serving.sock", None),
        ("xds:///serving", None),
    ],
)
def test_a_name_is_looked_up_and_an_address_is_not(target: str, name: Name | None) -> None:
    """Nor one that another DNS server is to be asked for."""
    assert name_in(target) == name


def answers(monkeypatch: pytest.MonkeyPatch, *found: tuple[Any, str]) -> None:
    def getaddrinfo(host: str, port: int, **_: Any) -> Sequence[Any]:
        assert host == "serving"
        return [(family, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)) for family, address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_addresses_are_in_order_and_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with an address of each kind is one server."""
    v4, v6 = socket.AF_INET, socket.AF_INET6
    answers(monkeypatch, (v6, "::2"), (v4, "10.0.0.2"), (v6, "::1"), (v4, "10.0.0.1"), (v4, "10.0.0.1"))
    assert look_up(Name("serving", 8500)) == ["[::1]:8500", "[::2]:8500"]
    answers(monkeypatch, (v6, "::1"), (v4, "10.0.0.2"), (v4, "10.0.0.1"))
    assert look_up(Name("serving", 8500)) == ["10.0.0.1:8500", "10.0.0.2:8500"]
    answers(monkeypatch, (v6, "::1"), (v4, "127.0.0.1"))
    assert len(look_up(Name("serving", 8500))) == 1


def test_a_look_up_runs_beside_the_loop_and_raises_there() -> None:
    """The loop goes on while a resolver takes its time."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        released = asyncio.Event()

        def slow(name: Name) -> list[str]:
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result(10)
            return [name.host]

        waiting = asyncio.create_task(in_thread(slow, Name("a", 1)))
        await asyncio.sleep(0)
        released.set()
        assert await waiting == ["a"]

        def refuses(name: Name) -> list[str]:
            raise socket.gaierror(name.host)

        with pytest.raises(socket.gaierror):
            await in_thread(refuses, Name("a", 1))

    asyncio.run(main())
