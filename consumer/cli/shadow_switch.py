"""``rexstream shadow switch``: the results of a shadow run, published to the live topics."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

import click

from consumer.cli.options import KafkaAccess, cluster_options, rate_option
from consumer.cli.shadow_access import input_option
from consumer.exit_codes import EXIT_FENCED

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from consumer.cli.shadow_access import Shadow
    from consumer.delivery.shadow_switch import Verdict

_LEFT_OUT: dict[Verdict, str] = {
    "newer": "the live topic has a newer one; --over-newer publishes them",
    "deleted": "a tombstone of their key came after them",
    "repeated": "another of the same event and task in the shadow is later",
}


@click.command(name="switch", short_help="Publish the shadow's results to the live topics.")
@cluster_options
@input_option
@rate_option("Most results a second. Default: as fast as Kafka takes them.")
@click.option("--over-newer", is_flag=True, help="Also where the live topic has a newer result.")
@click.option("--incomplete", is_flag=True, help="Although the run has not extracted all of its range.")
@click.option("--dry-run", is_flag=True, help="Only count what would be published, and ask if Avro schemas fit.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    kafka: KafkaAccess,
    topics: tuple[str, ...],
    rate: float | None,
    over_newer: bool,
    incomplete: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Publish the shadow's results to the live output topics, as they are: same key, value and headers.

    Subscribers that keep the last result of a result_id then have the shadow's. Left out and counted are results of
    which the live topic has a newer one, of a later record or extracted later, and those that were deleted after them.
    The shadow's dead letters are not published. It cannot be undone, but by another shadow run with the model before.

    Each result goes in one Kafka transaction with its place in the shadow, so a switch that is interrupted, killed or
    started twice doubles nothing: run it again, and it goes on with the rest. A second one takes over from the first.

    Exit code 0 when all is published, 4 when another switch took over.

    \b
    Example:
      rexstream shadow switch --config worker.yaml --input reviews.raw --dry-run
      rexstream shadow switch --config worker.yaml --input reviews.raw --rate 500
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli.progress import LINE_SECONDS, counter
    from consumer.cli.result_schemas import ResultSchemas
    from consumer.cli.shadow_access import begun, dead_letters
    from consumer.delivery.shadow_switch import SwitchChoice
    from consumer.kafka.clients.cluster import Reader
    from consumer.kafka.clients.settings import transaction_settings
    from consumer.kafka.tools.switcher import Switcher
    from consumer.kafka.tools.transactions import TakenOver, open_transactions

    shadow = begun(kafka, topics)
    group = shadow.group
    _refuse_unfinished(shadow, incomplete)
    places = group.partitions(shadow.topics)
    schemas = ResultSchemas(kafka.config.kafka.registry)
    choice = SwitchChoice(shadow.plan, schemas.read, over_newer=over_newer)
    with Reader(kafka.servers, client=kafka.client, timeout=kafka.timeout) as reader:
        counts = cache(lambda topic: len(reader.partitions(topic)))
        for live in sorted(set(shadow.topics.values())):
            if not counts(live):
                raise click.UsageError(f"topic {live!r}, where results go, does not exist{reader.similar(live)}")
        switcher = Switcher(kafka.servers, shadow.topics, choice, counts, client=kafka.client, timeout=kafka.timeout)
        click.echo("reading the shadow topics and the live ones", err=True)
        switcher.read()
        found = choice.counts(group.switched(places, pending=True))
        total = sum(number for (_, verdict), number in found.items() if verdict == "publish")
        for line in _to_publish(shadow, found, choice.repeated):
            click.echo(line, err=True)
        for live, (number, why) in sorted(switcher.unreadable.items()):
            click.echo(f"{number} records of {live} cannot be read, so they may be newer or not: {why}", err=True)
        if letters := dead_letters(kafka, shadow).total:
            click.echo(f"{letters} dead letters in {shadow.dead_letter_topic} are not published", err=True)
        for live, number in sorted(switcher.schemas if total else ()):
            schemas.also_under(live, number, only_ask=True)
        if dry_run or not total:
            click.echo(f"{total} results would be published" if dry_run else "nothing is left to publish")
            return
        if not yes:
            question = f"Publish {total} results to the live topics at {kafka.servers}? It cannot be undone."
            click.confirm(question, abort=True, err=True)
        for live, number in sorted(switcher.schemas):
            schemas.also_under(live, number)
        settings = transaction_settings(kafka.config, f"rexstream-switch-{group.group}")
        what, kept = f"switch of group {group.group}", "what was published is not published again"
        try:
            transactions = open_transactions(kafka.servers, what, kept, producer=settings, timeout=kafka.timeout)
            with counter("results published", total, line_seconds=LINE_SECONDS) as progress:
                transactions.begin()
                done = switcher.publish(transactions, group, rate, progress)
        except TakenOver as fenced:
            click.echo(f"Error: {fenced}", err=True)
            sys.exit(EXIT_FENCED)
    group.close()
    left_out = done["newer"] + done["deleted"]
    click.echo(f"{done['publish']} results published; {left_out} left out: newer in the live topics, or deleted")


def _refuse_unfinished(shadow: Shadow, incomplete: bool) -> None:
    """Raises click.UsageError for a run that still writes, has not ended, or whose results are gone."""
    from consumer.delivery.shadow_plan import progress

    group = shadow.group
    if members := group.members():
        raise click.UsageError(f"group {group.group!r} has {members} members: wait for the run's end, or stop it")
    found = progress(shadow.plan, group.committed(shadow.plan))
    if not found.is_complete and not incomplete:
        raise click.UsageError(
            f"the run has extracted {found.done} of {found.total} records: go on with its own 'rexstream shadow run', "
            "or publish what there is with --incomplete"
        )
    if (others := group.replaced(shadow.plan, shadow.topics)) and not incomplete:
        raise click.UsageError(
            f"topic {others[0]!r} was deleted and created again since the run began, and what it had is missing: drop "
            "the shadow and run it again, or publish what is left with --incomplete"
        )
    if held := group.held_back(shadow.topics):
        raise click.UsageError(
            f"{held[0]} has a transaction that a process of the run left open when it was killed, and results behind "
            "it cannot be read yet: try again once delivery.transaction_timeout_ms is over"
        )
    places = group.partitions(shadow.topics)
    switched = group.switched(places, pending=True)
    gone = [each for each, first in group.positions(places, None, end=False).items() if first > switched.get(each, 0)]
    if gone and not incomplete:
        raise click.UsageError(
            f"{', '.join(map(str, gone))} lost its first results, which were not published yet, by retention: set "
            "retention.ms of the shadow topics, drop the shadow and run it again, or publish what is left with "
            "--incomplete"
        )


def _to_publish(shadow: Shadow, found: Counter[tuple[str, Verdict]], repeated: int) -> Iterator[str]:
    for topic, live in sorted(shadow.topics.items()):
        yield f"{found[topic, 'publish']} results of {topic} to {live}"
    left_out: dict[Verdict, int] = {"repeated": repeated}
    for (_, verdict), number in found.items():
        left_out[verdict] = left_out.get(verdict, 0) + number
    for verdict, words in _LEFT_OUT.items():
        if left_out.get(verdict):
            yield f"{left_out[verdict]} left out: {words}"
