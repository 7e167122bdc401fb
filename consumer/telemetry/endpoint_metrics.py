"""The metrics of single model servers: series come with an address and go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from consumer.telemetry.metric_declarations import ENDPOINT_STATES, LABEL_LIMITS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from prometheus_client import Counter, Gauge

Breaker = Literal["closed", "half_open", "open"]
_BREAKER_VALUE: dict[Breaker, int] = {"closed": 0, "half_open": 1, "open": 2}
_ENDS = ("answered", "failed")


class EndpointMetrics:
    """Written by the event loop only."""

    def __init__(self, counters: Mapping[str, Counter], gauges: Mapping[str, Gauge]) -> None:
        self._calls = counters["rexstream_endpoint_calls_total"]
        self._breaker = gauges["rexstream_breaker_state"]
        self._state = gauges["rexstream_endpoint_state"]
        self._in_flight = gauges["rexstream_endpoint_in_flight"]
        self._slowness = gauges["rexstream_endpoint_slowness"]
        self._seen: dict[str, tuple[int, int]] = {}

    def breaker(self, state: Breaker, address: str) -> None:
        """The state of the circuit breaker before this server now."""
        if address in self._seen:
            self._breaker.labels(address).set(_BREAKER_VALUE[state])

    def show(self, endpoints: Collection[tuple[str, str, int, int, int, int, str, float]]) -> None:
        """Every server: address, state, windows in calls, calls answered and failed since its start, …, slowness.

        Those that are not named lose their series; beyond the limit of the label, new ones get none.
        """
        for address in self._seen.keys() - {endpoint[0] for endpoint in endpoints}:
            del self._seen[address]
            for gauge in (self._breaker, self._in_flight, self._slowness):
                gauge.remove(address)
            for state in ENDPOINT_STATES:
                self._state.remove(address, state)
            for end in _ENDS:
                self._calls.remove(address, end)
        for address, state, in_flight, answered, failed, _, _, slowness in endpoints:
            if address not in self._seen and len(self._seen) >= LABEL_LIMITS["endpoint"]:
                continue
            if address not in self._seen:
                self._breaker.labels(address).set(0)
            before = self._seen.get(address, (0, 0))
            self._seen[address] = answered, failed
            for end, now, then in zip(_ENDS, (answered, failed), before, strict=True):
                # Fewer than before: it was closed and came back between two looks, and counts from nothing again.
                self._calls.labels(address, end).inc(now - then if now >= then else now)
            self._in_flight.labels(address).set(in_flight)
            self._slowness.labels(address).set(slowness)
            for each in ENDPOINT_STATES:
                self._state.labels(address, each).set(each == state)
