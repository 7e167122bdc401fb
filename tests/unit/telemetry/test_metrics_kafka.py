"""The metrics as the Kafka runtime's observer."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer

from consumer.events import Partition
from consumer.kafka.consume.assignment import BACKPRESSURE, DRAINING, Pauses
from consumer.kafka.consume.committer import COMMIT
from consumer.telemetry.metrics import Metrics
from consumer.worker.dead_letter_breaker import REASON as FLOOD
from consumer.worker.lifecycle import STATE_REASONS

REASONS = sorted({BACKPRESSURE, COMMIT, DRAINING, FLOOD, "output", "registry", *STATE_REASONS.values()})


def paused(metrics: Metrics) -> set[str]:
    """Reasons whose series is 1."""
    (family,) = (each for each in metrics.registry.collect() if each.name == "rexstream_paused")
    return {sample.labels["reason"] for sample in family.samples if sample.value}


def test_the_runtime_and_the_worker_pause_for_these() -> None:
    """The list is all there is; a new reason belongs into it and into the metric."""
    assert REASONS == [
        "backpressure",
        "commit",
        "deployment_fault",
        "draining",
        "flood",
        "outage",
        "output",
        "registry",
    ]


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_to_pause_is_visible_under_its_own_name(reason: str) -> None:
    """Whoever is alerted reads what to mend, not ``other``; and it is gone with the pause."""
    metrics = Metrics()
    consumer = create_autospec(Consumer, instance=True)
    pauses = Pauses(metrics, ["in"])
    pauses.assign(consumer, [Partition("in", 0)])
    pauses.pause(reason)
    assert paused(metrics) == {reason}
    help_text = next(each.documentation for each in metrics.registry.collect() if each.name == "rexstream_paused")
    assert reason in help_text
    pauses.resume(reason)
    assert paused(metrics) == set()
