"""``rexstream send``: a file of reviews to a topic."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from consumer.cli import suggestions
from consumer.cli.input_options import id_field_option, input_options
from consumer.cli.options import KafkaAccess, Unreachable, cluster_options, rate_option
from consumer.cli.progress import LINE_SECONDS, counter
from consumer.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from consumer.events import Header
    from consumer.kafka.tools.sender import Delivery, NewRecord
    from consumer.local.partition_budget import PartitionBudget
    from consumer.local.review_files import InputForm

_REPORTED_LINES = 20


def _headers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[Header, ...]:
    """``name=value`` of every --header."""
    headers: list[Header] = []
    for value in values:
        name, equals, content = value.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE, such as source=test")
        headers.append((name, content.encode()))
    return tuple(headers)


@click.command(name="send", short_help="Send reviews to a topic.")
@cluster_options
@click.option(
    "--topic", default="reviews.raw", show_default=True, shell_complete=suggestions.topics, help="Topic to send to."
)
@click.option(
    "--input",
    "-i",
    "path",
    metavar="FILE|-",
    help="Reviews; - is standard input. Default: the 400 reviews that ship with rexstream.",
)
@id_field_option
@input_options
@click.option(
    "--text-as",
    type=click.Choice(["text", "event"]),
    help="What a line of text is sent as: as it is, for a route of format text, or as a JSON event. Default: text.",
)
@click.option(
    "--key-field",
    default="product_id",
    show_default=True,
    help="JSON field or column to use as key; '' sends without keys.",
)
@click.option(
    "--header", "headers", metavar="NAME=VALUE", multiple=True, callback=_headers, help="Header of every record."
)
@rate_option("Records a second. Default: as fast as Kafka takes them.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many records.")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Send the file this many times; from the second time on ~2, ~3, ... is appended to event_id.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as a JSON object.")
def command(
    kafka: KafkaAccess,
    topic: str,
    path: str | None,
    form: InputForm,
    text_as: Literal["text", "event"] | None,
    key_field: str,
    headers: tuple[Header, ...],
    rate: float | None,
    limit: int | None,
    repeat: int,
    as_json: bool,
) -> None:
    """Send reviews to a topic and wait until each is acknowledged.

    A line of JSON is sent as it is. A row of CSV becomes a JSON event: its columns event_id, product_id, source,
    language and created_at are the event's, and all others but the text attributes. Lines that are not JSON objects are
    reported and not sent; --format text sends any line as it is.

    On the embedded broker ('rexstream broker') a file that would bring a partition over 2 MB is refused before anything
    is sent, because that broker would drop its oldest records. Exit code 1 when a line was bad or a record not
    acknowledged.

    \b
    Example:
      rexstream send
      rexstream send --input reviews.jsonl.gz --id-field review_id --rate 200
      rexstream send --input reviews.csv --column content --id-field review_id --topic shop.reviews
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.config.shipped import shipped
    from consumer.kafka.clients.cluster import look_up
    from consumer.kafka.tools.sender import Sender
    from consumer.local.partition_budget import PartitionBudget
    from consumer.local.review_files import STDIN
    from consumer.local.review_lines import ReviewLines

    try:
        path = path or str(shipped("schemas/samples/reviews.jsonl"))
    except FileNotFoundError as error:
        raise click.UsageError(f"{error}, or name a file with --input") from None
    if path == STDIN and repeat > 1:
        raise click.UsageError("--repeat needs a file: standard input can be read only once")
    if form.of(path) == "text" and form.format is None and text_as is None:
        raise click.UsageError(
            f"{path} holds lines of text: say --text-as event for a topic of JSON events, or --text-as text for "
            "one whose route has format text"
        )
    lines = ReviewLines(path, form, text_as == "event", key_field or None, headers, repeat, limit)
    found = look_up(kafka.servers, topic, client=kafka.client, timeout=kafka.timeout)
    records: Iterable[NewRecord] = lines
    total = limit
    if found.embedded:
        held = _held_bytes(kafka, topic)
        if path != STDIN:
            with _input_errors(path):
                total = sum(1 for _ in _placed(lines, PartitionBudget(found.partitions, held)))
        records = _placed(lines, PartitionBudget(found.partitions, held))
    sender = Sender(kafka.servers, topic, client=kafka.client, timeout=kafka.timeout, rate=rate)
    started = time.monotonic()
    code = EXIT_OK
    with counter(f"records acknowledged by {topic}", total, line_seconds=LINE_SECONDS) as progress:
        try:
            with _input_errors(path):
                sender.send(records, lambda delivery: progress(delivery.acknowledged))
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        except click.UsageError as error:
            error.show()
            code = error.exit_code
        delivery = sender.finish(lambda delivery: progress(delivery.acknowledged))
    _report(topic, lines.bad_lines, delivery, time.monotonic() - started, as_json)
    if delivery.timed_out and not code:
        why = sender.advertised_trouble() or "is it still up?"
        raise Unreachable(
            f"{kafka.servers} left {delivery.timed_out} records unanswered for {kafka.timeout:g} s; {why}"
        )
    sys.exit(code or (EXIT_FAILED if delivery.failed or lines.bad_lines else EXIT_OK))


