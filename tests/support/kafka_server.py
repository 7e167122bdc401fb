"""``make kafka``: one Apache Kafka broker in the foreground, until Ctrl-C."""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
from pathlib import Path

import click
from apache_kafka import ApacheKafka, KafkaUnavailable, fetch_jars


@click.command(name="kafka")
@click.option("--port", type=click.IntRange(1, 65_535), default=9092, show_default=True, help="Port on 127.0.0.1.")
def command(port: int) -> None:
    """Run Apache Kafka on this machine; its data is gone afterwards.

    \b
    Example:
      make kafka PORT=9192
    """
    _refuse_taken(port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="rexstream-kafka-") as folder:
        try:
            click.echo("starting Apache Kafka (the first time its jars are fetched, about 45 MB) ...", err=True)
            broker = ApacheKafka(fetch_jars(), Path(folder), port=port)
        except KafkaUnavailable as error:
            click.echo(f"Apache Kafka cannot run: {error}", err=True)
            sys.exit(3)
        try:
            broker.start()
            address = broker.bootstrap_servers
            click.echo(f"Apache Kafka {broker.version} at {address}, data in {folder}; Ctrl-C stops it")
            click.echo(f"  .venv/bin/rexstream send --bootstrap-servers {address}  # the sample reviews")
            click.echo(f"  .venv/bin/rexstream run --set kafka.bootstrap_servers={address}  # see examples/README.md")
            click.echo(f"  REXSTREAM_TEST_BOOTSTRAP={address} make test")
            ended = broker.wait()
            click.echo(f"Apache Kafka ended by itself with status {ended}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("stopping ...", err=True)
        except RuntimeError as error:
            raise click.ClickException(str(error)) from None
        finally:
            broker.stop()


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise click.UsageError(f"127.0.0.1:{port} cannot be used ({error.strerror}); choose another port") from None


if __name__ == "__main__":
    command()
