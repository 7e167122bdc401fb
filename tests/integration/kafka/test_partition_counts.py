"""Partition counts of many output topics, looked up while no broker answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from runtime_harness import eventually

from consumer.events import Outcome, Output
from consumer.kafka.publish import producers

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.events import SourceRecord

pytestmark = pytest.mark.broker

TOPICS = 12
"""Four routes with three tasks each."""


def test_an_outage_in_which_all_counts_expire_holds_up_no_round_of_the_release_thread(
    own_broker: Any,
    cluster_of: Callable[[Any], Any],
    start: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One wait of two seconds; with a wait for each of some more topics the watchdog would end the worker."""
    cluster = cluster_of(own_broker)
    topic = own_broker.topic(1, "in")
    outputs = [own_broker.topic(1, "out") for _ in range(TOPICS)]
    monkeypatch.setattr(producers, "REFRESH_SECONDS", 0.5)
    cluster.send(topic, 2, 1)
    worker = start(own_broker.bootstrap, topic, outputs[0], "counts", client={"session.timeout.ms": 60_000})

    def finish(record: SourceRecord) -> None:
        found = tuple(Output(each, record.key, record.value, (), record.partition) for each in outputs)
        worker.runtime.processed(record, Outcome("done", found))

    first, second = worker.wait(2)
    finish(first)
    eventually(lambda: worker.observed.counts["durable"] == 1)
    time.sleep(0.6)  # the counts expire
    own_broker.order("down")
    finish(second)
    watched_until = time.monotonic() + 7
    oldest = 0.0
    while time.monotonic() < watched_until:
        oldest = max(oldest, worker.runtime.status().release_age)
        time.sleep(0.05)
    own_broker.order("up")
    eventually(lambda: worker.observed.counts["durable"] == 2, 60)
    assert oldest < 6, "one round of the release thread waited for lookup after lookup"
    assert worker.fatal == []
    assert [cluster.values(each, 1) for each in outputs] == [[first.value, second.value]] * TOPICS
