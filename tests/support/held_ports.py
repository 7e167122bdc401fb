"""Ports of the loopback for servers that are started later, or go away and come back on the same port."""

from __future__ import annotations

import socket
import sys


class HeldPorts:
    """So many free ports, which the system gives to nobody else for as long as this lives.

    Each is bound, and nobody listens there: connections are refused until a server binds it too, which Linux allows
    to one that asks for SO_REUSEADDR, as gRPC's and Java's do. On other systems they are free now, and not held.
    """

    def __init__(self, count: int = 1) -> None:
        self._sockets = [socket.socket() for _ in range(count)]
        for each in self._sockets:
            if sys.platform == "linux":
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("127.0.0.1", 0))
        self.ports: list[int] = [each.getsockname()[1] for each in self._sockets]
        if sys.platform != "linux":
            self.close()

    def close(self) -> None:
        """Hold them no more."""
        for each in self._sockets:
            each.close()

    def __del__(self) -> None:
        self.close()
