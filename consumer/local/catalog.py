"""The models of a server: which version answers a call, and when versions are loaded, as in TensorFlow Serving.

The model server takes the version for each call from it, calls ``poll`` to follow the disk, and passes it the models of
a HandleReloadConfig request. A new version loads before an old one unloads, and a call keeps the version it started
with until it has ended, so a swap fails no call. A version that was loaded is never loaded again for a change of its
files. A broken one ends with its error at once, without TensorFlow Serving's five retries a minute apart; it is tried
again when its files change, so a folder that was seen half copied is served once it is whole.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog

from consumer.local.model_folders import files_below, find_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from consumer.local.model_folders import ModelSource

log = structlog.stdlib.get_logger(__name__)

Labels = dict[str, dict[str, int]]
"""Model name to label to version."""

_LOOK_AGAIN_SECONDS = 0.2
"""How often a list that waits for its models asks whether its caller does so, too."""


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

    def run(self, feeds: Mapping[str, NDArray[Any]], fetches: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Feed tensors by name, fetch tensors by name. Raises Refusal."""

    def close(self) -> None:
        """Free it. Nothing runs it any more."""


@dataclass(eq=False, slots=True)
class _Version:
    state: State = State.START
    model: Model | None = None
    calls: int = 0
    error: Refusal | None = None
    files_at_error: frozenset[tuple[str, int, int]] = frozenset()


