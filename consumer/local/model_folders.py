"""Models on disk: a folder a model, with a numbered folder for each version, and which of those are to be served."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Exactly these versions, or the ``latest`` newest ones; all of them when both are None."""

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


def files_below(path: Path) -> frozenset[tuple[str, int, int]]:
    """Name, size in bytes and modification time in ns of every file below a folder."""
    found = set()
    for file in path.rglob("*"):
        try:
            status = file.stat()
        except OSError:
            continue
        found.add((str(file), status.st_size, status.st_mtime_ns))
    return frozenset(found)
