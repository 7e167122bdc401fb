"""Keeping what others name from growing a registry without end."""

from __future__ import annotations

import threading

OTHER = "other"


class FirstSeen:
    """Lets the first ``limit`` different values through; every later new one becomes ``other``. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: set[str] = set()

    def keep(self, value: str) -> str:
        """The value, or ``other`` when it is one too many."""
        with self._lock:
            if value not in self._kept:
                if len(self._kept) >= self._limit:
                    return OTHER
                self._kept.add(value)
            return value


class Tally:
    """Counts by name, the name that was counted last at the end. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, name: str) -> None:
        """Count one."""
        with self._lock:
            self._counts[name] = self._counts.pop(name, 0) + 1

    def counts(self) -> dict[str, int]:
        """A copy."""
        with self._lock:
            return dict(self._counts)
