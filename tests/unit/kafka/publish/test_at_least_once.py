"""The publisher against a producer that a test steers: it batches, and can refuse batches for their size."""

from __future__ import annotations

from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.delivery.ledger import Release
from consumer.events import Outcome, Output, Partition, SourceRecord
from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.clients.watchdog import STALLED_SECONDS, StuckClientDetector
from consumer.kafka.publish.at_least_once import REPORT_SECONDS, AtLeastOncePublisher
from consumer.kafka.publish.producers import MOST_BYTES, MOST_RECORDS, SILENT_SECONDS, PartitionCounts
from consumer.kafka.publish.refusals import Replacements

IN = Partition("in", 0)


class Producer:
    """Keeps what it is given until ``poll``, which sends it as one batch a topic and reports."""

    def __init__(self) -> None:
        self.queue: list[dict[str, Any]] = []
        self.log: list[tuple[str, bytes | None]] = []
        self.attempts = 0
        self.batch_bytes = 1 << 30
        self.capacity = 1 << 30
        self.refuse: dict[str, int] = {}
        self.client_bytes = 1 << 30
        self.header_bytes = 1 << 30
        self.headers: list[dict[str, bytes | None]] = []
        self.waited: list[float] = []

    def produce(self, topic: str, **record: Any) -> None:
        if len(self.queue) >= self.capacity:
            raise BufferError
        headers = sum(len(name) + len(value or b"") for name, value in record["headers"])
        if len(record["value"] or b"") > self.client_bytes or headers > self.header_bytes:
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
        self.attempts += 1
        self.queue.append({"topic": topic, **record})

    def poll(self, timeout: float) -> int:
        self.waited.append(timeout)
        queue, self.queue = self.queue, []
        for topic in dict.fromkeys(record["topic"] for record in queue):
            batch = [record for record in queue if record["topic"] == topic]
            code = self.refuse.get(topic, 0)
            if not code and sum(len(r["value"] or b"") for r in batch) > self.batch_bytes:
                code = KafkaError.MSG_SIZE_TOO_LARGE
            if not code:
                self.log += [(topic, record["value"]) for record in batch]
                self.headers += [dict(record["headers"]) for record in batch]
            for record in batch:
                record["on_delivery"](KafkaError(code) if code else None, None)
        return len(queue)

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return 0

    def __len__(self) -> int:
        return len(self.queue)

    def values(self, topic: str) -> list[bytes | None]:
        return [value for of, value in self.log if of == topic]


class Bench:
    """A publisher with its surroundings."""

    def __init__(self) -> None:
        self.producer = Producer()
        self.now = 0.0
        self.slept: list[float] = []
        self.answered = True
        """Whether brokers answer this producer."""
        self.asked = 0
        self.brokers = True
        """Whether they answer others."""
        self.partitions = {"in": 4, "out": 4, "dead": 4, "narrow": 2}
        self.revoked: set[int] = set()
        self.fatal: list[BaseException] = []
        self.hooks = create_autospec(KafkaObserver, instance=True)
        self.durable: list[int] = []
        self.published: list[tuple[str, bytes | None]] = []
        """Outputs that the publisher returned as durable."""
        producer: Any = self.producer
        self.publisher = AtLeastOncePublisher(
            producer,
            PartitionCounts(lambda topic, _: self.partitions.get(topic, 0), lambda: self.now),
            Replacements(
                "dead", lambda record, *_: Output("dead", record.key, record.value, (), record.partition), self.hooks
            ),
            lambda _: None if 1 in self.revoked else 1,
            self.hooks,
            self.fatal.append,
            StuckClientDetector(self.ask, lambda: self.brokers, lambda: self.now),
            lambda: self.now,
            self.slept.append,
        )

    def ask(self) -> None:
        self.asked += 1
        if not self.answered:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    @property
    def refused(self) -> list[tuple[str, str]]:
        """Topic and code of the outputs that were refused."""
        return [call.args for call in self.hooks.produce_refused.call_args_list]

    def send(
        self, offset: int, *outputs: Output, epoch: int = 1, original: bytes = b"in", partition: Partition = IN
    ) -> None:
        record = SourceRecord(partition.topic, 3, offset, epoch, b"key", original, (), None, 0.0)
        outcome = Outcome("done", outputs) if outputs else Outcome("dropped")
        self.publisher.send(Release(partition, record, outcome))

    def run_once(self, times: int = 1) -> None:
        for _ in range(times):
            for release in self.publisher.run_once():
                self.durable.append(release.record.offset)
                self.published += [(output.topic, output.value) for output in release.outcome.outputs]

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.25)):
            self.run_once(3)
            self.now += 0.25


