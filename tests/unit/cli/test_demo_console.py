"""The demo's options, and how wide its page is."""

from __future__ import annotations

import io

import pytest
from click.testing import CliRunner

from consumer.cli.demo import _console, command


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


@pytest.mark.parametrize("option", ["--rows", "--reviews"])
def test_a_table_of_no_rows_is_refused_before_anything_starts(option: str) -> None:
    """It would end the demo with a division by zero, after its whole run."""
    result = CliRunner().invoke(command, [option, "0"])
    assert (result.exit_code, "0 is not in the range x>=1" in result.stderr) == (2, True)
