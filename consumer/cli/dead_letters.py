"""``rexstream dead-letters``: what could not be processed, and sending it again once the cause is mended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from consumer.cli.dead_letter_replay import replay
from consumer.cli.dead_letter_source import open_source, selection, selection_options, source_options
from consumer.cli.options import exit_codes

if TYPE_CHECKING:
    from typing import Any


@click.group(name="dead-letters", short_help="List, show and replay dead letters.")
def command() -> None:
    """List, show and replay dead letters.

    What was replayed has a marker in the compacted topic <dead-letter topic>.replayed and is listed no more.

    \b
    Example:
      rexstream dead-letters list --config worker.yaml --class Poison
      rexstream dead-letters replay --config worker.yaml --class Poison --rate 50
    """  # noqa: D301 - click's own mark for a block that is not wrapped


@command.command(name="list", short_help="List dead letters, and how many there are of each class.")
@source_options
@selection_options
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def list_letters(
    bootstrap_servers: str | None,
    timeout: float,
    config_file: str | None,
    overrides: tuple[str, ...],
    dead_letter_topic: str | None,
    limit: int | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """List dead letters that were not replayed: when, where and why; never the review.

    \b
    Example:
      rexstream dead-letters list --since 2h
      rexstream dead-letters list --class TextTooLong --task sentiment --json
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli import record_lines as lines
    from consumer.delivery.letters import LetterFilter

    with exit_codes():
        source = open_source(bootstrap_servers, timeout, config_file, overrides, dead_letter_topic)
        sieve = LetterFilter(selection(**filters), source.replayed_ids())
        if not as_json:
            click.secho(lines.COLUMNS, dim=True)
        for number, letter in enumerate(source.letters(sieve), 1):
            click.echo(lines.json_line(lines.fields(letter)) if as_json else lines.row(letter))
            if number == limit:
                break
        if not as_json:
            click.echo(lines.counts(sieve))
        if sieve.younger:
            click.echo(
                f"{sieve.younger} of those replayed already failed after that; if a topic was deleted and made anew, "
                f"delete {source.topic}.replayed too",
                err=True,
            )


@command.command(name="show", short_help="Show one dead letter with its headers.")
@source_options
@click.argument("letter_id", metavar="ID")
@click.option("--value", "with_value", is_flag=True, help="Show the value too: the review.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(
    bootstrap_servers: str | None,
    timeout: float,
    config_file: str | None,
    overrides: tuple[str, ...],
    dead_letter_topic: str | None,
    letter_id: str,
    with_value: bool,
    as_json: bool,
) -> None:
    """Show one dead letter: its key, all its headers and, with --value, its value. Exit code 1 when it is not there.

    \b
    Example:
      rexstream dead-letters show reviews.raw-3-4711-sentiment
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli import record_lines as lines
    from consumer.delivery.letters import LetterFilter, Selection

    with exit_codes():
        source = open_source(bootstrap_servers, timeout, config_file, overrides, dead_letter_topic)
        # Also when it was replayed: somebody wants to see it.
        letter = next(source.letters(LetterFilter(Selection(ids=frozenset({letter_id})), {})), None)
        if letter is None:
            click.echo(f"topic {source.topic} holds no dead letter {letter_id!r} (see 'dead-letters list')", err=True)
            sys.exit(1)
        described = lines.in_full(letter, replayed=letter.id in source.replayed_ids(), with_value=with_value)
        for line in [lines.json_line(described)] if as_json else lines.lines_in_full(described):
            click.echo(line)


command.add_command(replay)
