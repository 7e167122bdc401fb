"""A file that Git LFS would have to fetch is called what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.config.git_lfs import lfs_pointer, lfs_pointer_at
from consumer.config.problems import ConfigError
from consumer.config.task_files import load_tasks
from consumer.config.yaml import read_yaml

if TYPE_CHECKING:
    from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 123456\n" % (b"0" * 64)
IS_POINTER = f"is a Git LFS pointer of {len(POINTER)} bytes, not the file; run git lfs pull"


def test_a_pointer_is_told_from_a_file_that_begins_like_one() -> None:
    assert lfs_pointer(POINTER) == IS_POINTER
    for content in (b"", POINTER[:20], b"{}", POINTER + b"x" * 1024, b"x" + POINTER):
        assert lfs_pointer(content) is None


def test_the_first_one_of_several_files_is_named(tmp_path: Path) -> None:
    """What is not there, or is a folder, is none."""
    for name, content in (("a", b"{}"), ("b", POINTER), ("c", POINTER)):
        (tmp_path / name).write_bytes(content)
    assert lfs_pointer_at([tmp_path / "absent", tmp_path, tmp_path / "a"]) is None
    assert lfs_pointer_at([tmp_path / "a", tmp_path / "b", tmp_path / "c"]) == f"{tmp_path / 'b'} {IS_POINTER}"


def test_a_configuration_or_task_file_that_is_one(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(POINTER)
    for read in (lambda: read_yaml(path), lambda: load_tasks([tmp_path])):
        with pytest.raises(ConfigError, match=IS_POINTER) as caught:
            read()
        assert str(path) in str(caught.value)
