"""Which versions are found and which are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.local.model_folders import VersionPolicy, find_models, find_versions

if TYPE_CHECKING:
    from pathlib import Path


def test_only_numbers_are_versions(tmp_path: Path) -> None:
    """``007`` counts as 7; names that are not plain numbers, and files, are ignored."""
    for name in ("007", "12", "v3", "-4", "1_0", "٣", "1.5", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file")
    assert find_versions(tmp_path) == {7: tmp_path / "007", 12: tmp_path / "12"}


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """A missing base path is not the same as one without versions."""
    with pytest.raises(FileNotFoundError):
        find_versions(tmp_path / "gone")


def test_a_folder_of_models_and_a_folder_that_is_one(tmp_path: Path) -> None:
    """Subfolders with versions are models; a folder with versions itself is one, named after itself."""
    for name in ("a/1", "b/2", "not-a-model/x"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "notes.txt").write_text("")
    assert [source.name for source in find_models(tmp_path / "models")] == ["a", "b"]
    (one,) = find_models(tmp_path / "models" / "a")
    assert (one.name, one.base_path) == ("a", tmp_path / "models" / "a")
    assert find_models(tmp_path / "models" / "not-a-model") == []


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), [9]),
        (VersionPolicy(latest=2), [9, 3]),
        (VersionPolicy(latest=None), [9, 3, 1]),
        (VersionPolicy(specific=frozenset((1, 3, 77))), [3, 1]),
    ],
)
def test_the_policy_chooses_newest_first(tmp_path: Path, policy: VersionPolicy, chosen: list[int]) -> None:
    """Latest, all and specific versions, in the order they are to be loaded."""
    assert list(policy.choose({1: tmp_path, 9: tmp_path, 3: tmp_path})) == chosen
