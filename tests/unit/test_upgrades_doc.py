"""docs/upgrades.md: each state that it lists is shown by tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from chaos.catalogue import scenarios

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/upgrades.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ")
][1:]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_tests_that_there_are(row: list[str]) -> None:
    """A scenario of the chaos suite, or a function of the suite."""
    assert len(row) == 7
    assert all(row)
    shown = re.findall(r"`([^`]+)`", row[-1])
    assert shown
    for name in shown:
        if name.startswith("chaos "):
            assert name.removeprefix("chaos ") in {each.name for each in scenarios()}
        else:
            file, _, function = name.partition("::")
            assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), name
