"""Checks of a cluster before it is used: whether it answers, whether it is the embedded broker, whether a topic exists.

The commands use ``Reader``, ``look_up`` and ``require_topic``; a worker calls ``refuse_embedded``, since exactly_once
needs a cluster with transactions.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from consumer.config.problems import nearest
from consumer.kafka.clients.reachability import BrokerTroubles, reason_of
from consumer.kafka.clients.settings import metadata_settings, way_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from confluent_kafka.admin._metadata import ClusterMetadata

    from consumer.config.tree import Config

_log = structlog.stdlib.get_logger(__name__)

EMBEDDED_CLUSTER_ID = "mockCluster"
"""What the cluster id of librdkafka's mock cluster begins with; Apache Kafka's is a base64 UUID."""

ANOTHER_CLUSTER = "another cluster answers there"
_CALL_SECONDS = 1.0
"""Longest single metadata call: error_cb, which gets the reason of a failure, is only called between such calls."""
_CREATION_SECONDS = 5.0
"""How long a topic may take to be created by a request for its metadata."""
_RETRY_SECONDS = 0.1
_AT_ONCE = 8
"""Brokers that are asked at the same time: librdkafka has a thread for each broker that a client has heard of."""
_NOT_THERE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE)
"""What a broker answers for a topic that does not exist, and while it creates one."""

_OUTSIDE_ANY_GROUP = {
    # Required by the library. Partitions are assigned by hand and nothing is committed, so no group comes into being.
    "group.id": "rexstream-reader",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "check.crcs": True,
    "allow.auto.create.topics": False,
    "fetch.wait.max.ms": 100,
}


class ClusterUnreachable(Exception):  # noqa: N818 - named for what it is
    """No broker answered in time. The message names the address, the reason if the client saw one, and the way out."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """The reason alone; empty where the client saw none."""


class TopicUnusable(Exception):  # noqa: N818 - named for what it is
    """The topic is not there for this client: missing where topics are not created by themselves, or forbidden."""


class ClientErrors:
    """What a short-lived command's client met, for the message of a time-out."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._last = ""
        self._troubles = BrokerTroubles(bootstrap_servers)
        self.advertised = self._troubles.advertised
        """``advertised()``: which addresses that brokers advertise are not reached, with the way out; empty if none."""

    def settings(self, client: Mapping[str, Any] | None) -> dict[str, Any]:
        """Settings of the client, over the user's own ``client`` settings.

        Errors come here when it is polled, and not as librdkafka's own lines on standard error.
        """
        return {
            "log_level": 0,
            **(client or {}),
            "bootstrap.servers": self._bootstrap_servers,
            "error_cb": self._note,
            **self._troubles.settings(),
        }

    def _note(self, error: KafkaError) -> None:
        # "All brokers are down" follows every single reason and would hide it.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last = error.str()
        self._troubles.error(error.str())

    def unreachable(self, seconds: float) -> ClusterUnreachable:
        """The exception to raise when the cluster did not answer for ``seconds``; the client was polled before."""
        if advertised := self.advertised():
            return ClusterUnreachable(
                f"no answer from Kafka at {self._bootstrap_servers} within {seconds:g} s: {advertised}", advertised
            )
        last = self._last or self._troubles.reason()
        reason = f" ({last})" if last else ""
        fix = way_out(last) or "check the address and kafka.security, or start one with 'rexstream broker'"
        return ClusterUnreachable(
            f"no Kafka broker answered at {self._bootstrap_servers} within {seconds:g} s{reason}; {fix}",
            reason_of(last),
        )


