"""The options by which ``send`` and ``tail`` reach a cluster, and what they answer when they cannot."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from consumer.cli.configured import config_options, loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_Function = TypeVar("_Function", bound="Callable[..., Any]")

INTERRUPTED = 130


class Unreachable(click.ClickException):
    """A dependency that does not answer."""

    exit_code = 3


def cluster_options(function: _Function) -> _Function:
    """Add ``--bootstrap-servers``, ``--timeout``, and the options of ``config_options``."""
    bootstrap = click.option(
        "--bootstrap-servers", "-b", metavar="HOST:PORT", help="Kafka to use; default: kafka.bootstrap_servers."
    )
    timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=15.0,
        show_default=True,
        help="Seconds to wait for an answer from Kafka.",
    )
    return bootstrap(timeout(config_options(function)))


def rate_option(help_text: str) -> Callable[[_Function], _Function]:
    """Add ``--rate``, a number a second."""
    return click.option("--rate", metavar="N/s", callback=_rate, help=help_text)


def _rate(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """``200`` or ``200/s``."""
    if value is None:
        return None
    try:
        rate = float(value.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise click.BadParameter(f"{value!r} is not a number of records a second above 0, such as 200")
    return rate


def cluster(
    config_file: str | None, overrides: Sequence[str], bootstrap_servers: str | None
) -> tuple[str, dict[str, Any]]:
    """Bootstrap address and librdkafka settings (security, mostly) from flags and configuration."""
    from consumer.kafka.clients.client_settings import metadata_settings

    config = loaded(config_file, overrides).config
    try:
        settings = metadata_settings(config)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    configured = settings.pop("bootstrap.servers")
    return bootstrap_servers or configured, settings


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what the Kafka clients raise into the command line's exit codes: 2, 3, and 130 for Ctrl-C."""
    from confluent_kafka import KafkaException

    from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable

    try:
        yield
    except ClusterUnreachable as error:
        raise Unreachable(str(error)) from None
    except TopicUnusable as error:
        raise click.UsageError(str(error)) from None
    except KafkaException as error:
        # Raised by the constructors, for a setting that librdkafka does not take.
        raise click.UsageError(f"kafka.client: {error.args[0].str()}") from None
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
