"""exactly_once on a cluster that cannot have it, or that does not answer."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.config.tree import Config, DeliveryConfig, KafkaConfig
from consumer.kafka.clients import cluster
from consumer.kafka.clients.cluster import ClusterUnreachable, refuse_embedded

CONFIG = Config(
    kafka=KafkaConfig(bootstrap_servers="broker:1"),
    delivery=DeliveryConfig(mode="exactly_once"),
)


def answer(monkeypatch: pytest.MonkeyPatch, *answers: bool | Exception) -> list[Any]:
    """Let each look at the cluster have the next of ``answers``; returns those that are left."""
    left = list(answers)

    def is_embedded(servers: str, **_: Any) -> bool:
        assert servers == "broker:1"
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(cluster, "is_embedded", is_embedded)
    return left


def test_the_embedded_broker_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its transactions answer OK and keep nothing."""
    answer(monkeypatch, True)
    with pytest.raises(ValueError, match=r"exactly_once.*broker:1.*at_least_once"):
        refuse_embedded(CONFIG, lambda: False)


def test_a_cluster_that_does_not_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to end: workers outlive their brokers. The log says so once."""
    left = answer(monkeypatch, ClusterUnreachable("away"), ClusterUnreachable("away"), False)
    with capture_logs() as lines:
        refuse_embedded(CONFIG, lambda: False)
    assert left == []
    assert [line["reason"] for line in lines] == ["away"]


def test_a_worker_that_is_told_to_stop_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster may be away for good."""
    answer(monkeypatch, *[ClusterUnreachable("away")] * 9)
    stops = [False, False, True]
    refuse_embedded(CONFIG, lambda: stops.pop(0))
    assert stops == []
