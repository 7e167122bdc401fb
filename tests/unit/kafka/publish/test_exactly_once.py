"""TransactionalPublisher against a producer that keeps what was committed, and fails where a test wants it."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.config.tree import DeliveryConfig
from consumer.delivery.ledger import Commit, Release
from consumer.delivery.transaction_queue import BLOCKED_FAILURES
from consumer.delivery.transaction_size import TransactionSize
from consumer.events import Outcome, Output, Partition, SourceRecord
from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.clients.watchdog import STALLED_SECONDS, StuckClientDetector
from consumer.kafka.publish import exactly_once as transactions
from consumer.kafka.publish.exactly_once import TransactionalPublisher
from consumer.kafka.publish.producers import PartitionCounts
from consumer.kafka.publish.refusals import Replacements
from consumer.kafka.publish.transaction import LOST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

P, Q = Partition("in", 0), Partition("in", 1)
RETRIABLE = KafkaError(KafkaError._TIMED_OUT, "slow", retriable=True)
ABORTABLE = KafkaError(KafkaError.ILLEGAL_GENERATION, "rebalance", txn_requires_abort=True)
NO_TRANSACTION = KafkaError(KafkaError.INVALID_TXN_STATE, "none", txn_requires_abort=True)
FENCED = KafkaError(KafkaError._FENCED, "fenced", fatal=True)
EXPIRED = KafkaError(KafkaError.INVALID_TXN_STATE, "expired", txn_requires_abort=True)
OLD_EPOCH = KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "epoch", fatal=True)


def metadata(generation: int) -> bytes:
    return b"CGMDv2:" + generation.to_bytes(4, sys.byteorder, signed=True) + b"group\0member\0\1"


class Producer:
    """One transaction at a time; ``log`` and ``offsets`` are what a read_committed reader sees."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes | None]] = []
        self.offsets: dict[Partition, int] = {}
        self.commits: list[dict[Partition, int]] = []
        self.calls: list[str] = []
        self.failing: dict[str, list[KafkaError]] = defaultdict(list)
        self.lost_answers = 0
        """Commits that happen, and whose answer comes late."""
        self.largest = 1 << 30
        self.batch_bytes = 1 << 30
        self.refuse: dict[str, int] = {}
        self.before_offsets: Callable[[], None] = lambda: None
        self.take_offsets: Callable[[dict[Partition, int]], None] = lambda _: None
        """Raises for offsets that the group does not take."""
        self._open: list[tuple[str, bytes | None]] | None = None
        self._sent: dict[Partition, int] = {}
        self._queue: list[dict[str, Any]] = []
        self._landed = False

    @property
    def undecided(self) -> bool:
        """Whether a commit was begun whose answer is not there yet."""
        return self._open is not None and self.calls[-1] == "commit"

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.failing[name]:
            raise KafkaException(self.failing[name].pop(0))

    def init_transactions(self, timeout: float) -> None:  # noqa: ARG002
        self._call("init")

    def begin_transaction(self) -> None:
        self._call("begin")
        assert self._open is None, "a transaction inside a transaction"
        self._open, self._sent, self._landed = [], {}, False

    def produce(self, topic: str, **record: Any) -> None:
        assert self._open is not None
        self._call("produce")
        if len(record["value"] or b"") > self.largest:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self._queue.append({"topic": topic, **record})

    def send_offsets_to_transaction(self, positions: list[Any], group_metadata: Any, timeout: float) -> None:  # noqa: ARG002
        assert self._open is not None
        assert not self._queue, "offsets before the outputs are acknowledged"
        self.before_offsets()
        self._call("offsets")
        assert group_metadata == metadata(1)
        self._sent = {Partition(p.topic, p.partition): p.offset for p in positions}
        self.leader_epochs = {Partition(p.topic, p.partition): p.leader_epoch for p in positions}
        self.take_offsets(self._sent)

    def commit_transaction(self, timeout: float) -> None:  # noqa: ARG002
        assert self._open is not None
        if self.lost_answers:
            self.lost_answers -= 1
            self._land()
            self.calls.append("commit")
            raise KafkaException(RETRIABLE)
        self._call("commit")
        self._land()
        self._open = None

    def _land(self) -> None:
        if not self._landed:
            self._landed = True
            self.log += self._open or []
            self.offsets |= self._sent
            self.commits.append(self._sent)

    def abort_transaction(self, timeout: float) -> None:  # noqa: ARG002
        self._call("abort")
        assert not self._landed, "an abort of what was committed"
        self._open, self._queue = None, []

    def poll(self, timeout: float) -> int:  # noqa: ARG002
        return 0

    def flush(self, timeout: float) -> int:  # noqa: ARG002
        queue, self._queue = self._queue, []
        for topic in dict.fromkeys(record["topic"] for record in queue):
            batch = [record for record in queue if record["topic"] == topic]
            code = self.refuse.get(topic, 0)
            if not code and sum(len(r["value"] or b"") for r in batch) > self.batch_bytes:
                code = KafkaError.MSG_SIZE_TOO_LARGE
            for record in batch:
                if not code and self._open is not None:
                    self._open.append((topic, record["value"]))
                record["on_delivery"](KafkaError(code) if code else None, None)
        return 0

    def __len__(self) -> int:
        return len(self._queue)