def out(value: bytes = b"v", topic: str = "out", partition: int | None = 3) -> Output:
    return Output(topic, b"key", value, (("h", None),), partition, None)


def dead_letter(headers: tuple[tuple[str, bytes | None], ...]) -> Output:
    """Of a record that carried these."""
    record = SourceRecord("in", 3, 0, 1, b"key", b"in", headers, 1, 0.0)
    return DeadLetters("dead", "group", "0").of(record, Failure("decode", "InvalidJson", "no JSON", 2), 2)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_durable_only_when_every_output_is_acknowledged(bench: Bench) -> None:
    """One task's result and another's dead letter belong together."""
    bench.producer.refuse = {"dead": KafkaError.TOPIC_AUTHORIZATION_FAILED}
    bench.send(0, out(), out(topic="dead"))
    bench.run_once(5)
    assert bench.producer.values("out") == [b"v"]
    assert bench.durable == []
    bench.producer.refuse = {}
    bench.run(1.0)
    assert bench.durable == [0]
    assert bench.producer.values("out") == [b"v"]


def test_a_dropped_record_is_durable_at_once(bench: Bench) -> None:
    """There is nothing to wait for."""
    bench.send(0)
    bench.run_once()
    assert bench.durable == [0]


def test_the_partition_number_is_kept_where_counts_match(bench: Bench) -> None:
    """Elsewhere, and for outputs that name none, the partitioner decides."""
    bench.send(0, out(), out(topic="narrow"), out(partition=None))
    placed: list[tuple[str, int]] = []
    produce = bench.producer.produce

    def spy(topic: str, **record: Any) -> None:
        placed.append((topic, record["partition"]))
        produce(topic, **record)

    bench.producer.produce = spy  # type: ignore[method-assign]
    bench.run_once()
    assert sorted(placed) == [("narrow", -1), ("out", -1), ("out", 3)]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    limit=st.integers(10, 40),
)
def test_of_a_refused_batch_only_what_is_too_large_by_itself_becomes_a_dead_letter(
    sizes: list[int], limit: int
) -> None:
    """Whatever mixture is refused together, each record ends in the topic if it fits and as a dead letter if not."""
    bench = Bench()
    bench.producer.batch_bytes = limit
    for offset, size in enumerate(sizes):
        bench.send(offset, out(b"x" * size), original=b"")
    bench.run_once(40 * len(sizes))
    assert sorted(bench.durable) == list(range(len(sizes)))
    assert sorted(len(value or b"") for value in bench.producer.values("out")) == sorted(s for s in sizes if s <= limit)
    assert len(bench.producer.values("dead")) == sum(size > limit for size in sizes)
    assert sorted(bench.published) == sorted(bench.producer.log)


def test_probing_a_refused_batch_stays_cheap(bench: Bench) -> None:
    """One large record among a thousand costs a few repeated sends, not a thousand."""
    bench.producer.batch_bytes = 50_000
    for offset in range(1000):
        bench.send(offset, out(b"x" * (60_000 if offset == 700 else 10)))
    rounds = 0
    while len(bench.durable) < 1000:
        bench.run_once()
        rounds += 1
    assert rounds < 60
    assert bench.producer.attempts < 6000


def test_a_record_larger_than_the_client_allows_is_a_dead_letter_at_once(bench: Bench) -> None:
    """Its siblings are not held up."""
    bench.producer.client_bytes = 5
    bench.send(0, out(b"x" * 6))
    bench.send(1, out(b"x" * 5))
    bench.run_once(2)
    assert bench.durable == [1, 0]
    assert bench.producer.values("dead") == [b"in"]
    assert bench.published == [("out", b"x" * 5), ("dead", b"in")]
    assert bench.refused == [("out", "MSG_SIZE_TOO_LARGE")]


