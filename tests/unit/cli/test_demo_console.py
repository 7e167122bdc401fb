"""How wide the demo's page is."""

from __future__ import annotations

import io

import pytest

from consumer.cli.demo import _console


@pytest.mark.parametrize(("columns", "width"), [(None, 100), ("80", 80), ("140", 140)])
def test_outside_a_terminal_it_is_100_columns_or_what_columns_says(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    """A file or a pipe has no width of its own."""
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert _console().width == width
