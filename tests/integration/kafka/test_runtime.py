"""The Kafka runtime against librdkafka's mock cluster: every guarantee that needs no transaction."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from runtime_harness import Worker, eventually

from consumer.delivery.ledger import Commit
from consumer.events import Partition
from consumer.kafka.clients import watchdog
from consumer.kafka.clients.errors import ClientFailed

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.broker


def test_random_completion_publishes_everything_once_and_commits_the_ends(
    mock_broker: Any, cluster: Any, start: Callable[..., Any]
) -> None:
    """Whatever the order of completion, every result is out once, each key in order, and the ends are committed."""
    topic, output = mock_broker.topic(4, "in"), mock_broker.topic(4, "out")
    cluster.send(topic, 2000, 4)
    worker = start(mock_broker.bootstrap, topic, output, "random")
    records = worker.wait(2000)
    random.Random(5).shuffle(records)
    for record in records:
        worker.finish(record)
    assert worker.runtime.drain(20.0)
    read = cluster.read(output, 4)
    numbers = [int(value) for found in read.values() for _, value, _ in found]
    assert sorted(numbers) == list(range(2000))
    for partition, found in read.items():
        for key in {key for key, _, _ in found}:
            of_key = [int(value) for k, value, _ in found if k == key]
            assert of_key == sorted(of_key)
            assert int(key.split(b"-")[1]) % 4 == partition
        assert all(headers == [("n", b"1")] for _, _, headers in found)
    assert cluster.committed("random", topic, 4) == [len(found) for found in read.values()]
    assert worker.observed.counts["durable"] == 2000
    assert not worker.fatal


def test_nothing_is_committed_past_an_unfinished_record(
    mock_broker: Any,
    cluster: Any,
    start: Callable[..., Any],
) -> None:
    """One slow record holds the offset of its partition, and of no other; when it finishes the end is committed."""
    topic, output = mock_broker.topic(2, "in"), mock_broker.topic(2, "out")
    cluster.send(topic, 100, 2)
    worker = start(mock_broker.bootstrap, topic, output, "head")
    records = worker.wait(100)
    slow = next(r for r in records if (r.partition, r.offset) == (0, 3))
    for record in records:
        if record is not slow:
            worker.finish(record)
    eventually(lambda: cluster.committed("head", topic, 2) == [3, 50])
    # All but the slow one, and what waits behind it with the same key, is durable and still not committed.
    eventually(lambda: worker.runtime.status().in_flight_events == 1 + (50 - 3) // 25)
    assert cluster.committed("head", topic, 2) == [3, 50]
    worker.finish(slow)
    eventually(lambda: cluster.committed("head", topic, 2) == [50, 50])


def test_the_position_of_an_empty_partition_is_committed(
    mock_broker: Any,
    cluster: Any,
    start: Callable[..., Any],
) -> None:
    """A partition without records gets its end committed, so that its lag is known to be zero."""
    topic = mock_broker.topic(3, "empty")
    start(mock_broker.bootstrap, topic, "out", "empty")
    eventually(lambda: cluster.committed("empty", topic, 3) == [0, 0, 0])


def test_full_intake_stalls_then_pauses_and_loses_nothing(
    mock_broker: Any,
    cluster: Any,
    start: Callable[..., Any],
) -> None:
    """In flight never exceeds the bound; a second of fullness pauses; less of it resumes; every record arrives once."""
    topic, output = mock_broker.topic(4, "in"), mock_broker.topic(4, "out")
    cluster.send(topic, 1000, 4)
    worker = start(mock_broker.bootstrap, topic, output, "full", events=40)
    eventually(lambda: worker.runtime.status().paused == ("backpressure",))
    assert worker.runtime.status().in_flight_events == 40
    assert worker.observed.counts["stalled"] > 0
    done = 0
    while done < 1000:
        records = worker.wait(done + 1)
        assert len(records) - done <= 40
        for record in records[done:]:
            worker.finish(record)
        done = len(records)
    assert worker.runtime.drain(20.0)
    assert sorted(int(value) for value in cluster.values(output, 4)) == list(range(1000))
    assert frozenset() in worker.observed.pauses


def test_bytes_bound_intake_too(
    mock_broker: Any,
    cluster: Any,
    start: Callable[..., Any],
) -> None:
    """Large records fill the bound long before their number does."""
    topic = mock_broker.topic(4, "in")
    cluster.send(topic, 400, 4, value=b"x" * 2_000)
    worker = start(mock_broker.bootstrap, topic, "out", "bytes", size=100_000)
    eventually(lambda: worker.runtime.status().paused == ("backpressure",))
    # The first hand-over is taken before any size is known: a full one may pass the bound, none after it.
    assert worker.runtime.status().in_flight_bytes < 100_000 + 256 * 2_010


def test_named_pauses_hold_records_back_until_the_last_is_withdrawn(
    mock_broker: Any,
    cluster: Any,
    start: Callable[..., Any],
) -> None:
    """Partitions assigned while paused deliver nothing; consumption resumes when no reason is left, from the start."""
    topic, output = mock_broker.topic(2, "in"), mock_broker.topic(2, "out")
    cluster.send(topic, 20, 2)
    worker = start(mock_broker.bootstrap, topic, output, "paused")
    worker.runtime.pause("model")
    worker.runtime.pause("flood")
    eventually(lambda: len(worker.runtime.status().assignment) == 2)
    worker.runtime.resume("model")
    poll_age = worker.runtime.status().poll_age
    assert poll_age < 5
    assert worker.runtime.status().paused == ("flood",)
    assert not worker.records
    worker.runtime.resume("flood")
    for record in worker.wait(20):
        worker.finish(record)
    assert worker.runtime.drain(20.0)
    assert sorted(int(value) for value in cluster.values(output, 2)) == list(range(20))


def test_results_go_by_key_where_partition_counts_differ(
    mock_broker: Any, cluster: Any, start: Callable[..., Any]
) -> None:
    """With another number of partitions the key decides, as the Java clients would: all of a key in one place."""
    topic, output = mock_broker.topic(4, "in"), mock_broker.topic(3, "out")
    cluster.send(topic, 60, 4, keys=6)
    worker = start(mock_broker.bootstrap, topic, output, "counts", echo=True)
    worker.wait(60)
    assert worker.runtime.drain(20.0)
    placed = {key: number for number, found in cluster.read(output, 3).items() for key, _, _ in found}
    # murmur2 as org.apache.kafka.common.utils.Utils computes it, modulo 3.
    assert placed == {b"key-%d" % n: murmur2(b"key-%d" % n) % 3 for n in range(6)}


def murmur2(data: bytes) -> int:
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if len(data) > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def test_lag_is_true_while_paused(
    mock_broker: Any,
    cluster: Any,
    start: Callable[..., Any],
) -> None:
    """Records that arrive during a pause count as lag; it falls to zero when they are done."""
    topic, output = mock_broker.topic(2, "in"), mock_broker.topic(2, "out")
    worker = start(mock_broker.bootstrap, topic, output, "lag", echo=True, lag_seconds=0.1)
    eventually(lambda: len(worker.runtime.status().lag) == 2)
    worker.runtime.pause("model")
    eventually(lambda: len(worker.runtime._poll_thread.pauses._paused) == 2)  # by the poll thread, in its next round
    cluster.send(topic, 30, 2)
    eventually(lambda: sum(worker.runtime.status().lag.values()) == 30)
    worker.runtime.resume("model")
    eventually(lambda: list(worker.runtime.status().lag.values()) == [0, 0])


def test_client_lines_reach_logging_and_never_stderr(
    own_broker: Any,
    start: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """librdkafka's own log goes through Python's, from its first line."""
    topic = own_broker.topic(1, "in")
    with caplog.at_level("DEBUG"):
        worker = start(own_broker.bootstrap, topic, "out", "logs", client={"debug": "generic"})
        eventually(lambda: worker.runtime.status().joined)
        assert worker.runtime.drain(10.0)
    assert {"librdkafka.consumer", "librdkafka.producer"} <= {record.name for record in caplog.records}
    # Only of this test's broker: a client that an earlier test of this process left behind may log beside it.
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if own_broker.bootstrap in line] == []


def test_a_consumer_that_alone_gets_no_answer_ends_the_worker(
    mock_broker: Any, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new client, made for this question, gets one from the same brokers."""
    for name, seconds in (("QUIET_SECONDS", 0.1), ("STALL_LOOK_SECONDS", 0.1), ("STALLED_SECONDS", 0.5)):
        monkeypatch.setattr(watchdog, name, seconds)
    worker = start(mock_broker.bootstrap, mock_broker.topic(1, "in"), mock_broker.topic(1, "out"), "lost")
    eventually(lambda: worker.runtime.status().assignment)

    def silence() -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    monkeypatch.setattr(worker.runtime._poll_thread._stuck, "_own", silence)
    eventually(lambda: worker.fatal)
    assert isinstance(worker.fatal[0], ClientFailed)
    assert "gets no answer" in str(worker.fatal[0])


