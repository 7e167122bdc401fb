"""The guard before the embedded broker: what a Produce request holds, and nothing beyond 2 MB a partition."""

from __future__ import annotations

import asyncio
import re
import struct
import threading
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from consumer.local.broker import EmbeddedBroker
from consumer.local.broker_guard import BrokerGuard, produced_bytes
from consumer.local.partition_budget import PARTITION_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Message

BATCH = st.tuples(st.integers(0, 2), st.binary(max_size=50))
TOPICS = st.dictionaries(st.text(max_size=8), st.lists(BATCH, max_size=4), max_size=3)


def string(text: str | None) -> bytes:
    """A protocol string, null for None."""
    data = (text or "").encode()
    return struct.pack(">h", -1 if text is None else len(data)) + data


def produce_request(topics: dict[str, list[tuple[int, bytes]]], client: str | None, version: int = 7) -> bytes:
    """Header and body as Kafka's protocol guide has them."""
    request = (
        struct.pack(">hhi", 0, version, 1) + string(client) + string(None) + struct.pack(">hii", -1, 1000, len(topics))
    )
    for topic, batches in topics.items():
        request += string(topic) + struct.pack(">i", len(batches))
        for partition, records in batches:
            request += struct.pack(">ii", partition, len(records)) + records
    return request


@given(TOPICS, st.none() | st.text(max_size=8))
def test_every_batch_of_a_request_counts(topics: dict[str, list[tuple[int, bytes]]], client: str | None) -> None:
    """Bytes add up per topic and partition, whatever else the request says."""
    expected: Counter[tuple[str, int]] = Counter()
    for topic, batches in topics.items():
        for partition, records in batches:
            expected[topic, partition] += len(records)
    assert produced_bytes(produce_request(topics, client)) == expected


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_raise_nothing(tail: bytes) -> None:
    """A broken Produce request is the broker's to turn down."""
    produced_bytes(tail)
    produced_bytes(struct.pack(">hh", 0, 7) + tail)


def test_another_kind_of_request_is_not_counted() -> None:
    """The same bytes under the key of Fetch are no Produce request."""
    request = produce_request({"t": [(0, b"x")]}, "c")
    assert produced_bytes(request) is not None
    assert produced_bytes(b"\0\1" + request[2:]) is None


@contextmanager
def guarded(brokers: int = 1, **topics: int) -> Iterator[tuple[str, list[str]]]:
    """A guarded cluster; its address, and what it has said."""
    said: list[str] = []
    ready: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve(broker: EmbeddedBroker) -> None:
        guard, stop = BrokerGuard(broker, said.append), asyncio.Event()
        ready.set_result((await guard.listen(), asyncio.get_running_loop(), stop))
        await stop.wait()

    with EmbeddedBroker(brokers, topics) as broker:
        thread = threading.Thread(target=asyncio.run, args=[serve(broker)], daemon=True)
        thread.start()
        address, loop, stop = ready.result(10)
        try:
            yield address, said
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            assert not thread.is_alive()


class Load:
    """A producer that goes on whatever it is told: what was acknowledged, by partition, and what it was told."""

    def __init__(self, address: str, **settings: Any) -> None:
        self.acknowledged: dict[int, list[int]] = {}
        self.errors: set[int] = set()
        self._producer = Producer({"bootstrap.servers": address, "log_level": 0, "linger.ms": 1, **settings})

    def send(self, topic: str, records: int, size: int, partition: int = 0) -> None:
        """Produce all of it as fast as the queue takes it; returns when each has its answer."""

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.errors.add(error.code())
            else:
                self.acknowledged.setdefault(partition, []).append(message.offset() or 0)

        for _ in range(records):
            self._producer.produce(topic, b"x" * size, partition=partition, on_delivery=delivered)
            self._producer.poll(0)
        assert self._producer.flush(20) == 0


def readable(address: str, topic: str, partition: int = 0) -> list[int]:
    """Offsets of every record that can be read."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "r", "log_level": 0})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        consumer.assign([TopicPartition(topic, partition, 0)])
        offsets: list[int] = []
        while len(offsets) < high - low:
            message = consumer.poll(10)
            assert message is not None
            assert not message.error()
            offsets.append(message.offset() or 0)
        return offsets
    finally:
        consumer.close()


@pytest.mark.broker
@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("size", [1_000, 10_000, 900_000])
def test_a_producer_at_full_speed_loses_nothing_that_was_acknowledged(size: int, idempotent: bool) -> None:
    """20 MB to a new topic: refused at 2 MB, at once and without retries, and the first records are still there."""
    with guarded() as (address, said):
        load = Load(address, **{"enable.idempotence": idempotent})
        load.send("new", 20_000_000 // size, size)
        assert load.errors == {KafkaError.POLICY_VIOLATION}
        offsets = readable(address, "new")
        assert offsets == sorted(load.acknowledged.get(0, []))
        assert offsets == list(range(len(offsets)))
        # What was let through may still be on its way when the broker begins to refuse, all of it on a busy machine: it
        # is refused, too, and less is held than was counted; never more.
        assert len(offsets) * size <= PARTITION_BYTES
        assert len(said) == 1
        assert "'new' partition 0" in said[0]
        # A batch is a million bytes at most, so no more than one was missing when the bound was met.
        (counted,) = re.findall(r"it holds (\d+) bytes", said[0])
        assert PARTITION_BYTES - 1_000_000 - size < int(counted) <= PARTITION_BYTES


@pytest.mark.broker
def test_refusing_never_ends() -> None:
    """More requests than there are refusals in store, to other partitions and brokers too, are all refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumer.local.broker_guard._SPARE_REFUSALS", 20)
        with guarded(brokers=2, t=2) as (address, said):
            Load(address).send("t", 4, 900_000)
            load = Load(address, **{"batch.num.messages": 1})
            for partition in (0, 1):
                load.send("t", 100, 10, partition)
            assert load.errors == {KafkaError.POLICY_VIOLATION}
            assert load.acknowledged == {}
            assert len(said) == 1


@pytest.mark.broker
def test_partitions_have_room_of_their_own() -> None:
    """Several partitions just below the bound, on two brokers, are all taken, and nothing is said."""
    with guarded(brokers=2, t=4) as (address, said):
        load = Load(address)
        for partition in range(4):
            load.send("t", 19, 100_000, partition)
        assert load.errors == set()
        assert all(readable(address, "t", partition) == list(range(19)) for partition in range(4))
        assert said == []


@pytest.mark.broker
def test_what_is_no_kafka_request_is_cut_off() -> None:
    """A client that greets with TLS or HTTP gets a closed connection, and the others go on."""

    async def greet(host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    with guarded(t=1) as (address, _):
        host, _colon, port = address.rpartition(":")
        assert asyncio.run(greet(host, int(port))) == b""
        load = Load(address)
        load.send("t", 1, 10)
        assert load.acknowledged == {0: [0]}