def test_a_dead_letter_too_large_goes_without_its_value(bench: Bench) -> None:
    """And is durable then."""
    bench.producer.client_bytes = 5
    bench.send(0, out(b"x" * 6), original=b"y" * 9)
    bench.run_once(2)
    assert bench.durable == [0]
    assert bench.producer.values("dead") == [None]
    assert bench.published == [("dead", None)]


def test_a_dead_letter_whose_headers_are_too_large_goes_without_them(bench: Bench) -> None:
    """What anyone can send blocks no topic: first its value is left out, then what it carries besides."""
    bench.producer.header_bytes = 1000
    bench.send(0, dead_letter((("trace", b"t" * 990), ("kind", b"k"))))
    bench.send(1, dead_letter((("trace", b"t"),)))
    bench.run_once(3)
    assert sorted(bench.durable) == [0, 1]
    assert bench.refused == [("dead", "MSG_SIZE_TOO_LARGE")] * 2
    assert bench.publisher.blocked == {}
    assert sorted(bench.producer.values("dead"), key=bool) == [None, b"in"]
    whole, cut = sorted(bench.producer.headers, key=lambda headers: "trace" not in headers)
    assert whole["trace"] == b"t"
    assert cut.keys() - whole.keys() == {"rexstream-dlq-value-omitted", "rexstream-dlq-headers-omitted"}
    assert cut["rexstream-dlq-headers-omitted"] == b"1000"


def test_a_dead_letter_too_large_without_value_and_headers_waits(bench: Bench) -> None:
    """It is not dropped: the topic's limit must be raised, and then it is published."""
    bench.producer.header_bytes = 10
    bench.send(0, dead_letter((("trace", b"t"),)))
    bench.run(30.0)
    assert list(bench.publisher.blocked) == ["dead"]
    assert bench.durable == []
    bench.producer.header_bytes = 1000
    bench.run(10.0)
    assert bench.durable == [0]


def test_a_record_larger_than_the_queue_is_not_waited_for(bench: Bench) -> None:
    """A queue that is empty and takes nothing never will: the record becomes a dead letter, as far as one fits."""
    bench.producer.capacity = 0
    bench.send(0, out())
    bench.run_once()
    bench.producer.capacity = 10
    bench.run_once()
    assert bench.durable == [0]
    assert bench.producer.values("dead") == [b"in"]


def test_a_full_queue_is_waited_out_in_order(bench: Bench) -> None:
    """Nothing is lost, doubled or reordered."""
    bench.producer.capacity = 7
    for offset in range(50):
        bench.send(offset, out(b"%d" % offset))
    bench.run_once(8)
    assert bench.durable == list(range(50))
    assert bench.producer.values("out") == [b"%d" % offset for offset in range(50)]


def test_a_topic_that_refuses_sees_single_probes_and_then_everything_in_order(bench: Bench) -> None:
    """Hundreds wait, one is tried at growing intervals up to ten seconds, the window counts as blocked meanwhile."""
    bench.producer.refuse = {"out": KafkaError.TOPIC_AUTHORIZATION_FAILED}
    for offset in range(300):
        bench.send(offset, out(b"%d" % offset))
    bench.run_once()
    assert list(bench.publisher.blocked) == []
    bench.send(300, out(b"300"))
    bench.run(120.0)
    assert list(bench.publisher.blocked) == ["out"]
    assert 300 + 12 <= bench.producer.attempts <= 300 + 20
    assert bench.durable == []
    bench.producer.refuse = {}
    bench.run(10.0)
    assert bench.durable == list(range(301))
    assert bench.producer.values("out") == [b"%d" % offset for offset in range(301)]
    assert list(bench.publisher.blocked) == []


def test_other_topics_go_on_while_one_refuses(bench: Bench) -> None:
    """Only the window that fails waits."""
    bench.producer.refuse = {"out": KafkaError.TOPIC_AUTHORIZATION_FAILED}
    bench.send(0, out())
    bench.send(1, out(topic="narrow"))
    bench.run_once(3)
    assert bench.durable == [1]


def test_a_missing_topic_is_waited_for(bench: Bench) -> None:
    """It never reaches the producer before it exists."""
    bench.send(0, out(topic="later"))
    bench.run(30.0)
    assert bench.producer.attempts == 0
    assert list(bench.publisher.blocked) == ["later"]
    bench.partitions["later"] = 1
    bench.run(10.0)
    assert bench.durable == [0]


