"""What the dispatchers of several variants tell the worker's metrics: the sum of all, without what is no failure.

Loaded only where there are several variants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.serving.dispatch.endpoint import unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.batching.policy import ReleaseReason
    from consumer.resilience.circuit_breaker import BreakerState
    from consumer.telemetry.metrics import Metrics
    from consumer.worker.variant import Variant, VariantName
    from consumer.worker.variant_router import VariantRouter

_BREAKERS: tuple[BreakerState, ...] = ("closed", "half_open", "open")


class VariantObserver:
    """The ``DispatchObserver`` of one of several variants: what it sees of the worker is the sum of all.

    What a bundle is told that waits for its version is no failure: it is not counted.
    """

    def __init__(
        self, router: VariantRouter, observers: list[VariantObserver], name: VariantName, metrics: Metrics
    ) -> None:
        """``observers``: of all variants; this one is added. ``variant`` is set as soon as there is one."""
        self._router, self._observers, self.name, self._metrics = router, observers, name, metrics
        self.variant: Variant | None = None
        self.windows = 0
        """As ``in_flight_windows`` was told."""
        self.breakers: dict[str, BreakerState] = {}
        self._was_unusable: str | None = None
        self.batch_sent: Callable[[int, int, int, ReleaseReason], None] = metrics.batch_sent
        self.lane_sent: Callable[[str, int, float], None] = metrics.lane_sent
        self.model_retried: Callable[[], None] = metrics.model_retried
        self.windows_overflowed: Callable[[int], None] = metrics.windows_overflowed
        observers.append(self)

    def model_called(self, model: str, version: str, code: str, seconds: float) -> None:
        """As ``Metrics.model_called``; the version of ``/status`` is the stable one."""
        if self.variant is not None:
            self.variant.recent.append(seconds)
        if code != "OK" and not self._router.shown.shows(self.variant):
            return
        before = self._metrics.model_version
        self._metrics.model_called(model, version, code, seconds)
        if self.name == "canary":
            self._metrics.model_version = before

    def in_flight_windows(self, windows: int) -> None:
        """So many here. It is called after whatever happened to a dispatcher, so the router looks at it now."""
        self.windows = windows
        self._metrics.in_flight_windows(sum(each.windows for each in self._observers))
        if self.variant is not None:
            now = unusable(self.variant.dispatcher.servers)
            if bool(now) != bool(self._was_unusable) or self._was_unusable is None:
                self._was_unusable = now
                self._router.look_soon()

    def breaker(self, state: BreakerState, endpoint: str) -> None:
        """The breaker before a model server is closed while that of any stable variant is."""
        self.breakers[endpoint] = state
        others = [each for each in self._observers if each.name == "stable"]
        states = [each.breakers.get(endpoint, "closed") for each in others]
        self._metrics.breaker(min(states, key=_BREAKERS.index), endpoint)
