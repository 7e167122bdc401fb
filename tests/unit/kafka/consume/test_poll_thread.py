"""The poll thread, run by hand on played brokers."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError
from runtime_simulation import PARTITIONS, Message, Runtime, deliver, runtime_with

from consumer.events import Partition
from consumer.kafka.clients.errors import UNREADABLE, ClientFailed, UnreadableBatch
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


@pytest.mark.parametrize("code", sorted(UNREADABLE))
def test_a_batch_that_cannot_be_read_ends_consumption_before_it(code: int) -> None:
    """What came before is handed over, finished and committed; what the client returns after it may be anything."""
    runtime = runtime_with(2)
    runtime.brokers.tell_ends = False
    for _ in range(6):
        runtime.brokers.logs[P].append(0, None)
    before = [runtime.brokers.next_message(set()) or pytest.fail("no record") for _ in range(2)]
    runtime.brokers.messages += [
        *before,
        Message(P, 4, None, KafkaError(code)),
        Message(P, 7, None),
        Message(P, 0, None),
    ]
    runtime.source.run_once()
    (fatal,) = runtime.fatal
    assert isinstance(fatal, UnreadableBatch)
    assert f"{P}: the batch at offset 4 " in str(fatal)
    assert f"--topic {P.topic}:{P.number} " in str(fatal)
    assert [record.offset for record in runtime.unprocessed] == [0, 1, 2, 3]
    runtime.brokers.messages.clear()
    runtime.run_until_idle()
    assert runtime.brokers.logs[P].committed == 4
    assert len(runtime.fatal) == 1


def test_an_unreadable_batch_of_a_partition_that_left_is_its_next_owners() -> None:
    """Its error was fetched before."""
    runtime = runtime_with(1)
    runtime.brokers.messages.append(Message(Partition("in", 7), 4, None, KafkaError(KafkaError._BAD_MSG)))
    runtime.source.run_once()
    assert runtime.fatal == []
