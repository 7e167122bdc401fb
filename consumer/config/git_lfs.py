"""Git LFS pointers: what stands in place of a large file in a checkout that was made without Git LFS.

Whoever reads a file that is kept in Git LFS as a rule (weights, tokenizers, bundles, samples) asks here before, or when
it cannot be read, so that the pointer is called what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SIGNS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_MOST_BYTES = 1024
"""A pointer is smaller, by its specification."""


def lfs_pointer(content: bytes) -> str | None:
    """What to say of a file that is a pointer; None for any other. The whole content, or its first kilobyte."""
    if len(content) >= _MOST_BYTES or not content.startswith(_SIGNS):
        return None
    return f"is a Git LFS pointer of {len(content)} bytes, not the file; run git lfs pull"


def lfs_pointer_at(paths: Iterable[Path]) -> str | None:
    """The first of ``paths`` that is a pointer, with what to say of it. What cannot be read is none."""
    for path in paths:
        try:
            with path.open("rb") as file:
                said = lfs_pointer(file.read(_MOST_BYTES))
        except OSError:
            continue
        if said is not None:
            return f"{path} {said}"
    return None
