from __future__ import annotations

from typing import Any, NamedTuple
from unittest.mock import create_autospec

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.events import Partition
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.consume.committer import Committer

P, Q = Partition("in", 0), Partition("in", 1)


class Answered(NamedTuple):
    """A position that comes back from a commit."""

    error: KafkaError | None


class Consumer:
    """Remembers commits; fails when it is asked to."""

    def __init__(self) -> None:
        self.commits: list[tuple[dict[int, int], bool]] = []
        self.error: KafkaError | None = None
        self.refused: dict[int, KafkaError] = {}

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[Any] | None:
        if self.error is not None:
            raise KafkaException(self.error)
        self.commits.append(({p.partition: p.offset for p in offsets}, asynchronous))
        return None if asynchronous else [Answered(self.refused.get(p.partition)) for p in offsets]


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.consumer: Any = Consumer()
        self.observer = create_autospec(KafkaObserver, instance=True)
        self.committer = Committer(self.observer, lambda: self.now)

    @property
    def counted(self) -> list[tuple[Any, ...]]:
        """The hooks that were called, with their values."""
        return [(name, *values) for name, values, _ in self.observer.mock_calls]

    def all_answered(self) -> bool:
        return self.committer.all_answered

    def send(self, **epochs: int) -> None:
        self.committer.send(self.consumer, {Partition("in", int(name[1:])): epoch for name, epoch in epochs.items()})


def test_one_commit_is_under_way_at_a_time() -> None:
    """A second one waits for the answer, so an older offset never arrives behind a newer one."""
    bench = Bench()
    bench.committer.request({P: (1, 5)})
    bench.send(p0=1)
    bench.committer.request({P: (1, 7)})
    bench.committer.request({P: (1, 9)})
    bench.send(p0=1)
    assert bench.consumer.commits == [({0: 5}, True)]
    bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
    bench.send(p0=1)
    assert bench.consumer.commits == [({0: 5}, True), ({0: 9}, True)]


def test_offsets_of_other_epochs_are_never_sent() -> None:
    """Not those of a partition that is gone, nor of one that went and came back."""
    bench = Bench()
    bench.committer.request({P: (1, 5), Q: (2, 6)})
    bench.send(p0=3)
    assert bench.consumer.commits == []


def test_a_failed_commit_is_repeated_after_a_second_unless_a_newer_offset_is_known() -> None:
    """Both when the call fails and when the answer says so."""
    bench = Bench()
    bench.committer.request({P: (1, 5), Q: (2, 6)})
    bench.consumer.error = KafkaError(KafkaError._TRANSPORT)
    bench.send(p0=1, p1=2)
    bench.consumer.error = None
    bench.committer.request({P: (1, 8)})
    bench.send(p0=1, p1=2)
    assert bench.consumer.commits == []
    bench.now = 1.0
    bench.send(p0=1, p1=2)
    bench.committer.on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [])
    bench.now = 2.0
    bench.send(p0=1, p1=2)
    assert bench.consumer.commits == [({0: 8, 1: 6}, True)] * 2
    assert bench.counted == [("commit_failed", "_TRANSPORT"), ("commit_failed", "REBALANCE_IN_PROGRESS")]


def test_a_commit_without_an_answer_is_given_up_after_a_minute() -> None:
    """A callback that never comes does not stop committing for good."""
    bench = Bench()
    bench.committer.request({P: (1, 5)})
    bench.send(p0=1)
    bench.committer.request({Q: (2, 1)})
    bench.now = 60.0
    bench.send(p0=1, p1=2)
    assert bench.consumer.commits[1] == ({0: 5, 1: 1}, True)


def test_a_leaving_partition_gets_its_furthest_offset_in_a_last_commit() -> None:
    """Asked for, sent without an answer, or known only now: the furthest counts, and the call waits."""
    bench = Bench()
    bench.committer.request({P: (1, 5), Q: (2, 6)})
    bench.send(p0=1, p1=2)
    bench.committer.request({Q: (2, 9)})
    assert bench.committer.commit_last(bench.consumer, {P: 1, Q: 2}, {P: 8})
    assert bench.consumer.commits[1] == ({0: 8, 1: 9}, False)
    bench.committer.on_commit(KafkaError(KafkaError._TRANSPORT), [])
    bench.now = 9.0
    bench.send(p0=1, p1=2)
    assert len(bench.consumer.commits) == 2


def test_a_lost_partition_is_not_committed() -> None:
    """It is someone else's already."""
    bench = Bench()
    bench.committer.request({P: (1, 5)})
    assert not bench.committer.forget({P: 1}), "the new owner repeats records"
    assert bench.committer.commit_last(bench.consumer, {P: 1}, {})
    bench.send(p0=1)
    assert bench.consumer.commits == []


def test_a_last_commit_that_fails_is_reported() -> None:
    """As a whole or for one partition: what was not committed is repeated by the partition's next owner."""
    bench = Bench()
    bench.consumer.error = KafkaError(KafkaError._TRANSPORT)
    assert not bench.committer.commit_last(bench.consumer, {P: 1}, {P: 8})
    bench.consumer.error = None
    bench.consumer.refused = {1: KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)}
    assert not bench.committer.commit_last(bench.consumer, {P: 1, Q: 1}, {P: 8, Q: 9})
    assert bench.counted == [("commit_failed", "_TRANSPORT"), ("commit_failed", "TOPIC_AUTHORIZATION_FAILED")]


def test_where_everything_is_committed_nothing_is_left_to_fail() -> None:
    """A broker that is gone is no reason to doubt what it acknowledged before."""
    bench = Bench()
    bench.committer.request({P: (1, 5)})
    bench.send(p0=1)
    bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
    bench.consumer.error = KafkaError(KafkaError._TRANSPORT)
    assert bench.committer.commit_last(bench.consumer, {P: 1}, {})
    assert bench.committer.forget({P: 1})


def test_a_commit_is_answered_only_when_nothing_of_it_is_to_be_tried_again() -> None:
    """A drain waits for it: one that is refused in a rebalance must be tried again before the worker leaves."""
    bench = Bench()
    assert bench.all_answered()
    bench.committer.request({P: (1, 5)})
    assert not bench.all_answered()
    bench.send(p0=1)
    assert not bench.all_answered()
    bench.committer.on_commit(KafkaError(KafkaError.ILLEGAL_GENERATION), [])
    bench.send(p0=1)
    assert not bench.all_answered()
    bench.now += 2
    bench.send(p0=1)
    bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
    bench.send(p0=1)
    assert bench.all_answered()


def test_the_answer_to_a_commit_whose_partitions_left_is_not_taken_for_the_next_ones() -> None:
    """Or a later commit that fails would count as answered, and never be tried again."""
    bench = Bench()
    bench.committer.request({P: (1, 5)})
    bench.send(p0=1)
    bench.committer.forget({P: 1})
    bench.committer.request({Q: (2, 3)})
    bench.send(p1=2)
    assert bench.consumer.commits == [({0: 5}, True)]
    bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
    bench.send(p1=2)
    bench.committer.on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [])
    bench.now += 2.0
    bench.send(p1=2)
    assert bench.consumer.commits == [({0: 5}, True), ({1: 3}, True), ({1: 3}, True)]


def test_a_new_client_owes_no_answer() -> None:
    """What the old one was asked is not waited for."""
    bench = Bench()
    bench.committer.request({P: (1, 5)})
    bench.send(p0=1)
    bench.committer.reset()
    bench.committer.request({P: (2, 3)})
    bench.send(p0=2)
    assert bench.consumer.commits == [({0: 5}, True), ({0: 3}, True)]