def test_what_is_revoked_while_it_waits_is_not_produced(bench: Bench) -> None:
    """And a window that only held such records is no longer blocked."""
    bench.producer.refuse = {"out": KafkaError.TOPIC_AUTHORIZATION_FAILED}
    bench.send(0, out())
    bench.run(5.0)
    assert list(bench.publisher.blocked) == ["out"]
    attempts = bench.producer.attempts
    bench.revoked.add(1)
    bench.producer.refuse = {}
    bench.run(10.0)
    assert bench.producer.attempts == attempts
    assert list(bench.publisher.blocked) == []
    assert bench.durable == []


def test_a_fatal_error_is_reported_and_the_output_is_kept(bench: Bench) -> None:
    """The worker must end; nothing it holds is reported durable."""

    def produce(topic: str, **record: Any) -> None:  # noqa: ARG001
        raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))

    bench.producer.produce = produce  # type: ignore[method-assign]
    bench.send(0, out())
    bench.run_once()
    assert "_FENCED" in str(bench.fatal[0])
    assert bench.publisher.flush(0.0) == 1
    assert bench.durable == []


@pytest.mark.parametrize(
    ("answered", "brokers", "ends"),
    [
        pytest.param(False, True, True, id="stuck client"),
        pytest.param(False, False, False, id="brokers are away"),
        pytest.param(True, True, False, id="brokers are slow"),
    ],
)
def test_a_producer_without_answers_is_given_up_only_where_others_get_some(
    answered: bool, brokers: bool, ends: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its records may be there or not; what is not committed is read again."""
    monkeypatch.setattr(bench.producer, "poll", lambda _: 0)
    bench.answered, bench.brokers = answered, brokers
    bench.send(0, Output("out", b"k", b"v"))

    def wait() -> None:
        for _ in range(int(2 * STALLED_SECONDS)):
            bench.run_once()
            bench.now += 1.0

    if ends:
        with pytest.raises(ClientFailed, match="gets no answer"):
            wait()
        assert bench.now > STALLED_SECONDS
    else:
        wait()


def test_a_producer_that_gets_reports_is_not_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when something is always in flight."""
    report = bench.producer.poll
    for offset in range(60):
        monkeypatch.setattr(bench.producer, "poll", report if offset % 2 else lambda _: 0)
        bench.send(offset, Output("out", b"k", b"v"))
        bench.run_once()
        bench.now += 1.0
    assert bench.durable
    assert bench.asked == 0


def test_topics_that_are_looked_up_slowly_are_not_refused(bench: Bench) -> None:
    """Each round asks for some of them; the rest waits for the next, which follows at once."""
    topics = [f"out-{n}" for n in range(20)]
    bench.partitions |= dict.fromkeys(topics, 4)
    looked_up = bench.publisher._counts._lookup

    def slowly(topic: str, seconds: float) -> int:
        bench.now += 0.5
        return looked_up(topic, seconds)

    bench.publisher._counts._lookup = slowly
    for offset, topic in enumerate(topics):
        bench.send(offset, Output(topic, b"k", b"v", (), 1))
    rounds = 0
    while len(bench.durable) < 20:
        assert bench.publisher.idle_seconds == 0 or not rounds
        before = bench.now
        bench.run_once()
        assert bench.now - before <= 2.5
        rounds += 1
        assert rounds < 10
    assert bench.publisher.blocked == {}
    assert not bench.hooks.produce_refused.called


MORE = Partition("more", 0)


def test_a_blocked_topic_names_the_input_topics_that_wait_for_it(bench: Bench) -> None:
    """Those that have something for it now, and no others; none when it is taken, or went to another worker."""
    bench.partitions["more"] = 4
    bench.producer.refuse = {"dead": KafkaError.TOPIC_AUTHORIZATION_FAILED}
    bench.send(0, out(topic="dead"))
    bench.send(1, out(), partition=MORE)
    bench.run(2.0)
    assert dict(bench.publisher.blocked) == {"dead": {"in"}}
    bench.send(2, out(topic="dead"), partition=MORE)
    assert dict(bench.publisher.blocked) == {"dead": {"in", "more"}}
    bench.producer.refuse = {}
    bench.run(20.0)
    assert dict(bench.publisher.blocked) == {}
    assert sorted(bench.durable) == [0, 1, 2]


def test_a_topic_that_is_silent_is_blocked_as_one_that_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client repeats without a word what lacks in-sync replicas; the first acknowledgement ends it."""
    report = bench.producer.poll
    monkeypatch.setattr(bench.producer, "poll", lambda _: 0)
    bench.send(0, out())
    bench.run(SILENT_SECONDS)
    assert dict(bench.publisher.blocked) == {}
    bench.run(1.0)
    assert dict(bench.publisher.blocked) == {"out": {"in"}}
    bench.send(1, out())
    assert dict(bench.publisher.blocked) == {"out": {"in"}}
    monkeypatch.setattr(bench.producer, "poll", report)
    bench.run_once()
    assert dict(bench.publisher.blocked) == {}
    assert bench.durable == [0, 1]


def test_nothing_more_becomes_durable_once_every_topic_that_is_waited_for_refused_again(bench: Bench) -> None:
    """One try of each, at once; what is under way to others is waited for."""
    bench.producer.refuse = {"dead": KafkaError.TOPIC_AUTHORIZATION_FAILED}
    bench.send(0, out(topic="dead"))
    bench.run(60.0)
    attempts = bench.producer.attempts
    stuck = [bench.publisher.stuck]
    bench.publisher.try_again()
    bench.send(1, out())
    stuck.append(bench.publisher.stuck)
    bench.run_once(2)
    stuck.append(bench.publisher.stuck)
    assert stuck == [True, False, True]
    assert bench.producer.attempts == attempts + 2
    assert bench.durable == [1]


def test_silence_is_no_reason_to_end_a_drain_while_no_topic_is_acknowledged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it may be the brokers that are away, and soon back."""
    monkeypatch.setattr(bench.producer, "poll", lambda _: 0)
    bench.send(0, out())
    bench.run(20.0)
    assert dict(bench.publisher.blocked) == {"out": {"in"}}
    assert not bench.publisher.stuck


@pytest.mark.parametrize(("outputs", "size"), [(20_000, 10), (200, 1_000_000)])
def test_a_topic_that_is_silent_leaves_others_their_place_in_the_producers_queue(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, outputs: int, size: int
) -> None:
    """However many of its outputs wait, or how large they are."""
    report = bench.producer.poll
    value = b"x" * size

    def report_others(timeout: float) -> int:
        silent = [record for record in bench.producer.queue if record["topic"] == "out"]
        bench.producer.queue = [record for record in bench.producer.queue if record["topic"] != "out"]
        reported = report(timeout)
        bench.producer.queue = silent
        return reported

    monkeypatch.setattr(bench.producer, "poll", report_others)
    for offset in range(outputs):
        bench.send(offset, out(value))
    bench.run_once(3)
    assert 0 < len(bench.producer.queue) <= MOST_RECORDS
    assert sum(len(record["value"]) for record in bench.producer.queue) <= MOST_BYTES + size
    bench.send(outputs, out(topic="narrow"))
    bench.run_once()
    assert bench.durable == [outputs]
    monkeypatch.setattr(bench.producer, "poll", report)
    bench.run_once(20)
    assert len(bench.durable) == outputs + 1
    assert len(bench.producer.values("out")) == outputs


def test_what_takes_the_place_of_an_older_output_leaves_in_its_order() -> None:
    """The dead letter of a result that the client refused, where an earlier and a later one wait already."""
    bench = Bench()
    bench.producer.client_bytes = 5
    bench.send(0, out(), out(b"first", topic="dead"))
    bench.send(1, out(b"too large"), original=b"older")
    bench.send(2, out(b"newer", topic="dead"))
    bench.run_once(2)
    assert bench.producer.values("dead") == [b"first", b"older", b"newer"]


def test_a_round_waits_its_time_for_reports_unless_somebody_waits_for_it() -> None:
    """Then only for the first; and nothing waits where no report is due."""
    bench = Bench()
    bench.send(0, out())
    bench.publisher.run_once()
    bench.publisher.run_once()
    bench.send(1, out())
    bench.publisher.run_once(linger=False)
    assert (bench.slept, bench.producer.waited) == ([REPORT_SECONDS], [0.0, 0.0, REPORT_SECONDS])
