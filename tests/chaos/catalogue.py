"""Every scenario, in the order in which they run: those that share a cluster stand together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.scenarios import brokers, inputs, models, outputs, releases, sample, soak, workers

if TYPE_CHECKING:
    from chaos.scenario import Scenario


def scenarios() -> tuple[Scenario, ...]:
    """All of them."""
    parts = (workers, releases, models, inputs, outputs, brokers, sample, soak)
    found = [scenario for part in parts for scenario in part.SCENARIOS]
    # Stable: within a cluster they stay as they are written.
    return tuple(sorted(found, key=lambda each: [other.kafka for other in found].index(each.kafka)))