class Group:
    """What the poll thread knows; remembers the order in which that was read."""

    def __init__(self) -> None:
        self.assigned = {P: 1, Q: 2}
        self.leader_epochs = {P: 4}
        self.known: object = metadata(1)
        self.read: list[str] = []

    @property
    def epochs(self) -> dict[Partition, int]:
        self.read.append("epochs")
        return dict(self.assigned)

    @property
    def group_metadata(self) -> object:
        self.read.append("metadata")
        return self.known


TIMEOUT = 15.0


class Bench:
    """TransactionalPublisher with their surroundings, and a clock."""

    def __init__(self, records: int = 10, *, initialised: bool = True) -> None:
        self.now = 0.0
        self.producer = Producer()
        self.group = Group()
        self.seen = create_autospec(KafkaObserver, instance=True)
        self.topics = {"in": 4, "out": 4, "dead": 4}
        self.durable: list[tuple[Partition, int]] = []
        self.published: list[tuple[str, bytes | None]] = []
        """Outputs that the publisher returned as durable."""
        self.replaced = 0
        self.brokers = False
        """Whether they answer a new client."""
        group: Any = self.group
        this: Any = self
        self.transactions = TransactionalPublisher(
            this,
            PartitionCounts(lambda topic, _: self.topics.get(topic, 0), lambda: self.now),
            Replacements("dead", lambda record, *_: Output("dead", record.key, b"%d" % record.offset), self.seen),
            group,
            self.seen,
            StuckClientDetector(None, lambda: self.brokers, lambda: self.now),
            DeliveryConfig(
                transaction_interval_ms=100, transaction_records=records, transaction_timeout_ms=int(TIMEOUT * 1000)
            ),
            lambda: self.now,
        )
        self.size = self.transactions._size
        self.size.records = records  # as after some transactions
        if initialised:
            self.run_once()

    @property
    def ended(self) -> list[str]:
        """How transactions ended."""
        return [call.args[0] for call in self.seen.transaction.call_args_list]

    def records_of(self, how: str) -> list[int]:
        """How many records each transaction had that ended so."""
        calls = self.seen.transaction.call_args_list
        return [call.args[2] for call in calls if call.args[0] == how]

    @property
    def current(self) -> Producer:
        return self.producer

    def replace(self) -> Producer:
        """A new producer, with the same brokers behind it."""
        old, self.producer = self.producer, Producer()
        self.producer.log, self.producer.offsets, self.producer.commits = old.log, old.offsets, old.commits
        self.producer.refuse, self.producer.failing = old.refuse, old.failing
        self.replaced += 1
        return self.producer

    def send(
        self, offset: int, partition: Partition = P, *, epoch: int | None = None, value: bytes | None = None
    ) -> None:
        epoch = {P: 1, Q: 2}[partition] if epoch is None else epoch
        record = SourceRecord(partition.topic, partition.number, offset, epoch, b"k", b"v", (), None, 0.0)
        output = Output("out", b"k", value or b"%d-%d" % (partition.number, offset))
        self.transactions.send(Release(partition, record, Outcome("done", (output,))))

    def run_once(self, *, linger: bool = True) -> None:
        for release in self.transactions.run_once(linger=linger):
            self.durable.append((release.partition, release.record.offset))
            self.published += [(output.topic, output.value) for output in release.outcome.outputs]

    def run(self, seconds: float = 1.0) -> None:
        for _ in range(int(seconds / 0.05)):
            self.run_once()
            self.now += 0.05

    def blocked(self) -> list[str]:
        return list(self.transactions.blocked)

    def values(self, topic: str = "out") -> list[bytes | None]:
        return [value for of, value in self.producer.log if of == topic]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_results_and_offsets_leave_in_one_transaction(bench: Bench) -> None:
    """Of all partitions together; durable is what a commit holds, and nothing before it."""
    for offset in (3, 5):
        bench.send(offset)
    bench.send(0, Q)
    bench.run_once()
    assert bench.producer.commits == []
    bench.run()
    assert bench.producer.commits == [{P: 6, Q: 1}]
    assert bench.producer.leader_epochs == {P: 4, Q: None}, "of what was read, where it is known"
    assert bench.values() == [b"0-3", b"0-5", b"1-0"]
    assert bench.durable == [(P, 3), (P, 5), (Q, 0)]


def test_a_transaction_waits_for_company_no_longer_than_its_interval(bench: Bench) -> None:
    """Nor at all when it is full, or when someone waits for it; ``idle_seconds`` is how long it does."""
    bench.send(0)
    assert bench.transactions.idle_seconds == pytest.approx(0.1)
    bench.now += 0.06
    bench.run_once()
    assert bench.producer.commits == []
    bench.run_once(linger=False)
    assert bench.producer.commits == [{P: 1}]
    for offset in range(1, 24):
        bench.send(offset)
    assert bench.transactions.idle_seconds == 0
    bench.run_once()
    bench.run_once()
    assert bench.producer.commits == [{P: 1}, {P: 11}, {P: 21}]
    assert bench.transactions.idle_seconds == pytest.approx(0.1)


