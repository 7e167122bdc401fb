"""``rexstream broker``: the embedded broker as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.options import Unreachable

if TYPE_CHECKING:
    from consumer.local.broker import EmbeddedBroker

WARNING = """\
This broker is for trying things out, not for data you want to keep:
  - in memory: everything is gone when it stops
  - small: it would lose data of a partition above 4 MB without a word, so when one would get more than 2 MB, that and
    everything produced afterwards is refused (POLICY_VIOLATION); what was acknowledged before can still be read
  - at-least-once only: it answers transactions but does not carry them out; exactly-once needs Apache Kafka
Topics appear on first use with 4 partitions (--topic NAME:PARTITIONS for more). Ctrl-C stops it."""


def _topic_sizes(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """``NAME:PARTITIONS`` of every --topic."""
    sizes = {}
    for value in values:
        topic, _colon, partitions = value.rpartition(":")
        if not topic or not partitions.isdecimal() or int(partitions) < 1:
            raise click.BadParameter(f"{value!r} is not NAME:PARTITIONS, such as reviews.raw:8")
        sizes[topic] = int(partitions)
    return sizes


@click.command(name="broker", short_help="Run an embedded, in-memory Kafka broker.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=9092,
    show_default=True,
    help="Port on 127.0.0.1 that clients bootstrap from; 0 takes a free one.",
)
@click.option("--brokers", type=click.IntRange(1, 10), default=1, show_default=True, help="Brokers in the cluster.")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME:PARTITIONS",
    callback=_topic_sizes,
    help="Create a topic at the start; may be given many times.",
)
@click.option(
    "--address-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the bootstrap address to this file once clients can connect.",
)
@click.option("--exit-with-parent", is_flag=True, help="Stop when the process that started this one is gone.")
def command(port: int, brokers: int, topics: dict[str, int], address_file: Path | None, exit_with_parent: bool) -> None:
    """Run an embedded, in-memory Kafka broker for trying things out: no Java, nothing to install.

    Prints its bootstrap address on standard output once clients can connect. SIGTERM and Ctrl-C stop it with exit
    code 0. Clients must run on this machine: the address that the broker advertises is 127.0.0.1.

    A partition takes 2 MB. What would go beyond is refused with POLICY_VIOLATION, and so is everything that anyone
    produces afterwards, because the broker would drop the oldest records without a word. A line on standard error
    names the partition. What was acknowledged can still be read. Restart the broker to start empty.

    \b
    Example:
      rexstream broker
      rexstream broker --port 0 --topic reviews.raw:8 --address-file broker.address
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    if exit_with_parent:
        from consumer.local import processes as lifetime

        lifetime.exit_with_parent()
    from consumer.local.broker import EmbeddedBroker, EmbeddedBrokerError

    try:
        broker = EmbeddedBroker(brokers, topics)
    except EmbeddedBrokerError as error:
        raise Unreachable(str(error)) from None
    with broker:
        asyncio.run(_serve(broker, port, address_file))


async def _serve(broker: EmbeddedBroker, port: int, address_file: Path | None) -> None:
    """Announce the address and wait for SIGTERM or SIGINT."""
    from consumer.local.broker_guard import BrokerGuard

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    guard = BrokerGuard(broker, lambda reason: click.echo(f"REFUSED: {reason}", err=True))
    try:
        address = await guard.listen(port)
    except OSError as error:
        raise click.UsageError(
            f"port {port} on 127.0.0.1 cannot be used ({os.strerror(error.errno or 0)}): is another broker "
            "running? Choose another with --port, or 0 for a free one"
        ) from error
    if address_file is not None:
        # Whole at once: a reader that waits for the file must never see half of it.
        unfinished = address_file.with_name(f".{address_file.name}.{os.getpid()}")
        try:
            unfinished.write_text(address + "\n", "utf-8")
            unfinished.replace(address_file)
        except OSError as error:
            raise click.UsageError(f"--address-file {address_file} cannot be written: {error.strerror}") from error
    click.echo(WARNING, err=True)
    click.echo(address)
    await stop.wait()
