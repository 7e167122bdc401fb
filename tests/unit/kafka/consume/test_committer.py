from __future__ import annotations

from typing import Any, NamedTuple
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs

from consumer.delivery.ledger import Commit
from consumer.events import Partition
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.consume.assignment import Pauses
from consumer.kafka.consume.committer import COMMIT, Committer

P, Q = Partition("in", 0), Partition("in", 1)


class Answered(NamedTuple):
    """A position that comes back from a commit."""

    error: KafkaError | None


class Consumer:
    """Remembers commits; fails when it is asked to."""

    def __init__(self) -> None:
        self.commits: list[tuple[dict[int, int], bool]] = []
        self.notes: list[str] = []
        self.leader_epochs: dict[int, int | None] = {}
        self.error: KafkaError | None = None
        self.refused: dict[int, KafkaError] = {}

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[Any] | None:
        if self.error is not None:
            raise KafkaException(self.error)
        self.notes = [p.metadata or "" for p in offsets]
        self.leader_epochs = {p.partition: p.leader_epoch for p in offsets}
        self.commits.append(({p.partition: p.offset for p in offsets}, asynchronous))
        return None if asynchronous else [Answered(self.refused.get(p.partition)) for p in offsets]


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.consumer: Any = Consumer()
        self.observer = create_autospec(KafkaObserver, instance=True)
        self.pauses = Pauses(create_autospec(KafkaObserver, instance=True), ["in", "other"])
        self.leader_epochs = {Partition("in", 0): 4}
        self.committer = Committer(self.observer, self.pauses, self.leader_epochs, 30.0, lambda: self.now)

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
    bench.committer.request({P: Commit(1, 5)})
    bench.send(p0=1)
    bench.committer.request({P: Commit(1, 7)})
    bench.committer.request({P: Commit(1, 9)})
    bench.send(p0=1)
    assert bench.consumer.commits == [({0: 5}, True)]
    bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
    bench.send(p0=1)
    assert bench.consumer.commits == [({0: 5}, True), ({0: 9}, True)]


def test_offsets_of_other_epochs_are_never_sent() -> None:
    """Not those of a partition that is gone, nor of one that went and came back."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5), Q: Commit(2, 6)})
    bench.send(p0=3)
    assert bench.consumer.commits == []


def test_a_failed_commit_is_repeated_after_a_second_unless_a_newer_offset_is_known() -> None:
    """Both when the call fails and when the answer says so."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5), Q: Commit(2, 6)})
    bench.consumer.error = KafkaError(KafkaError._TRANSPORT)
    bench.send(p0=1, p1=2)
    bench.consumer.error = None
    bench.committer.request({P: Commit(1, 8)})
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
    bench.committer.request({P: Commit(1, 5)})
    bench.send(p0=1)
    bench.committer.request({Q: Commit(2, 1)})
    bench.now = 60.0
    bench.send(p0=1, p1=2)
    assert bench.consumer.commits[1] == ({0: 5, 1: 1}, True)


def test_a_leaving_partition_gets_its_furthest_offset_in_a_last_commit() -> None:
    """Asked for, sent without an answer, or known only now: the furthest counts, and the call waits."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5), Q: Commit(2, 6)})
    bench.send(p0=1, p1=2)
    bench.committer.request({Q: Commit(2, 9)})
    assert bench.committer.commit_last(bench.consumer, {P: 1, Q: 2}, {P: Commit(1, 8)})
    assert bench.consumer.commits[1] == ({0: 8, 1: 9}, False)
    bench.committer.on_commit(KafkaError(KafkaError._TRANSPORT), [])
    bench.now = 9.0
    bench.send(p0=1, p1=2)
    assert len(bench.consumer.commits) == 2


def test_a_lost_partition_is_not_committed() -> None:
    """It is someone else's already."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5)})
    assert not bench.committer.forget({P: 1}), "the new owner repeats records"
    assert bench.committer.commit_last(bench.consumer, {P: 1}, {})
    bench.send(p0=1)
    assert bench.consumer.commits == []