def test_a_dropped_record_is_committed_without_an_output(bench: Bench) -> None:
    """Its offset passes through a transaction like any other."""
    record = SourceRecord("in", 0, 0, 1, None, None, (), None, 0.0)
    bench.transactions.send(Release(P, record, Outcome("dropped")))
    bench.run()
    assert bench.producer.commits == [{P: 1}]
    assert bench.producer.log == []


@pytest.mark.parametrize("where", ["produce", "offsets"])
def test_after_an_abort_the_same_outcomes_are_produced_again(bench: Bench, where: str) -> None:
    """Readers see them once, in order."""
    for offset in range(3):
        bench.send(offset)
    bench.producer.failing[where] = [ABORTABLE]
    bench.run()
    assert bench.values() == [b"0-0", b"0-1", b"0-2"]
    assert bench.producer.offsets == {P: 3}
    assert bench.ended == ["aborted", "committed"]


def test_what_a_topic_refuses_is_tried_again_and_pauses_consumption_meanwhile(bench: Bench) -> None:
    """Blocked from the fourth time in a row, and no more after the first success."""
    bench.producer.refuse["out"] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    bench.send(0)
    bench.run(0.3)
    assert bench.blocked() == []
    bench.run(10)
    assert bench.blocked() == ["out"]
    assert bench.producer.calls.count("begin") < 10
    assert bench.seen.produce_refused.call_args_list[0].args == ("out", "TOPIC_AUTHORIZATION_FAILED")
    del bench.producer.refuse["out"]
    bench.run(6)
    assert bench.blocked() == []
    assert bench.values() == [b"0-0"]
    assert bench.producer.offsets == {P: 1}


def test_no_transaction_is_opened_for_a_topic_that_is_missing(bench: Bench) -> None:
    """An open one would hold up the readers of every other topic in it."""
    del bench.topics["out"]
    bench.send(0)
    bench.run(10)
    assert "begin" not in bench.producer.calls
    assert bench.blocked() == ["out"]
    bench.topics["out"] = 4
    bench.run(6)
    assert bench.values() == [b"0-0"]


def test_a_transaction_waits_a_round_or_two_for_slow_lookups(bench: Bench) -> None:
    """No topic is refused for it, and none is looked up in an open transaction."""
    bench.topics |= {f"out-{n}": 4 for n in range(20)}
    looked_up = bench.transactions._counts._lookup

    def slowly(topic: str, seconds: float) -> int:
        assert bench.producer._open is None
        bench.now += 0.5
        return looked_up(topic, seconds)

    bench.transactions._counts._lookup = slowly
    record = SourceRecord("in", 0, 0, 1, b"k", b"v", (), None, 0.0)
    outputs = tuple(Output(f"out-{n}", b"k", b"v", (), 0) for n in range(20))
    bench.transactions.send(Release(P, record, Outcome("done", outputs)))
    bench.now += 1
    for _ in range(10):
        before = bench.now
        bench.run_once()
        assert bench.now - before <= 2.5
        assert bench.durable or bench.transactions.idle_seconds == 0
    assert bench.durable == [(P, 0)]
    assert not bench.seen.produce_refused.called


def test_outcomes_of_a_lost_partition_are_never_produced(bench: Bench) -> None:
    """Nor is its offset committed; those of other partitions go on, and its next epoch starts anew."""
    bench.send(0)
    bench.send(0, Q)
    bench.group.assigned = {P: 7, Q: 2}
    bench.run()
    assert bench.producer.commits == [{Q: 1}]
    assert bench.values() == [b"1-0"]
    bench.send(0, epoch=7)
    bench.run()
    assert bench.producer.offsets == {P: 1, Q: 1}
    assert bench.values() == [b"1-0", b"0-0"]


def test_a_partition_lost_while_its_transaction_is_open_takes_nothing_with_it(bench: Bench) -> None:
    """The open transaction is aborted; what is still ours is produced again."""
    bench.send(0)
    bench.send(0, Q)
    produce = bench.producer.produce

    def and_lose(topic: str, **record: Any) -> None:
        produce(topic, **record)
        bench.group.assigned = {Q: 2}

    bench.producer.produce = and_lose  # type: ignore[method-assign]
    bench.run()
    assert bench.producer.commits == [{Q: 1}]
    assert bench.values() == [b"1-0"]
    assert bench.ended == ["aborted", "committed"]


def test_offsets_are_never_sent_without_a_membership_that_fences_them(bench: Bench) -> None:
    """Brokers accept those of "no member" from anyone; the outcomes wait until the group is clear."""
    bench.send(0)
    for nobody in (None, metadata(-1)):
        bench.group.known = nobody
        bench.run()
        assert "offsets" not in bench.producer.calls
    bench.group.known = metadata(1)
    bench.run(6)
    assert bench.producer.offsets == {P: 1}
    assert bench.values() == [b"0-0"]


def test_group_metadata_in_an_unknown_form_ends_the_worker(bench: Bench) -> None:
    """Without it it would not be known whether commits are fenced."""
    bench.send(0)
    bench.group.known = b"CGMDv9:whatever"
    with pytest.raises(ClientFailed, match=r"constraints\.txt"):
        bench.run()
    assert bench.producer.commits == []


