"""The life of one model's versions: loading, serving, unloading, as TensorFlow Serving does it.

A new version loads before an old one unloads, and a call keeps the version it started with until it has ended, so a
swap fails no call. A version that was loaded is never loaded again for a change of its files. A broken one ends with
its error at once, without TensorFlow Serving's five retries a minute apart; it is tried again when its files change,
so a folder that was seen half copied is served once it is whole.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

log = structlog.stdlib.get_logger(__name__)


class Refusal(Exception):  # noqa: N818 - an answer that is not OK, worded as TensorFlow Serving words it
    """A gRPC status other than OK, with TensorFlow Serving's text for the case."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


class State(IntEnum):
    """Numbers of ModelVersionStatus.State."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Model(Protocol):
    """A loaded SavedModel."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """SignatureDef messages by key."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]], fetches: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Feed tensors by name, fetch tensors by name. Raises Refusal."""
        ...

    def close(self) -> None:
        """Free it. Nothing runs it any more."""
        ...


@dataclass(eq=False, slots=True)
class _Version:
    state: State = State.START
    model: Model | None = None
    calls: int = 0
    error: Refusal | None = None
    files_at_error: frozenset[tuple[str, int, int]] = frozenset()


class Servable:
    """All versions that one model name has had. ``serve`` is for one thread at a time; all else is thread-safe."""

    def __init__(self, name: str, load: Callable[[Path], Model]) -> None:
        self.name = name
        self._load = load
        self._lock = threading.Lock()
        self._versions: dict[int, _Version] = {}

    def states(self) -> list[tuple[int, State, Refusal | None]]:
        """Every version that was ever seen, newest first, with the error that ended it."""
        with self._lock:
            return [(number, v.state, v.error) for number, v in sorted(self._versions.items(), reverse=True)]

    def available(self) -> list[int]:
        """Versions that answer calls, newest first."""
        return [number for number, state, _ in self.states() if state is State.AVAILABLE]

    @contextmanager
    def use(self, number: int | None) -> Iterator[tuple[int, Model]]:
        """The version with this number, or the newest available one, kept alive inside the block.

        Raises Refusal (NOT_FOUND) when it does not answer calls.
        """
        with self._lock:
            ready = {
                n: v.model
                for n, v in self._versions.items()
                if v.state is State.AVAILABLE and v.model is not None and number in (None, n)
            }
            if not ready:
                raise servable_not_found(self.name, number)
            chosen = max(ready)
            version = self._versions[chosen]
            version.calls += 1
        try:
            yield chosen, ready[chosen]
        finally:
            with self._lock:
                version.calls -= 1
            self._close_if_idle(chosen, version)

    def serve(self, wanted: Mapping[int, Path]) -> None:
        """Load the wanted versions that are missing, then unload the others once one of the wanted is available."""
        for number, path in wanted.items():
            version = self._versions.get(number)
            if version is None or (version.state is State.END and version.error is None):
                with self._lock:
                    self._versions[number] = version = _Version()
            elif version.error is None or _files(path) == version.files_at_error:
                continue
            self._bring_up(number, version, path)
        if wanted and not set(wanted) & set(self.available()):
            return  # what is there, however old, is better than nothing
        for number in set(self.available()) - set(wanted):
            with self._lock:
                version = self._versions[number]
                version.state = State.UNLOADING
            self._close_if_idle(number, version)

    def _bring_up(self, number: int, version: _Version, path: Path) -> None:
        with self._lock:
            version.state, version.error = State.LOADING, None
        files = _files(path)
        try:
            model = self._load(path)
        except Refusal as error:
            with self._lock:
                version.state, version.error, version.files_at_error = State.END, error, files
            log.error("model version failed to load", model=self.name, version=number, error=str(error))
            return
        with self._lock:
            version.state, version.model = State.AVAILABLE, model
        log.info("model version available", model=self.name, version=number)

    def _close_if_idle(self, number: int, version: _Version) -> None:
        with self._lock:
            if version.state is not State.UNLOADING or version.calls or version.model is None:
                return
            model, version.model = version.model, None
        model.close()
        with self._lock:
            version.state = State.END
        log.info("model version unloaded", model=self.name, version=number)


def servable_not_found(name: str, number: int | None) -> Refusal:
    """The refusal for a model or version that does not answer calls."""
    asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
    return Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")


def _files(path: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size in bytes and modification time in ns of every file below a folder."""
    found = set()
    for file in path.rglob("*"):
        try:
            status = file.stat()
        except OSError:
            continue
        found.add((str(file), status.st_size, status.st_mtime_ns))
    return frozenset(found)
