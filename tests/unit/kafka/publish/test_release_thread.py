"""The release thread, its rounds called one by one, with a publisher that a test acknowledges."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.delivery.commands import Assigned, Command, Delivered, Drain, EndReached, Lost, Processed, Revoke, Stop
from consumer.delivery.done_note import Done, read
from consumer.delivery.ledger import Commit, Ledger
from consumer.events import Outcome, Output, Partition, SourceRecord
from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.publish.release_thread import COMMANDS_A_ROUND, GATHER_SECONDS, NO_OUTCOME_SECONDS, ReleaseThread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumer.delivery.ledger import Release

P, Q = Partition("in", 0), Partition("in", 1)


class Publisher:
    """Publishes at once what it is sent while it is ``working``."""

    def __init__(self) -> None:
        self.sent: list[Release] = []
        self.working = True
        self.blocked: dict[str, frozenset[str] | None] = {}
        self.stuck = False
        self.tries = 0
        self.keeps_offsets = False
        self.kept: dict[Partition, Commit] = {}
        self.hurried = 0
        """Rounds in which it was not to linger."""

    @property
    def idle_seconds(self) -> float:
        return 0.0 if self.sent else 1.0

    def send(self, release: Release) -> None:
        self.sent.append(release)

    def commit(self, offsets: Mapping[Partition, Commit]) -> Mapping[Partition, Commit]:
        self.kept |= offsets
        return {} if self.keeps_offsets else offsets

    def run_once(self, *, linger: bool = True) -> list[Release]:
        self.hurried += not linger
        durable = self.sent if self.working else []
        self.sent = [] if self.working else self.sent
        return durable

    def try_again(self) -> None:
        self.tries += 1

    def flush(self, seconds: float) -> int:  # noqa: ARG002
        return len(self.sent)


class Bench:
    """A release thread and what it hands to the poll thread."""

    def __init__(self) -> None:
        self.now = 0.0
        self.commands: SimpleQueue[Command] = SimpleQueue()
        self.publisher = Publisher()
        self.commits: list[dict[Partition, Commit]] = []
        self.freed: list[tuple[Partition, int, int]] = []
        self.in_flight_seconds: list[float] = []
        self.pauses: list[set[str] | None] = []
        self.observer = create_autospec(KafkaObserver, instance=True)
        self.fatal: list[BaseException] = []
        self.ledger = Ledger("key")
        publisher: Any = self.publisher
        poll_thread: Any = self
        self.thread = ReleaseThread(
            self.ledger,
            self.commands,
            publisher,
            poll_thread,
            self.observer,
            self.fatal.append,
            1.0,
            lambda: self.now,
            lambda: 1_800_000_000.0,
        )

    def commit(self, offsets: Mapping[Partition, Commit]) -> None:
        self.commits.append(dict(offsets))

    def no_longer_in_flight(self, records: Sequence[SourceRecord], now: float) -> None:
        self.freed += [(Partition.of(each), each.epoch, each.size) for each in records]
        self.in_flight_seconds += [now - each.fetched_at for each in records]

    def pause(self, reason: str, topics: Iterable[str] | None = None) -> None:
        assert reason == "output"
        self.pauses.append(None if topics is None else set(topics))

    @property
    def counted(self) -> list[tuple[Any, ...]]:
        """The observer's hooks that were called, with their values."""
        return [(name, *values) for name, values, _ in self.observer.mock_calls]

    def put(self, *commands: Command) -> None:
        for command in commands:
            self.commands.put(command)
        self.thread.run_once()

    def later(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.commands.put(Lost({}))  # nothing, so that the round need not wait for a command
        self.thread.run_once()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def record(offset: int, partition: Partition = P, epoch: int = 1, key: bytes | None = None) -> SourceRecord:
    return SourceRecord(partition.topic, partition.number, offset, epoch, key, b"four", (), None, 0.0)


def done(which: SourceRecord) -> Processed:
    return (which, Outcome("done", (Output("out", None, b""),)))


def test_an_offset_is_committed_only_when_its_results_are_durable(bench: Bench) -> None:
    """Processed is not enough; it is no longer in flight by then."""
    bench.publisher.working = False
    bench.put(Assigned(P, 1, None), Delivered((record(0), record(1))), done(record(0)))
    bench.later()
    assert bench.commits == []
    assert bench.freed == []
    bench.publisher.working = True
    bench.later()
    assert bench.freed == [(P, 1, 4)]
    bench.later(GATHER_SECONDS)
    assert bench.commits == [{P: Commit(1, 1)}]


def test_offsets_are_handed_out_at_intervals(bench: Bench) -> None:
    """Many completions make one commit."""
    bench.put(Assigned(P, 1, None), Delivered(tuple(record(n) for n in range(10))))
    for offset in range(10):
        bench.put(done(record(offset)))
    assert bench.commits == []
    bench.later()
    assert bench.commits == [{P: Commit(1, 10)}]


def test_what_is_durable_after_a_quiet_time_is_handed_out_soon(bench: Bench) -> None:
    """A crash would repeat it. With it goes what comes within milliseconds; what comes later waits for the interval."""
    bench.now = 7.0
    bench.put(Assigned(P, 1, None), Delivered(tuple(record(n) for n in range(4))), done(record(0)))
    bench.put(done(record(1)))
    assert bench.commits == []
    bench.later(GATHER_SECONDS)
    assert bench.commits == [{P: Commit(1, 2)}]
    bench.later(GATHER_SECONDS)
    bench.put(done(record(2)))
    bench.later(0.9)
    bench.put(done(record(3)))
    assert len(bench.commits) == 1
    bench.later(0.1)
    assert bench.commits[1:] == [{P: Commit(1, 4)}]


def test_what_is_durable_behind_a_record_that_waits_is_handed_out_with_its_commit(bench: Bench) -> None:
    """Also before any offset could move, and when the partition is revoked."""
    reply: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Delivered((record(4), record(5), record(6))), done(record(5)))
    bench.later()
    ((commit,),) = (each.values() for each in bench.commits)
    assert commit[:2] == (1, 4)
    named = read(4, commit.note)
    assert named == Done((5,), (5,), 1_800_000_000_000)
    bench.put(done(record(6)), Revoke({P: 1}, {P}, bench.now, reply))
    last = reply.get_nowait()[P]
    assert read(4, last.note) == Done((5,), (6,), 1_800_000_000_000)


