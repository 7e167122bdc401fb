"""``rexstream tail``: what arrives on the result and dead-letter topics."""

from __future__ import annotations

import time
from math import inf
from typing import Literal

import click

from consumer.cli import suggestions
from consumer.cli.options import KafkaAccess, cluster_options

_POLL_SECONDS = 0.2


@click.command(name="tail", short_help="Print the results on a topic as they arrive.")
@cluster_options
@click.option(
    "--topic",
    "topics",
    multiple=True,
    shell_complete=suggestions.topics,
    help="Topic to follow; may be given many times. Default: reviews.extracted.",
)
@click.option(
    "--from",
    "start",
    type=click.Choice(["beginning", "end"]),
    default="end",
    show_default=True,
    help="Where to start in partitions that exist already.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many records.")
@click.option(
    "--idle-timeout", type=click.FloatRange(min=0.1), metavar="S", help="Stop after S seconds without a record."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: results as they are, other records described.")
def command(
    kafka: KafkaAccess,
    topics: tuple[str, ...],
    start: Literal["beginning", "end"],
    limit: int | None,
    idle_timeout: float | None,
    as_json: bool,
) -> None:
    """Print results as they arrive: event, task, facts. Of a dead letter its place and reason, never its value.

    Joins no consumer group and commits nothing. A topic that does not exist yet is waited for. Ends with exit code 0
    after --limit records, or when --idle-timeout has passed and no --limit was given; with 1 when it passed before
    --limit was reached; with 130 on Ctrl-C.

    \b
    Example:
      rexstream tail --from beginning
      rexstream tail --topic reviews.extracted --topic reviews.dead --json --limit 100 --idle-timeout 30
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from rich.console import Console

    from consumer.cli.record_lines import record_json
    from consumer.cli.tail_text import laid_out, line
    from consumer.kafka.tools.reader import Tail, record_of

    console = Console(highlight=False)
    printed = 0
    with Tail(
        kafka.servers,
        topics or ("reviews.extracted",),
        start,
        client=kafka.client,
        timeout=kafka.timeout,
        on_trouble=lambda trouble: click.echo(trouble, err=True),
    ) as tail:
        for topic in tail.waiting_for:
            click.echo(f"topic {topic} does not exist yet; waiting for it{tail.similar(topic)}", err=True)
        idle_since = time.monotonic()
        while limit is None or printed < limit:
            left = inf if idle_timeout is None else idle_since + idle_timeout - time.monotonic()
            if left <= 0:
                break
            message = tail.poll(min(left, _POLL_SECONDS))
            if message is not None:
                record = record_of(message)
                if console.is_terminal and not as_json:
                    console.print(laid_out(record, console), soft_wrap=True)  # wrapped already, with an indent
                else:
                    click.echo(record_json(record) if as_json else line(record))
                printed += 1
                idle_since = time.monotonic()
    if limit is not None and printed < limit:
        raise click.ClickException(f"{printed} of {limit} records came, then none for {idle_timeout:g} s")
