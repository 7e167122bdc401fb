"""``rexstream dead-letters``: what could not be processed, and sending it again once the cause is mended."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

import click

from consumer.cli import record_lines as lines
from consumer.cli import suggestions
from consumer.cli.dead_letter_topic import DeadLetterTopic, Replaying
from consumer.cli.options import Command, KafkaAccess, cluster_options, rate_option
from consumer.delivery.letters import LetterFilter, Markers, Selection
from consumer.events import Stage
from consumer.exit_codes import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from consumer.delivery.letter_summary import LetterSummary

_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_ELSEWHERE = 160
"""Columns of a table where standard output is no terminal and COLUMNS does not say."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def source_options(command: Command) -> Command:
    """Add ``--dead-letter-topic`` and the options of ``cluster_options``.

    The command gets them as one argument ``source``, a DeadLetterTopic. A topic that does not exist is bad usage,
    or a mistyped name would look like one without dead letters.
    """

    @cluster_options
    @click.option("--dead-letter-topic", metavar="TOPIC", help="Topic to read; default: delivery.dead_letter_topic.")
    @functools.wraps(command)
    def with_source(*, kafka: KafkaAccess, dead_letter_topic: str | None, **others: Any) -> Any:
        from consumer.kafka.clients.cluster import require_topic

        topic = dead_letter_topic or kafka.config.delivery.dead_letter_topic
        require_topic(kafka.servers, topic, client=kafka.client, timeout=kafka.timeout)
        return command(source=DeadLetterTopic(kafka, topic), **others)

    return with_source


def selection_options(command: Command) -> Command:
    """Add the filters by which letters are chosen: the fields of a Selection, as keyword arguments."""
    for option in (
        click.option("--until", "until_ms", metavar="TIME", callback=_time, help="Failed before then, as --since."),
        click.option(
            "--since",
            "since_ms",
            metavar="TIME",
            callback=_time,
            help="Failed then or later: 2026-05-01T08:30 (UTC), or an age in s, m, h or d, such as 2h.",
        ),
        _filter("--topic", "topics", "Topic that the failed record came from", shell_complete=suggestions.topics),
        _filter("--task", "tasks", "Task that failed", shell_complete=suggestions.tasks),
        _filter("--stage", "stages", "Stage that failed", type=click.Choice(get_args(Stage))),
        _filter("--class", "reasons", "Class of the failure, such as InvalidJson"),
        _filter("--id", "ids", "Id of a dead letter"),
    ):
        command = option(command)
    return command


def _filter(flag: str, name: str, what: str, **settings: Any) -> Any:
    return click.option(
        flag,
        name,
        multiple=True,
        callback=lambda _, __, values: frozenset(values),
        help=f"{what}; may be given many times.",
        **settings,
    )


