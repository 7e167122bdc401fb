"""The dead-letter topic that ``dead-letters`` works on, and the options by which it is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import click

from consumer.cli.configured import loaded
from consumer.cli.kafka_client import cluster, cluster_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from consumer.config.tree import Config
    from consumer.delivery.letters import Letter, Sieve

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

    def letters(self, sieve: Sieve) -> Iterator[Letter]:
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
