"""A SavedModel that cannot be loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.model


def test_a_git_lfs_pointer_is_called_that(tmp_path: Path) -> None:
    """TensorFlow would say that it cannot parse the file."""
    pytest.importorskip("tensorflow")
    from consumer.local.catalog import Refusal
    from consumer.local.saved_model import SavedModel

    (tmp_path / "saved_model.pb").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        Refusal, match=r"saved_model\.pb is a Git LFS pointer of 63 bytes, not the file; run git lfs pull"
    ):
        SavedModel(tmp_path, 1)