def test_a_release_thread_that_hangs_in_its_client_ends_the_worker(
    mock_broker: Any, cluster: Any, start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds what was not committed, and its successor does that."""
    topic, output = mock_broker.topic(1, "in"), mock_broker.topic(1, "out")
    worker = start(mock_broker.bootstrap, topic, output, "hung")
    cluster.send(topic, 50, 1)
    records = worker.wait(50)
    release = threading.Event()

    def hang(**_: bool) -> list[Any]:
        release.wait(60)
        return []

    try:
        monkeypatch.setattr(worker.runtime._release._publisher, "run_once", hang)
        worker.runtime._watchdog._threads[1].limit = 1.0  # from here on: until now the machine may have been slow
        for record in records:
            worker.finish(record)
        eventually(lambda: worker.fatal)
        assert isinstance(worker.fatal[0], ClientFailed)
        assert "release thread" in str(worker.fatal[0])
        assert ["release thread" in why for why in worker.hangs] == [True]
        assert not worker.runtime.drain(0.0)
        assert worker.hangs[-1] == "The thread rexstream-release does not end."
        successor = start(mock_broker.bootstrap, topic, output, "hung", echo=True)
        eventually(lambda: cluster.committed("hung", topic, 1) == [50])
        assert successor.runtime.drain(10.0)
        assert sorted(int(value) for value in cluster.values(output, 1)) == [*range(50)]
    finally:
        release.set()


class Unanswered:
    """A consumer that has a commit under way which nobody answers: such a client does not close."""

    def __init__(self) -> None:
        self.answered = threading.Event()

    def subscribe(self, *_: Any, **__: Any) -> None:
        pass

    def pause(self, _: Any) -> None:
        pass

    def consumer_group_metadata(self) -> None:
        return None

    def poll(self, _: float) -> None:
        time.sleep(0.01)

    def close(self) -> None:
        assert self.answered.wait(60)


@pytest.mark.parametrize("partitions", [0, 1])
def test_a_consumer_that_does_not_close_is_waited_for_where_it_has_partitions(
    mock_broker: Any, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    """Without any nothing of this worker is repeated, however long the grace period is; the stacks are logged."""
    topic, output = mock_broker.topic(1, "in"), mock_broker.topic(1, "out")
    worker = Worker(mock_broker.bootstrap, topic, output, "closing")
    poll_thread = worker.runtime._poll_thread
    client: Any = Unanswered()
    poll_thread._consumer.close()
    poll_thread._consumer = client
    poll_thread._assignment.begin(Partition(topic, number) for number in range(partitions))
    worker.runtime.start()
    waited: list[float] = []
    monkeypatch.setattr(poll_thread.thread, "join", waited.append)
    try:
        assert worker.runtime.drain(300.0) == (partitions == 0)
        assert worker.hangs == ["The thread rexstream-poll does not end."]
        assert [seconds > 200 for seconds in waited] == [partitions > 0]
    finally:
        client.answered.set()


class Rebalancing(Unanswered):
    """And a rebalance takes its partition as the drain begins: nobody answers its last commit either."""

    asked = False

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:  # noqa: ARG002
        if not asynchronous:
            assert self.answered.wait(60)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        self.asked = True

    def resume(self, _: Any) -> None:
        pass

    def incremental_unassign(self, _: Any) -> None:
        pass


def test_a_drain_waits_for_the_last_commit_of_a_rebalance(mock_broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has no partitions any more, and yet something of it may be repeated."""
    topic, output = mock_broker.topic(1, "in"), mock_broker.topic(1, "out")
    worker = Worker(mock_broker.bootstrap, topic, output, "last")
    poll_thread = worker.runtime._poll_thread
    client: Any = Rebalancing()
    poll_thread._consumer.close()
    poll_thread._consumer = client
    begun = poll_thread._assignment.begin([Partition(topic, 0)])
    poll_thread.commit({partition: Commit(epoch, 5) for partition, epoch in begun.items()})
    worker.runtime.start()
    eventually(lambda: client.asked)
    rounds: list[float] = []

    def poll(seconds: float) -> None:
        time.sleep(0.01)
        if poll_thread.epochs and poll_thread.pauses.reasons:
            rounds.append(seconds)  # at the second one the release thread has the drain
            if len(rounds) == 2:
                poll_thread.rebalance.revoked(client, [TopicPartition(topic, 0)])

    client.poll = poll
    waited: list[float] = []
    monkeypatch.setattr(poll_thread.thread, "join", waited.append)
    try:
        assert (worker.runtime.drain(300.0), waited[0] > 200) == (False, True)
    finally:
        client.answered.set()