def test_a_revocation_waits_for_what_is_in_flight(bench: Bench) -> None:
    """It is answered when its last record is durable; offsets of other partitions go their usual way."""
    reply: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Assigned(Q, 2, None), Delivered((record(0), record(1), record(5, Q, 2))))
    bench.put(done(record(0)), done(record(5, Q, 2)), Revoke({P: 1}, {P}, 10.0, reply))
    assert reply.empty()
    bench.put(done(record(1)))
    assert reply.get_nowait() == {P: Commit(1, 2)}
    assert bench.commits == [{Q: Commit(2, 6)}]


def test_a_revocation_ends_at_its_deadline(bench: Bench) -> None:
    """What is durable is committed, the rest abandoned: released or finished later, it no longer counts."""
    reply: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Delivered((record(0), record(1), record(2))))
    bench.put(done(record(0)))
    bench.publisher.working = False
    bench.put(done(record(1)), Revoke({P: 1}, {P}, 10.0, reply))
    (waiting,) = bench.publisher.sent
    assert bench.ledger.epoch(P) == waiting.record.epoch
    bench.later(10.0)
    assert reply.get_nowait() == {P: Commit(1, 1)}
    assert bench.ledger.epoch(P) is None
    bench.publisher.working = True
    bench.put(done(record(2)))
    bench.later()
    assert bench.commits == []
    assert ("stale", 2) in bench.counted


def test_lost_partitions_are_never_committed(bench: Bench) -> None:
    """Not even what was durable before."""
    bench.put(Assigned(P, 1, None), Delivered((record(0),)), done(record(0)))
    bench.put(Lost({P: 1}))
    bench.later()
    assert bench.commits == []


def test_the_loss_of_an_older_epoch_does_not_touch_the_current_one(bench: Bench) -> None:
    """The partition came back before the loss was known."""
    bench.put(Assigned(P, 1, None), Assigned(P, 2, None), Delivered((record(0, epoch=2),)), Lost({P: 1}))
    bench.put(done(record(0, epoch=2)))
    bench.later()
    assert bench.commits == [{P: Commit(2, 1)}]


def test_a_drain_is_answered_when_nothing_is_in_flight_and_offsets_are_out(bench: Bench) -> None:
    """In this order: whoever gets the answer may commit and leave."""
    reply: SimpleQueue[bool] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Delivered((record(0),)), Drain(reply))
    assert reply.empty()
    bench.put(done(record(0)))
    assert bench.commits == [{P: Commit(1, 1)}]
    assert reply.get_nowait()


