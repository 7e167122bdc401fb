"""The poll thread, run by hand on played brokers."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from runtime_simulation import PARTITIONS, Message, Runtime, deliver, runtime_with

from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.clients.watchdog import STALLED_SECONDS

P, _ = PARTITIONS


def joined(runtime: Runtime) -> bool:
    return runtime.source.membership.joined


def fail(runtime: Runtime, code: int) -> None:
    """The client's next message is the end of it."""
    words = f"Fatal error: {KafkaError(code).str()}"
    runtime.brokers.messages.append(Message(P, 0, None, KafkaError(KafkaError._FATAL, words)))
    runtime.source.run_once()


def test_a_place_in_the_group_that_is_still_taken_is_tried_again_with_a_new_client() -> None:
    """The fatal error of a static member whose predecessor crashed; the old client is closed and nothing ends."""
    runtime = runtime_with(0)
    runtime.brokers.held.clear()
    fail(runtime, KafkaError.UNRELEASED_INSTANCE_ID)
    assert not joined(runtime)
    runtime.step()
    runtime.step()
    first, second = runtime.clients
    assert first.closed
    assert runtime.brokers.client is second
    runtime.rebalance("assign")
    deliver(runtime, 3)
    runtime.run_until_idle()
    assert joined(runtime)
    assert runtime.brokers.logs[P].committed == 3


def test_a_client_that_fails_for_good_leaves_nothing_behind_that_is_committed() -> None:
    """What it held is lost; it is not known whose it is now."""
    runtime = runtime_with(3)
    runtime.processed(0)
    runtime.release.run_once()
    runtime.acknowledge(0)
    runtime.release.run_once()
    with pytest.raises(ClientFailed, match="FENCED_INSTANCE_ID"):
        fail(runtime, KafkaError.FENCED_INSTANCE_ID)
    runtime.brokers.held.clear()  # a commit would now be one of a partition that is not ours
    assert (runtime.source.in_flight.events, runtime.source.in_flight.bytes) == (0, 0)
    runtime.step()
    runtime.step()
    assert runtime.brokers.logs[P].committed is None


def test_records_polled_together_with_the_end_of_the_client_are_forgotten_with_it() -> None:
    """They were counted, and are not counted any more."""
    runtime = runtime_with(0)
    runtime.brokers.logs[P].append(0, None)
    words = f"Fatal error: {KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()}"
    runtime.brokers.messages.append(runtime.brokers.next_message(set()) or pytest.fail("no record"))
    runtime.brokers.messages.append(Message(P, 0, None, KafkaError(KafkaError._FATAL, words)))
    runtime.source.run_once()
    runtime.source.run_once()
    assert len(runtime.unprocessed) == 1
    assert (runtime.source.in_flight.events, runtime.source.in_flight.bytes) == (0, 0)
    assert runtime.source.epochs == {}


@pytest.mark.parametrize(
    ("lost", "others", "ends"),
    [
        pytest.param(True, True, True, id="lost its way"),
        pytest.param(True, False, False, id="brokers are away"),
        pytest.param(False, True, False, id="nothing to read"),
    ],
)
def test_a_consumer_without_answers_is_given_up_only_where_others_get_some(
    lost: bool, others: bool, ends: bool
) -> None:
    """Only another process helps then; brokers that are away are waited for."""
    runtime = runtime_with(3)
    runtime.clients[0].lost = lost
    runtime.brokers.answers_others = others
    run_for(runtime, STALLED_SECONDS - 1)
    if ends:
        with pytest.raises(ClientFailed, match="gets no answer"):
            run_for(runtime, 30.0)
    else:
        run_for(runtime, 30.0)


def run_for(runtime: Runtime, seconds: float) -> None:
    for _ in range(int(seconds)):
        runtime.source.run_once()
        runtime.now += 1.0


def test_a_consumer_that_reads_is_not_asked() -> None:
    """A look costs a question to the brokers, on the thread that reads."""
    runtime = runtime_with(0)
    for _ in range(60):
        deliver(runtime, 1)
        runtime.source.run_once()
        runtime.now += 1.0
    assert runtime.clients[0].asked == 0
