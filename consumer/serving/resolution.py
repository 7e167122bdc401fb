"""Which model servers an address stands for: each has a channel of its own, since gRPC's would know only the first.

One address, a name with one address, ``unix:`` and what only gRPC can look up are one endpoint, whose channel gets
``model.target`` as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from typing import TYPE_CHECKING, NamedTuple

from consumer.config.names import ADDRESS

if TYPE_CHECKING:
    from collections.abc import Callable

_LIST = re.compile(r"ipv[46]:/{0,3}(.*)")
_DNS = re.compile(r"(?:dns:(?:///)?)?([^/]+)")


class Name(NamedTuple):
    """What can be looked up. ``host`` is no numeric address."""

    host: str
    port: int


def listed(target: str) -> list[str]:
    """The addresses, ``host:port``, that a target of more than one lists itself; else the target alone."""
    found = _LIST.fullmatch(target)
    addresses = list(dict.fromkeys(found[1].split(","))) if found is not None else []
    return addresses if len(addresses) > 1 else [target]


def name_in(target: str) -> Name | None:
    """The name in a target; None for one without, or with a DNS server of its own, which only gRPC can ask."""
    dns = _DNS.fullmatch(target)
    found = ADDRESS.fullmatch(dns[1]) if dns is not None else None
    if found is None or found["v6"] or re.fullmatch(r"[0-9.]+", found["host"]):
        return None
    return Name(found["host"], int(found["port"]))


def look_up(name: Name) -> list[str]:
    """All addresses of a name, ``host:port``, sorted; blocks. Raises OSError, also where it has none.

    Only those of one kind, IPv4 or IPv6, the one that has more: else a server with one of each would be two.
    """
    kinds: dict[int, set[str]] = {}
    for family, _, _, _, address in socket.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM):
        host = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
        kinds.setdefault(family, set()).add(f"{host}:{name.port}")
    _, addresses = max(kinds.items(), key=lambda each: len(each[1]))
    return sorted(addresses)


async def in_thread(look_up: Callable[[Name], list[str]], name: Name) -> list[str]:
    """The result of ``look_up``, from a thread that nobody waits for at the end: a resolver may hang for minutes."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def settle(found: list[str], error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(found)
        else:
            future.set_exception(error)

    def run() -> None:
        found, failed = list[str](), None
        try:
            found = look_up(name)
        except Exception as error:  # raised where it is waited for
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so the worker has ended
            loop.call_soon_threadsafe(settle, found, failed)

    threading.Thread(target=run, name="rexstream-resolver", daemon=True).start()
    return await future
