"""Topics as they are seen from outside: made, configured, read to their end, and a group's place in them."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from confluent_kafka import Message

    T = TypeVar("T")

PATIENCE_SECONDS = 120.0
"""How long a cluster may take to answer: it may be recovering from what was done to it."""


class Topics:
    """One cluster's topics."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def create(self, topic: str, partitions: int, replicas: int = 1, **settings: str) -> None:
        """Create and return when the brokers know it. ``settings``: underscores stand for dots."""
        admin = self._admin()
        config = {name.replace("_", "."): value for name, value in settings.items()}
        admin.create_topics([NewTopic(topic, partitions, replicas, config=config)])[topic].result(PATIENCE_SECONDS)
        # Asked for all topics: one that is asked for by name may be created by the question.
        self._until(lambda: topic in admin.list_topics(timeout=5).topics, f"topic {topic} does not appear")

    def set(self, topic: str, name: str, value: str) -> None:
        """Change one setting of a topic."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        admin = self._admin()  # kept: its answers end with it
        admin.incremental_alter_configs([resource])[resource].result(PATIENCE_SECONDS)

    def forbid_writing(self, topic: str) -> None:
        """Until ``allow_writing``. A topic with any rule refuses whatever no rule allows; reading stays allowed."""
        admin = self._admin()
        rules = [
            AclBinding(*_literal(topic), "User:*", "*", operation, AclPermissionType.ALLOW)
            for operation in (AclOperation.READ, AclOperation.DESCRIBE)
        ]
        for answer in admin.create_acls(rules).values():
            answer.result(PATIENCE_SECONDS)

    def allow_writing(self, topic: str) -> None:
        """No rule is left: what no rule is about is allowed."""
        admin = self._admin()
        # None is any principal and any host; the library's annotation does not say so.
        everyone: Any = None
        every = AclBindingFilter(*_literal(topic), everyone, everyone, AclOperation.ANY, AclPermissionType.ANY)
        for answer in admin.delete_acls([every]).values():
            answer.result(PATIENCE_SECONDS)

    def exists(self, topic: str) -> bool:
        """Whether the brokers know it."""
        return topic in self._patiently(lambda: self._admin().list_topics(timeout=5).topics, "the list of topics")

    def ends(self, topic: str) -> list[int]:
        """End offset of each partition, open transactions included."""
        return self._ends(topic, "read_uncommitted")

    def committed(self, group: str, topic: str) -> list[int]:
        """Committed offset of each partition; below 0 without one. Asked by a consumer that does not join."""
        consumer = self._consumer("read_committed", group)
        try:
            wanted = [TopicPartition(topic, number) for number in range(self._partitions(consumer, topic))]
            found = self._patiently(lambda: consumer.committed(wanted, timeout=5), f"offsets of {group}")
            return [place.offset for place in found]
        finally:
            consumer.close()

    def lag(self, group: str, topic: str) -> int:
        """Offsets between what the group committed and the ends."""
        committed = self.committed(group, topic)
        return sum(end - max(offset, 0) for end, offset in zip(self.ends(topic), committed, strict=True))

    def coordinating_partition(self, topic: str, name: str) -> int:
        """The partition of ``topic`` (``__consumer_offsets``) whose leader coordinates ``name``."""
        code = 0  # Java's String.hashCode
        for character in name:
            code = (31 * code + ord(character)) & 0xFFFFFFFF
        signed = code - (1 << 32) if code >= 1 << 31 else code
        partitions = len(
            self._patiently(lambda: self._admin().list_topics(timeout=5).topics.get(topic), topic).partitions
        )
        return abs(signed) % partitions

    def whole(self) -> bool:
        """Whether every replica of every partition is in sync."""
        found = self._patiently(lambda: self._admin().list_topics(timeout=5).topics, "the list of topics")
        return all(
            len(partition.isrs) == len(partition.replicas)
            for topic in found.values()
            for partition in topic.partitions.values()
        )

    def settled(self, topic: str) -> bool:
        """Whether no transaction is open: a read_committed reader sees everything to the end."""
        return self._ends(topic, "read_committed") == self._ends(topic, "read_uncommitted")

    def read(self, topic: str) -> Iterator[Message]:
        """Every committed record, in order within a partition, up to the end as it is now."""
        consumer = self._consumer("read_committed", "chaos-audit")
        try:
            partitions = range(self._partitions(consumer, topic))
            left = set(partitions)
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
            deadline = time.monotonic() + PATIENCE_SECONDS
            while left:
                message = consumer.poll(1.0)
                if message is None:
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"topic {topic} was not read to its end")
                    continue
                deadline = time.monotonic() + PATIENCE_SECONDS
                if (error := message.error()) is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition() or 0)
        finally:
            consumer.close()

    def _ends(self, topic: str, isolation: str) -> list[int]:
        consumer = self._consumer(isolation, "chaos-audit")
        try:
            ends = []
            for number in range(self._partitions(consumer, topic)):
                ask = partial(consumer.get_watermark_offsets, TopicPartition(topic, number), timeout=5)
                ends.append(self._patiently(ask, f"the end of {topic}-{number}")[1])
            return ends
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer, topic: str) -> int:
        def ask() -> int:
            return len(consumer.list_topics(topic, timeout=5).topics[topic].partitions)

        counts: list[int] = []  # not asked once more, for this client may lose its broker in between

        def are_there() -> bool:
            counts.append(self._patiently(ask, f"partitions of {topic}"))
            return counts[-1] > 0

        self._until(are_there, f"topic {topic} has no partitions")
        return counts[-1]

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _consumer(self, isolation: str, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
                "log_level": 0,
            }
        )

    def _patiently(self, ask: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if (answer := ask()) is not None:
                    return answer
            except KafkaException:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer of {self.bootstrap} in {PATIENCE_SECONDS:.0f} s: {what}")
            time.sleep(0.2)

    def _until(self, true: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not true():
            if time.monotonic() > deadline:
                raise RuntimeError(otherwise)
            time.sleep(0.1)


def _literal(topic: str) -> tuple[ResourceType, str, ResourcePatternType]:
    return ResourceType.TOPIC, topic, ResourcePatternType.LITERAL