class Catalog:
    """Thread-safe. Loading happens in the thread that calls ``poll``, one version at a time."""

    def __init__(self, sources: Sequence[ModelSource], load: Callable[[Path], Model]) -> None:
        """Nothing is loaded before the first ``poll``. ``load`` raises Refusal for a version that is broken."""
        self._load = load
        self._sources = tuple(sources)
        self._labels: Labels = {}
        self._replacing = threading.Lock()
        """Held while a list of models replaces another, until its new models are there."""
        self._changing = threading.Lock()
        """Held while versions are loaded and unloaded."""
        self._polled = threading.Condition()
        """Notified when versions were loaded and unloaded."""
        self._lock = threading.Lock()
        """Held to read or write ``_versions`` and what is in them, never while a model loads or runs."""
        self._versions: defaultdict[str, dict[int, _Version]] = defaultdict(dict)
        """Every version that a model has had, by the model's name and the version's number."""

    def available(self) -> dict[str, list[int]]:
        """Versions that answer calls, newest first, of every model in the list."""
        return {source.name: self._available(source.name) for source in self._sources}

    def states(self, name: str) -> list[tuple[int, State, Refusal | None]]:
        """Every version that a model has had, newest first, with the error that ended it; empty for an unknown name."""
        with self._lock:
            versions = sorted(self._versions.get(name, {}).items(), reverse=True)
            return [(number, version.state, version.error) for number, version in versions]

    @contextmanager
    def use(self, spec: Any) -> Iterator[tuple[int, Model]]:
        """The model version that a ModelSpec names, or the newest available one, kept alive inside the block.

        Raises Refusal: INVALID_ARGUMENT for an impossible name or label, NOT_FOUND for a model or version that is not
        available.
        """
        name = spec.name
        if not name:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        number: int | None = None
        match spec.WhichOneof("version_choice"):
            case "version":
                number = spec.version.value
            case "version_label":
                number = self._labels.get(name, {}).get(spec.version_label)
                if number is None:
                    raise Refusal(
                        grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
                    )
        with self._lock:
            ready = {
                found: version.model
                for found, version in self._versions.get(name, {}).items()
                if version.state is State.AVAILABLE and version.model is not None and number in (None, found)
            }
            if not ready:
                asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")
            chosen = max(ready)
            version = self._versions[name][chosen]
            version.calls += 1
        try:
            yield chosen, ready[chosen]
        finally:
            with self._lock:
                version.calls -= 1
            self._close_if_idle(name, chosen)

    def poll(self) -> None:
        """Bring what is served in line with what lies on disk."""
        with self._changing:
            self._update()
        with self._polled:
            self._polled.notify_all()

    def replace(
        self,
        sources: Sequence[ModelSource],
        labels: Mapping[str, Mapping[str, int]],
        waited_for: Callable[[], bool] = lambda: True,
    ) -> None:
        """Serve this list of models instead.

        As in the real server, other versions of a model that was listed before are left to the next ``poll``, and a
        new model is waited for until a version of it is available or its newest one failed, which is reported with
        Refusal. Where its folder is missing or has no version, that is until somebody puts one there; here, until
        ``waited_for`` says that the caller is gone. Other lists wait meanwhile.

        A label can only name a version that is available before the change: load first, label afterwards.
        """
        with self._replacing:
            for name, versions in labels.items():
                for version in versions.values():
                    if version not in self._available(name):
                        raise Refusal(
                            grpc.StatusCode.FAILED_PRECONDITION,
                            f"Request to assign label to version {version} of model {name}, "
                            "which is not currently available for inference",
                        )
            new = {source.name for source in sources} - self.listed
            self._labels = {name: dict(versions) for name, versions in labels.items()}
            self._sources = tuple(sources)
            if new:
                self.poll()
            while waiting := {name for name in new if not self._available(name)}:
                if broken := sorted(name for name in waiting if self._newest_failed(name)):
                    self.require_available(broken)
                with self._polled:
                    self._polled.wait(_LOOK_AGAIN_SECONDS)
                if not waited_for():
                    raise Refusal(grpc.StatusCode.CANCELLED, f"nobody waits for {', '.join(sorted(waiting))} any more")

    @property
    def listed(self) -> set[str]:
        """Names of the models in the list."""
        return {source.name for source in self._sources}

    def _newest_failed(self, name: str) -> bool:
        states = self.states(name)
        return bool(states) and states[0][1] is State.END and states[0][2] is not None

    def require_available(self, names: Sequence[str]) -> None:
        """Raise Refusal (UNKNOWN), with the errors of their versions, unless each of these models has a version."""
        if missing := [name for name in names if not self._available(name)]:
            reasons = [
                f"{{{{name: {name} version: {number}}} due to error: {error}}}, "
                for name in missing
                for number, _, error in self.states(name)
                if error is not None
            ]
            raise Refusal(
                grpc.StatusCode.UNKNOWN,
                f"{len(missing)} model(s) did not become available: "
                f"{{{''.join(reasons) or ', '.join(missing) + ': no version found'}}}",
            )

    def close(self) -> None:
        """Unload every model that no call is using."""
        with self._changing:
            self._sources = ()
            self._update()

    def _available(self, name: str) -> list[int]:
        return [number for number, state, _ in self.states(name) if state is State.AVAILABLE]

    def _update(self) -> None:
        wanted: dict[str, dict[int, Path]] = {}
        sources = self._sources
        for source in sources:
            try:
                wanted[source.name] = source.policy.choose(find_versions(source.base_path))
            except OSError as error:
                # A folder that is gone for a moment (a remount, a rename) unloads nothing. Nor does anything load
                # meanwhile: the real server follows all folders, or none.
                log.warning(
                    "model folder cannot be read", model=source.name, path=str(source.base_path), error=str(error)
                )
                wanted = {}
                break
        # Models that are no longer listed come last: what is new loads before what is old unloads.
        unlisted = self._versions.keys() - {source.name for source in sources}
        for name, paths in [*wanted.items(), *((name, {}) for name in sorted(unlisted))]:
            self._serve(name, paths)

    def _serve(self, name: str, wanted: Mapping[int, Path]) -> None:
        """Load the wanted versions that are missing, then unload the others once one of the wanted is available."""
        for number, path in wanted.items():
            version = self._versions[name].get(number)
            if version is None or (version.state is State.END and version.error is None):
                with self._lock:
                    self._versions[name][number] = version = _Version()
            elif version.error is None or files_below(path) == version.files_at_error:
                continue
            self._bring_up(name, number, version, path)
        available = set(self._available(name))
        if wanted and available.isdisjoint(wanted):
            return  # what is there, however old, is better than nothing
        for number in available - wanted.keys():
            with self._lock:
                self._versions[name][number].state = State.UNLOADING
            self._close_if_idle(name, number)

    def _bring_up(self, name: str, number: int, version: _Version, path: Path) -> None:
        with self._lock:
            version.state, version.error = State.LOADING, None
        files = files_below(path)
        try:
            model = self._load(path)
        except Refusal as error:
            with self._lock:
                version.state, version.error, version.files_at_error = State.END, error, files
            log.error("model version failed to load", model=name, version=number, error=str(error))
            return
        with self._lock:
            version.state, version.model = State.AVAILABLE, model
        log.info("model version available", model=name, version=number)

    def _close_if_idle(self, name: str, number: int) -> None:
        with self._lock:
            version = self._versions[name][number]
            if version.state is not State.UNLOADING or version.calls or version.model is None:
                return
            model, version.model = version.model, None
        model.close()
        with self._lock:
            version.state = State.END
        log.info("model version unloaded", model=name, version=number)
