"""exactly_once on a cluster that cannot have it, or that does not answer."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.config.tree import Config, DeliveryConfig, KafkaConfig
from consumer.kafka.clients.cluster import ClusterUnreachable, refuse_embedded

CONFIG = Config(
    kafka=KafkaConfig(bootstrap_servers="broker:1"),
    delivery=DeliveryConfig(mode="exactly_once"),
)


def test_the_embedded_broker_is_refused_with_the_way_out() -> None:
    """Its transactions answer OK and keep nothing."""
    with pytest.raises(ValueError, match=r"exactly_once.*broker:1.*at_least_once"):
        refuse_embedded(CONFIG, lambda: False, lambda *_, **__: True)


def test_a_cluster_that_does_not_answer_is_waited_for() -> None:
    """It is no reason to end: workers outlive their brokers."""
    answers: list[Any] = [ClusterUnreachable("away"), ClusterUnreachable("away"), False]

    def look(*_: Any, **__: Any) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    refuse_embedded(CONFIG, lambda: False, look)
    assert answers == []


def test_a_worker_that_is_told_to_stop_waits_no_longer() -> None:
    """The cluster may be away for good."""

    def look(*_: Any, **__: Any) -> bool:
        raise ClusterUnreachable("away")

    stops = [False, False, True]
    refuse_embedded(CONFIG, lambda: stops.pop(0), look)
    assert stops == []