def test_the_end_of_an_idle_partition_is_committed(bench: Bench) -> None:
    """Behind transaction markers no record will ever follow."""
    bench.put(Assigned(P, 1, None), EndReached(P, 1, 12))
    bench.later()
    assert bench.commits == [{P: Commit(1, 12)}]


def test_outputs_that_are_refused_pause_what_feeds_them_until_they_are_taken(bench: Bench) -> None:
    """Said once for each change; what has no input topics of its own, as a coordinator, pauses all."""
    bench.publisher.blocked = {"out": frozenset({"a"})}
    bench.later()
    bench.later()
    bench.publisher.blocked = {"out": frozenset({"a"}), "dead": frozenset({"a", "b"})}
    bench.later()
    bench.publisher.blocked = {"the coordinator": None}
    bench.later()
    bench.publisher.blocked = {}
    bench.later()
    assert bench.pauses == [{"a"}, {"a", "b"}, None, set()]


def test_a_revocation_does_not_wait_for_a_partition_at_a_standstill(bench: Bench) -> None:
    """Whose outputs are refused becomes durable at no time; the other partition is waited for and committed."""
    reply: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Assigned(Q, 2, None), Delivered((record(0), record(5, Q, 2))))
    bench.put(Revoke({P: 1, Q: 2}, {Q}, 10.0, reply))
    assert reply.empty()
    bench.put(done(record(5, Q, 2)))
    assert reply.get_nowait() == {Q: Commit(2, 6)}


def test_a_drain_ends_when_all_that_is_left_waits_for_outputs_that_take_nothing(bench: Bench) -> None:
    """Not before every record has its outcome: what is still at the model may become durable. Offsets are out then."""
    reply: SimpleQueue[bool] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Delivered((record(0), record(1), record(2))), done(record(0)))
    bench.publisher.working = False
    bench.put(done(record(1)), Drain(reply))
    assert bench.publisher.tries == 1
    bench.publisher.stuck = True
    bench.later()
    assert reply.empty(), "one is at the model"
    bench.put(done(record(2)))
    assert reply.get_nowait() is False
    assert bench.commits == [{P: Commit(1, 1)}]


def test_a_drain_waits_for_the_model_as_long_as_it_may_while_no_output_waits(bench: Bench) -> None:
    """A publisher without outputs is stuck with nothing; only held outputs hold what other records wait for."""
    reply: SimpleQueue[bool] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Delivered((record(0),)), Drain(reply))
    bench.publisher.stuck = True
    bench.now += NO_OUTCOME_SECONDS + 1
    bench.later()
    assert reply.empty()
    bench.publisher.blocked = {"out": frozenset({"in"})}
    bench.later()
    assert reply.get_nowait() is False


def test_a_drain_waits_on_while_outcomes_come(bench: Bench) -> None:
    """The time that it waits for the model begins with the latest outcome."""
    reply: SimpleQueue[bool] = SimpleQueue()
    bench.publisher.working = False
    bench.publisher.stuck, bench.publisher.blocked = True, {"out": frozenset({"in"})}
    bench.put(Assigned(P, 1, None), Delivered((record(0), record(1))), Drain(reply))
    bench.now += NO_OUTCOME_SECONDS - 1
    bench.put(done(record(0)))
    bench.later(2.0)
    assert reply.empty()
    bench.later(NO_OUTCOME_SECONDS)
    assert reply.get_nowait() is False


def test_a_round_leaves_the_rest_of_many_commands_to_the_next(bench: Bench) -> None:
    """So that delivery reports do not wait for all of them."""
    for _ in range(COMMANDS_A_ROUND + 10):
        bench.commands.put(Lost({}))
    bench.thread.run_once()
    assert 0 < bench.commands.qsize() <= 10
    bench.thread.run_once()
    assert bench.commands.empty()


def test_a_publisher_that_commits_by_itself_leaves_no_offset_to_the_consumer(bench: Bench) -> None:
    """Neither at intervals nor when a partition is revoked: a commit outside its transactions could go back."""
    reply: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    bench.publisher.keeps_offsets = True
    bench.put(Assigned(P, 1, None), Delivered((record(0), record(1))), done(record(0)))
    bench.later()
    assert bench.publisher.kept == {P: Commit(1, 1)}
    bench.put(done(record(1)), Revoke({P: 1}, {P}, 10.0, reply))
    assert bench.publisher.kept == {P: Commit(1, 2)}
    assert reply.get_nowait() == {}
    assert bench.commits == []


