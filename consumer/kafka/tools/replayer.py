"""Sends dead letters again, each together with its marker in one transaction: both are there, or neither is.

That nothing is doubled rests on three things. The transactional id is the same for every replay of a dead-letter topic,
so ``init_transactions`` aborts what a killed replay left open, waits for what it was committing, and fences one that
still runs. The markers are read only after that: read before, they could lack those of a transaction that was committed
in between, by a replay not yet fenced. And a fenced replay can commit nothing any more, so what it replayed has its
marker already, and the new one replays the rest.

``rexstream dead-letters replay`` uses it, and checks with ``ReplayTargets`` which topics the letters can go back to.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from consumer.config.names import TOPIC_NAME, marker_topic
from consumer.kafka.clients.cluster import Reader, TopicUnusable
from consumer.kafka.publish.producers import KEYED
from consumer.kafka.tools.replay_markers import marker_value, older_releases_value
from consumer.kafka.tools.transactions import open_transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from consumer.events import Output
    from consumer.kafka.tools.transactions import Transaction, Transactions


@dataclass(frozen=True, slots=True)
class Replay:
    """A dead letter's id, the record to send for it, and its marker's key and count."""

    id: str
    output: Output
    marker_key: str
    count: int


def open_replayer(
    bootstrap_servers: str,
    dead_letter_topic: str,
    targets: ReplayTargets,
    *,
    producer: Mapping[str, Any],
    timeout: float,
) -> Replayer:
    """A replayer. ``producer`` are the settings of the transactional client, ``timeout`` is in seconds."""
    what, kept = f"replay of {dead_letter_topic}", "what was replayed has its marker"
    transactions = open_transactions(bootstrap_servers, what, kept, producer=producer, timeout=timeout)
    return Replayer(transactions, targets, dead_letter_topic)


class Replayer:
    """The one replay of a dead-letter topic; ``begin`` first.

    Methods raise TakenOver, ClusterUnreachable and TopicUnusable.
    """

    def __init__(self, transactions: Transactions, targets: ReplayTargets, dead_letter_topic: str) -> None:
        self._transactions = transactions
        self._targets = targets
        self._dead_letter_topic = dead_letter_topic
        self._markers = marker_topic(dead_letter_topic)

    def begin(self) -> None:
        """Become the only replay of this topic. Markers read afterwards include all that was replayed before."""
        self._transactions.begin()

    def write(self, replays: Sequence[Replay]) -> list[tuple[Replay, str]]:
        """Send all of them, with their markers; returns those that their topic refuses, with the reason.

        In one transaction, unless something in it is refused: then in halves, since brokers refuse whole batches.
        """
        error = self._transactions.commit(partial(self._fill, replays))
        if error is None:
            return []
        # The transaction was aborted, so none of them was sent.
        if len(replays) == 1:
            return [(replays[0], error.str())]
        middle = len(replays) // 2
        return [*self.write(replays[:middle]), *self.write(replays[middle:])]

    def _fill(self, replays: Sequence[Replay], transaction: Transaction) -> None:
        for replay in replays:
            transaction.produce(**self._record(replay))
        # Only then it is known where the records stand, of which the markers tell how often they were replayed.
        places = transaction.written()
        if places is not None:
            for replay, place in zip(replays, places, strict=True):
                for marker in self._marked(replay, place):
                    transaction.produce(**marker)

    def _record(self, replay: Replay) -> dict[str, Any]:
        output = replay.output
        # The original partition while both topics have the same number of them, as when the letter was written; else
        # the key's.
        count = self._targets.count(output.topic)
        same = count == self._targets.count(self._dead_letter_topic)
        kept = same and output.partition is not None and output.partition < count
        return {
            "topic": output.topic,
            "value": output.value,
            "key": output.key,
            "headers": list(output.headers),
            "partition": output.partition if kept else KEYED,
        }

    def _marked(self, replay: Replay, place: str) -> list[dict[str, Any]]:
        """The marker, and the one that older releases look for."""
        marker = (replay.marker_key, marker_value(place, replay.count))
        older = (replay.id, older_releases_value(replay.marker_key))
        return [{"topic": self._markers, "key": key.encode(), "value": value} for key, value in (marker, older)]


class ReplayTargets:
    """The topics that dead letters came from and go back to; each is looked up once, whatever the answer.

    Anyone who may write to the dead-letter topic can name any topic in a letter.
    """

    def __init__(self, lookup: Callable[[str], int], only: Container[str] | None = None) -> None:
        """``lookup`` gives a topic's number of partitions, 0 for none such, and raises TopicUnusable.

        ``only``: the topics to which letters may go back; None for all but Kafka's own.
        """
        self._lookup = lookup
        self._only = only
        self._found: dict[str, int | str] = {}

    def allows(self, topic: str) -> bool:
        """Whether letters may go back to ``topic``, be it there or not."""
        return not topic.startswith("__") if self._only is None else topic in self._only

    def exists(self, topic: str) -> bool:
        """Whether it is still there: producing to it could create it anew. Raises as ``count``."""
        return self.count(topic) > 0

    def count(self, topic: str) -> int:
        """How many partitions it has, 0 for none such. Raises ClusterUnreachable, and TopicUnusable each time."""
        if topic not in self._found:
            self._found[topic] = self._asked(topic)
        found = self._found[topic]
        if isinstance(found, str):
            raise TopicUnusable(found)
        return found

    def _asked(self, topic: str) -> int | str:
        """The number of partitions, or why it cannot be used."""
        # Anyone may write to a dead-letter topic, and the client takes no text with a zero byte.
        if not TOPIC_NAME.fullmatch(topic):
            return f"{topic[:249]!r} is no name of a topic"
        try:
            return self._lookup(topic)
        except TopicUnusable as error:
            return str(error)


@contextlib.contextmanager
def open_targets(
    bootstrap_servers: str, only: Container[str] | None, *, client: Mapping[str, Any], timeout: float
) -> Iterator[ReplayTargets]:
    """The topics of one cluster. ``client`` are the settings of any client, ``timeout`` is in seconds."""
    with Reader(bootstrap_servers, client=client, timeout=timeout) as reader:
        yield ReplayTargets(lambda topic: len(reader.partitions(topic)), only)