def _time(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Milliseconds since 1970 of ``2h`` (ago) or of an ISO time, in UTC unless it says otherwise."""
    if value is None:
        return None
    try:
        if ago := _AGO.fullmatch(value):
            return round((time.time() - int(ago[1]) * _UNITS[ago[2]]) * 1000)
        moment = datetime.fromisoformat(value)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a time such as 2026-05-01T08:30 nor an age such as 30s, 5m, 2h or 7d"
        ) from None


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
@click.option("--summary", is_flag=True, help="Count them by topic, stage, class, task and hour instead.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line; with --summary only one.")
def list_letters(source: DeadLetterTopic, limit: int | None, summary: bool, as_json: bool, **filters: Any) -> None:
    """List dead letters that were not replayed: when, where and why; never the review.

    \b
    Example:
      rexstream dead-letters list --since 2h
      rexstream dead-letters list --summary --since 7d
      rexstream dead-letters list --class TextTooLong --task sentiment --json
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    if summary:
        if limit:
            raise click.UsageError("--summary counts all dead letters, so it takes no --limit; narrow it with --since")
        _say_younger(_summarise(source, Selection(**filters), as_json), source.topic)
        return
    letter_filter = LetterFilter(Selection(**filters), source.markers())
    if not as_json:
        click.secho(lines.COLUMNS, dim=True)
    for letter in islice(source.letters(letter_filter), limit):
        click.echo(json.dumps(lines.fields(letter), ensure_ascii=False) if as_json else lines.row(letter))
    if not as_json:
        click.echo(lines.counts(letter_filter))
    _say_younger(letter_filter, source.topic)


def _summarise(source: DeadLetterTopic, selection: Selection, as_json: bool) -> LetterSummary:
    from rich.console import Console

    from consumer.cli.letter_tables import summary_json, summary_tables

    summary = source.summary(selection)
    if as_json:
        click.echo(json.dumps(summary_json(source.topic, summary), ensure_ascii=False))
    else:
        console = Console(highlight=False)
        if not (console.is_terminal or "COLUMNS" in os.environ):
            console.width = _ELSEWHERE
        for part in summary_tables(source.topic, summary, console.width):
            console.print(part)
    return summary


def _say_younger(read: LetterFilter | LetterSummary, topic: str) -> None:
    if read.younger:
        click.echo(
            f"{read.younger} of those replayed already failed after that; if a topic was deleted and made anew, delete "
            f"{topic}.replayed too",
            err=True,
        )


@command.command(name="show", short_help="Show one dead letter with its headers.")
@source_options
@click.argument("letter_id", metavar="ID")
@click.option("--value", "with_value", is_flag=True, help="Show the value too: the review.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(source: DeadLetterTopic, letter_id: str, with_value: bool, as_json: bool) -> None:
    """Show one dead letter: its key, all its headers and, with --value, its value. Exit code 1 when it is not there.

    \b
    Example:
      rexstream dead-letters show reviews.raw-3-4711-sentiment
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    # Replayed letters are shown too.
    letter = next(source.letters(LetterFilter(Selection(ids=frozenset({letter_id})), Markers())), None)
    if letter is None:
        raise click.ClickException(f"topic {source.topic} holds no dead letter {letter_id!r} (see 'dead-letters list')")
    described = lines.in_full(letter, replayed=source.markers().replayed_at(letter) is not None, with_value=with_value)
    click.echo(json.dumps(described, ensure_ascii=False) if as_json else "\n".join(lines.lines_in_full(described)))


@command.command(name="replay", short_help="Send dead letters again to the topics they came from.")
@source_options
@selection_options
@rate_option("Dead letters a second. Default: as fast as Kafka takes them.")
@click.option("--limit", type=click.IntRange(min=1), help="Replay at most this many.")
@click.option(
    "--max-replays",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Leave out records that were replayed this often and still fail.",
)
@click.option(
    "--any-topic",
    is_flag=True,
    help="Also to topics that are no input of this configuration. One that --topic names needs no leave.",
)
@click.option(
    "--group", metavar="NAME", help="Consumer group that wrote the letters, if it was renamed; default: kafka.group_id."
)
@click.option("--dry-run", is_flag=True, help="Only list what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as a JSON object.")
def replay(
    source: DeadLetterTopic,
    rate: float | None,
    limit: int | None,
    max_replays: int,
    any_topic: bool,
    group: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Send dead letters again to the topics they came from; the worker then runs only the task that failed.

    Each goes in one Kafka transaction with a marker of its id, so a replay that is interrupted, killed or started twice
    doubles nothing: run it again, and it goes on with the rest. One replay of a topic runs at a time; a second one
    takes over and ends the first. Left out and counted are letters without their value, records that failed after
    --max-replays replays, letters that another consumer group wrote, and letters of topics that are no input of this
    configuration, since whoever may write a dead letter can name any topic in it.

    Only workers of kafka.group_id run what is replayed; those of other groups that read the topic pass it over.

    After a dead-letter topic or a topic that letters came from was deleted and made anew, delete <dead-letter
    topic>.replayed too: by its markers new letters of the same places would pass for replayed.

    Exit code 0, also when letters were left out; 1 when a topic refused some, 4 when another replay took over.

    \b
    Example:
      rexstream dead-letters replay --class TextTooLong --dry-run
      rexstream dead-letters replay --task sentiment --since 2h --rate 50
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.config.inputs import Inputs
    from consumer.config.topic_patterns import is_pattern
    from consumer.kafka.clients.cluster import is_embedded
    from consumer.kafka.tools.replayer import open_targets

    kafka = source.kafka
    # Its transactions commit nothing and fence nobody, so a replay could send letters twice unnoticed.
    if is_embedded(kafka.servers, client=kafka.client, timeout=kafka.timeout):
        raise click.UsageError(
            f"{kafka.servers} is the embedded broker, which has no working transactions, so a replay could double "
            "events; use Apache Kafka"
        )
    selection = Selection(**filters)
    named = (topic for topic in selection.topics if not is_pattern(topic))
    only = None if any_topic else Inputs((*(route.input for route in kafka.config.routes), *named))
    writer = group or kafka.config.kafka.group_id
    with open_targets(kafka.servers, only, client=kafka.client, timeout=kafka.timeout) as targets:
        work = Replaying(source, targets, LetterFilter(selection, Markers()), max_replays, writer, limit)
        if dry_run:
            count = 0
            for letter in work.letters(source.markers()):
                count += 1
                if not as_json:
                    click.echo(lines.row(letter))
            work.print_summary(count, as_json, dry_run=True)
        else:
            if _watched():
                work.limit = sum(1 for _ in work.letters(source.markers()))
                # The limit stays: letters that come meanwhile may have causes that nobody has looked at.
                if not yes and _asked():
                    question = f"Replay {work.limit} dead letters of {source.topic} at {kafka.servers}?"
                    click.confirm(question, abort=True, err=True)
            work.run(rate, as_json)
    sys.exit(EXIT_FAILED if work.refused else EXIT_OK)


def _watched() -> bool:
    """Whether standard error is a terminal, which shows progress."""
    return sys.stderr.isatty()


def _asked() -> bool:
    """Whether standard input is a terminal, at which a question can be answered."""
    return sys.stdin.isatty()
