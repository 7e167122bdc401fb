"""Which partition a key goes to: Java Kafka's murmur2, which librdkafka calls ``murmur2_random``."""

from __future__ import annotations

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
    """The partition, out of ``partitions``, that a record with this key goes to."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
