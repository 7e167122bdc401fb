"""What both publishers share: the producer, and the partition that an output goes to.

Also ``SendWindow``, the flow of one output topic in at_least_once. All of it belongs to the release thread.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.kafka.clients.errors import librdkafka_logger
from consumer.resilience.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from consumer.delivery.ledger import Release
    from consumer.events import Output

_log = structlog.stdlib.get_logger(__name__)

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 30.0
LOOKUP_SECONDS = 2.0
"""Longest wait for lookups in one round of the release thread, which is about to produce to the same brokers."""

KEYED = -1
"""Lets the partitioner decide."""

LATER = -2
"""This round has waited long enough for lookups."""

BLOCKED_FAILURES = 2
"""A topic counts as blocked from the second refusal in a row: one alone is a topic being created, or a leader
moving."""

SILENT_SECONDS = 10.0
"""A topic counts as blocked, too, when nothing was acknowledged for so long although something is under way: the client
itself repeats for ever what brokers refuse for lack of in-sync replicas, or of a leader."""

MOST_RECORDS, MOST_BYTES = 1 << 13, 1 << 24
"""Most outputs, and most bytes of values, that one topic has in the producer's queue: more than several batches of
librdkafka's hold, and so little of the whole (100,000 records, 128 MiB) that a topic which takes nothing leaves the
others theirs."""

BACKOFF = Backoff(first=0.25, limit=10.0, least=1.0)
"""Without jitter: only one output at a time is sent to a topic that refuses, however many wait."""


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


_UNKNOWN = 0, False


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
        self._this_round: dict[tuple[str, str], tuple[int, bool]] = {}
        """What ``place`` found in this round, by output and input topic: the input's count; whether it is both's."""

    def new_round(self) -> None:
        """To be called at the beginning of every round of the release thread."""
        self._seconds_left = LOOKUP_SECONDS
        self._this_round.clear()

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
        self._this_round.clear()

    def any_missing(self, topics: Iterable[str]) -> bool:
        """Whether brokers say, asked anew, that they do not have one of ``topics``; its count is forgotten then."""
        for topic in topics:
            began = self._clock()
            if self._seconds_left <= 0:
                break
            try:
                missing = not self._lookup(topic, LOOKUP_SECONDS)
            except KafkaException:
                break  # brokers that do not answer say nothing of a topic
            self._seconds_left -= self._clock() - began
            if missing:
                self.forget(topic)
                return True
        return False

    def place(self, output: Output, input_topic: str) -> int | None:
        """Partition to produce ``output`` to; ``KEYED`` for the key's.

        None while either topic cannot be looked up, ``LATER`` where that has to wait for the next round.
        """
        number = output.partition
        inputs, same = self._this_round.get((output.topic, input_topic), _UNKNOWN)
        if number is None or number >= inputs:
            count = self.of(output.topic)
            if count <= 0:
                return count or None
            if number is None:
                return KEYED
            inputs = self.of(input_topic)
            if inputs <= 0:
                return inputs or None
            if number >= inputs:  # the input topic grew since its count was cached
                self._counts[input_topic] = (inputs, -math.inf)
                inputs = self.of(input_topic)
            same = inputs == count
            self._this_round[output.topic, input_topic] = inputs, same
        return number if same and number < inputs else KEYED


@dataclass(slots=True, eq=False)
class Send:
    """One output on its way to its topic."""

    release: Release
    output: Output
    number: int
    """Place in the order of release."""
    alone: bool = False
    """Whether it was produced with nothing else in flight to its topic."""


@dataclass(slots=True, eq=False)
class SendWindow:
    """Flow of one output topic: what waits, how much may be in flight, when to try again after a refusal.

    Brokers refuse a whole batch when it is larger than the topic allows, or when one record in it is, and librdkafka
    fails every record of it (its issue 488). So a refused record proves nothing until it was refused alone: after a
    refusal the window sends one record by itself and, as long as that goes well, twice as many at each step. The same
    probing follows any other error, so a topic that is missing or forbidden sees one record every few seconds, not the
    whole backlog.
    """

    waiting: deque[Send] = field(default_factory=deque)
    """What is new, in order of release."""
    back: list[tuple[int, Send]] = field(default_factory=list)
    """What was put back, and what takes the place of something older than the latest in ``waiting``: a heap."""
    in_flight: set[Send] = field(default_factory=set)
    """Outputs handed to the producer and not yet reported."""
    _bytes: int = 0
    """Bytes of their values."""
    failures: int = 0
    """Refusals in a row, other than for size."""
    refused_again: bool = False
    """Whether the topic refused what was tried since ``try_again``."""
    _size: int = MOST_RECORDS
    _acknowledged: int = 0
    _not_before: float = 0.0
    _progress_at: float = 0.0
    """When something was acknowledged, or began to wait where nothing did before."""

    @property
    def inputs(self) -> frozenset[str]:
        """The input topics whose outputs wait or are in flight."""
        under_way = chain(self.waiting, (send for _, send in self.back), self.in_flight)
        return frozenset(send.release.partition.topic for send in under_way)

    def blocked(self, now: float) -> bool:
        """Whether the topic takes nothing: it refuses, or is silent."""
        return self.failures >= BLOCKED_FAILURES or self.silent(now)

    def silent(self, now: float) -> bool:
        """Whether nothing was acknowledged for long although something is in flight."""
        return bool(self.in_flight) and now - self._progress_at > SILENT_SECONDS

    def accept(self, send: Send, now: float) -> None:
        """Take an output that is new to this topic."""
        if not (self.in_flight or self.waiting or self.back):
            self._progress_at = now
        if self.waiting and send.number < self.waiting[-1].number:
            self.put(send)
        else:
            self.waiting.append(send)

    @property
    def waits(self) -> int:
        """How many outputs wait."""
        return len(self.waiting) + len(self.back)

    def try_again(self) -> None:
        """The next try may be now, where the last one failed."""
        self.refused_again = False
        self._not_before = 0.0

    def put(self, send: Send) -> None:
        """Let ``send`` wait; one that is put back keeps its place in the order of release."""
        heapq.heappush(self.back, (send.number, send))

    def leaving(self, now: float) -> Iterator[Send]:
        """Take, one by one and in order, what may leave at ``now`` (monotonic seconds); then call ``sent``."""
        waiting, back, in_flight = self.waiting, self.back, self.in_flight
        while (waiting or back) and now >= self._not_before:
            if in_flight and (len(in_flight) >= self._size or self._bytes >= MOST_BYTES):
                return
            if back and not (waiting and waiting[0].number < back[0][0]):
                yield heapq.heappop(back)[1]
            else:
                yield waiting.popleft()

    def sent(self, send: Send) -> None:
        """It left. Where it is alone, and only there, a refusal for size is about this very record."""
        self.in_flight.add(send)
        self._bytes += len(send.output.value or b"")
        send.alone = self._size == 1

    def reported(self, send: Send) -> None:
        """It is not in flight any more."""
        self.in_flight.remove(send)
        self._bytes -= len(send.output.value or b"")

    def acknowledged(self, send: Send, now: float) -> None:
        """One that was in flight is durable."""
        self.reported(send)
        self.failures = 0
        self.refused_again = False
        self._progress_at = now
        if self._size < MOST_RECORDS:
            self._acknowledged += 1
            if self._acknowledged >= self._size:
                self._size *= 2
                self._acknowledged = 0

    def narrow(self) -> None:
        """After a refusal: let outputs out one at a time."""
        self._size = 1
        self._acknowledged = 0

    def failed(self, now: float) -> float | None:
        """One was refused, not for its size: the seconds until the next try, None for others of the same batch."""
        self.narrow()
        if now < self._not_before:
            return None
        delay = BACKOFF.pause(self.failures)
        self.failures += 1
        self.refused_again = self.failures >= BLOCKED_FAILURES
        self._not_before = now + delay
        return delay

    def forgive(self) -> None:
        """Forget the refusals, once nothing waits and nothing is in flight that could fail or succeed."""
        self.failures = 0
        self._not_before = 0.0
