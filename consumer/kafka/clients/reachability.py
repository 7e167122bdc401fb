"""Which brokers a client does not reach, read from its errors and statistics; above all those that others advertised.

A broker that answers names addresses for itself and the others (``advertised.listeners``), and from then on a client
uses those alone. Where they hold only inside the brokers' network, the first answer comes and nothing after it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from consumer.kafka.clients.settings import way_out

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN = 3
"""Most addresses that a message names."""
STATISTICS_MS = 500
"""Time between two statistics of a client, in which it says how far its connections have come. Of a broker that takes a
connection and never answers there is no error for ten seconds."""

_ERROR = re.compile(
    r"(?:\w+Coordinator(?:/\d+)?: )?(?:[a-z_]+://)?(?P<address>\S+:\d+)(?:/\w+)?: (?P<reason>.+)", re.DOTALL
)
"""An error of one broker's connection, such as ``kafka:9092/1: Connect to ipv4#10.0.0.1:9092 failed: …``."""
_REPEATED = re.compile(r", \d+ identical error\(s\) suppressed")
_BROKER = re.compile(r'"nodename":\s*"([^"]*)",\s*"source":\s*"(\w+)",\s*"state":\s*"(\w+)"')
_NO_ANSWER = "it takes connections and does not answer"
_SILENT = {
    "CONNECT": "no connection is made",
    "SSL_HANDSHAKE": "it does not answer the TLS handshake",
    **dict.fromkeys(("AUTH_LEGACY", "AUTH_HANDSHAKE", "AUTH_REQ", "APIVERSION_QUERY"), _NO_ANSWER),
}
"""What librdkafka calls a connection that is not finished -> what keeps it waiting."""
_ALL_DOWN = "brokers are down"
"""The end of an error that all have in common; without one of a broker's own its connections were closed."""
_CLOSES = "it closes connections before it answers"
_ADVERTISED = (
    "set advertised.listeners of these brokers to addresses that hold here, or use the listener for clients from here"
)


class BrokerTroubles:
    """What a client has met at each broker so far. Fed by callbacks, so by one thread at a time."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._configured = {server.strip().lower() for server in bootstrap_servers.split(",")}
        self._failed: dict[str, str] = {}
        self._silent: dict[str, str] = {}
        self._learned: set[str] = set()
        self._reached: set[str] = set()
        self._all_down = False

    def settings(self, interval_ms: int = STATISTICS_MS) -> dict[str, Any]:
        """Settings with which a client reports how far its connections have come, whenever it is polled."""
        return {"statistics.interval.ms": interval_ms, "stats_cb": self.statistics}

    def error(self, text: str) -> None:
        """An error of the client."""
        if (found := _ERROR.match(text)) is not None:
            self._failed[found["address"].lower()] = reason_of(text)
        elif text.endswith(_ALL_DOWN):
            self._all_down = True

    def statistics(self, text: str) -> None:
        """The client's statistics: connections that were made are no trouble any more."""
        for name, source, state in _BROKER.findall(text):
            address = name.lower()
            if state == "UP":
                self._all_down = False
                self._reached.add(address)
                self._failed.pop(address, None)
                self._silent.pop(address, None)
            elif state in _SILENT:
                self._silent[address] = _SILENT[state]
            elif source == "learned":
                self._learned.add(address)

    def forget(self) -> None:
        """Forget the troubles: every broker that is needed answers."""
        self._failed.clear()
        self._silent.clear()
        self._all_down = False

    def reason(self) -> str:
        """Why a configured broker is not reached, where the client gave no error; empty where that is not known."""
        if self._all_down:
            return _CLOSES  # whatever the next connection happened to wait for when the statistics were made
        return next((why for address, why in self._silent.items() if address in self._configured), "")

    def advertised(self) -> str:
        """Which advertised addresses were never reached, why, and the way out; empty without any."""
        known = self._configured | self._reached  # these may be down, but they are no wrong addresses
        closed = dict.fromkeys(self._learned if self._all_down else (), _CLOSES)
        troubles = {**self._silent, **closed, **self._failed}
        return advertised_trouble({each: why for each, why in troubles.items() if each not in known})

    def unreached(self) -> str:
        """As ``advertised``, else why the configured brokers are not reached; empty where neither is known."""
        failed = {address: why for address, why in self._failed.items() if address in self._configured}
        address, why = next(iter(failed.items()), (", ".join(sorted(self._configured)), self.reason()))
        if (advertised := self.advertised()) or not why:
            return advertised
        fix = way_out(why) or "check kafka.bootstrap_servers and kafka.security"
        return f"no Kafka broker answers at {address} ({why}); {fix}"


def advertised_trouble(troubles: Mapping[str, str]) -> str:
    """Words for advertised addresses that cannot be reached, given with the reason of each; empty without any."""
    if not troubles:
        return ""
    shown = "; ".join(f"{address} ({why})" for address, why in sorted(troubles.items())[:_SHOWN])
    more = f" and {len(troubles) - _SHOWN} more" if len(troubles) > _SHOWN else ""
    fixes = dict.fromkeys((_ADVERTISED, *filter(None, map(way_out, troubles.values()))))
    return f"brokers advertise what cannot be used from here: {shown}{more}; {', and '.join(fixes)}"


def reason_of(text: str) -> str:
    """An error of one broker's connection without the broker in front, and without how often it came before."""
    found = _ERROR.match(text)
    return _REPEATED.sub("", text if found is None else found["reason"])