class Reader(AbstractContextManager["Reader"]):
    """A read_committed consumer outside any group, with calls that wait ``timeout`` seconds and name what is wrong.

    A context manager. ``consumer`` is the client itself, to assign and poll. Methods raise ClusterUnreachable.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        **settings: object,
    ) -> None:
        """``client`` are the user's librdkafka settings, ``settings`` the caller's own (dots as underscores)."""
        self._bootstrap_servers = bootstrap_servers
        self._timeout = timeout
        self._errors = ClientErrors(bootstrap_servers)
        own = {name.replace("_", "."): value for name, value in settings.items()}
        self.consumer = Consumer({**self._errors.settings(client), **_OUTSIDE_ANY_GROUP, **own})

    def __exit__(self, *_: object) -> None:
        self.consumer.close()

    def metadata(self, topic: str | None = None) -> ClusterMetadata:
        """One answer about the cluster and ``topic`` (None: all topics)."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                metadata: ClusterMetadata = self.consumer.list_topics(topic, timeout=min(left, _CALL_SECONDS))
                if metadata.brokers:
                    return metadata
            except KafkaException:
                self.consumer.poll(0)
        raise self.unreachable()

    def partitions(self, topic: str) -> list[int]:
        """Partition numbers, none when the topic does not exist. Raises TopicUnusable for any other reason."""
        found = self.metadata(topic).topics[topic]
        if found.error is None:
            return sorted(found.partitions)
        if found.error.code() in _NOT_THERE:
            return []
        fix = "ask for the right to use it, or name another"
        if found.error.code() == KafkaError.TOPIC_EXCEPTION:
            fix = "no topic can have that name: it takes letters, digits, '.', '_' and '-'"
        raise TopicUnusable(f"topic {topic!r} cannot be used at {self._bootstrap_servers}: {found.error.str()}; {fix}")

    def similar(self, topic: str) -> str:
        """Which topic that is there may be meant instead, as words to append; empty without any."""
        meant = nearest(topic, (name for name in self.metadata().topics if not name.startswith("__")))
        return "" if meant is None or meant == topic else f"; did you mean {meant}?"

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset that the partition still holds, and its end: the offset after the last committed record."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                offsets = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=left)
                if offsets is not None:
                    return offsets
            except KafkaException:
                # Also a partition that is so new that it has no leader.
                time.sleep(_RETRY_SECONDS)
        raise self.unreachable()

    def unreachable(self) -> ClusterUnreachable:
        """The exception to raise when nothing came for ``timeout`` seconds."""
        self.consumer.poll(0)  # the reasons come by callbacks
        return self._errors.unreachable(self._timeout)

    def advertised_trouble(self) -> str:
        """Which addresses that brokers advertise are not reached, with the way out; empty without any."""
        return self._errors.advertised()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that answered."""

    embedded: bool
    """Whether this is librdkafka's mock cluster: in memory, 4 MB a partition, no working transactions."""
    partitions: int
    """Partitions of the topic that was looked up; 0 if none was."""


def look_up(
    bootstrap_servers: str,
    topic: str | None = None,
    *,
    client: Mapping[str, Any] | None = None,
    timeout: float = 10.0,
) -> Cluster:
    """Ask which cluster this is and, with ``topic``, for its partitions, creating it where topics create themselves.

    ``timeout`` is in seconds. Raises ClusterUnreachable and TopicUnusable.
    """
    with Reader(bootstrap_servers, client=client, timeout=timeout, allow_auto_create_topics=True) as reader:
        partitions: list[int] = []
        deadline = time.monotonic() + min(timeout, _CREATION_SECONDS)
        while topic is not None and not (partitions := reader.partitions(topic)):
            if time.monotonic() > deadline:
                raise TopicUnusable(
                    f"topic {topic!r} does not exist at {bootstrap_servers}, where topics are not created by "
                    "themselves; create it, or name another"
                )
            time.sleep(_RETRY_SECONDS)
        cluster_id = reader.metadata(topic).cluster_id or ""
        return Cluster(cluster_id.startswith(EMBEDDED_CLUSTER_ID), len(partitions))


def require_topic(
    bootstrap_servers: str, topic: str, *, client: Mapping[str, Any] | None = None, timeout: float = 10.0
) -> None:
    """Raise TopicUnusable unless ``topic`` is there; creates nothing. Raises ClusterUnreachable."""
    with Reader(bootstrap_servers, client=client, timeout=timeout) as reader:
        if not reader.partitions(topic):
            raise TopicUnusable(
                f"topic {topic!r} does not exist at {bootstrap_servers}: its name is another, or nothing was written"
                f"{reader.similar(topic)}"
            )


