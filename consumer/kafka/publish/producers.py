"""The worker's producer, and the one that takes its place."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException, Producer

from consumer.delivery.dead_letters import without_carried_headers, without_value
from consumer.kafka.clients.errors import librdkafka_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.events import Output, SourceRecord
    from consumer.kafka.clients.observer import KafkaObserver


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


# How many partitions topics have, so that results keep their input's partition number where they can.

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 30.0
LOOKUP_SECONDS = 2.0
"""A lookup happens on the release thread, where the same brokers are about to be produced to; it is rare and short."""

KEYED = -1
"""Lets the partitioner decide."""

logger = logging.getLogger(__name__)


class PartitionCounts:
    """Cached partition counts. ``lookup(topic, seconds)`` returns a count, 0 for a topic that does not exist."""

    def __init__(self, lookup: Callable[[str, float], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._lookup = lookup
        self._clock = clock
        self._counts: dict[str, tuple[int, float]] = {}

    def of(self, topic: str) -> int:
        """Partitions of ``topic``; 0 while it does not exist or no broker answers. A known count outlives an outage."""
        known, until = self._counts.get(topic, (0, 0.0))
        now = self._clock()
        if known and now < until:
            return known
        try:
            found = self._lookup(topic, LOOKUP_SECONDS)
        except KafkaException as error:
            logger.warning("Partition count of topic %s: %s", topic, error)
            found = 0
        if found:
            if known and known != found:
                logger.warning("Topic %s has %d partitions now, it had %d", topic, found, known)
            self._counts[topic] = (found, now + REFRESH_SECONDS)
        elif known:
            self._counts[topic] = (known, now + RETRY_SECONDS)
        return found or known

    def forget(self, topic: str) -> None:
        """Ask anew: what is known of ``topic`` proved wrong."""
        self._counts.pop(topic, None)

    def place(self, output: Output, input_topic: str) -> int | None:
        """Partition to produce ``output`` to, ``KEYED`` for the key's; None while either topic cannot be looked up."""
        count = self.of(output.topic)
        if not count:
            return None
        if output.partition is None:
            return KEYED
        inputs = self.of(input_topic)
        if not inputs:
            return None
        if output.partition >= inputs:  # the input topic grew since its count was cached
            self._counts.pop(input_topic, None)
            inputs = self.of(input_topic)
        return output.partition if inputs == count and output.partition < count else KEYED


# What takes the place of an output that its topic refuses for its size.

NOTHING_LEFT = "a dead letter's key and what is said of the failure alone exceed its limit"


@dataclass(frozen=True, slots=True)
class Oversize:
    """``make(record, output)`` builds the dead letter of a refused result."""

    dead_letter_topic: str
    make: Callable[[SourceRecord, Output], Output]
    observer: KafkaObserver

    def instead(self, record: SourceRecord, output: Output) -> Output | None:
        """A dead letter for a result; for a dead letter one without its value, then without the headers it carries.

        None when nothing is left that could be omitted.
        """
        self.observer.produce_refused(output.topic, "MSG_SIZE_TOO_LARGE")
        if output.topic != self.dead_letter_topic:
            return self.make(record, output)
        return without_value(output) or without_carried_headers(output)
