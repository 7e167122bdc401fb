"""How many partitions topics have, so that results keep their input's partition number where they can."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.delivery.outcome import Output

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
