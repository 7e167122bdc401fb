"""The worker's producer, and the one that takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer

from consumer.kafka.clients.librdkafka_log import librdkafka_logger

if TYPE_CHECKING:
    from collections.abc import Mapping


class Producers:
    """One ``Producer`` at a time. Raises KafkaException for settings that librdkafka refuses."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self.current = self._new()

    def replace(self) -> Producer:
        """Another producer with the same settings; what the old one held is dropped."""
        self.current.purge(blocking=False)
        self.current = self._new()
        return self.current

    def partitions(self, topic: str, seconds: float) -> int:
        """Partitions of ``topic``, 0 when it does not exist (asking may create it, where brokers create topics).

        Raises KafkaException when brokers do not answer this producer.
        """
        found = self.current.list_topics(topic, timeout=seconds).topics.get(topic)
        return 0 if found is None or found.error is not None else len(found.partitions)

    def _new(self) -> Producer:
        return Producer(self._settings, logger=librdkafka_logger("producer"))