def test_a_revocation_and_a_drain_leave_the_publisher_no_linger(bench: Bench) -> None:
    """Whoever waits for them should not wait for a transaction to fill."""
    bench.put(Assigned(P, 1, None), Delivered((record(0),)))
    assert bench.publisher.hurried == 0
    bench.put(Revoke({P: 1}, {P}, 10.0, SimpleQueue()))
    assert bench.publisher.hurried == 1
    bench.later(10.0)
    before = bench.publisher.hurried
    bench.put(Drain(SimpleQueue()))
    assert bench.publisher.hurried > before


def test_how_long_records_were_in_flight_is_reported(bench: Bench) -> None:
    """From the poll to the acknowledgement: revocations wait that long for others."""
    bench.put(Assigned(P, 1, None), Delivered((record(0),)))
    bench.now = 2.5
    bench.put(done(record(0)))
    assert bench.in_flight_seconds == [2.5]


FATAL = KafkaError(KafkaError._FENCED, "fenced", fatal=True)


def ended(bench: Bench) -> bool:
    """Whether the thread, started here, comes to its end."""
    bench.thread.thread.start()
    bench.thread.thread.join(20)
    return not bench.thread.thread.is_alive()


@pytest.mark.parametrize("stop", ["in the round that fails", "later"])
def test_a_revocation_does_not_wait_for_a_release_thread_that_failed(bench: Bench, stop: str) -> None:
    """Nor does one that was asked for before: the worker leaves its group at once, and a successor takes over.

    The thread itself ends with Stop, also where that was among the commands of the round that failed.
    """
    before: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    after: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Delivered((record(0),)), Revoke({P: 1}, {P}, 100.0, before))

    def fail(*, linger: bool = True) -> list[Release]:  # noqa: ARG001
        if stop == "later":
            bench.commands.put(Stop(0.0))
        raise SystemError("hidden") from KafkaException(FATAL)

    bench.publisher.run_once = fail  # type: ignore[method-assign]
    bench.commands.put(Revoke({P: 1}, {P}, 100.0, after))
    if stop != "later":
        bench.commands.put(Stop(0.0))
    assert ended(bench)
    assert before.get(timeout=20) == {}
    assert after.get(timeout=20) == {}
    (failed,) = bench.fatal
    assert isinstance(failed, ClientFailed)


def test_a_last_flush_that_fails_ends_the_thread_all_the_same(bench: Bench) -> None:
    """Its Stop was taken before."""

    def fail(seconds: float) -> int:  # noqa: ARG001
        raise KafkaException(FATAL)

    bench.publisher.flush = fail  # type: ignore[method-assign]
    bench.commands.put(Stop(0.0))
    assert ended(bench)
    assert [type(error) for error in bench.fatal] == [ClientFailed]


def test_a_revocation_whose_last_commit_fails_is_answered(bench: Bench) -> None:
    """The poll thread waits for the answer, and the group for the poll thread."""
    reply: SimpleQueue[dict[Partition, Commit]] = SimpleQueue()
    bench.put(Assigned(P, 1, None), Delivered((record(0),)), done(record(0)))

    def fail(offsets: Mapping[Partition, Commit]) -> Mapping[Partition, Commit]:  # noqa: ARG001
        raise ValueError("a defect")

    bench.publisher.commit = fail  # type: ignore[method-assign]
    for command in (Revoke({P: 1}, {P}, 100.0, reply), Stop(0.0)):
        bench.commands.put(command)
    assert ended(bench)
    assert reply.get(timeout=20) == {}
    assert [type(error) for error in bench.fatal] == [ValueError]


def test_what_is_reported_durable_is_what_was_published(bench: Bench) -> None:
    """An output that was too large is another one by then; of an assignment that ended nothing is reported."""
    published = Outcome("done", (Output("dead", None, b""),))
    bench.publisher.working = False
    bench.put(Assigned(P, 1, None), Assigned(Q, 2, None), Delivered((record(0), record(0, Q, 2))))
    bench.put(done(record(0)), done(record(0, Q, 2)), Lost({Q: 2}))
    for release in bench.publisher.sent:
        release.outcome = published
    bench.publisher.working = True
    bench.later()
    assert [each for each in bench.counted if each[0] == "durable"] == [("durable", record(0), published)]
