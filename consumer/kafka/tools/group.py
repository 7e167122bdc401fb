"""A consumer group as the brokers see it: its members, and the lag of its partitions. Asks and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from consumer.events import Partition
from consumer.kafka.clients.cluster import EMBEDDED_CLUSTER_ID, ClientErrors, Reader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from consumer.config.inputs import Inputs

_ASK_SECONDS = 0.1
"""A client that gets no answer is polled so often: the reason why comes by a callback."""


class GroupUnknown(Exception):  # noqa: N818 - named for what it is
    """The brokers do not list the members, for want of a right mostly. The message has the way out."""


@dataclass(frozen=True, slots=True)
class Member:
    id: str
    client_id: str
    host: str
    """The address that it connects from, as the group's coordinator sees it."""
    instance: str | None
    """``group.instance.id`` of a static member."""
    partitions: tuple[Partition, ...]
    """In order."""


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    state: str
    """The brokers' word: STABLE, EMPTY, DEAD (not there), ..."""
    protocol: str
    """CLASSIC or CONSUMER (KIP-848)."""
    members: tuple[Member, ...]


class GroupReader:
    """Asks about one group, with clients that last until ``close``. Methods raise ClusterUnreachable."""

    def __init__(self, servers: str, group: str, client: Mapping[str, Any], timeout: float) -> None:
        """``client``: librdkafka settings of any client; ``timeout``: seconds for each question."""
        self._servers, self._group, self._timeout = servers, group, timeout
        self._errors = ClientErrors(servers)
        # Member of no group: it never subscribes. Lag as kafka-consumer-groups shows it counts what is uncommitted.
        self._reader = Reader(
            servers, client=client, timeout=timeout, group_id=group, isolation_level="read_uncommitted"
        )
        self._admin = AdminClient(self._errors.settings(client))
        self.close = self._reader.consumer.close

    def describe(self) -> Group | None:
        """The group and its members; None on the embedded broker, which lists none. Raises GroupUnknown."""
        if (self._reader.metadata(_SOME_TOPIC).cluster_id or "").startswith(EMBEDDED_CLUSTER_ID):
            return None  # it never answers the question
        (asked,) = self._admin.describe_consumer_groups([self._group], request_timeout=self._timeout).values()
        while not asked.done():
            self._admin.poll(_ASK_SECONDS)  # so that callbacks run
        try:
            found = asked.result()
        except KafkaException as error:
            raise self._unanswered(error.args[0]) from None
        state = found.state.name if found.state is not None else ConsumerGroupState.UNKNOWN.name
        return Group(self._group, state, found.type.name, tuple(sorted(map(_member, found.members), key=_place)))

    def lags(self, inputs: Inputs, assigned: Iterable[Partition]) -> dict[Partition, int | None]:
        """Records between committed offset and end, of all partitions of ``inputs`` and of ``assigned``.

        None where brokers do not tell. Topics that are not there have none.
        """
        found = {name: each for name, each in self._reader.metadata().topics.items() if each.error is None}
        partitions = {Partition(name, number) for name in found if name in inputs for number in found[name].partitions}
        asked = sorted(partitions | {each for each in assigned if each.topic in found})
        if not asked:
            return {}
        lags = dict.fromkeys(asked)
        try:
            answered = self._reader.consumer.committed(_positions(asked, 0), timeout=self._timeout)
            committed = {Partition(p.topic, p.partition): p.offset for p in answered if p.error is None}
            ends = self._offsets(committed, OFFSET_END)
            # Nothing committed yet: everything that is still there lies ahead.
            starts = self._offsets([each for each, offset in committed.items() if offset < 0], OFFSET_BEGINNING)
        except KafkaException:
            return {**lags}
        behind = {**committed, **starts}
        known = {each: max(0, end - behind[each]) for each, end in ends.items() if behind[each] >= 0}
        return {**lags, **known}

    def _offsets(self, partitions: Collection[Partition], which: int) -> dict[Partition, int]:
        if not partitions:
            return {}
        found = self._reader.consumer.offsets_for_times(_positions(partitions, which), timeout=self._timeout)
        return {Partition(p.topic, p.partition): p.offset for p in found if p.error is None and p.offset >= 0}

    def _unanswered(self, error: KafkaError) -> Exception:
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return GroupUnknown(
                f"this login may not list the members of group {self._group!r}: it needs Describe on the group, which "
                "Read includes; or name each worker with --http HOST:PORT"
            )
        if error.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT):
            return self._errors.unreachable(self._timeout)
        return GroupUnknown(
            f"the brokers do not list the members of group {self._group!r}: {error.str()}; try again, or name each "
            "worker with --http HOST:PORT"
        )


_SOME_TOPIC = "__consumer_offsets"
"""Asked for so that the answer is small; it need not be there."""


def _member(found: Any) -> Member:
    partitions = found.assignment.topic_partitions if found.assignment is not None else ()
    return Member(
        found.member_id,
        found.client_id or "",
        # Java writes an address as "name/address", mostly without the name.
        (found.host or "").rpartition("/")[2],
        found.group_instance_id or None,
        tuple(sorted(Partition(each.topic, each.partition) for each in partitions)),
    )


def _place(member: Member) -> tuple[str, str, str]:
    return member.host, member.client_id, member.id


def _positions(partitions: Iterable[Partition], offset: int) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number, offset) for p in partitions]
