"""Keys go where Java Kafka puts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka.tools.reader import read_to_end
from consumer.kafka.tools.sender import NewRecord, Sender
from consumer.local.broker import EmbeddedBroker
from consumer.local.partition_budget import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "expected"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_hashes_are_those_of_the_java_client(key: bytes, expected: int) -> None:
    """The values that Apache Kafka's own test of murmur2 pins."""
    assert murmur2(key) == expected & 0xFFFFFFFF


@given(st.binary(max_size=50), st.integers(1, 100))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    """Any bytes go to one of the partitions."""
    assert 0 <= partition_of(key, partitions) < partitions


@pytest.mark.broker
def test_partitions_are_those_that_librdkafka_chooses() -> None:
    """Keys of every length, with hashes of both signs, lie where this module says, for an odd number of partitions."""
    with EmbeddedBroker(topics={"t": 7}) as broker:
        sender = Sender(broker.bootstrap_servers, "t")
        sender.send(NewRecord(str(number), b"k" * (number % 9) + b"%d" % number, b"v") for number in range(200))
        assert sender.finish().acknowledged == 200
        for message in read_to_end(broker.bootstrap_servers, "t"):
            assert message.partition() == partition_of(message.key() or b"", 7)
