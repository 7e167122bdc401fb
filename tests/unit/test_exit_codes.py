"""Exit codes are what supervisors and scripts go by."""

from __future__ import annotations

from consumer import exit_codes
from consumer.cli import cli


def test_the_values_are_those_that_are_documented() -> None:
    """``rexstream --help`` lists them; no two mean the same."""
    values = {name: value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    assert values == {
        "EXIT_OK": 0,
        "EXIT_FAILED": 1,
        "EXIT_USAGE": 2,
        "EXIT_UNREACHABLE": 3,
        "EXIT_FENCED": 4,
        "EXIT_CREDENTIALS": 5,
        "EXIT_INTERRUPTED": 130,
    }
    listed = " ".join((cli.help or "").split()).partition("Exit codes: ")[2].partition(". ")[0]
    assert [int(each.split()[0]) for each in listed.split(", ")] == sorted(values.values())
