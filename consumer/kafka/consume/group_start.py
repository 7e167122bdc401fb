"""Commits the offsets at which a new group begins (``kafka.start``), before a worker's own consumer joins it.

Kafka has no commit that fails where there are offsets already: of two workers that look first and commit then, the
second could undo what the first has begun. So whoever commits is a member of the group and owns the first partition of
the first input topic, which one member does at a time, and the broker takes a commit of its generation only. The others
wait until the group has offsets. Members that are no such beginners are workers that have begun without: nothing is
committed under them.

Only for a ``kafka.start`` other than ``earliest``. A group that has offsets costs one look.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.config.client_rules import brokers_assign
from consumer.config.start import EARLIEST
from consumer.delivery.start_offsets import Committed, StartOffset, due, start_note
from consumer.events import Partition
from consumer.kafka.clients.errors import REPEAT_SECONDS
from consumer.kafka.clients.reachability import BrokerTroubles
from consumer.kafka.clients.settings import consumer_settings, way_out
from consumer.kafka.consume.membership import Membership, is_member
from consumer.kafka.consume.poll_thread import JOIN_SECONDS
from consumer.kafka.consume.start_lookup import BEGINNER, StartLookup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from consumer.config.tree import Config

_log = structlog.stdlib.get_logger(__name__)

SHOWN = 20
"""Most topics that a log line names."""

LEAVE_SECONDS = 5.0
POLL_SECONDS = 0.2

_NO_RIGHT = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)


def commit_start(
    config: Config,
    inputs: Iterable[str],
    stopping: Callable[[], bool],
    waiting: Callable[[str], object] = lambda _: None,
) -> None:
    """Return when the group has begun, having committed its start offsets where nobody else did, or ``stopping()``.

    At once, without a question to the brokers, where ``kafka.start`` is ``earliest``. Else it waits, and says why in
    the log, while the brokers do not let it. Raises ValueError for settings that librdkafka refuses and a cluster that
    cannot look up times, RuntimeError for brokers without the group protocol that is set. ``waiting`` is told why it
    waits, and an empty text at the end.
    """
    if config.kafka.start == EARLIEST:
        return
    causes: list[str] = []
    troubles = BrokerTroubles(config.kafka.bootstrap_servers)
    settings = {
        **consumer_settings(config),
        "client.id": BEGINNER,
        "log_level": 0,
        "error_cb": lambda error: causes.append(error.str()),
    }
    # A static member's place outlives it, and is the worker's own.
    settings.pop("group.instance.id", None)
    try:
        consumer = Consumer(settings)
    except KafkaException as error:
        raise ValueError(error.args[0].str()) from None
    beginner = _Beginner(config, inputs, consumer)
    logged_at = -math.inf
    try:
        while not stopping():
            try:
                if beginner.step():
                    return
            except KafkaException as error:
                consumer.poll(0)  # the causes come by a callback; the first of them says most
                for cause in causes:
                    troubles.error(cause)
                waiting(troubles.unreached() or error.args[0].str())
                if time.monotonic() - logged_at >= REPEAT_SECONDS:
                    logged_at = time.monotonic()
                    reason = next(iter(causes), error.args[0].str())
                    right = error.args[0].code() in _NO_RIGHT
                    fix = "grant this client READ on the group and the input topics" if right else way_out(reason)
                    _log.warning("the group's start waits", reason=reason, fix=fix)
                causes.clear()
                time.sleep(POLL_SECONDS)
    finally:
        waiting("")
        beginner.leave()
        consumer.close()


class _Beginner:
    """One worker's part in the start of its group."""

    def __init__(self, config: Config, inputs: Iterable[str], consumer: Consumer) -> None:
        self._config = config
        self._consumer = consumer
        self._lookup = StartLookup(consumer, inputs, config)
        join_seconds = JOIN_SECONDS if brokers_assign(config.kafka.client) else None
        self._membership = Membership(None, join_seconds)
        self._subscribed = ""
        self._owned: set[Partition] = set()
        self._offsets: dict[Partition, StartOffset] = {}
        """Where this worker would begin, as of its first look: joining takes seconds, which ``latest`` must not pass
        over."""
        self._tried = False
        self._missing = False

    def step(self) -> bool:
        """One round; whether the group has begun."""
        owned = frozenset(self._owned)  # before the look: who owns the first partition alone may commit what it shows
        committed = self._lookup.committed()
        if not committed:
            if not self._missing:
                _log.warning("no input topic is there yet: the group begins when one is", fix="create it")
                self._missing = True
            time.sleep(POLL_SECONDS)
            return False
        if not (left := due(committed)):
            self._say(committed)
            return True
        if len(left) == len(committed) and (others := self._lookup.other_topics()):
            what = "kafka.start is not used: the group has offsets of topics that are no inputs now"
            _log.info(what, group=self._group, topics=sorted(others)[:SHOWN])
            return True
        self._offsets |= self._lookup.offsets(left - self._offsets.keys())
        first = min(committed)
        if first in owned:
            self._commit(left, start_note(committed))
            self._consumer.poll(0)
            return False  # the next look shows whether all of it was taken
        if self._lookup.workers_run():
            _log.info("kafka.start is not used: workers of the group run already", group=self._group)
            return True
        self._join(first.topic)
        return False

    def leave(self) -> None:
        """Leave the group, so that it does not wait for this member until its session runs out.

        A broker holds a join back until all members are there, and answers what the connection brings after it later. A
        client that closes meanwhile takes its word that it leaves with it. So this waits for an answer after that word.
        """
        if self._subscribed:
            self._consumer.unsubscribe()
            with suppress(KafkaException):
                self._consumer.committed([TopicPartition(self._subscribed, 0)], timeout=LEAVE_SECONDS)
            self._subscribed = ""

    @property
    def _group(self) -> str:
        return self._config.kafka.group_id

    def _join(self, topic: str) -> None:
        """Be a member of the group, which owns partitions of ``topic`` and reads nothing."""
        if topic != self._subscribed:
            self._consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)
            self._subscribed = topic
        message = self._consumer.poll(POLL_SECONDS)
        error = None if message is None else message.error()
        if error is not None and error.fatal():
            self._membership.refused(error)
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        if not self._membership.joined:
            self._membership.look(self._consumer)

    def _commit(self, partitions: Collection[Partition], note: str) -> None:
        # A client that lost its membership would commit as one outside the group, which brokers do not fence.
        if not is_member(self._consumer.consumer_group_metadata()):
            self._owned.clear()
            self.leave()
            return
        offsets = [
            TopicPartition(each.topic, each.number, self._offsets[each].offset, metadata=note)
            for each in sorted(partitions)
        ]
        self._tried = True
        self._consumer.commit(offsets=offsets, asynchronous=False)

    def _say(self, committed: dict[Partition, Committed]) -> None:
        """Log where the group begins by this worker's hand, or that it does not."""
        now = {partition: found.offset for partition, found in committed.items()} if self._tried else {}
        own = {partition: found for partition, found in self._offsets.items() if now.get(partition) == found.offset}
        if not own:
            _log.info("kafka.start is not used: the group has offsets", group=self._group)
        for partition, found in sorted(own.items()):
            where = {"topic": partition.topic, "partition": partition.number, "offset": found.offset}
            _log.info("the new group begins here", group=self._group, **where, reason=found.why)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._membership.entered()
        self._owned |= _named(partitions)
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)  # nothing is to be read

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned -= _named(partitions)
        with suppress(KafkaException):
            consumer.incremental_unassign(partitions)


def _named(partitions: Iterable[TopicPartition]) -> set[Partition]:
    return {Partition(each.topic, each.partition) for each in partitions}
