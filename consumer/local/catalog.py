"""The models that a server has, by name: which versions lie on disk and are to be served, and by whom a call is run.

The command makes a ``Catalog`` of the models it finds, the model server asks it for the version of each call, polls it
to follow the disk, and hands it the list of models of a HandleReloadConfig request, which ``read_config`` reads.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from consumer.local.servable import Refusal, Servable, State, servable_not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from consumer.local.servable import Model

log = structlog.stdlib.get_logger(__name__)

Labels = dict[str, dict[str, int]]
"""Model name to label to version."""


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Exactly these versions, or the ``latest`` so many; None for all of them."""

    latest: int | None = 1
    specific: frozenset[int] | None = None

    def choose(self, found: Mapping[int, Path]) -> dict[int, Path]:
        """The versions to serve out of those found, newest first."""
        newest_first = sorted(found, reverse=True)
        if self.specific is None:
            return {version: found[version] for version in newest_first[: self.latest]}
        return {version: found[version] for version in newest_first if version in self.specific}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's versions appear, and which of them to serve."""

    name: str
    base_path: Path
    policy: VersionPolicy = field(default_factory=VersionPolicy)


def find_versions(base_path: Path) -> dict[int, Path]:
    """Version number to folder. ``007`` is 7; names that are not numbers are ignored. Raises OSError without folder."""
    return {
        int(child.name): child
        for child in sorted(base_path.iterdir())
        if child.name.isascii() and child.name.isdigit() and child.is_dir()
    }


def find_models(folder: Path) -> list[ModelSource]:
    """The models in a folder: the folder itself when it holds numbered versions, else its subfolders that do.

    A folder that is a model is named after itself. Empty when there is none; raises OSError for a folder that cannot
    be listed.
    """
    folder = folder.resolve()
    if find_versions(folder):
        return [ModelSource(folder.name, folder)]
    return [
        ModelSource(child.name, child) for child in sorted(folder.iterdir()) if child.is_dir() and find_versions(child)
    ]


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
            self._update()

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
            self._update()
            self.require_available(new)

    def require_available(self, names: Sequence[str]) -> None:
        """Raise Refusal (UNKNOWN), with the errors of their versions, unless each of these models has a version."""
        if missing := [name for name in names if not self._servables[name].available()]:
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
            self._update()

    def _update(self) -> None:
        listed = {source.name: source for source in self._sources}
        for name, servable in self._servables.items():
            source = listed.get(name)
            if source is None:
                servable.serve({})
                continue
            try:
                found = find_versions(source.base_path)
            except OSError as error:
                # A folder that is gone for a moment (a remount, a rename) unloads nothing.
                log.warning("model folder cannot be read", model=name, path=str(source.base_path), error=str(error))
                continue
            servable.serve(source.policy.choose(found))


_INVALID = grpc.StatusCode.INVALID_ARGUMENT


def read_config(config: Any) -> tuple[list[ModelSource], Labels]:
    """Models and version labels of a ModelServerConfig. Raises Refusal for what TensorFlow Serving refuses."""
    if config.WhichOneof("config") != "model_config_list":
        raise Refusal(
            _INVALID,
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported",
        )
    sources: list[ModelSource] = []
    labels: Labels = {}
    for entry in config.model_config_list.config:
        if entry.name in {source.name for source in sources}:
            raise Refusal(_INVALID, f"Illegal to list model {entry.name} multiple times in config list")
        base_path = Path(entry.base_path)
        if not base_path.is_absolute():
            raise Refusal(
                _INVALID,
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}",
            )
        if entry.model_platform != "tensorflow":
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"PlatformConfigMap has no entry for platform {entry.model_platform}",
            )
        sources.append(ModelSource(entry.name, base_path, _policy(entry.model_version_policy)))
        labels[entry.name] = dict(entry.version_labels)
    return sources, labels


def _policy(policy: Any) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            return VersionPolicy(specific=frozenset(policy.specific.versions))
        case "latest" if policy.latest.num_versions:
            return VersionPolicy(latest=policy.latest.num_versions)
    return VersionPolicy()
