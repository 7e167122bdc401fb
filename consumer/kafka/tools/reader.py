"""Reading topics from outside any consumer group: following them as they grow, and reading them to their end.

``tail``, ``send``, the ``dead-letters`` commands and the demo read with it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from consumer.events import SourceRecord
from consumer.kafka.clients.cluster import ClusterUnreachable, Reader, TopicUnusable
from consumer.kafka.clients.errors import UNREADABLE, unreadable
from consumer.kafka.consume.assignment import readable_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from consumer.events import Header

Start = Literal["beginning", "end"]

_REFRESH_SECONDS = 1.0
"""How often a tail that sees nothing new looks for topics and partitions that did not exist before."""


class Tail:
    """Follows topics: all partitions, no group, read_committed. A context manager.

    A topic that does not exist yet is waited for and then read from its beginning; so are new partitions.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topics: Sequence[str],
        start: Start,
        *,
        client: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take position at ``start`` of every partition: records produced after this returns are seen.

        ``timeout`` is in seconds. ``on_trouble`` is called when the cluster stops answering later on; the tail keeps
        trying. Raises ClusterUnreachable and TopicUnusable.
        """
        self._topics = tuple(topics)
        self._on_trouble = on_trouble
        self._known: set[tuple[str, int]] = set()
        self._told = ""
        self._refresh_at = time.monotonic() + _REFRESH_SECONDS
        self._reader = Reader(bootstrap_servers, client=client, timeout=timeout)
        try:
            self._take_up(start)
        except BaseException:
            self._reader.consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.consumer.close()

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """Topics that do not exist so far."""
        return tuple(topic for topic in self._topics if not any(topic == known for known, _ in self._known))

    def similar(self, topic: str) -> str:
        """Which topic that is there may be meant in place of one that is not, as words to append."""
        return self._reader.similar(topic)

    def poll(self, timeout: float) -> Message | None:
        """The next record, or None when none came within ``timeout`` seconds, or while the cluster is away.

        Raises TopicUnusable for a batch that cannot be read.
        """
        message = self._reader.consumer.poll(timeout)
        if message is not None:
            if (error := message.error()) is None:
                return message
            if error.code() in UNREADABLE:
                place = message.topic() or "", message.partition() or 0, message.offset() or 0
                raise TopicUnusable(str(unreadable(*place, error)))
            self._on_trouble(error.str())
        elif time.monotonic() >= self._refresh_at:
            try:
                self._take_up("beginning")
            except ClusterUnreachable as trouble:
                self._on_trouble(str(trouble))
            else:
                # A partition whose leader is not reached is as quiet as one to which nothing is written.
                if (advertised := self._reader.advertised_trouble()) not in ("", self._told):
                    self._on_trouble(advertised)
                self._told = advertised
            self._refresh_at = time.monotonic() + _REFRESH_SECONDS
        return None

    def _take_up(self, start: Start) -> None:
        """Assign the partitions that are new since the last time."""
        new = {
            (topic, partition) for topic in self._topics for partition in self._reader.partitions(topic)
        } - self._known
        if new:
            # The end as a number and not as OFFSET_END: that is looked up some time after the assignment, and what is
            # produced in between would be missed.
            self._reader.consumer.incremental_assign(
                [
                    TopicPartition(
                        *place, OFFSET_BEGINNING if start == "beginning" else self._reader.watermarks(*place)[1]
                    )
                    for place in sorted(new)
                ]
            )
            self._known |= new


def read_to_end(
    bootstrap_servers: str,
    topic: str,
    *,
    client: Mapping[str, Any] | None = None,
    timeout: float = 10.0,
    since: Mapping[int, int] | None = None,
) -> Iterator[Message]:
    """Every committed record that ``topic`` holds now, in order within a partition. A missing topic holds none.

    ``since``: offsets to begin with, by partition; of a partition that is missing all is read.

    Raises ClusterUnreachable when nothing comes for ``timeout`` seconds, and TopicUnusable.
    """
    with Reader(bootstrap_servers, client=client, timeout=timeout, enable_partition_eof=True) as reader:
        held = {partition: reader.watermarks(topic, partition) for partition in reader.partitions(topic)}
        begins = {partition: max(first, (since or {}).get(partition, 0)) for partition, (first, _) in held.items()}
        ends = {partition: end for partition, (_, end) in held.items() if begins[partition] < end}
        reader.consumer.assign([TopicPartition(topic, partition, begins[partition]) for partition in ends])
        while ends:
            message = reader.consumer.poll(timeout)
            if message is None:
                raise reader.unreachable()
            partition, offset = message.partition() or 0, message.offset() or 0
            if (error := message.error()) is None:
                if offset < ends.get(partition, 0):
                    yield message
                offset += 1
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                # Who may only describe a topic learns its partitions and their ends, but no record comes.
                raise TopicUnusable(
                    f"topic {topic!r} cannot be read at {bootstrap_servers}: {error.str()}; grant this client READ"
                )
            elif error.code() in UNREADABLE:
                raise TopicUnusable(str(unreadable(topic, partition, offset, error)))
            # The end may be a transaction's marker, which is never delivered: only the end-of-partition event shows it.
            elif error.code() != KafkaError._PARTITION_EOF:
                continue
            if offset >= ends.get(partition, 0):
                ends.pop(partition, None)


def record_of(message: Message) -> SourceRecord:
    """The record in ``message``, read outside any group: it belongs to no assignment, so its epoch is 0."""
    kind, timestamp = message.timestamp()
    return SourceRecord(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        epoch=0,
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
        timestamp_ms=timestamp if kind else None,
        fetched_at=time.monotonic(),
    )


def headers_of(message: Message) -> tuple[Header, ...]:
    """The headers as they came: a list, names repeat, values may be null or not UTF-8.

    None of them when a name is not UTF-8: then the client gives none, as it does to a worker.
    """
    return readable_headers(message) or ()
