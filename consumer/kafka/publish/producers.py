"""What both publishers share: the producer, the partition that an output goes to, and what replaces one too large.

All of it belongs to the release thread.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.delivery.dead_letter_size import smaller
from consumer.events import Outcome, Output, SourceRecord
from consumer.kafka.clients.errors import librdkafka_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.ledger import Release
    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 30.0
LOOKUP_SECONDS = 2.0
"""Longest wait for lookups in one round of the release thread, which is about to produce to the same brokers."""

KEYED = -1
"""Lets the partitioner decide."""

LATER = -2
"""This round has waited long enough for lookups."""

NO_TOPIC = "it is missing, or no broker answers"
NOTHING_LEFT = "a dead letter is larger than it takes, even without value, key and details: raise its max.message.bytes"

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
"""A record or a batch is larger than max.message.bytes, or than a segment of the topic (segment.bytes)."""


class Producers:
    """One ``Producer`` at a time. Raises KafkaException for settings that librdkafka refuses."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._new = partial(Producer, dict(settings), logger=librdkafka_logger("producer"))
        self.current = self._new()

    def replace(self) -> None:
        """Make ``current`` another producer with the same settings; what the old one held is dropped."""
        self.current.purge(blocking=False)
        self.current = self._new()

    def partitions(self, topic: str, seconds: float) -> int:
        """Partitions of ``topic``, 0 when it does not exist (asking may create it, where brokers create topics).

        Raises KafkaException when brokers do not answer this producer within ``seconds``.
        """
        found = self.current.list_topics(topic, timeout=seconds).topics.get(topic)
        return 0 if found is None or found.error is not None else len(found.partitions)


def produce(
    producer: Producer, output: Output, partition: int, report: Callable[[KafkaError | None, object], None]
) -> None:
    """Queue ``output``; ``report`` is called with None, or what it failed with, while the producer polls or flushes.

    Raises BufferError when the producer's queue is full, KafkaException when the output is refused at once.
    """
    producer.produce(
        output.topic,
        value=output.value,
        key=output.key,
        partition=partition,
        headers=list(output.headers),
        on_delivery=report,
        timestamp=output.timestamp_ms or 0,  # 0 is now
    )


class PartitionCounts:
    """How many partitions topics have, cached, so that results keep their input's partition number where they can.

    Counts of many topics expire together, and brokers that do not answer cost a lookup its whole wait. So no round of
    the release thread begins a lookup after the first ``LOOKUP_SECONDS`` of them, and after one that failed there is
    none for a while: a count that is known is used on meanwhile.
    """

    def __init__(self, lookup: Callable[[str, float], int], clock: Callable[[], float] = time.monotonic) -> None:
        """``lookup(topic, seconds)`` returns a count, 0 for a topic that does not exist; raises KafkaException."""
        self._lookup = lookup
        self._clock = clock
        # With the monotonic seconds from which the count is to be looked up again.
        self._counts: dict[str, tuple[int, float]] = {}
        self._seconds_left = LOOKUP_SECONDS
        self._failed_at = -math.inf

    def new_round(self) -> None:
        """To be called at the beginning of every round of the release thread."""
        self._seconds_left = LOOKUP_SECONDS

    def of(self, topic: str) -> int:
        """Partitions of ``topic``; 0 while it does not exist or no broker answers, ``LATER`` to ask in the next round.

        A known count outlives an outage.
        """
        known, until = self._counts.get(topic, (0, -math.inf))
        now = self._clock()
        if now < until or now < self._failed_at + (RETRY_SECONDS if known else LOOKUP_SECONDS):
            return known
        if self._seconds_left <= 0:
            return known or LATER
        try:
            found = self._lookup(topic, LOOKUP_SECONDS)
        except KafkaException as error:
            _log.warning("the partition count of a topic is not known", topic=topic, reason=str(error))
            self._failed_at = self._clock()
            found = 0
        self._seconds_left -= self._clock() - now
        if found and known and found != known:
            _log.warning("a topic has another number of partitions now", topic=topic, partitions=found, before=known)
        if found or known:
            self._counts[topic] = (found or known, now + (REFRESH_SECONDS if found else RETRY_SECONDS))
        return found or known

    def forget(self, topic: str) -> None:
        """Look ``topic`` up anew the next time: its cached count was wrong."""
        self._counts.pop(topic, None)

    def place(self, output: Output, input_topic: str) -> int | None:
        """Partition to produce ``output`` to; ``KEYED`` for the key's.

        None while either topic cannot be looked up, ``LATER`` where that has to wait for the next round.
        """
        count = self.of(output.topic)
        if count <= 0:
            return count or None
        if output.partition is None:
            return KEYED
        inputs = self.of(input_topic)
        if inputs <= 0:
            return inputs or None
        if output.partition >= inputs:  # the input topic grew since its count was cached
            self._counts[input_topic] = (inputs, -math.inf)
            inputs = self.of(input_topic)
        return output.partition if inputs == count and output.partition < count else KEYED


@dataclass(frozen=True, slots=True)
class Oversize:
    """What replaces an output that its topic refuses for its size: a dead letter, made by ``make(record, output)``."""

    dead_letter_topic: str
    make: Callable[[SourceRecord, Output], Output]
    observer: KafkaObserver

    def replace(self, release: Release, output: Output) -> Output | None:
        """A dead letter for a result; for a dead letter a smaller one (``dead_letter_size.smaller``).

        It takes the place of ``output`` in the outcome of ``release``. None when nothing is left that could be omitted.
        """
        self.observer.produce_refused(output.topic, "MSG_SIZE_TOO_LARGE")
        is_result = output.topic != self.dead_letter_topic
        instead = self.make(release.record, output) if is_result else smaller(output)
        if instead is not None:
            outputs = release.outcome.outputs
            release.outcome = Outcome("done", tuple(instead if each is output else each for each in outputs))
        return instead
