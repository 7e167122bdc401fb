"""The replayer against a producer whose behaviour the tests choose."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.events import Output
from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable
from consumer.kafka.tools import transactions
from consumer.kafka.tools.replay_markers import marker_topic_fault
from consumer.kafka.tools.replayer import Replay, Replayer, ReplayTargets
from consumer.kafka.tools.transactions import TakenOver, Transactions

if TYPE_CHECKING:
    from collections.abc import Callable

FENCED = KafkaError(KafkaError._FENCED, "a newer one", fatal=True)
COUNTS = {"reviews.raw": 4, "reviews.dead": 4, "other": 6}


class StubProducer:
    """Holds what was committed. ``fail`` names the error of a record; ``refuse`` those of calls, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.committed: list[tuple[str, bytes | None, int]] = []
        self.fail: Callable[[str, bytes | None], int | None] = lambda *_: None
        self.refuse: dict[str, list[KafkaError | type[BaseException]]] = {}
        self._open: list[tuple[str, bytes | None, int]] = []
        self._reports: list[Callable[[], None]] = []
        self.queue_size = 1000
        self.values: dict[bytes | None, bytes] = {}
        """Latest value by key."""

    def __len__(self) -> int:
        return len(self._reports)

    def _call(self, name: str) -> None:
        self.log.append(name)
        if waiting := self.refuse.get(name):
            error = waiting.pop(0)
            if isinstance(error, KafkaError):
                raise KafkaException(error)
            if error is SystemError:
                # As the interpreter puts it when a C function returns with an exception set.
                raise SystemError("returned a result with an exception set") from KafkaException(FENCED)
            raise error

    def init_transactions(self, _timeout: float) -> None:
        self._call("init")

    def begin_transaction(self) -> None:
        self._call("begin")
        self._open = []

    def produce(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None,
        on_delivery: Callable[[KafkaError | None, Any], None],
        partition: int = -1,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> None:
        assert value is not None
        assert headers is None or headers
        if "produce" in self.refuse:
            self._call("produce")
        if len(self) == self.queue_size:
            raise BufferError("Local: Queue full")
        self._open.append((topic, key, partition))
        code = self.fail(topic, key)
        written = SimpleNamespace(topic=lambda: topic, partition=lambda: 2, offset=lambda: len(self.log))
        self.values[key] = value
        self._reports.append(lambda: on_delivery(None if code is None else KafkaError(code), written))

    def flush(self, _timeout: float) -> int:
        self._call("flush")
        reports, self._reports = self._reports, []
        for report in reports:
            report()
        return 0

    def poll(self, _timeout: float) -> int:
        if "poll" in self.refuse:
            self._call("poll")
        for report in self._reports[:1]:
            self._reports.remove(report)
            report()
        return 0

    def commit_transaction(self, _timeout: float) -> None:
        self._call("commit")
        self.committed += self._open

    def abort_transaction(self, _timeout: float) -> None:
        self._call("abort")


@pytest.fixture
def producer() -> StubProducer:
    return StubProducer()


@pytest.fixture
def replayer(producer: StubProducer, monkeypatch: pytest.MonkeyPatch) -> Replayer:
    monkeypatch.setattr(transactions, "_PAUSE_SECONDS", 0.0)
    it: Any = producer
    own = Transactions(it, "host:1", "replay of reviews.dead", "what was replayed has its marker", timeout=5.0)
    return Replayer(own, ReplayTargets(lambda topic: COUNTS.get(topic, 0)), "reviews.dead")


def replay(number: int, topic: str = "reviews.raw", partition: int = 2) -> Replay:
    output = Output(topic, b"k%d" % number, b"v", (("h", b"1"),), partition)
    return Replay(f"id-{number}", output, f"id-{number}@group", number)


def committed_ids(producer: StubProducer) -> list[bytes | None]:
    markers = [key or b"" for topic, key, _ in producer.committed if topic.endswith(".replayed")]
    return [key.removesuffix(b"@group") for key in markers if key.endswith(b"@group")]


def test_records_and_markers_are_one_transaction(producer: StubProducer, replayer: Replayer) -> None:
    """Each record with a marker that has its letter's id, and says where the record stands and how often it came."""
    replayer.begin()
    assert replayer.write([replay(1), replay(2)]) == []
    assert producer.log == ["init", "begin", "flush", "flush", "commit"]
    assert producer.committed == [
        ("reviews.raw", b"k1", 2),
        ("reviews.raw", b"k2", 2),
        ("reviews.dead.replayed", b"id-1@group", -1),
        ("reviews.dead.replayed", b"id-1", -1),
        ("reviews.dead.replayed", b"id-2@group", -1),
        ("reviews.dead.replayed", b"id-2", -1),
    ]
    assert json.loads(producer.values[b"id-2@group"]) == {"format": 1, "place": "reviews.raw-2-3", "count": 2}
    assert json.loads(producer.values[b"id-2"]) == {"format": 1, "marker": "id-2@group"}, "for older releases"


@pytest.mark.parametrize(
    ("topic", "partition", "expected"), [("reviews.raw", 3, 3), ("other", 3, -1), ("reviews.raw", 9, -1)]
)
def test_the_original_partition_is_kept_where_counts_match(
    producer: StubProducer, replayer: Replayer, topic: str, partition: int, expected: int
) -> None:
    """Elsewhere the key decides, as it did on the way to the dead-letter topic."""
    replayer.write([replay(1, topic, partition)])
    assert producer.committed[0] == (topic, b"k1", expected)


def test_a_refused_record_leaves_all_others_replayed(producer: StubProducer, replayer: Replayer) -> None:
    """Nothing of a refused transaction stays, so it is split until the refused record is alone, without a marker."""
    producer.fail = lambda _, key: KafkaError.MSG_SIZE_TOO_LARGE if key == b"k5" else None
    ((refused, reason),) = replayer.write([replay(n) for n in range(16)])
    assert refused.id == "id-5"
    assert "too large" in reason.lower()
    assert sorted(committed_ids(producer), key=str) == sorted((b"id-%d" % n for n in range(16) if n != 5), key=str)
    assert producer.log.count("begin") == 9, "two transactions a halving"


def test_the_reason_of_a_refusal_is_found_among_what_went_down_with_it(
    producer: StubProducer, replayer: Replayer
) -> None:
    """Neighbours in a refused batch report something else, and first."""
    codes = {b"k1": KafkaError._PURGE_QUEUE, b"k2": KafkaError.INVALID_RECORD}
    producer.fail = lambda _, key: codes.get(key or b"") if len(producer.log) < 2 else None
    assert replayer.write([replay(1), replay(2)]) == []
    assert producer.log.count("begin") == 3


def test_a_passing_failure_is_tried_again_as_a_whole(producer: StubProducer, replayer: Replayer) -> None:
    """Aborted first: what a failed transaction wrote is seen by nobody."""
    failing = [KafkaError._MSG_TIMED_OUT, None]
    producer.fail = lambda _, key: failing.pop(0) if key == b"k1" else None
    assert replayer.write([replay(1)]) == []
    assert producer.log == ["begin", "flush", "abort", "begin", "flush", "flush", "commit"]
    assert committed_ids(producer) == [b"id-1"]


def test_a_failure_that_stays_ends_the_replay(producer: StubProducer, replayer: Replayer) -> None:
    """With the advice to run it again."""
    producer.fail = lambda *_: KafkaError._MSG_TIMED_OUT
    with pytest.raises(ClusterUnreachable, match="again"):
        replayer.write([replay(1)])
    assert producer.committed == []
    assert producer.log.count("abort") == 3


@pytest.mark.parametrize("call", ["init", "begin", "commit", "abort"])
@pytest.mark.parametrize("code", [KafkaError._FENCED, KafkaError.INVALID_TXN_STATE, KafkaError.INVALID_PRODUCER_EPOCH])
def test_whoever_is_fenced_stops(producer: StubProducer, replayer: Replayer, call: str, code: int) -> None:
    """Whenever it learns that it is fenced; nothing is written by it from then on."""
    producer.refuse[call] = [KafkaError(code)]
    if call == "abort":
        producer.fail = lambda *_: KafkaError._PURGE_QUEUE

    def run() -> None:
        replayer.begin()
        replayer.write([replay(1)])

    with pytest.raises(TakenOver, match=r"another replay of reviews\.dead"):
        run()
    assert producer.committed == []
    assert producer.log[-1] == call


@pytest.mark.parametrize("call", ["produce", "flush", "commit", "abort"])
def test_whoever_is_fenced_while_reports_are_served_stops(
    producer: StubProducer, replayer: Replayer, call: str
) -> None:
    """The client then hides its error behind a SystemError."""
    producer.refuse[call] = [SystemError]
    if call == "abort":
        producer.fail = lambda *_: KafkaError._PURGE_QUEUE
    with pytest.raises(TakenOver):
        replayer.write([replay(1)])
    assert producer.committed == []


def test_a_system_error_of_another_kind_is_not_hidden(producer: StubProducer, replayer: Replayer) -> None:
    """It is a defect."""
    producer.fail = lambda *_: exec("raise SystemError('other')")
    with pytest.raises(SystemError, match="other"):
        replayer.write([replay(1)])


def test_a_full_queue_is_waited_for(producer: StubProducer, replayer: Replayer) -> None:
    """It empties as reports come; everything is still in one transaction."""
    producer.queue_size = 3
    assert replayer.write([replay(n) for n in range(20)]) == []
    assert len(committed_ids(producer)) == 20
    assert producer.log == ["begin", "flush", "flush", "commit"]


def test_a_record_larger_than_the_whole_queue_is_refused(producer: StubProducer, replayer: Replayer) -> None:
    """It would never fit into the queue."""
    producer.queue_size = 0
    ((refused, reason),) = replayer.write([replay(1)])
    assert refused.id == "id-1"
    assert "too large" in reason.lower()
    assert producer.log == ["begin", "abort"]


def test_a_commit_that_needs_more_time_is_asked_for_again(producer: StubProducer, replayer: Replayer) -> None:
    """It may have been made: producing again would double."""
    producer.refuse["commit"] = [KafkaError(KafkaError._TIMED_OUT, "slow", retriable=True)]
    assert replayer.write([replay(1)]) == []
    assert producer.log == ["begin", "flush", "flush", "commit", "commit"]


def test_a_commit_that_must_be_aborted_is_made_anew(producer: StubProducer, replayer: Replayer) -> None:
    """The brokers wrote nothing of it."""
    producer.refuse["commit"] = [KafkaError(KafkaError.NOT_ENOUGH_REPLICAS, "no", txn_requires_abort=True)]
    assert replayer.write([replay(1)]) == []
    assert producer.log == ["begin", "flush", "flush", "commit", "abort", "begin", "flush", "flush", "commit"]


def test_a_client_without_the_right_is_told_so(producer: StubProducer, replayer: Replayer) -> None:
    """The transactional id has rights of its own."""
    producer.refuse["init"] = [KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "denied", fatal=True)]
    with pytest.raises(TopicUnusable, match="transactional id"):
        replayer.begin()


