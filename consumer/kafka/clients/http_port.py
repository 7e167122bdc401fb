"""A worker's HTTP port in the ``client.id`` of its consumer, by which the commands find the workers of a group.

Of a member, brokers tell others where it connects from and its ``client.id``, nothing else that a client can choose.
Only the port is told: whoever may join the group could otherwise send the commands to any address.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

from consumer.config.names import ADDRESS

PLAIN = "rexstream"
"""The client.id of a worker without HTTP, and of every worker before ports were told."""

_TOLD = re.compile(rf"{PLAIN}-(?P<reach>http|loopback)-(?P<port>\d{{1,5}})")


class HttpPort(NamedTuple):
    port: int
    loopback: bool
    """Whether only its own machine reaches it."""


def client_id(http: str, port: int | None = None) -> str:
    """The client.id of a worker whose ``observability.http`` is ``http``; ``port``: the one that it got for port 0."""
    told = http_port_of(http)
    if told is None:
        return PLAIN
    return f"{PLAIN}-{'loopback' if told.loopback else 'http'}-{port or told.port}"


def http_port_of(http: str) -> HttpPort | None:
    """What ``observability.http`` says; None where it is empty or no address."""
    match = ADDRESS.fullmatch(http)
    return None if match is None else HttpPort(int(match["port"]), is_loopback(match["v6"] or match["host"]))


def told_by(client: str) -> HttpPort | None:
    """What a member's client.id tells; None where it tells no port."""
    match = _TOLD.fullmatch(client)
    if match is None or not 0 < (port := int(match["port"])) < 65_536:
        return None
    return HttpPort(port, match["reach"] == "loopback")


def is_loopback(host: str) -> bool:
    """Whether a host, an address or ``localhost``, is reached from its own machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
