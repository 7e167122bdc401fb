"""The topics that dead letters came from and go back to."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from consumer.kafka.clients.cluster import Reader, TopicUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class ReplayTargets:
    """What is known of each topic; asked for once, whatever the answer."""

    def __init__(self, lookup: Callable[[str], int]) -> None:
        """``lookup`` tells how many partitions a topic has, 0 for none such, and raises TopicUnusable."""
        self._lookup = lookup
        self._counts: dict[str, int] = {}
        self._unusable: dict[str, str] = {}

    def exists(self, topic: str) -> bool:
        """Whether it is still there: producing to it could create it anew. Raises as ``count``."""
        return self.count(topic) > 0

    def count(self, topic: str) -> int:
        """How many partitions it has, 0 for none such. Raises ClusterUnreachable, and TopicUnusable each time."""
        if topic in self._unusable:
            raise TopicUnusable(self._unusable[topic])
        if topic not in self._counts:
            try:
                self._counts[topic] = self._asked(topic)
            except TopicUnusable as error:
                self._unusable[topic] = str(error)
                raise
        return self._counts[topic]

    def _asked(self, topic: str) -> int:
        # Anyone may write to a dead-letter topic, and the client takes no text with a zero byte.
        if not _TOPIC_NAME.fullmatch(topic):
            raise TopicUnusable(f"{topic[:249]!r} is no name of a topic")
        return self._lookup(topic)


@contextlib.contextmanager
def open_targets(bootstrap_servers: str, *, client: Mapping[str, Any], timeout: float) -> Iterator[ReplayTargets]:
    """Those of a cluster. ``client`` are the settings of any client, ``timeout`` is in seconds."""
    with Reader(bootstrap_servers, client=client, timeout=timeout) as reader:
        yield ReplayTargets(lambda topic: len(reader.partitions(topic)))
