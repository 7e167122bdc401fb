"""The options by which commands take their configuration."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from consumer.config.layers import CONFIG_FILE_VARIABLE
from consumer.config.problems import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from consumer.config.loading import Loaded


_Function = TypeVar("_Function", bound="Callable[..., Any]")


class ConfigFailure(click.ClickException):
    """A configuration that cannot be run; click prints its problems and ends with exit code 2."""

    exit_code = ConfigError.exit_code


def config_options(function: _Function) -> _Function:
    """Add ``--config FILE`` (argument ``config_file``) and repeatable ``--set KEY=VALUE`` (argument ``overrides``)."""
    set_option = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set one key, such as model.target=host:8500; may be given many times and wins over file and environment.",
    )
    file_option = click.option(
        "--config",
        "-c",
        "config_file",
        metavar="FILE",
        envvar=CONFIG_FILE_VARIABLE,
        help=f"YAML file with the configuration (also {CONFIG_FILE_VARIABLE}); without one the defaults hold.",
    )
    return file_option(set_option(function))


def loaded(config_file: str | None, overrides: Sequence[str]) -> Loaded:
    """The configuration from file, environment and flags. Raises ConfigFailure, which click turns into exit code 2."""
    # Not at the top: --help should not load the task files' reader.
    from consumer.config.loading import load

    try:
        return load(config_file, os.environ, overrides)
    except ConfigError as error:
        raise ConfigFailure(str(error)) from None


# The options by which ``send`` and ``tail`` reach a cluster, and what they answer when they cannot.


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
    from consumer.kafka.clients.settings import metadata_settings

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
