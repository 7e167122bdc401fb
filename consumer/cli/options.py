"""What several commands share: their options, and the failures that click prints and turns into exit codes.

``config_options`` name a configuration, ``cluster_options`` a Kafka cluster and ``rate_option`` a pace; ``model_extra``
wraps imports that need the optional dependencies.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from consumer.cli import suggestions
from consumer.config.layers import CONFIG_FILE_VARIABLE
from consumer.config.problems import ConfigError
from consumer.exit_codes import EXIT_INTERRUPTED, EXIT_UNREACHABLE, EXIT_USAGE

if TYPE_CHECKING:
    from pathlib import Path

    from consumer.config.loading import Loaded
    from consumer.config.tree import Config

Command = Callable[..., Any]
Pairs = dict[str, str]


class ConfigFailure(click.ClickException):
    """A configuration that cannot be run; click prints its problems and ends with exit code 2."""

    exit_code = EXIT_USAGE


class Unreachable(click.ClickException):
    """A dependency that does not answer; click ends with exit code 3."""

    exit_code = EXIT_UNREACHABLE


def config_options(command: Command) -> Command:
    """Add ``--config FILE`` (argument ``config_file``) and repeatable ``--set KEY=VALUE`` (argument ``overrides``)."""
    set_option = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        shell_complete=suggestions.settings,
        help="Set one key, such as model.target=host:8500; may be given many times and wins over file and environment.",
    )
    file_option = click.option(
        "--config",
        "-c",
        "config_file",
        metavar="FILE",
        envvar=CONFIG_FILE_VARIABLE,
        shell_complete=suggestions.files,
        help=f"YAML file with the configuration (also {CONFIG_FILE_VARIABLE}); without one the defaults hold.",
    )
    return file_option(set_option(command))


def loaded(config_file: str | None, overrides: Sequence[str]) -> Loaded:
    """The configuration from file, environment and flags. Raises ConfigFailure, which click turns into exit code 2."""
    # Not at the top: --help should not load the task files' reader.
    from consumer.config.loading import load

    try:
        return load(config_file, os.environ, overrides)
    except ConfigError as error:
        raise ConfigFailure(str(error)) from None


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """How a command reaches Kafka."""

    config: Config
    servers: str
    """Bootstrap address."""
    client: dict[str, Any]
    """librdkafka settings of any client, security mostly."""
    timeout: float
    """Seconds to wait for an answer."""


def cluster_options(command: Command) -> Command:
    """Add ``--bootstrap-servers``, ``--timeout`` and the options of ``config_options``.

    The command gets them as one argument ``kafka``, a KafkaAccess, and what the Kafka clients raise in it becomes an
    exit code: 2, 3, and 130 for Ctrl-C.
    """
    return _cluster_options(command, 15.0, "Seconds to wait for an answer from Kafka.")


def group_options(command: Command) -> Command:
    """Add the options of ``cluster_options``, where ``--timeout`` is for workers too, and repeatable ``--http``.

    The command gets the latter as ``addresses``.
    """
    http_option = click.option(
        "--http",
        "addresses",
        metavar="HOST:PORT",
        multiple=True,
        help="A worker's HTTP address, or a name of several; may be given many times, and Kafka is not asked then. "
        "Default: all members of kafka.group_id.",
    )
    waits = "Seconds to wait for an answer from Kafka, and for those of all workers together."
    return _cluster_options(http_option(command), 5.0, waits)


def _cluster_options(command: Command, seconds: float, waits: str) -> Command:

    @click.option(
        "--bootstrap-servers",
        "-b",
        metavar="HOST:PORT",
        callback=_servers,
        help="Kafka to use; default: kafka.bootstrap_servers.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=seconds,
        show_default=True,
        help=waits,
    )
    @config_options
    @functools.wraps(command)
    def with_kafka(
        *,
        bootstrap_servers: str | None,
        timeout: float,
        config_file: str | None,
        overrides: tuple[str, ...],
        **others: Any,
    ) -> Any:
        from confluent_kafka import KafkaException

        from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable
        from consumer.kafka.clients.settings import metadata_settings

        config = loaded(config_file, overrides).config
        try:
            settings = metadata_settings(config)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        configured = settings.pop("bootstrap.servers")
        try:
            return command(kafka=KafkaAccess(config, bootstrap_servers or configured, settings, timeout), **others)
        except ClusterUnreachable as error:
            raise Unreachable(str(error)) from None
        except TopicUnusable as error:
            raise click.UsageError(str(error)) from None
        except KafkaException as error:
            # Raised by the constructors, for a setting that librdkafka does not take.
            raise click.UsageError(f"kafka.client: {error.args[0].str()}") from None
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)

    return with_kafka


def _servers(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Brokers by the rules of kafka.bootstrap_servers."""
    from consumer.config.address_rules import bootstrap_faults

    for what, fix in bootstrap_faults(value) if value is not None else ():
        raise click.BadParameter(f"{what}; {fix}")
    return value


def refuse_unreadable(option: str, path: str) -> None:
    """Raise click.UsageError for a file that cannot be read, before a command has waited for a model."""
    # Not opened: a pipe, as bash's <(...) is one, can be opened once.
    reason = ""
    if not os.path.exists(path):
        reason = os.strerror(errno.ENOENT)
    elif os.path.isdir(path):
        reason = os.strerror(errno.EISDIR)
    elif not os.access(path, os.R_OK):
        reason = os.strerror(errno.EACCES)
    if reason:
        raise click.UsageError(f"{option} {path} cannot be read: {reason}; check the path")


def refuse_unwritable(path: Path) -> None:
    """Raise click.BadParameter for a file that cannot be written, before a command has worked for minutes."""
    is_new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be written: {error.strerror}") from error
    if is_new:
        with contextlib.suppress(OSError):
            path.resolve().unlink()


def rate_option(help_text: str) -> Callable[[Command], Command]:
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


@contextlib.contextmanager
def model_extra(doing: str, instead: str = "") -> Iterator[None]:
    """Around imports that need TensorFlow. Raises click.UsageError where it, or what comes with it, is missing."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.UsageError(f"{doing} needs {error.name}: pip install 'rexstream[model]'{instead}") from error


def name_pairs(example: str) -> Callable[[click.Context, click.Parameter, str | None], Pairs]:
    """A callback for ``OLD=NEW`` pairs, separated by commas."""

    def parsed(_: click.Context, parameter: click.Parameter, value: str | None) -> Pairs:
        names = {}
        for pair in filter(None, (value or "").split(",")):
            old, _equals, new = (part.strip() for part in pair.partition("="))
            if not (old and new):
                raise click.BadParameter(
                    f"{pair!r} is not {(parameter.metavar or '').split(',')[0]}, such as {example}"
                )
            names[old] = new
        return names

    return parsed