def is_embedded(bootstrap_servers: str, *, client: Mapping[str, Any] | None = None, timeout: float = 10.0) -> bool:
    """Whether the cluster is librdkafka's mock cluster (``rexstream broker``). Raises ClusterUnreachable."""
    return look_up(bootstrap_servers, client=client, timeout=timeout).embedded


_OWN_ANSWERS = 5
"""Clients that ask one address until the answer is its own: a client that is slow hears of the advertised addresses
before it asks, and may get its answer from one of those, which may be of another cluster."""


def unreachable_brokers(
    addresses: Iterable[str],
    cluster_id: str | None,
    *,
    client: Mapping[str, Any] | None = None,
    timeout: float = 10.0,
) -> dict[str, str]:
    """The addresses at which no broker of this cluster answers within ``timeout`` seconds, and why.

    Each is asked by a client of its own that knows no other address: one that knows several may get its answer from
    whichever it reaches first. Of many addresses the rest is not asked once several failed.
    """
    left, found = sorted(set(addresses)), dict[str, str]()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while left and len(found) < _AT_ONCE:
            asked, left = left[:_AT_ONCE], left[_AT_ONCE:]
            faults = pool.map(lambda address: _unanswered(address, cluster_id, client, timeout), asked)
            found |= {address: why for address, why in zip(asked, faults, strict=True) if why}
    return found


def advertised_addresses(metadata: ClusterMetadata) -> set[str]:
    """The addresses that the brokers of a cluster give to its clients, ``host:port`` or ``[v6]:port``."""
    brokers = metadata.brokers.values()
    return {f"[{each.host}]:{each.port}" if ":" in str(each.host) else f"{each.host}:{each.port}" for each in brokers}


def any_answers(bootstrap_servers: str, *, client: Mapping[str, Any] | None = None, timeout: float = 10.0) -> bool:
    """Whether brokers can be worked with: the cluster answers, and so does a broker at an address that it advertises.

    Of many brokers some are asked.
    """
    try:
        with Reader(bootstrap_servers, client=client, timeout=timeout) as reader:
            metadata = reader.metadata()
    except ClusterUnreachable:
        return False
    asked = sorted(advertised_addresses(metadata))[:_AT_ONCE]
    return len(unreachable_brokers(asked, metadata.cluster_id, client=client, timeout=timeout)) < len(asked)


def _unanswered(address: str, cluster_id: str | None, client: Mapping[str, Any] | None, timeout: float) -> str:
    """Why no broker of the cluster answers at ``address``; empty when one does."""
    answered = None
    for _ in range(_OWN_ANSWERS):
        try:
            with Reader(address, client=client, timeout=timeout) as reader:
                metadata = reader.metadata()
        except ClusterUnreachable as error:
            return error.reason or f"no answer within {timeout:g} s"
        answered = metadata.cluster_id
        # ``host:port/bootstrap``, perhaps with a protocol in front.
        if str(metadata.orig_broker_name).rpartition("/")[0].rpartition("://")[2].lower() == address.lower():
            break
    return "" if answered == cluster_id else f"{ANOTHER_CLUSTER}, {answered}"


def refuse_embedded(
    config: Config, stopping: Callable[[], bool], waiting: Callable[[str], object] = lambda _: None
) -> None:
    """Wait until the cluster answers, or ``stopping()``. Raises ValueError when it is the embedded broker.

    ``waiting`` is told why it does not answer, and an empty text once it does.

    The embedded broker answers OK to everything, commits no offset of a transaction and shows what was aborted: a
    worker on it would double and lose without a sign.
    """
    servers = config.kafka.bootstrap_servers
    logged = False
    while not stopping():
        try:
            if not is_embedded(servers, client=metadata_settings(config), timeout=5.0):
                waiting("")
                return
        except ClusterUnreachable as error:
            waiting(str(error))
            if not logged:
                _log.warning("exactly_once has to know the cluster first", reason=str(error))
                logged = True
        else:
            raise ValueError(
                f"delivery.mode is exactly_once, and {servers} is the embedded broker, whose transactions are not real:"
                " use Apache Kafka, or delivery.mode at_least_once"
            )