def test_a_last_commit_that_fails_is_reported() -> None:
    """As a whole or for one partition: what was not committed is repeated by the partition's next owner."""
    bench = Bench()
    bench.consumer.error = KafkaError(KafkaError._TRANSPORT)
    assert not bench.committer.commit_last(bench.consumer, {P: 1}, {P: Commit(1, 8)})
    bench.consumer.error = None
    bench.consumer.refused = {1: KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)}
    assert not bench.committer.commit_last(bench.consumer, {P: 1, Q: 1}, {P: Commit(1, 8), Q: Commit(1, 9)})
    assert bench.counted == [("commit_failed", "_TRANSPORT"), ("commit_failed", "TOPIC_AUTHORIZATION_FAILED")]


def test_where_everything_is_committed_nothing_is_left_to_fail() -> None:
    """A broker that is gone is no reason to doubt what it acknowledged before."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5)})
    bench.send(p0=1)
    bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
    bench.consumer.error = KafkaError(KafkaError._TRANSPORT)
    assert bench.committer.commit_last(bench.consumer, {P: 1}, {})
    assert bench.committer.forget({P: 1})


def test_a_commit_is_answered_only_when_nothing_of_it_is_to_be_tried_again() -> None:
    """A drain waits for it: one that is refused in a rebalance must be tried again before the worker leaves."""
    bench = Bench()
    assert bench.all_answered()
    bench.committer.request({P: Commit(1, 5)})
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
    bench.committer.request({P: Commit(1, 5)})
    bench.send(p0=1)
    bench.committer.forget({P: 1})
    bench.committer.request({Q: Commit(2, 3)})
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
    bench.committer.request({P: Commit(1, 5)})
    bench.send(p0=1)
    bench.committer.reset()
    bench.committer.request({P: Commit(2, 3)})
    bench.send(p0=2)
    assert bench.consumer.commits == [({0: 5}, True), ({0: 3}, True)]


def run_for(bench: Bench, seconds: float, *, answer: KafkaError | None, **epochs: int) -> None:
    """Rounds of the poll thread, four a second; whatever is in flight is answered with an error, or not at all."""
    for _ in range(int(seconds * 4)):
        bench.now += 0.25
        before = len(bench.consumer.commits)
        bench.send(**epochs)
        if answer is not None and len(bench.consumer.commits) > before:
            bench.committer.on_commit(answer, [])


@pytest.mark.parametrize("code", [KafkaError.COORDINATOR_NOT_AVAILABLE, None])
def test_commits_that_keep_failing_pause_all_topics_until_one_succeeds(code: int | None) -> None:
    """Refused, or not answered at all. One error line says it, with a way out; the age is shown all the while."""
    bench = Bench()
    answer = KafkaError(code) if code is not None else None
    bench.committer.request({P: Commit(1, 5)})
    with capture_logs() as lines:
        run_for(bench, 30.0, answer=answer, p0=1)
        assert bench.pauses.reasons == {}
        run_for(bench, 1.0, answer=answer, p0=1)
        assert bench.pauses.reasons == {COMMIT: {"in", "other"}}
        assert bench.committer.uncommitted_since == 0.25
        run_for(bench, 120.0, answer=answer, p0=1)
        (error,) = [line for line in lines if line["log_level"] == "error"]
        assert "__consumer_offsets" in error["fix"]
        assert error["code"] == ("COORDINATOR_NOT_AVAILABLE" if code is not None else "no answer")
        assert len([line for line in lines if line["log_level"] == "warning"]) == (code is not None)
        bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
        if not bench.committer.all_answered:
            run_for(bench, 2.0, answer=None, p0=1)
            bench.committer.on_commit(None, [TopicPartition("in", 0, 5)])
        run_for(bench, 0.25, answer=None, p0=1)
    assert bench.pauses.reasons == {}
    assert bench.committer.uncommitted_since == float("inf")
    assert lines[-1]["log_level"] == "info"


def test_a_topic_that_alone_is_refused_stops_no_other() -> None:
    """The client reports such an error for every partition of the commit, so each topic gets commits of its own."""
    bench = Bench()
    other = Partition("other", 7)
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    epochs = {P: 1, other: 2}
    refused = True

    def run(rounds: int) -> None:
        for _ in range(rounds):
            bench.now += 0.25
            before = len(bench.consumer.commits)
            bench.committer.request({P: Commit(1, int(bench.now)), other: Commit(2, int(bench.now))})
            bench.committer.send(bench.consumer, epochs)
            for offsets, _ in bench.consumer.commits[before:]:
                bench.committer.on_commit(error if refused and P.number in offsets else None, [])

    run(16)
    assert any(P.number not in offsets for offsets, _ in bench.consumer.commits), "a few seconds later"
    run(160)
    assert bench.pauses.reasons == {COMMIT: {"in"}}
    committed = [offsets[other.number] for offsets, _ in bench.consumer.commits if P.number not in offsets]
    assert committed[-1] >= bench.now - 3
    refused = False
    run(12)
    assert bench.pauses.reasons == {}
    assert set(bench.consumer.commits[-1][0]) == {P.number, other.number}, "together again"


def test_a_poll_thread_that_was_away_hears_its_answers_before_it_judges() -> None:
    """A revocation may wait for half a minute, with the answer to a commit in the client's queue."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5)})
    bench.send(p0=1)
    bench.now += 40.0
    bench.send(p0=1)
    assert bench.pauses.reasons == {}