def test_the_metadata_is_read_before_the_epochs(bench: Bench) -> None:
    """The other way round, a rebalance in between would give a newer generation the older partitions."""
    bench.send(0)
    bench.now += 1
    bench.group.read.clear()
    bench.run_once()
    assert bench.group.read == ["epochs", "metadata", "epochs"]  # the first chooses what to produce


def test_a_slow_commit_goes_on_and_nothing_is_produced_again(bench: Bench) -> None:
    """Also when it happened already and only its answer is late."""
    bench.send(0)
    bench.producer.failing["commit"] = [RETRIABLE, RETRIABLE]
    bench.producer.lost_answers = 1
    bench.run()
    assert bench.values() == [b"0-0"]
    assert bench.producer.commits == [{P: 1}]
    assert bench.producer.calls.count("begin") == 1
    assert bench.durable == [(P, 0)]


def test_a_commit_whose_outcome_is_unknown_ends_the_worker(bench: Bench) -> None:
    """It may have happened, so producing again could double; the successor sees what was committed."""
    bench.send(0)
    bench.producer.failing["commit"] = [ABORTABLE]
    with pytest.raises(ClientFailed, match="unknown"):
        bench.run()
    assert "abort" not in bench.producer.calls


@pytest.mark.parametrize("where", ["init", "begin", "commit"])
def test_a_fenced_producer_ends_the_worker_where_no_transaction_explains_it(where: str) -> None:
    """Nor does one whose outcome is not known: the successor sees what was committed."""
    bench = Bench(initialised=where != "init")
    bench.producer.failing[where] = [FENCED]
    bench.send(0)
    with pytest.raises(ClientFailed, match="_FENCED"):
        bench.run()
    assert bench.producer.log == []


@pytest.mark.parametrize("error", [FENCED, NO_TRANSACTION])
def test_where_even_the_abort_fails_a_new_producer_goes_on(bench: Bench, error: KafkaError) -> None:
    """Nothing of that transaction was committed. So it is when the brokers let no partition into it: the worker pauses
    until they do, and does not end again and again.
    """
    bench.producer.refuse["out"] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    bench.producer.failing["abort"] = [error] * 6
    bench.send(0)
    bench.run(8)
    assert bench.blocked() == ["out"]
    assert bench.replaced == 6
    del bench.producer.refuse["out"]
    bench.run(10)
    assert bench.blocked() == []
    assert bench.values() == [b"0-0"]
    assert bench.producer.offsets == {P: 1}


def test_a_new_producer_first_aborts_the_same_outcomes(bench: Bench) -> None:
    """In the same partitions, also those of a partition that is another worker's by now: the brokers may have forgotten
    to end the transaction there.
    """
    bench.send(0)
    bench.send(0, Q)
    bench.producer.failing["offsets"] = [ABORTABLE]
    bench.producer.failing["abort"] = [FENCED]
    bench.now += 1
    bench.run_once()
    bench.group.assigned = {Q: 2}
    bench.run_once()
    assert bench.replaced == 1
    bench.run()
    ended = [call for call in bench.producer.calls if call in ("produce", "abort", "commit")]
    assert ended == ["produce", "abort", "produce", "commit"]
    assert bench.values() == [b"1-0"]


@pytest.mark.parametrize(
    ("where", "error"),
    [("produce", FENCED), ("produce", OLD_EPOCH), ("offsets", FENCED), ("offsets", OLD_EPOCH), ("offsets", EXPIRED)],
)
def test_a_transaction_that_the_brokers_ended_is_made_again_by_another_producer(where: str, error: KafkaError) -> None:
    """It lasted too long, so it comes again in halves. INVALID_TXN_STATE looks as if an abort could mend it."""
    bench = Bench(records=8)
    for offset in range(8):
        bench.send(offset)
    bench.producer.failing[where] = [error]
    bench.run()
    assert bench.replaced == 1
    assert bench.producer.commits == [{P: 4}, {P: 8}]
    assert bench.values() == [b"0-%d" % n for n in range(8)]


def test_what_is_too_much_for_the_timeout_gets_through_in_pieces() -> None:
    """The brokers end whatever is open for longer: here they write one record a second, of a timeout of fifteen."""
    bench = Bench(records=64)
    for offset in range(64):
        bench.send(offset)
    slowly(bench, seconds=1.0)
    bench.run(300)
    assert bench.values() == [b"0-%d" % n for n in range(64)]
    assert bench.durable == [(P, n) for n in range(64)]
    assert bench.replaced == 3, "those of 64, 32 and 16 were ended by the brokers"
    assert max(bench.records_of("committed")[-6:]) <= 8
    assert bench.size.records <= 8


def test_a_process_begins_with_less_than_is_configured() -> None:
    """The one before it may have ended because that was too much; where it is not, the size is back soon."""
    bench = Bench(records=64)
    bench.size.records = TransactionSize(64, 1 << 20, TIMEOUT).records
    for offset in range(200):
        bench.send(offset)
    bench.run()
    assert bench.records_of("committed")[:6] == [4, 8, 16, 32, 64, 64]


def test_bytes_bound_a_transaction_as_records_do() -> None:
    """It does not wait for more of them, either."""
    bench = Bench(records=1000)
    bench.size.bytes = 100_000
    for offset in range(10):
        bench.send(offset, value=b"x" * 30_000)
    assert bench.transactions.idle_seconds == 0
    bench.run_once()
    assert bench.producer.commits == [{P: 3}]
    bench.send(10, value=b"x" * 300_000)
    bench.run()
    assert bench.producer.offsets == {P: 11}


