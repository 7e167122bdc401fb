"""Rebalances on played brokers: how long they wait, and what they leave behind."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest
from runtime_simulation import PARTITIONS, Runtime, deliver, runtime_with
from structlog.testing import capture_logs

from consumer.delivery.commands import Drain
from consumer.events import SourceRecord
from consumer.kafka.clients.errors import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

P, Q = PARTITIONS


def observe(runtime: Runtime, seconds: Sequence[float]) -> None:
    records = [SourceRecord("other", 0, 0, 0, None, None, (), None, -each) for each in seconds]
    runtime.source.no_longer_in_flight(records, 0.0)


@pytest.mark.parametrize(
    ("seconds", "paused", "expected"),
    [
        pytest.param(0.05, None, 1.0, id="fast"),
        pytest.param(3.0, None, 6.0, id="slow"),
        pytest.param(60.0, None, 20.0, id="slower than the most that a group should wait"),
        pytest.param(3.0, "outage", 0.0, id="outage"),
    ],
)
def test_a_revocation_waits_as_long_as_records_of_late_were_in_flight(
    seconds: float, paused: str | None, expected: float
) -> None:
    """One record is stuck; how long the group waits for it depends on what the others took."""
    runtime = runtime_with(1, revoke_seconds=20.0)
    observe(runtime, [seconds] * 100)
    if paused:
        runtime.source.pause(paused)
    runtime.rebalance("revoke", [P])
    assert runtime.waited == [expected]


def test_a_revocation_waits_for_a_tenth_of_the_poll_interval_at_most() -> None:
    """A member that is silent for all of it loses every partition."""
    runtime = runtime_with(1, revoke_seconds=20.0, **{"max.poll.interval.ms": 30_000})
    observe(runtime, [60.0] * 100)
    runtime.rebalance("revoke", [P])
    assert runtime.waited == [3.0]


def test_with_nothing_in_flight_a_revocation_does_not_wait() -> None:
    """Also of one partition while another has something."""
    runtime = runtime_with(1)
    runtime.rebalance("revoke", [Q])
    assert runtime.waited == [0.0]


def test_a_position_that_moves_back_behind_an_idle_end_is_a_new_assignment() -> None:
    """A topic was made anew: what is committed of the old one must not hide its records."""
    runtime = runtime_with(0)
    runtime.brokers.logs[P].end = 5
    runtime.run_until_idle()
    assert runtime.brokers.logs[P].committed == 5
    runtime.brokers.logs[P].records, runtime.brokers.logs[P].end, runtime.brokers.held[P].position = [], 0, 0
    deliver(runtime, 1)
    runtime.run_until_idle()
    assert runtime.brokers.logs[P].committed == 1


@pytest.mark.parametrize("waiting", [(), (0,), (2, 4), (0, 1, 2, 3, 4, 5, 6, 7)])
def test_a_position_that_moves_back_leaves_out_nothing_that_was_in_flight(waiting: tuple[int, ...]) -> None:
    """A log lost its end: what lies before the new end and is not done is read again."""
    runtime = runtime_with(8)
    for offset in sorted(set(range(8)) - set(waiting)):
        runtime.processed(next(n for n, record in enumerate(runtime.unprocessed) if record.offset == offset))
        runtime.release.run_once()
        runtime.acknowledge(0)
    for _ in range(3):
        runtime.step()
    log = runtime.brokers.logs[P]
    del log.records[5:]
    log.end = runtime.brokers.held[P].position = 5
    log.acknowledged -= {5, 6, 7}  # other records will have these offsets
    runtime.unprocessed.clear()  # the worker drops what is of an epoch that has ended
    for _ in range(4):
        log.append(0, None)
    for _ in range(4):
        runtime.step()
    assert log.note == "", "what was named is of records that are no more"
    runtime.run_until_idle()
    assert log.acknowledged == set(range(9))
    assert log.committed == 9


def test_a_position_that_moves_back_ends_the_worker_where_nobody_knows_what_is_in_flight() -> None:
    """Its successor begins at what is committed."""
    runtime = runtime_with(8)
    runtime.commands._on_rewound = lambda: None
    runtime.brokers.held[P].position = 5

    def wait() -> None:
        runtime.now += 10.0

    runtime.source.rebalance.on_wait = wait
    with pytest.raises(ClientFailed, match="in-0 went back to 5"):
        runtime.source.run_once()


def test_lost_partitions_are_forgotten_by_both_threads_at_once() -> None:
    """They are someone else's already: what is processed late is neither published nor counted."""
    runtime = runtime_with(3)
    runtime.rebalance("lost")
    assert (runtime.source.in_flight.events, runtime.source.in_flight.bytes) == (0, 0)
    for _ in range(3):
        runtime.processed(0)
    runtime.release.run_once()
    assert runtime.release._ledger.in_flight == 0
    assert runtime.publisher.under_way == []


def test_each_change_is_logged_with_partitions_and_epochs() -> None:
    """Whoever reads that a worker read records twice wants to know whose they were."""
    with capture_logs() as lines:
        runtime = runtime_with(1)
        runtime.rebalance("revoke", [P])
        runtime.rebalance("lost", [Q])
    changes = [
        (line["event"].partition(":")[0].removesuffix(" partitions"), line["assignments"], line["log_level"])
        for line in lines
        if "(epoch" in str(line["assignments"])  # others are the release thread's
    ]
    assert changes == [
        ("assigned", ["in-0 (epoch 1)"], "info"),
        ("assigned", ["in-1 (epoch 2)"], "info"),
        ("revoking", ["in-0 (epoch 1)"], "info"),
        ("revoked", ["in-0 (epoch 1)"], "info"),
        ("lost", ["in-1 (epoch 2)"], "warning"),
    ]


@pytest.mark.parametrize("draining", [False, True])
def test_a_drain_is_whole_when_nothing_is_left_to_the_next_owner_from_its_begin_on(draining: bool) -> None:
    """What an earlier rebalance cut off is no matter of how the worker ends."""
    runtime = runtime_with(1)
    if not draining:
        runtime.rebalance("revoke", [P])
    runtime.source.drain(Drain(SimpleQueue()))
    if draining:
        runtime.rebalance("revoke", [P])
    assert runtime.source.rebalance.left_whole is not draining
