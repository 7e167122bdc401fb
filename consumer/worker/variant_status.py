"""What ``/status`` shows of several variants: each model server once, and every variant.

Loaded only where there are several variants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.serving.dispatch.endpoint import EndpointStatus
    from consumer.telemetry.status import VariantsStatus
    from consumer.worker.variant import Variant

_STATES = ("ok", "busy", "trial", "outage", "deployment_fault", "gone")
"""Of an endpoint that several bundles try, the first of these is its state."""


class ShownVariants:
    """Belongs to the event loop."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._variants = variants
        self._failures: dict[tuple[Variant, str], tuple[int, int]] = {}

    def endpoints(self) -> list[EndpointStatus]:
        """The model servers as the stable version is reached there: of several bundles, what the best one finds.

        Failed health probes of a bundle that waits for its version are no failures of the server.
        """
        found: dict[str, list[tuple[Variant, EndpointStatus]]] = {}
        for variant in self._variants:
            if variant.name == "stable":
                for each in variant.dispatcher.endpoints:
                    found.setdefault(each.address, []).append((variant, each))
        self._failures = {key: counts for key, counts in self._failures.items() if key[1] in found}
        return [self._one(its) for its in found.values()]

    def _one(self, its: list[tuple[Variant, EndpointStatus]]) -> EndpointStatus:
        failed = 0
        for variant, each in its:
            before, shown = self._failures.get((variant, each.address), (0, 0))
            if self.shows(variant):
                shown += max(0, each.failed - before)
            self._failures[variant, each.address] = each.failed, shown
            failed += shown
        _, best = min(its, key=lambda one: _STATES.index(one[1].state))
        return best._replace(
            in_flight=sum(each.in_flight for _, each in its),
            answered=sum(each.answered for _, each in its),
            suspected=sum(each.suspected for _, each in its),
            failed=failed,
        )

    def shows(self, variant: Variant | None) -> bool:
        """Whether failed calls of it are worth counting: it can be used, or none of its version can."""
        its = [each for each in self._variants if variant is not None and each.name == variant.name]
        return (variant in its and not variant.unusable) or all(each.unusable for each in its)

    def status(self, canary: dict[str, Any] | None) -> VariantsStatus:
        """For ``/status``: ``canary``, and every variant."""
        return {
            "canary": canary,
            "variants": [
                {
                    "variant": each.name,
                    "bundle": each.bundle.name,
                    "usable": not each.unusable,
                    "reason": each.unusable,
                    "windows": each.windows,
                }
                for each in self._variants
            ],
        }
