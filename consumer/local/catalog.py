"""The models that a server has, by name: looking versions up, following the disk, taking a new list of models."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from consumer.local.refusal import Refusal
from consumer.local.servable import Servable, State, servable_not_found
from consumer.local.versions import find_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from consumer.local.servable import Model
    from consumer.local.versions import ModelSource

log = structlog.stdlib.get_logger(__name__)

Labels = dict[str, dict[str, int]]
"""Model name to label to version."""


class Catalog:
    """Thread-safe. Loading happens in the thread that calls ``poll`` or ``replace``, one version at a time."""

    def __init__(self, sources: Sequence[ModelSource], load: Callable[[Path], Model]) -> None:
        """Nothing is loaded before the first ``poll``. ``load`` raises Refusal for a version that is broken."""
        self._load = load
        self._changing = threading.Lock()
        self._sources = tuple(sources)
        self._servables: dict[str, Servable] = {source.name: Servable(source.name, load) for source in sources}
        self._labels: Labels = {}

    def available(self) -> dict[str, list[int]]:
        """Versions that answer calls, newest first, of every model in the list."""
        return {source.name: self._servables[source.name].available() for source in self._sources}

    def states(self, name: str) -> list[tuple[int, State, Refusal | None]]:
        """Every version that a model has had, newest first; empty for an unknown name."""
        servable = self._servables.get(name)
        return servable.states() if servable else []

    def use(self, spec: Any) -> AbstractContextManager[tuple[int, Model]]:
        """The model version that a ModelSpec names, kept alive inside the block. Raises Refusal."""
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
        servable = self._servables.get(name)
        if servable is None:
            raise servable_not_found(name, number)
        return servable.use(number)

    def poll(self) -> None:
        """Bring what is served in line with what lies on disk."""
        with self._changing:
            self._settle()

    def replace(self, sources: Sequence[ModelSource], labels: Mapping[str, Mapping[str, int]]) -> None:
        """Serve this list of models instead. Returns when its new models are available; raises Refusal if one is not.

        A label can only name a version that is available before the change: load first, label afterwards.
        """
        with self._changing:
            for name, versions in labels.items():
                served = self._servables[name].available() if name in self._servables else []
                for version in versions.values():
                    if version not in served:
                        raise Refusal(
                            grpc.StatusCode.FAILED_PRECONDITION,
                            f"Request to assign label to version {version} of model {name}, "
                            "which is not currently available for inference",
                        )
            new = [source.name for source in sources if source.name not in {old.name for old in self._sources}]
            self._labels = {name: dict(versions) for name, versions in labels.items()}
            self._sources = tuple(sources)
            added = {source.name: Servable(source.name, self._load) for source in sources}
            self._servables = {**added, **self._servables}
            self._settle()
            self.require_available(new)

    def require_available(self, names: Sequence[str]) -> None:
        """Raise Refusal (UNKNOWN), with the errors of their versions, unless each of these models has a version."""
        missing = [name for name in names if not self._servables[name].available()]
        if not missing:
            return
        reasons = [
            f"{{name: {name} version: {number}}} due to error: {error}"
            for name in missing
            for number, _, error in self.states(name)
            if error is not None
        ]
        raise Refusal(
            grpc.StatusCode.UNKNOWN,
            f"{len(missing)} model(s) did not become available: {', '.join(missing)} "
            f"{{{', '.join(reasons) or 'no version found'}}}",
        )

    def close(self) -> None:
        """Unload everything that no call is using."""
        with self._changing:
            self._sources = ()
            self._settle()

    def _settle(self) -> None:
        listed = {source.name: source for source in self._sources}
        for name, servable in self._servables.items():
            source = listed.get(name)
            if source is None:
                servable.settle({})
                continue
            try:
                found = find_versions(source.base_path)
            except OSError as error:
                # A folder that is gone for a moment (a remount, a rename) unloads nothing.
                log.warning("model folder cannot be read", model=name, path=str(source.base_path), error=str(error))
                continue
            servable.settle(source.policy.choose(found))
