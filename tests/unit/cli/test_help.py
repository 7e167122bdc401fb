"""``--help`` of every command."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from consumer.cli import COMMANDS, cli


def paths_of(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        found += paths_of(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


PATHS = paths_of(cli)


def test_all_commands_are_looked_at() -> None:
    """Those of the groups too, and each goes by the name that it is listed under."""
    assert {path[0] for path in PATHS if path} == set(COMMANDS)
    assert {("config", "print"), ("dead-letters", "replay")} <= set(PATHS)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    """A line that can be copied."""
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="rexstream")
    assert result.exit_code == 0, result.output
    _, _, examples = result.output.partition("Example")
    assert " ".join(("rexstream", *path)) in examples


@pytest.mark.parametrize(
    ("typed", "words"),
    [("tial", "did you mean 'tail'?"), ("deadletters", "did you mean 'dead-letters'?"), ("x", "'rexstream --help'")],
)
def test_a_command_that_is_not_there_is_a_slip_of_one_that_is(typed: str, words: str) -> None:
    """Exit code 2."""
    result = CliRunner().invoke(cli, [typed], prog_name="rexstream")
    assert result.exit_code == 2
    assert words in result.stderr