def test_an_outcome_alone_in_its_transaction_is_not_given_up_for_being_slow(bench: Bench) -> None:
    """There is nothing smaller."""
    bench.send(0)
    slowly(bench, seconds=0.8 * TIMEOUT)
    bench.run()
    assert bench.producer.commits == [{P: 1}]


def slowly(bench: Bench, seconds: float) -> None:
    """Each record takes the brokers so long from now on; past the timeout they end the transaction."""

    def flush(timeout: float) -> int:
        written = bench.producer._queue
        bench.now += seconds * len(written)
        if bench.now - began[0] > TIMEOUT:
            bench.producer._queue = []
            for record in written:
                record["on_delivery"](KafkaError(KafkaError._PURGE_QUEUE), None)
            bench.producer.failing["abort"] = [FENCED]
            return 0
        return real_flush(bench.producer, timeout)

    def begin() -> None:
        began[0] = bench.now
        real_begin(bench.producer)

    def replace() -> Producer:
        producer = real_replace()
        producer.flush, producer.begin_transaction = flush, begin  # type: ignore[method-assign]
        return producer

    began = [bench.now]
    real_flush, real_begin, real_replace = Producer.flush, Producer.begin_transaction, bench.replace
    bench.producer.flush, bench.producer.begin_transaction = flush, begin  # type: ignore[method-assign]
    bench.replace = replace  # type: ignore[method-assign]


def test_only_what_is_too_large_by_itself_becomes_a_dead_letter() -> None:
    """The broker refuses whole batches, so halves are tried until one record is alone; all others stay results."""
    bench = Bench(records=64)
    bench.producer.batch_bytes = 100
    for offset in range(64):
        bench.send(offset, value=b"x" * 101 if offset in (0, 31, 63) else None)
    bench.run(30)
    assert bench.values("dead") == [b"0", b"31", b"63"]
    assert bench.values() == [b"0-%d" % n for n in range(64) if n not in (0, 31, 63)]
    assert bench.published == bench.producer.log
    assert bench.producer.offsets == {P: 64}


def test_a_record_larger_than_the_client_takes_is_replaced_at_once(bench: Bench) -> None:
    """No transaction is lost over it."""
    bench.producer.largest = 100
    bench.send(0, value=b"x" * 101)
    bench.send(1)
    bench.run()
    assert bench.producer.log == bench.published == [("dead", b"0"), ("out", b"0-1")]
    assert bench.ended == ["committed"]


def test_a_dead_letter_that_no_topic_takes_waits(bench: Bench) -> None:
    """It is never dropped, and consumption pauses."""
    bench.producer.largest = -1
    bench.send(0)
    bench.run(10)
    assert bench.producer.log == []
    assert bench.blocked() == ["dead"]
    bench.producer.largest = 100
    bench.run(6)
    assert bench.producer.offsets == {P: 1}


def test_the_end_of_an_idle_partition_is_committed_by_itself(bench: Bench) -> None:
    """Without outputs, once, and never below what a transaction committed."""
    assert bench.transactions.commit({P: Commit(1, 12)}) == {}
    bench.run()
    assert bench.producer.commits == [{P: 12}]
    bench.transactions.commit({P: Commit(1, 12)})
    bench.run()
    bench.send(14)
    bench.run()
    bench.transactions.commit({P: Commit(1, 15), Q: Commit(2, 3)})
    bench.run()
    assert bench.producer.commits == [{P: 12}, {P: 15}, {Q: 3}]


def test_the_end_of_a_lost_partition_is_not_committed(bench: Bench) -> None:
    """Nor does it keep the thread from sleeping."""
    bench.transactions.commit({P: Commit(1, 12)})
    bench.group.assigned = {Q: 2}
    bench.run()
    assert bench.producer.commits == []
    assert bench.transactions.idle_seconds > 1


def test_the_last_flush_aborts_what_is_open(bench: Bench) -> None:
    """What was not committed is counted: the successor reads its input again."""
    bench.send(0)
    bench.producer.failing["offsets"] = [RETRIABLE] * 1000
    bench.run()
    assert bench.transactions.flush(5.0) == 1
    assert bench.producer.calls[-1] == "abort"
    assert bench.producer.log == []


def test_the_last_flush_finishes_a_commit_under_way(bench: Bench) -> None:
    """It cannot be taken back."""
    bench.send(0)
    bench.producer.failing["commit"] = [RETRIABLE]
    bench.now += 1
    bench.run_once()
    assert bench.transactions.flush(5.0) == 0
    assert bench.producer.offsets == {P: 1}


