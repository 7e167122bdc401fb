"""The dead-letter topic that ``dead-letters`` works on, and the options by which it is named."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar, get_args

import click

from consumer.cli.options import cluster, cluster_options, loaded
from consumer.delivery.letters import Selection
from consumer.events import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from consumer.config.tree import Config
    from consumer.delivery.letters import Letter, LetterFilter


_Function = TypeVar("_Function", bound="Callable[..., Any]")


def source_options(function: _Function) -> _Function:
    """Add ``--dead-letter-topic`` and the options of ``cluster_options``: the arguments of ``open_source``."""
    topic = click.option(
        "--dead-letter-topic", metavar="TOPIC", help="Topic to read; default: delivery.dead_letter_topic."
    )
    return cluster_options(topic(function))


@dataclass(frozen=True, slots=True)
class Source:
    """A dead-letter topic, and how to reach it."""

    config: Config
    servers: str
    client: dict[str, Any]
    """librdkafka settings of any client of it."""
    topic: str
    timeout: float
    """Seconds to wait for an answer."""

    def letters(self, sieve: LetterFilter) -> Iterator[Letter]:
        """The letters there are now, one by one, as far as ``sieve`` lets them through."""
        from consumer.kafka.tools.reader import read_to_end, record_of

        for message in read_to_end(self.servers, self.topic, client=self.client, timeout=self.timeout):
            if (letter := sieve.take(record_of(message))) is not None:
                yield letter
        yield from sieve.rest()

    def replayed_ids(self) -> dict[str, int]:
        """Ids of the letters that were replayed, and when (milliseconds since 1970)."""
        from consumer.kafka.tools.replay_markers import replayed_ids

        return replayed_ids(self.servers, self.topic, client=self.client, timeout=self.timeout)


def open_source(
    bootstrap_servers: str | None,
    timeout: float,
    config_file: str | None,
    overrides: tuple[str, ...],
    dead_letter_topic: str | None,
) -> Source:
    """What the options of ``source_options`` and the configuration name. Raises ClusterUnreachable and TopicUnusable.

    A topic that does not exist is an error, or a mistyped name would look like one without dead letters.
    """
    from consumer.kafka.clients.cluster import require_topic

    config = loaded(config_file, overrides).config
    servers, client = cluster(config_file, overrides, bootstrap_servers)
    topic = dead_letter_topic or config.delivery.dead_letter_topic
    require_topic(servers, topic, client=client, timeout=timeout)
    return Source(config, servers, client, topic, timeout)


# The options by which ``dead-letters list`` and ``replay`` choose letters.

_AGO = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


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


def selection_options(function: _Function) -> _Function:
    """Add the filters; the command gets them as keyword arguments for ``selection``."""
    several = "; may be given many times."
    for option in (
        click.option("--until", metavar="TIME", callback=_time, help="Failed before then, as --since."),
        click.option(
            "--since",
            metavar="TIME",
            callback=_time,
            help="Failed then or later: 2026-05-01T08:30 (UTC), or an age in s, m, h or d, such as 2h.",
        ),
        click.option("--topic", "topics", multiple=True, help=f"Topic that the failed record came from{several}"),
        click.option("--task", "tasks", multiple=True, help=f"Task that failed{several}"),
        click.option(
            "--stage",
            "stages",
            multiple=True,
            type=click.Choice(get_args(Stage)),
            help=f"Stage that failed{several}",
        ),
        click.option("--class", "reasons", multiple=True, help=f"Class of the failure, such as InvalidJson{several}"),
        click.option("--id", "ids", multiple=True, help=f"Id of a dead letter{several}"),
    ):
        function = option(function)
    return function


def selection(
    ids: tuple[str, ...],
    reasons: tuple[str, ...],
    stages: tuple[str, ...],
    tasks: tuple[str, ...],
    topics: tuple[str, ...],
    since: int | None,
    until: int | None,
) -> Selection:
    """The letters that the options mean."""
    return Selection(
        frozenset(ids), frozenset(reasons), frozenset(stages), frozenset(tasks), frozenset(topics), since, until
    )