def _held_bytes(kafka: KafkaAccess, topic: str) -> Counter[int]:
    """Bytes that each partition holds already. The embedded broker holds so little that reading it all is quick."""
    from consumer.kafka.tools.reader import headers_of, read_to_end
    from consumer.local.partition_budget import record_size

    held: Counter[int] = Counter()
    for message in read_to_end(kafka.servers, topic, client=kafka.client, timeout=kafka.timeout):
        held[message.partition() or 0] += record_size(message.key(), message.value(), headers_of(message))
    return held


def _placed(records: Iterable[NewRecord], budget: PartitionBudget) -> Iterator[NewRecord]:
    """Each record with its partition. Raises PartitionFull for one that would not fit."""
    for record in records:
        yield replace(record, partition=budget.admit(record.key, record.value, record.headers))


@contextlib.contextmanager
def _input_errors(path: str) -> Iterator[None]:
    """Turn what reading the input may raise into bad usage."""
    from consumer.local.line_stream import InputError
    from consumer.local.partition_budget import PartitionFull

    try:
        yield
    except PartitionFull as error:
        raise click.UsageError(
            f"{error}. Send less with --limit, make more partitions ('rexstream broker --topic NAME:PARTITIONS'), or "
            "use Apache Kafka"
        ) from None
    except InputError as error:
        raise click.UsageError(f"--input {path} cannot be read: {error}") from None


def _report(topic: str, bad_lines: dict[int, str], delivery: Delivery, seconds: float, as_json: bool) -> None:
    """On standard error what was not sent or not acknowledged, the first few by name; on standard output the counts."""
    for number, reason in list(bad_lines.items())[:_REPORTED_LINES]:
        click.echo(f"line {number}: {reason}; not sent (--format text sends any line as it is)", err=True)
    for failure in delivery.failures:
        click.echo(f"{failure}; not acknowledged", err=True)
    hidden = max(0, len(bad_lines) - _REPORTED_LINES) + delivery.failed - len(delivery.failures)
    if hidden:
        click.echo(f"... and {hidden} more", err=True)
    rate = delivery.acknowledged / seconds if seconds > 0 else 0.0
    summary = {
        "topic": topic,
        "acknowledged": delivery.acknowledged,
        "failed": delivery.failed,
        "bad_lines": len(bad_lines),
        "partitions": {str(partition): count for partition, count in sorted(delivery.partitions.items())},
        "seconds": round(seconds, 3),
        "records_per_second": round(rate, 1),
    }
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(
            f"{topic}: {delivery.acknowledged} records acknowledged in {seconds:.1f} s ({rate:.0f}/s), "
            f"{delivery.failed} failed, {len(bad_lines)} bad lines"
        )
