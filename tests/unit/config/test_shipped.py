"""Shipped files are found in a checkout and in an installed package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.config.shipped import shipped

if TYPE_CHECKING:
    from pathlib import Path


def test_in_a_checkout() -> None:
    """Files are found by their name in the repository."""
    assert shipped("schemas/avro/review_event.avsc").is_file()
    assert shipped("deploy/demo-model").is_dir()


def test_in_an_installed_package(tmp_path: Path) -> None:
    """The package's own copy is used, whatever lies beside the package."""
    package = tmp_path / "consumer"
    (package / "_schemas" / "tasks").mkdir(parents=True)
    (package / "_demo_model").mkdir()
    (tmp_path / "schemas" / "tasks").mkdir(parents=True)
    assert shipped("schemas/tasks", package) == package / "_schemas" / "tasks"
    assert shipped("schemas", package) == package / "_schemas"
    assert shipped("deploy/demo-model", package) == package / "_demo_model"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error has every place that was looked at."""
    with pytest.raises(FileNotFoundError, match=r"_schemas.none.*and.*schemas.none"):
        shipped("schemas/none", tmp_path / "consumer")