def test_a_result_refused_while_others_are_still_produced_costs_only_itself() -> None:
    """The client takes nothing more of that transaction, with an error that names no reason."""
    bench = Bench(records=8)
    produce, flush = bench.producer.produce, bench.producer.flush
    broken: list[bool] = []

    def produced(topic: str, **record: Any) -> None:
        if broken:
            raise KafkaException(KafkaError(KafkaError._STATE, "erroneous state"))
        produce(topic, **record)
        if len(record["value"]) > 100:  # refused in the background
            broken.append(True)

    def polled(timeout: float) -> int:
        return flush(timeout) if timeout else 0

    def aborted(timeout: float) -> None:
        broken.clear()
        abort(timeout)

    abort = bench.producer.abort_transaction
    bench.producer.batch_bytes = 100
    bench.producer.produce = produced  # type: ignore[method-assign]
    bench.producer.poll = polled  # type: ignore[method-assign]
    bench.producer.abort_transaction = aborted  # type: ignore[method-assign]
    for offset in range(8):
        bench.send(offset, value=b"x" * 101 if offset == 3 else None)
    bench.run(10)
    assert bench.values("dead") == [b"3"]
    assert bench.values() == [b"0-%d" % n for n in range(8) if n != 3]


def test_a_worker_whose_refused_outcomes_went_to_others_is_not_blocked_by_them(bench: Bench) -> None:
    """Nothing new would arrive while it is, so nothing could ever end it."""
    bench.producer.refuse["out"] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    bench.send(0)
    bench.run(5)
    assert bench.blocked() == ["out"]
    bench.group.assigned = {Q: 2}
    bench.run(6)
    assert bench.blocked() == []


def test_a_fatal_error_hidden_behind_another_is_found(bench: Bench) -> None:
    """confluent-kafka raises it while it serves delivery reports, out of any call."""

    def polled(timeout: float) -> int:  # noqa: ARG001
        raise SystemError("returned a result with an exception set") from KafkaException(FENCED)

    bench.producer.poll = polled  # type: ignore[method-assign]
    with pytest.raises(ClientFailed, match="_FENCED"):
        bench.run_once()


def test_a_commit_that_takes_long_blocks(bench: Bench) -> None:
    """Consumption pauses meanwhile, and a revocation need not wait for it."""
    bench.send(0)
    bench.producer.failing["commit"] = [RETRIABLE] * 6
    bench.run(3)
    assert bench.blocked() == ["the transaction coordinator"]
    bench.run(20)
    assert bench.blocked() == []
    assert bench.producer.commits == [{P: 1}]


@pytest.mark.parametrize("where", ["init", "offsets", "abort"])
@pytest.mark.parametrize("brokers", [True, False])
def test_a_producer_that_finds_no_coordinator_is_replaced_only_where_brokers_answer_others(
    where: str, brokers: bool
) -> None:
    """Nothing of its transaction was committed, so the next producer starts again with the same outcomes."""
    bench = Bench(initialised=where != "init")
    bench.brokers = brokers
    silence = [RETRIABLE] * 100
    bench.producer.failing["offsets"] = [ABORTABLE] if where == "abort" else []
    bench.producer.failing[where] = silence
    bench.send(0)
    bench.run(STALLED_SECONDS - 1)
    assert bench.replaced == 0
    bench.run(20)
    assert bench.replaced == brokers
    silence.clear()
    bench.run(20)
    assert bench.values() == [b"0-0"]
    assert bench.producer.commits == [{P: 1}]


@pytest.mark.parametrize("brokers", [True, False])
def test_a_commit_without_an_answer_ends_the_worker_only_where_brokers_answer_others(
    brokers: bool, bench: Bench
) -> None:
    """Another producer would have to produce again what may be committed."""
    bench.brokers = brokers
    bench.send(0)
    bench.producer.failing["commit"] = [RETRIABLE] * 100
    bench.run(STALLED_SECONDS - 1)
    if brokers:
        with pytest.raises(ClientFailed, match=r"unknown.*does not answer this producer"):
            bench.run(30)
    else:
        bench.run(30)
    assert bench.replaced == 0
    assert bench.values() == []


