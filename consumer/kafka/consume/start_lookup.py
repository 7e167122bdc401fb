"""What the brokers say of a group's start (``kafka.start``): its offsets, its members, the ends of its partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from consumer.config.inputs import Inputs
from consumer.config.start import start_ms
from consumer.config.topic_patterns import is_pattern
from consumer.delivery.start_offsets import Committed, Ends, StartOffset, start_offsets
from consumer.events import Partition
from consumer.kafka.clients.cluster import EMBEDDED_CLUSTER_ID
from consumer.kafka.clients.settings import metadata_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import TopicMetadata

    from consumer.config.tree import Config

BEGINNER = "rexstream-start"
"""The client.id of a member that only commits start offsets, by which others tell it from a worker."""

ANSWER_SECONDS = 10.0
"""Longer than brokers hold a join back for members that answer: a coordinator's other answers wait behind that."""

METADATA_SECONDS = 3.0


class StartLookup:
    """What the brokers say of a group's start. Asks and changes nothing; methods raise KafkaException."""

    def __init__(self, consumer: Consumer, inputs: Iterable[str], config: Config) -> None:
        """``consumer``: read_committed, of the group. ``inputs``: those of the routes."""
        self._consumer = consumer
        self._inputs = Inputs(inputs)
        self._config = config
        self._start = config.kafka.start
        self._admin: AdminClient | None = None
        self._others: frozenset[str] | None = None
        self._at_first: frozenset[Partition] | None = None
        self._newer: frozenset[Partition] = frozenset()
        self.embedded = False
        """Whether this is librdkafka's mock cluster, as far as was seen."""

    def committed(self) -> dict[Partition, Committed]:
        """What the group has committed of every partition of the input topics that are there.

        What is missing at the first look counts as newer than the start when it is there later.
        """
        partitions = self._partitions()
        self._at_first = frozenset(partitions) if self._at_first is None else self._at_first
        self._newer = frozenset(partitions) - self._at_first
        asked = self._consumer.committed(_positions(partitions, 0), timeout=ANSWER_SECONDS) if partitions else []
        return {
            Partition(each.topic, each.partition): Committed(
                each.offset if each.offset >= 0 else None, each.metadata or ""
            )
            for each in _without_errors(asked)
        }

    def offsets(self, partitions: Collection[Partition]) -> dict[Partition, StartOffset]:
        """Where the group is to begin in ``partitions``. Raises ValueError where the cluster cannot look up times."""
        since = start_ms(self._start)
        if since is not None and self.embedded:
            raise ValueError(
                f"kafka.start is {self._start}, and the embedded broker cannot look up times: use Apache Kafka, "
                "or kafka.start latest"
            )
        found = Ends(
            self._ask(self._newer.intersection(partitions), OFFSET_BEGINNING),
            self._ask(partitions, OFFSET_END),  # before the times: what comes meanwhile must not be passed over
            {} if since is None else self._ask(partitions, since),
        )
        return start_offsets(partitions, self._start, since, found, self._newer)

    def other_topics(self) -> frozenset[str]:
        """Topics that are no inputs and of which the group has offsets, as of the first call: a route read them."""
        if self._others is None and not self.embedded:
            asked = self._asking.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(self._config.kafka.group_id)], request_timeout=ANSWER_SECONDS
            )
            (answer,) = asked.values()
            begun = {each.topic for each in answer.result().topic_partitions if each.offset >= 0}
            self._others = frozenset(topic for topic in begun if topic not in self._inputs)
        return self._others or frozenset()

    def workers_run(self) -> bool:
        """Whether the group has members that are no beginners."""
        if self.embedded:
            return False  # it never answers this request
        group = self._config.kafka.group_id
        (asked,) = self._asking.describe_consumer_groups([group], request_timeout=ANSWER_SECONDS).values()
        return any(member.client_id != BEGINNER for member in asked.result().members)

    @property
    def _asking(self) -> AdminClient:
        if self._admin is None:
            # Not at the top: groups that have begun do not need it.
            from confluent_kafka.admin import AdminClient

            self._admin = AdminClient({**metadata_settings(self._config), "log_level": 0})
        return self._admin

    def _partitions(self) -> list[Partition]:
        """Every partition of the input topics that are there, also of those that patterns match."""
        found: dict[str, TopicMetadata] = {}
        if self._inputs.patterns:
            every = self._topics_there(None)
            found = {topic: each for topic, each in every.items() if topic in self._inputs}
        for name in self._inputs.names:
            if not is_pattern(name):
                found |= self._topics_there(name)
        for each in found.values():
            # Whatever else is wrong with it, it may be there, with a history.
            if each.error is not None and each.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(each.error)
        return [Partition(topic, number) for topic, each in found.items() for number in each.partitions]

    def _topics_there(self, topic: str | None) -> Mapping[str, TopicMetadata]:
        answer = self._consumer.list_topics(topic, timeout=METADATA_SECONDS)
        self.embedded = (answer.cluster_id or "").startswith(EMBEDDED_CLUSTER_ID)
        topics: Mapping[str, TopicMetadata] = answer.topics
        return topics

    def _ask(self, partitions: Collection[Partition], time_ms: int) -> dict[Partition, int]:
        """The first offset of each whose record is at least as new; librdkafka's marks of both ends are times, too."""
        if not partitions:
            return {}
        found = self._consumer.offsets_for_times(_positions(partitions, time_ms), timeout=ANSWER_SECONDS)
        return {Partition(p.topic, p.partition): p.offset for p in _without_errors(found) if p.offset >= 0}


def _positions(partitions: Iterable[Partition], offset: int) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number, offset) for p in partitions]


def _without_errors(answered: Iterable[Any]) -> list[Any]:
    """The partitions as they are. Raises KafkaException for the first error among them."""
    found = list(answered)
    for each in found:
        if each.error is not None:
            raise KafkaException(each.error)
    return found