def test_an_assignment_that_ends_takes_its_trouble_with_it() -> None:
    """What could not be committed is its next owner's, and pauses nothing here."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5)})
    run_for(bench, 40.0, answer=KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), p0=1)
    assert COMMIT in bench.pauses.reasons
    bench.committer.forget({P: 1})
    run_for(bench, 0.25, answer=None)
    assert bench.pauses.reasons == {}
    assert bench.committer.uncommitted_since == float("inf")


def test_of_two_commits_of_one_offset_the_later_note_counts() -> None:
    """What is done behind an offset only grows: also where the earlier one failed, and in the last commit."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5, "a")})
    bench.send(p0=1)
    bench.committer.request({P: Commit(1, 5, "b")})
    bench.committer.on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [])
    bench.now = 1.0
    bench.send(p0=1)
    assert bench.consumer.notes == ["b"]
    bench.committer.request({P: Commit(1, 5, "c")})
    assert bench.committer.commit_last(bench.consumer, {P: 1}, {})
    assert bench.consumer.notes == ["c"]


@pytest.mark.parametrize("last", [False, True])
def test_brokers_that_refuse_notes_get_the_offsets_without(last: bool) -> None:
    """offset.metadata.max.bytes was set lower: no commit waits for that, and whoever operates is told once."""
    bench = Bench()
    refused = KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)
    with capture_logs() as logs:
        if last:
            bench.consumer.refused = {0: refused}
            bench.committer.commit_last(bench.consumer, {P: 1}, {P: Commit(1, 5, "a")})
        else:
            bench.committer.request({P: Commit(1, 5, "a")})
            bench.send(p0=1)
            bench.committer.on_commit(None, [Answered(refused)])  # type: ignore[list-item]  # all that is read of it
            bench.send(p0=1)
    assert bench.consumer.commits == [({0: 5}, not last)] * 2
    assert bench.consumer.notes == [""]
    (line,) = (each for each in logs if "fix" in each)
    assert "offset.metadata.max.bytes" in line["fix"]


def test_an_offset_goes_with_the_leader_epoch_of_what_was_read() -> None:
    """So that the next reader sees a log that lost its end; without one where none is known."""
    bench = Bench()
    bench.committer.request({P: Commit(1, 5), Q: Commit(2, 6)})
    bench.send(p0=1, p1=2)
    assert bench.consumer.leader_epochs == {0: 4, 1: None}
    bench.committer.commit_last(bench.consumer, {P: 1}, {P: Commit(1, 7)})
    assert bench.consumer.leader_epochs == {0: 4}
