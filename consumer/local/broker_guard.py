"""A proxy before the embedded broker that refuses what the broker would drop: no partition gets over PARTITION_BYTES.

The mock cluster silently drops the oldest records of a full partition. To watch it by reading would be too late: a
producer on this machine writes hundreds of megabytes a second. So clients connect to the guard's own ports, and each
Produce request is counted before the broker gets it. All other requests pass through unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from typing import TYPE_CHECKING

from consumer.local.partition_budget import PARTITION_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.local.broker import EmbeddedBroker

PRODUCE_VERSIONS = (3, 8)
"""Versions of the Produce request that are offered: the first with today's record batches, the last before the compact
encoding. Every client of the last years speaks one of them."""

POLICY_VIOLATION = 44
"""The answer to a refused request. No client retries it, and none splits the batch as for MESSAGE_TOO_LARGE."""

_PRODUCE = 0
_REQUEST_BYTES = 100 * 1024 * 1024
"""Largest request, as Apache Kafka's own socket.request.max.bytes. What announces more is no Kafka client (TLS,
HTTP)."""
_BUFFER_BYTES = 1024 * 1024
_SPARE_REFUSALS = 10_000
"""Refusals that the broker is given beyond one for each refused request: requests that were passed on and not yet
handled when the first one is refused use some of them up."""


class BrokerGuard:
    """One listening port on 127.0.0.1 for each broker of the cluster. Lives in a running event loop."""

    def __init__(self, broker: EmbeddedBroker, refused: Callable[[str], None]) -> None:
        """``refused`` is called once, with what happened and the way out, when the first request is refused."""
        self._broker = broker
        self._refused = refused
        self._held: Counter[tuple[str, int]] = Counter()
        self._full = False
        # Kept here, since a server without a reference may be garbage-collected.
        self._servers: list[asyncio.Server] = []

    async def listen(self, port: int = 0) -> str:
        """Open the ports, the first broker's on ``port`` (0: a free one); the bootstrap address of all of them.

        Raises OSError when the port cannot be taken.
        """
        self._broker.offer_versions(_PRODUCE, *PRODUCE_VERSIONS)
        addresses = []
        for number, target in enumerate(self._broker.bootstrap_servers.split(",")):
            host, _, target_port = target.rpartition(":")

            async def connected(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                to: tuple[str, int] = (host, int(target_port)),
            ) -> None:
                # Cancelled only when the process ends: asyncio would report that as an error of the connection.
                with contextlib.suppress(asyncio.CancelledError):
                    try:
                        upstream_reader, upstream_writer = await asyncio.open_connection(*to, limit=_BUFFER_BYTES)
                    except OSError:
                        writer.close()
                        return
                    await asyncio.gather(self._requests(reader, upstream_writer), _answers(upstream_reader, writer))

            server = await asyncio.start_server(connected, "127.0.0.1", port if number == 0 else 0, limit=_BUFFER_BYTES)
            self._servers.append(server)
            own_port = server.sockets[0].getsockname()[1]
            self._broker.advertise(number + 1, "127.0.0.1", own_port)
            addresses.append(f"127.0.0.1:{own_port}")
        return ",".join(addresses)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a client's requests on, whole, each Produce request counted before."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while (size := int.from_bytes(prefix := await reader.readexactly(4), "big")) <= _REQUEST_BYTES:
                request = await reader.readexactly(size)
                self._count(request)
                writer.write(prefix)
                writer.write(request)
                await writer.drain()
        writer.close()

    def _count(self, request: bytes) -> None:
        """Let the broker refuse this request when a partition cannot hold it, and all Produce requests after it."""
        sizes = produced_bytes(request)
        if sizes is None:
            return
        if self._full:
            self._broker.refuse(_PRODUCE, POLICY_VIOLATION, 1)
            return
        for (topic, partition), size in sizes.items():
            if self._held[topic, partition] + size > PARTITION_BYTES:
                self._full = True
                self._broker.refuse(_PRODUCE, POLICY_VIOLATION, _SPARE_REFUSALS)
                self._refused(
                    f"topic {topic!r} partition {partition} is full: it holds {self._held[topic, partition]} bytes, "
                    f"{size} more would bring it over {PARTITION_BYTES // 1024**2} MB, and this broker loses the "
                    "oldest records of larger ones. Everything that anyone produces is refused from now on "
                    "(POLICY_VIOLATION); what was acknowledged can still be read. Use Apache Kafka for more data, or "
                    "restart this broker: it is in memory and starts empty"
                )
                return
        self._held.update(sizes)


def produced_bytes(request: bytes) -> Counter[tuple[str, int]] | None:
    """Bytes of record batches per (topic, partition) in a request without its length prefix; None if it is no Produce.

    A request that does not follow the protocol is None too: the broker drops its connection.
    """
    sizes: Counter[tuple[str, int]] = Counter()
    try:
        key, version = struct.unpack_from(">hh", request, 0)
        if key != _PRODUCE or not PRODUCE_VERSIONS[0] <= version <= PRODUCE_VERSIONS[1]:
            return None
        _client, at = _string(request, 8)
        _transaction, at = _string(request, at)
        (topics,) = struct.unpack_from(">i", request, at + 6)  # after acks and the time-out
        at += 10
        for _ in range(topics):
            topic, at = _string(request, at)
            (partitions,) = struct.unpack_from(">i", request, at)
            at += 4
            for _ in range(partitions):
                partition, size = struct.unpack_from(">ii", request, at)
                sizes[topic, partition] += max(size, 0)
                at += 8 + max(size, 0)
    except (struct.error, UnicodeDecodeError):
        return None
    return sizes


def _string(request: bytes, at: int) -> tuple[str, int]:
    """The string at ``at`` (empty for null), and where the next field begins."""
    (length,) = struct.unpack_from(">h", request, at)
    end = at + 2 + max(length, 0)
    return request[at + 2 : end].decode(), end


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BUFFER_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()