@pytest.fixture
def never(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The offsets' call does not return before this is set."""
    monkeypatch.setattr(transactions, "SLICE_SECONDS", 0.001)
    event = threading.Event()

    def wait() -> None:
        assert event.wait(30)

    bench.producer.before_offsets = wait
    yield event
    event.set()


def test_a_producer_that_does_not_come_back_with_the_offsets_is_replaced(bench: Bench, never: threading.Event) -> None:
    """When the brokers have ended its transaction; the thread is not held up. What it does later changes nothing."""
    lost = bench.producer
    bench.send(0)
    bench.run(TIMEOUT + LOST_SECONDS)
    assert (bench.replaced, bench.producer.calls.count("abort")) == (0, 0)
    bench.run(2)
    assert bench.replaced == 1
    assert bench.producer is not lost
    never.set()
    bench.run()
    assert bench.values() == [b"0-0"]
    assert bench.producer.commits == [{P: 1}]
    assert bench.durable == [(P, 0)]


def test_offsets_that_take_long_are_waited_for(bench: Bench, never: threading.Event) -> None:
    """They are sent once, and the commit follows."""
    bench.send(0)
    bench.run(TIMEOUT - 1)
    never.set()
    while bench.durable != [(P, 0)]:
        bench.run_once()
    assert bench.replaced == 0
    assert bench.producer.calls.count("offsets") == 1
    assert bench.producer.commits == [{P: 1}]


def test_a_transaction_that_is_as_old_as_its_timeout_is_not_committed_any_more(
    bench: Bench, never: threading.Event
) -> None:
    """The brokers would refuse that, and the worker could not know why; what it holds comes again at once."""
    bench.send(0)
    bench.run(TIMEOUT + 1)
    never.set()
    while bench.durable != [(P, 0)]:
        bench.run_once()
        bench.now += 0.05
    assert bench.ended == ["aborted", "committed"]
    assert bench.producer.commits == [{P: 1}]


@pytest.mark.parametrize("error", [None, RETRIABLE, ABORTABLE])
def test_the_last_flush_waits_for_offsets_under_way(
    error: KafkaError | None, bench: Bench, never: threading.Event
) -> None:
    """With them in the transaction a commit follows; without them it is aborted."""
    bench.send(0)
    bench.producer.failing["offsets"] = [error] if error else []
    bench.run(0.3)
    threading.Timer(0.05, never.set).start()
    assert bench.transactions.flush(5.0) == (1 if error else 0)
    assert bench.producer.calls[-1] == ("abort" if error else "commit")
    assert bench.producer.offsets == ({} if error else {P: 1})


FAULTS = st.sampled_from(
    [
        ("init", RETRIABLE),
        ("begin", RETRIABLE),
        ("produce", ABORTABLE),
        ("offsets", RETRIABLE),
        ("offsets", ABORTABLE),
        ("commit", RETRIABLE),
        ("abort", RETRIABLE),
        ("abort", FENCED),
        ("abort", NO_TRANSACTION),
        ("answer", None),
        ("metadata", None),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from([P, Q]), st.integers(1, 3)),
        st.tuples(st.just("fault"), FAULTS, st.integers(1, BLOCKED_FAILURES + 1)),
        st.tuples(st.just("lose"), st.sampled_from([P, Q]), st.just(0)),
        st.tuples(st.just("run"), st.floats(0.05, 1.0), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_every_outcome_is_committed_exactly_once_with_its_offset(steps: list[Any]) -> None:
    """Whatever fails in between: per partition the log is a prefix of what was sent, and the offset is its end.

    A loss gives the partition to someone who goes on from the committed offset: here the next epoch of this worker.
    """
    bench = Bench(records=3)
    epochs, sent = {P: 1, Q: 2}, {P: 0, Q: 0}
    last_epoch = 2

    def as_committed() -> None:
        for partition in (P, Q):
            own = [v for v in bench.values() if v is not None and v.startswith(b"%d-" % partition.number)]
            assert own == [b"%d-%d" % (partition.number, n) for n in range(bench.producer.offsets.get(partition, 0))]

    for kind, what, count in steps:
        if kind == "send":
            for _ in range(count):
                bench.send(sent[what], what, epoch=epochs[what])
                sent[what] += 1
        elif kind == "fault" and what[0] == "answer":
            bench.producer.lost_answers += 1
        elif kind == "fault" and what[0] == "metadata":
            bench.group.known = metadata(-1)
            bench.run(0.5)
            bench.group.known = metadata(1)
        elif kind == "fault":
            bench.producer.failing[what[0]] += [what[1]] * count
        elif kind == "lose":
            # The new owner waits for an undecided commit (KIP-447), so the loss counts from behind it.
            while bench.producer.undecided:
                bench.run(0.1)
            last_epoch += 1
            epochs[what] = last_epoch
            bench.group.assigned = dict(epochs)
            sent[what] = bench.producer.offsets.get(what, 0)
        else:
            bench.run(what)
        as_committed()
    bench.producer.failing.clear()
    bench.run(30)
    as_committed()
    assert {p: bench.producer.offsets.get(p, 0) for p in (P, Q)} == sent


OTHER, OTHER_END = Partition("more", 0), Partition("more", 1)


@pytest.fixture
def two(bench: Bench) -> Bench:
    """Two input topics, ``in`` and ``more``; what ``more`` has goes to ``closed``."""
    bench.group.assigned = {P: 1, Q: 2, OTHER: 3}
    bench.topics |= {"more": 4, "closed": 4}
    return bench


def send_more(bench: Bench, offset: int, topic: str = "closed") -> None:
    record = SourceRecord("more", 0, offset, 3, b"k", b"v", (), None, 0.0)
    output = Output(topic, b"k", b"more-%d" % offset)
    bench.transactions.send(Release(OTHER, record, Outcome("done", (output,))))


def purge_all(bench: Bench, topic: str) -> None:
    """A refusal of this topic names no record, as where brokers let a partition not into the transaction."""
    flush = bench.producer.flush
    purged = KafkaError(KafkaError._PURGE_QUEUE, "purged")

    def flushed(timeout: float) -> int:
        queue = bench.producer._queue
        if any(record["topic"] == topic for record in queue) and topic in bench.producer.refuse:
            bench.producer._queue = []
            for record in queue:
                record["on_delivery"](purged, None)
        return flush(timeout)

    bench.producer.flush = flushed  # type: ignore[method-assign]


@pytest.mark.parametrize("refusal", ["missing", "refused", "nobody knows which"])
def test_a_topic_that_takes_nothing_holds_up_only_the_input_topic_that_feeds_it(two: Bench, refusal: str) -> None:
    """The other's results are committed meanwhile; mended, everything leaves in order, and once."""
    if refusal == "missing":
        del two.topics["closed"]
    else:
        two.producer.refuse["closed"] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    if refusal == "nobody knows which":
        purge_all(two, "closed")
    for offset in range(30):
        two.send(offset)
        send_more(two, offset, "out" if offset < 5 else "closed")
        two.run(0.2)
    two.run(10)
    assert two.producer.offsets == {P: 30, OTHER: 5}
    assert two.transactions.blocked == {"closed": frozenset({"more"})}
    assert two.transactions.idle_seconds <= 5
    two.send(30)
    two.run(0.4)
    assert two.producer.offsets[P] == 31
    two.producer.refuse.clear()
    two.topics["closed"] = 4
    two.run(20)
    assert dict(two.transactions.blocked) == {}
    assert two.producer.offsets == {P: 31, OTHER: 30}
    assert two.values("closed") == [b"more-%d" % n for n in range(5, 30)]
    assert two.values() == sorted(two.values(), key=two.values().index)
    assert len(two.values()) == len(set(two.values())) == 36


def test_a_topic_that_is_deleted_holds_up_the_others_for_one_transaction(two: Bench) -> None:
    """Brokers let no partition into a transaction that has one they do not know, and all of its records time out."""
    send_more(two, 0)
    two.send(0)
    two.run(1)
    flush = two.producer.flush

    def flushed(timeout: float) -> int:
        queue = two.producer._queue
        if any(record["topic"] not in two.topics for record in queue):
            two.now += 10.0
            two.producer._queue = []
            for record in queue:
                record["on_delivery"](KafkaError(KafkaError._MSG_TIMED_OUT), None)
        return flush(timeout)

    two.producer.flush = flushed  # type: ignore[method-assign]
    del two.topics["closed"]
    for offset in range(1, 10):
        two.send(offset)
        send_more(two, offset)
    before = two.size.records
    two.run(1)
    assert two.producer.offsets == {P: 10, OTHER: 1}
    assert two.now < 20
    assert two.size.records == before
    two.topics["closed"] = 4
    two.run(10)
    assert two.producer.offsets == {P: 10, OTHER: 10}
    assert len(two.producer.log) == len(set(two.producer.log)) == 20


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART])
def test_offsets_that_are_refused_for_one_input_topic_hold_up_only_that_one(two: Bench, code: int) -> None:
    """As where reading it was forbidden, or it was deleted: its ends wait with it, and leave when it is mended."""
    refused = KafkaError(code, "in the offsets", txn_requires_abort=True)

    def refuse(sent: dict[Partition, int]) -> None:
        if OTHER in sent or OTHER_END in sent:
            raise KafkaException(refused)

    two.group.assigned[OTHER_END] = 4
    two.producer.take_offsets = refuse
    two.transactions.commit({OTHER_END: Commit(4, 7)})
    for offset in range(30):
        two.send(offset)
        send_more(two, offset, "out")
        two.run(0.2)
    two.run(10)
    assert two.producer.offsets == {P: 30}
    assert two.transactions.blocked == {"the commit of offsets": frozenset({"more"})}
    two.transactions.commit({OTHER_END: Commit(4, 9)})
    two.send(30)
    two.run(0.4)
    assert two.producer.offsets[P] == 31
    two.producer.take_offsets = lambda _: None
    two.run(20)
    assert dict(two.transactions.blocked) == {}
    assert two.producer.offsets == {P: 31, OTHER: 30, OTHER_END: 9}
    assert len(two.values()) == len(set(two.values())) == 61


def test_a_drain_need_not_wait_for_what_is_refused(two: Bench) -> None:
    """It is tried at once, and once; the rest goes first."""
    del two.topics["closed"]
    send_more(two, 0)
    two.run(20)
    two.send(0)
    two.transactions.try_again()
    assert [two.transactions.stuck] == [False]
    for _ in range(4):
        two.run_once(linger=False)
    assert [two.transactions.stuck] == [True]
    assert two.producer.offsets == {P: 1}


def test_a_forbidden_topic_that_costs_a_producer_each_time_does_not_make_others_transactions_small(two: Bench) -> None:
    """Brokers that let no partition in have nothing to abort, which the client takes for the end of its producer."""
    two.producer.refuse["closed"] = KafkaError.TOPIC_AUTHORIZATION_FAILED
    two.producer.failing["abort"] = [NO_TRANSACTION] * 100
    send_more(two, 0)
    two.run(20)
    assert two.replaced > 5
    before = len(two.producer.commits)
    for offset in range(10):
        two.send(offset)
    two.run(1)
    assert two.producer.offsets == {P: 10}
    assert len(two.producer.commits) - before <= 4


def test_nothing_is_blocked_once_a_rebalance_took_what_was_refused() -> None:
    """Nothing would be tried again while consumption is paused, so the pause must end with the outcomes.

    Here the last of them were aborted a second time, for a producer that took another one's place.
    """
    bench = Bench()
    retries = bench.transactions._retries
    bench.send(0)
    retries.cause, retries.failures, retries.not_before = "out", 5, bench.now + 1.0
    bench.run_once()
    assert bench.transactions.blocked == {"out": None}
    bench.group.assigned.clear()
    bench.now += 2.0
    bench.run_once()
    bench.run_once()
    assert bench.transactions.blocked == {}
    retries.failures = 5  # of the transaction that only aborts
    bench.run_once()
    assert bench.transactions.blocked == {}
