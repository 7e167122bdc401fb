"""Writes configuration files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(text: str) -> str:
        path = tmp_path / "rexstream.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_file