def test_ctrl_c_leaves_no_transaction_open(producer: StubProducer, replayer: Replayer) -> None:
    """An open one holds up every reader of the topics until its timeout."""
    producer.refuse["flush"] = [KeyboardInterrupt]
    with pytest.raises(KeyboardInterrupt):
        replayer.write([replay(1)])
    assert producer.log[-1] == "abort"
    assert producer.committed == []


def test_a_topic_that_is_gone_is_seen() -> None:
    """Producing to it might create it."""
    targets = ReplayTargets(lambda topic: COUNTS.get(topic, 0))
    assert targets.exists("reviews.raw")
    assert not targets.exists("gone")


def test_a_topic_is_asked_about_once_whatever_the_answer() -> None:
    """Also when it cannot be used, of which there may be as many letters."""
    asked: list[str] = []

    def lookup(topic: str) -> int:
        asked.append(topic)
        if topic == "secret":
            raise TopicUnusable("forbidden")
        return COUNTS.get(topic, 0)

    targets = ReplayTargets(lookup)
    for _ in range(3):
        assert targets.exists("other")
        assert not targets.exists("gone")
        with pytest.raises(TopicUnusable, match="forbidden"):
            targets.exists("secret")
    assert asked == ["other", "gone", "secret"]


@pytest.mark.parametrize("topic", ["a b", "a\0b", "主题", "x" * 250, ""])
def test_a_name_that_no_topic_can_have_is_not_asked_about(topic: str) -> None:
    """Headers of a dead letter may be forged, and the client raises ValueError for some."""

    def lookup(_: str) -> int:
        raise AssertionError

    with pytest.raises(TopicUnusable, match="no name of a topic"):
        ReplayTargets(lookup).exists(topic)


@pytest.mark.parametrize(
    ("settings", "fit"),
    [
        ({"cleanup.policy": "compact", "retention.ms": "604800000"}, True),
        ({"cleanup.policy": "delete", "retention.ms": "604800000"}, False),
        ({"cleanup.policy": "compact,delete", "retention.ms": "604800000"}, False),
        ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}, True),
        ({"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "1000"}, False),
        ({}, False),
    ],
)
def test_markers_must_never_go(settings: dict[str, str], fit: bool) -> None:
    """Neither by age nor by size; compaction leaves the last of each key, and each key is written once."""
    assert (marker_topic_fault(settings) is None) is fit
