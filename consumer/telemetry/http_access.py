"""Which requests the worker's HTTP server answers: those for a host that is its own, and so many in a time."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_HOST = re.compile(r"(?:\[(?P<v6>[^\]\s]+)\]|(?P<name>[^\[\]:/@\s]+))(?::\d*)?")
"""The value of a ``Host`` header."""


class HostCheck:
    """Whether a request's ``Host`` names this worker: with an address, ``localhost`` or one of ``names``.

    A page that had its own host name resolve to this worker's address would be told nothing: its requests name its own
    host. ``*.`` before a name stands for all names below it. A port is not compared: it may have been forwarded.
    """

    def __init__(self, names: Collection[str]) -> None:
        plain = [name.lower().rstrip(".") for name in names]
        self._names = {"localhost", *(name for name in plain if not name.startswith("*."))}
        self._below = tuple(name[1:] for name in plain if name.startswith("*."))

    def __call__(self, host: str) -> bool:
        match = _HOST.fullmatch(host.strip())
        if match is None:
            return False
        name = (match["v6"] or match["name"]).lower().rstrip(".")
        if name in self._names or (self._below and name.endswith(self._below)):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


class Rate:
    """Allows ``most`` calls in ``seconds``. Thread-safe."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._times: deque[float] = deque([float("-inf")] * most, most)

    def wait(self) -> float:
        """0 when there is room, and the call counts; else seconds until there is."""
        with self._lock:
            now = self._clock()
            left = self._times[0] + self._seconds - now
            if left > 0:
                return left
            self._times.append(now)
            return 0.0
