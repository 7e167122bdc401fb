"""Requests to the HTTP ports of many workers side by side, with one deadline for all of them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AT_ONCE = 128
"""So many workers are asked at the same time, a thread for each: a hundred that hang cost one deadline together."""
HERE = "localhost"
"""Either loopback, whichever answers: a member tells that it has one, not which. In many containers the name itself
stands for the first only."""
_BODY_BYTES = 8 << 20
"""A /status of ten thousand partitions has a megabyte. What is longer than this is no worker's."""


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Reply(NamedTuple):
    content: Mapping[str, Any] | None
    """The JSON object that was answered; None without one."""
    error: str = ""
    """Why there is none; empty otherwise."""
    answered: bool = True
    """Whether anything answered at all."""


def ask(addresses: Iterable[Address], method: str, path: str, deadline: float) -> dict[Address, Reply]:
    """What each answers to one request by ``deadline``, in monotonic seconds."""
    sockets: list[socket.socket] = []
    asked = dict.fromkeys(addresses)

    def one(address: Address) -> Reply:
        if (left := deadline - time.monotonic()) <= 0:
            return Reply(None, _SILENT, answered=False)
        # Not urllib: a proxy that the environment names must not come between.
        connection = http.client.HTTPConnection(*address, timeout=left)
        try:
            connection.sock = _connected(address, left)
            sockets.append(connection.sock)  # which the connection forgets before the body is read
            # The address in place of the name, which the worker need not know (observability.http_hosts).
            peer = Address(connection.sock.getpeername()[0], address.port)
            connection.request(method, path, headers={"Host": str(peer)})
            answer = connection.getresponse()
            body = answer.read(_BODY_BYTES)
            if time.monotonic() >= deadline:  # cut off, which looks like its end
                return Reply(None, _SILENT, answered=False)
            return _reply(answer.status, body)
        except TimeoutError:
            return Reply(None, _SILENT, answered=False)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            late = time.monotonic() >= deadline
            what = _SILENT if late else getattr(error, "strerror", None) or str(error) or type(error).__name__
            return Reply(None, what, answered=False)
        finally:
            connection.close()

    def cut_off() -> None:
        # A socket's own time-out begins again with every byte.
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut_off)
    timer.daemon = True
    timer.start()
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(asked, pool.map(one, asked), strict=True))
    finally:
        timer.cancel()


_SILENT = "no answer in time"


def _connected(address: Address, seconds: float) -> socket.socket:
    if address.host != HERE:
        return socket.create_connection(address, seconds)
    try:
        return socket.create_connection(("127.0.0.1", address.port), seconds)
    except OSError:
        with suppress(OSError):
            return socket.create_connection(("::1", address.port), seconds)
        raise


def _reply(status: int, body: bytes) -> Reply:
    if status in (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS):
        return Reply(None, f"refuses: {body.decode(errors='replace').strip()[:300]}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    return Reply(content) if isinstance(content, dict) else Reply(None, "what answers is no worker")
