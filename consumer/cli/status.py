"""``rexstream status``: the workers of a consumer group, their partitions, lag, pauses and model servers."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from consumer.cli.options import KafkaAccess, Unreachable, group_options
from consumer.exit_codes import EXIT_FAILED

if TYPE_CHECKING:
    from consumer.cli.group_report import Report
    from consumer.kafka.tools.group import GroupReader


@click.command(name="status", short_help="Show the workers of a group: partitions, lag, pauses, model servers.")
@group_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one a line.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.5),
    default=3.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks of --watch.",
)
@click.pass_context
def command(
    context: click.Context,
    kafka: KafkaAccess,
    addresses: tuple[str, ...],
    as_json: bool,
    watch: bool,
    interval: float,
) -> None:
    """Show what the workers of a consumer group do: who is there, lag, rates of the last minute, pauses and their
    reasons, models and model servers. Changes nothing and joins no group.

    Members and lag come from Kafka (it needs Describe on the group and its topics, which a worker's own rights
    include), the rest from each worker's HTTP port. Lag is what kafka-consumer-groups shows.

    Exit code 0 when all is well; 1 when a worker was not reached, is not ready or does not consume an input
    (backpressure apart), a partition has no member or an unknown lag, a model server cannot be used, models or versions
    of workers differ, or there is no worker; 3 when nothing answers, Kafka or any worker that --http names. --watch
    ends with 130, on Ctrl-C.

    \b
    Example:
      rexstream status --config worker.yaml
      rexstream status --config worker.yaml --watch
      rexstream status --http worker:9464 --json
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from rich.console import Console

    from consumer.cli.group_workers import group_reader
    from consumer.cli.progress import waiting_for

    console = Console()
    with group_reader(kafka, addresses) as reader:
        if watch:
            _watch(kafka, addresses, reader, console.is_terminal and not as_json, as_json, interval)
        with waiting_for("Kafka and the workers" if reader is not None else "the workers"):
            found = _look(kafka, addresses, reader)
    _show(found, as_json)
    if reader is None and not found.workers:
        raise Unreachable("no worker answers")
    context.exit(0 if found.well else EXIT_FAILED)


def _look(kafka: KafkaAccess, addresses: tuple[str, ...], reader: GroupReader | None) -> Report:
    from consumer.cli.group_report import report
    from consumer.cli.group_workers import look, without_members, workers_of
    from consumer.config.inputs import Inputs

    workers = workers_of(kafka, addresses, reader)
    group = workers.group
    answered = look(workers.targets, time.monotonic() + kafka.timeout)
    lags = {}
    if reader is not None:
        assigned = {each for member in group.members for each in member.partitions} if group is not None else ()
        lags = reader.lags(Inputs(route.input for route in kafka.config.routes), assigned)
    nobody = without_members(group) if group is not None and not group.members else ""
    return report(kafka.config.kafka.group_id, group, answered, lags, nobody)


def _show(found: Report, as_json: bool) -> None:
    from rich.console import Console, Group

    from consumer.cli.group_tables import report_tables
    from consumer.cli.record_lines import json_line

    if as_json:
        click.echo(json_line({**asdict(found), "well": found.well}))
    else:
        console = Console(highlight=False)
        console.print(Group(*report_tables(found, console.width)))


def _watch(
    kafka: KafkaAccess,
    addresses: tuple[str, ...],
    reader: GroupReader | None,
    live: bool,
    as_json: bool,
    interval: float,
) -> None:
    """Never returns; what cannot be reached in one look may be in the next."""
    from datetime import UTC, datetime

    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from consumer.cli.group_tables import report_tables
    from consumer.kafka.clients.cluster import ClusterUnreachable

    if not live:
        while True:
            try:
                _show(_look(kafka, addresses, reader), as_json)
            except (Unreachable, ClusterUnreachable) as error:
                click.echo(f"Error: {error}", err=True)
            time.sleep(interval)
    console = Console(highlight=False)
    with Live(Text("looking ..."), console=console, screen=True, auto_refresh=False) as screen:
        while True:
            try:
                shown = report_tables(_look(kafka, addresses, reader), console.width, problems_first=True)
            except (Unreachable, ClusterUnreachable) as error:
                shown = iter([Text(str(error), style="red")])
            moment = Text(f"{datetime.now(UTC):%H:%M:%S} UTC, every {interval:g} s; Ctrl-C ends\n", style="dim")
            screen.update(Group(moment, *shown), refresh=True)
            time.sleep(interval)
