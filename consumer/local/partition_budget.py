"""Keeps a sender from overfilling the embedded broker, which silently drops the oldest records of a full partition.

``rexstream send`` and the demo count what they are about to send; ``consumer.local.broker_guard`` counts what arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.events import Header


PARTITION_BYTES = 2 * 1024 * 1024
"""Most that a partition may hold. The mock cluster starts to drop at 5 MiB of stored batches, a whole batch (1 MB) at
a time; results are larger than reviews, and a second ``send`` should fit."""

RECORD_OVERHEAD = 90
"""Bytes that a record adds to its key, value and headers when it travels in a batch of its own: the batch header
(61 bytes) and the record's own lengths, offset and timestamp."""


class PartitionFull(Exception):  # noqa: N818 - named for what it is
    """One more record would bring a partition over PARTITION_BYTES. The message names it."""


class PartitionBudget:
    """Bytes per partition of one topic, counted as the embedded broker stores them, uncompressed."""

    def __init__(self, partitions: int, held: Mapping[int, int] | None = None) -> None:
        """``held``: bytes that partitions hold already."""
        self._bytes = [(held or {}).get(partition, 0) for partition in range(partitions)]

    def admit(self, key: bytes | None, value: bytes | None, headers: tuple[Header, ...] = ()) -> int:
        """Count a record and return its partition: the key's, or without a key the emptiest. Raises PartitionFull."""
        partition = self._bytes.index(min(self._bytes)) if key is None else partition_of(key, len(self._bytes))
        size = record_size(key, value, headers)
        if self._bytes[partition] + size > PARTITION_BYTES:
            raise PartitionFull(
                f"partition {partition} of the embedded broker would hold more than {PARTITION_BYTES // 1024**2} MB "
                f"({self._bytes[partition]} bytes before this record), and it drops the oldest records of a full "
                "partition without a word"
            )
        self._bytes[partition] += size
        return partition


def record_size(key: bytes | None, value: bytes | None, headers: tuple[Header, ...] = ()) -> int:
    """Upper bound of the bytes that a record takes in an uncompressed batch."""
    return (
        RECORD_OVERHEAD
        + len(key or b"")
        + len(value or b"")
        + sum(len(name.encode()) + len(content or b"") + 8 for name, content in headers)
    )


_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C
_R = 24


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 with Apache Kafka's seed (org.apache.kafka.common.utils.Utils.murmur2), unsigned."""
    length = len(data)
    digest = _SEED ^ length
    whole = length - length % 4
    for start in range(0, whole, 4):
        block = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        block = (block ^ block >> _R) * _M & _MASK
        digest = (digest * _M & _MASK) ^ block
    if whole < length:
        digest = (digest ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    digest = (digest ^ digest >> 13) * _M & _MASK
    return digest ^ digest >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, out of ``partitions``, that a record with this key goes to.

    Java Kafka's own choice, by ``murmur2``; librdkafka calls it ``murmur2_random``.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions
