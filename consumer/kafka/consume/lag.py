"""Lag of the assigned partitions: queried end offset minus committed offset, on a timer.

A thread and a client of its own: statistics and cached watermarks freeze while partitions are paused (librdkafka issue
4996), and a query on the poll thread would block it as long as a broker is slow. The client is a consumer that never
subscribes, so it is no member of the group. Both numbers are those that ``kafka-consumer-groups --describe`` shows, so
records of a transaction that hangs count as lag.

One request for the committed offsets, and one for the ends to each leader: a leader that is silent costs a pass its
time-out once, however many partitions it leads, and the others' numbers are as new as ever. What could not be asked
keeps its number for ``STALE_SECONDS`` and has none after that; ``age`` says how old the oldest is.

The release thread asks here for the partitions of input topics, and where an input is a pattern, ``Discovery`` gets the
list of all topics.

The admin client would ask for all partitions at once, but in confluent-kafka 2.16 its answer to an error of the group's
coordinator (one that is starting) crashes the process now and then.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from consumer.events import Partition
from consumer.kafka.clients.errors import librdkafka_logger
from consumer.kafka.clients.reachability import BrokerTroubles
from consumer.kafka.consume.discovery import Discovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)

INTERVAL_SECONDS = 10.0
REQUEST_SECONDS = 5.0

PASS_SECONDS = 20.0
"""A pass asks no further leader after this time; in the next one those that did not answer come last."""

STALE_SECONDS = 60.0
"""A lag that could not be queried for so long is shown no more: who scales workers by it must not act on it."""

DISCOVERY_SECONDS = 30.0
"""Time between two questions for all topics, where an input is a pattern. On a large cluster the answer is large."""

UNJOINED_SECONDS = 2.5
"""Between two looks at the brokers until the group is joined: why that takes long should be said soon."""

STATISTICS_MS = 5000
"""Between two statistics of the client, from which it is known how far its connections have come."""

_SOME_TOPIC = "__consumer_offsets"
_NO_LEADER = -1
"""What brokers call the leader of a partition that has none."""


class LagWatch:
    """Queries the lag of the partitions that ``assigned()`` returns, every ``interval`` seconds."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        group: str,
        assigned: Callable[[], Iterable[Partition]],
        observer: KafkaObserver,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        new_client: Callable[..., Consumer] = Consumer,
        inputs: Iterable[str] = (),
        joined: Callable[[], bool] = lambda: True,
    ) -> None:
        """``inputs``: with patterns among them, it also looks which topics these match."""
        self.discovery = Discovery(inputs, observer)
        self._discover_at = -math.inf
        self._troubles = BrokerTroubles(settings.get("bootstrap.servers", ""))
        own = {
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "error_cb": lambda error: self._troubles.error(error.str()),
            **self._troubles.settings(STATISTICS_MS),
        }
        self._client = new_client({**settings, **own}, logger=librdkafka_logger("lag"))
        self._assigned = assigned
        self._observer = observer
        self._interval = interval
        self._clock = clock
        self._ended, self._unused = threading.Event(), threading.Event()
        self.end = self._ended.set
        """``end()``: stop the queries."""
        self.close = self._unused.set
        """``close()``: close the client, once no thread calls ``partitions`` any more."""
        self._known: dict[Partition, int] = {}
        # When each partition's lag was queried last; before the first time, when it was first to be.
        self._since: Mapping[Partition, float] = {}
        self._leaders: dict[Partition, int] = {}
        self._silent: set[int] = set()
        self.lags: Mapping[Partition, int] = {}
        """Lag in records of each partition where it is known; replaced, never changed in place."""
        self._joined = joined
        self.unreachable = ""
        """Which brokers are not reached, and the way out: any that keeps this worker out of the group, later leaders at
        addresses that they advertise and that it never reached. Empty otherwise."""
        self.unreachable_topics: frozenset[str] = frozenset()
        """The topics all of whose partitions are led by such brokers."""
        self.thread = threading.Thread(target=self._run, name="rexstream-lag", daemon=True)

    def ages(self) -> dict[Partition, float]:
        """Seconds since the lag of each assigned partition was queried, or since it was first to be. Any thread."""
        now = self._clock()
        return {partition: round(now - since, 1) for partition, since in self._since.items()}

    def age(self) -> float:
        """Seconds since the oldest of these queries; 0 without partitions. From any thread."""
        return max(self.ages().values(), default=0.0)

    def _run(self) -> None:
        self._discover()
        while not self._ended.wait(self._interval if self._joined() else min(self._interval, UNJOINED_SECONDS)):
            self.look()
            self._client.poll(0)  # serves log lines, errors, statistics; nothing is assigned, so nothing is read
            self.look_at_brokers()
        self._unused.wait()
        self._client.close()

    def partitions(self, topic: str, seconds: float) -> int:
        """Partitions of an input topic, 0 when it does not exist. From any thread.

        Asking creates no topic, as a producer's question does, and its refreshes for as long as it lives: a topic of a
        pattern that was deleted would come back. Raises KafkaException when brokers do not answer within ``seconds``.
        """
        found = self._client.list_topics(topic, timeout=seconds).topics.get(topic)
        return 0 if found is None or found.error is not None else len(found.partitions)

    def look(self) -> None:
        """One pass over the partitions that are assigned now."""
        self._discover()
        started = self._clock()
        assigned = sorted(self._assigned())
        self._since = {partition: self._since.get(partition, started) for partition in assigned}
        try:
            if assigned:
                self._ask(assigned, started)
        except Exception as error:  # a number on a dashboard must not end a worker
            _log.warning("lag is unknown for now", reason=str(error), fix=_fix(error))
        now = self._clock()
        self._known = {
            partition: lag
            for partition, lag in self._known.items()
            if now - self._since.get(partition, float("-inf")) <= STALE_SECONDS
        }
        self.lags = dict(self._known)
        self._observer.lag(self.lags)

    def _discover(self) -> None:
        """Tell ``discovery`` of all topics, when it is time; the answer also says who leads what is assigned."""
        if not self.discovery.wanted or self._clock() < self._discover_at:
            return
        try:
            found = self._client.list_topics(timeout=REQUEST_SECONDS).topics
        except KafkaException as error:
            _log.warning("the topics of patterns are unknown for now", reason=str(error))
            return
        self.discovery.saw(found)
        # While one matches nothing, a worker may wait for it alone.
        self._discover_at = self._clock() + (DISCOVERY_SECONDS if all(self.discovery.counts.values()) else 0.0)
        topics = {partition.topic for partition in self._assigned()}
        self._leaders = {
            Partition(topic, number): each.leader
            for topic in topics.intersection(found)
            for number, each in found[topic].partitions.items()
        }

    def look_at_brokers(self) -> None:
        """Whether brokers advertise addresses that are not reached; it matters until joined, and for silent leaders."""
        joined = self._joined()
        if joined and not self._silent:
            self._troubles.forget()
        elif not joined:
            with suppress(KafkaException):
                # So that it connects, and knows why it cannot. Of all topics the answer may be large.
                self._client.list_topics(_SOME_TOPIC, timeout=REQUEST_SECONDS)
        found = self._troubles.advertised() if joined else self._troubles.unreached()
        if found and not self.unreachable:
            _log.warning("brokers cannot be reached", reason=found)
        leaders: dict[str, set[int]] = {}
        for partition in self._assigned() if found else ():
            leaders.setdefault(partition.topic, set()).add(self._leaders.get(partition, _NO_LEADER))
        self.unreachable_topics = frozenset(topic for topic, who in leaders.items() if who <= self._silent)
        self.unreachable = found

    def _ask(self, assigned: list[Partition], started: float) -> None:
        answered = self._client.committed(_positions(assigned, 0), timeout=REQUEST_SECONDS)
        committed = {Partition(p.topic, p.partition): p.offset for p in answered if p.error is None}
        # With patterns there may be thousands of topics, so none is asked for whose leaders are known.
        known = self._leaders if self.discovery.wanted else ()
        self._find_leaders({each.topic for each in committed if each not in known}, started)
        leaders = {partition: self._leaders.get(partition, _NO_LEADER) for partition in committed}

        def patience(partition: Partition) -> tuple[bool, int]:
            return leaders[partition] in self._silent, leaders[partition]

        for (_, leader), led in groupby(sorted(committed, key=patience), patience):
            if leader == _NO_LEADER or self._clock() - started > PASS_SECONDS:
                continue
            partitions = list(led)
            try:
                ends = self._offsets(partitions, OFFSET_END)
                # Nothing committed yet: everything that is still there lies ahead.
                starts = self._offsets([p for p in partitions if committed[p] < 0], OFFSET_BEGINNING)
            except KafkaException as error:
                if leader not in self._silent:
                    self._silent.add(leader)
                    what = "a broker does not answer for the partitions that it leads; their lag is not new"
                    _log.warning(what, broker=leader, partitions=len(partitions), reason=str(error))
                continue
            self._silent.discard(leader)
            behind = {**committed, **starts}
            new = {p: max(0, end - behind[p]) for p, end in ends.items() if behind[p] >= 0}
            self._known |= new
            self._since = {**self._since, **dict.fromkeys(new, self._clock())}

    def _find_leaders(self, topics: Iterable[str], started: float) -> None:
        """Ask who leads the partitions of ``topics``; without an answer, those count that led them before."""
        for topic in sorted(topics):
            if (left := PASS_SECONDS - (self._clock() - started)) <= 0:
                return
            try:
                found = self._client.list_topics(topic, timeout=min(REQUEST_SECONDS, left)).topics[topic].partitions
            except KafkaException:
                continue
            self._leaders |= {Partition(topic, number): each.leader for number, each in found.items()}

    def _offsets(self, partitions: list[Partition], which: int) -> dict[Partition, int]:
        """The first or the end offset of partitions of one leader. Raises KafkaException when it does not answer."""
        if not partitions:
            return {}
        # To the brokers these are times before the first and after the last record.
        found = self._client.offsets_for_times(_positions(partitions, which), timeout=REQUEST_SECONDS)
        return {Partition(p.topic, p.partition): p.offset for p in found if p.error is None and p.offset >= 0}


def _positions(partitions: Iterable[Partition], offset: int) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number, offset) for p in partitions]


def _fix(error: Exception) -> str | None:
    """What to do when only the group's offsets cannot be read, which also keeps new owners of a partition waiting."""
    if isinstance(error, KafkaException) and error.args[0].code() == KafkaError._TIMED_OUT:
        return (
            "if the brokers are there, a transaction holds the group's offsets back: brokers abort that of a killed "
            "worker after delivery.transaction_timeout_ms; one that lasts is named by 'kafka-transactions.sh "
            "find-hanging' and ended by its 'abort'"
        )
    return None
