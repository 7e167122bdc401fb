"""A small worker on a real runtime: it collects what arrives, and the test decides when and how each record
finishes."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    Consumer,
    KafkaException,
    Producer,
    TopicPartition,
)

from consumer.config.tree import Config, DeliveryConfig, KafkaConfig, LimitsConfig
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.delivery.done_note import Done, read
from consumer.events import Outcome, Output
from consumer.kafka.runtime import KafkaRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from consumer.events import Partition, SourceRecord

GROUPS = itertools.count()
NOW_MS = 4_000_000_000_000
# The mock cluster waits a whole session timeout (45 s by default) before each rebalance but a group's first.
QUICK_SESSION = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 100}


class Observed:
    """Counts what the runtime reports."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.pauses: list[frozenset[str]] = []
        self.lags: list[dict[Partition, int]] = []
        self.refused: list[tuple[str, str]] = []

    def durable(self, record: SourceRecord, outcome: Outcome) -> None:  # noqa: ARG002
        self.counts["durable"] += 1

    def stale(self, completions: int) -> None:
        self.counts["stale"] += completions

    def stalled(self, seconds: float) -> None:  # noqa: ARG002
        self.counts["stalled"] += 1

    def paused(self, reasons: Mapping[str, Collection[str]]) -> None:
        self.pauses.append(frozenset(reasons))

    def rebalanced(self, kind: str, partitions: int) -> None:
        self.counts[kind] += partitions

    def committed(self, partitions: int) -> None:  # noqa: ARG002
        self.counts["committed"] += 1

    def commit_failed(self, code: str) -> None:
        self.counts[f"commit_failed {code}"] += 1

    def produce_refused(self, topic: str, code: str) -> None:
        self.refused.append((topic, code))

    def transaction(self, how: str, seconds: float, records: int) -> None:  # noqa: ARG002
        self.counts[how + " transactions"] += 1

    def client_error(self, client: str, code: str) -> None:
        self.counts[f"{client} {code}"] += 1

    def matched(self, topics: Mapping[str, int]) -> None:
        self.matches = dict(topics)

    def lag(self, lags: Mapping[Partition, int]) -> None:
        self.lags.append(dict(lags))


class Worker:
    """One runtime. Each record becomes one result with the same key and value, unless a test does otherwise."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        output: str,
        group: str,
        *,
        client: dict[str, Any] | None = None,
        events: int = 2_000,
        size: int = 67_108_864,
        order: Any = None,
        mode: Any = "at_least_once",
        transaction_records: int = 1000,
        transaction_interval_ms: int = 50,
        dead: str = "dead",
        echo: bool = False,
        **runtime: Any,
    ) -> None:
        self.output = output
        self.echo = echo
        self.config = Config(
            kafka=KafkaConfig(
                bootstrap_servers=bootstrap,
                group_id=group,
                client={**({} if client and "group.protocol" in client else QUICK_SESSION), **(client or {})},
            ),
            delivery=DeliveryConfig(
                mode=mode,
                order=order,
                commit_interval_ms=50,
                transaction_interval_ms=transaction_interval_ms,
                transaction_records=transaction_records,
                transaction_timeout_ms=5000,
                dead_letter_topic=dead,
            ),
            limits=LimitsConfig(in_flight_events=events, in_flight_bytes=size),
        )
        self.dead_letters = DeadLetters(dead, group, "test")
        self.observed = Observed()
        self.fatal: list[BaseException] = []
        self.hangs: list[str] = []
        self.revoked: list[dict[Partition, int]] = []
        self.records: list[SourceRecord] = []
        self.changed = threading.Condition()
        self.runtime = KafkaRuntime(
            self.config,
            [topic],
            on_records=self._arrived,
            on_revoked=lambda epochs: self.revoked.append(dict(epochs)),
            refused=self._refused,
            on_fatal=self.fatal.append,
            observer=self.observed,
            on_hang=self.hangs.append,
            **runtime,
        )

    def _arrived(self, records: list[SourceRecord]) -> None:
        with self.changed:
            self.records.extend(records)
            self.changed.notify_all()
        if self.echo:
            for record in records:
                self.finish(record)

    def _refused(self, record: SourceRecord, output: Output, why: str) -> Output:  # noqa: ARG002
        failure = Failure("produce", "ResultTooLarge", f"A result for {output.topic} is too large.", NOW_MS)
        return self.dead_letters.of(record, failure, NOW_MS)

    def wait(self, records: int, seconds: float = 30.0) -> list[SourceRecord]:
        """At least so many records have arrived."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.records) >= records, seconds), f"{len(self.records)} arrived"
            return list(self.records)

    def finish(self, record: SourceRecord, value: bytes | None = None) -> None:
        output = Output(
            self.output, record.key, record.value if value is None else value, record.headers, record.partition
        )
        self.runtime.processed(record, Outcome("done", (output,)))


def eventually(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.02)


class Cluster:
    """What a test sees from outside."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def send(self, topic: str, count: int, partitions: int, *, keys: int = 50, value: bytes = b"") -> None:
        """``count`` records, numbered in their values, spread over the partitions by key."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5})
        for number in range(count):
            key = number % keys
            producer.produce(
                topic,
                value=b"%d " % number + value,
                key=b"key-%d" % key,
                partition=key % partitions,
                headers=[("n", b"1")],
            )
            producer.poll(0)
        assert producer.flush(20) == 0

    def read(self, topic: str, partitions: int) -> dict[int, list[tuple[bytes | None, bytes | None, Any]]]:
        """Everything in ``topic``: (key, value, headers) by partition, in order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"reader-{next(GROUPS)}",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        found: dict[int, list[tuple[bytes | None, bytes | None, Any]]] = {number: [] for number in range(partitions)}
        ended: set[int] = set()
        deadline = time.monotonic() + 20
        while len(ended) < partitions:
            assert time.monotonic() < deadline, "the topic was not read to its end"
            message = consumer.poll(0.2)
            if message is None:
                continue
            number = message.partition()
            assert number is not None
            if message.error() is not None:
                ended.add(number)
            else:
                found[number].append((message.key(), message.value(), message.headers()))
        consumer.close()
        return found

    def values(self, topic: str, partitions: int) -> list[bytes]:
        """All values in ``topic``."""
        return [value or b"" for records in self.read(topic, partitions).values() for _, value, _ in records]

    def committed(self, group: str, topic: str, partitions: int) -> list[int]:
        """Committed offset of each partition; -1001 without one."""
        return [position.offset for position in self._committed(group, topic, partitions)]

    def leader_epochs(self, group: str, topic: str, partitions: int) -> list[int | None]:
        """What the commit of each partition says of the leader epoch of what was read."""
        return [position.leader_epoch for position in self._committed(group, topic, partitions)]

    def noted(self, group: str, topic: str, partitions: int) -> list[Done | None]:
        """What the commit of each partition names as done behind it."""
        positions = self._committed(group, topic, partitions)
        return [read(position.offset, position.metadata or "") for position in positions]

    def _committed(self, group: str, topic: str, partitions: int) -> list[TopicPartition]:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        deadline = time.monotonic() + 30
        try:
            while True:
                try:
                    wanted = [TopicPartition(topic, number) for number in range(partitions)]
                    return consumer.committed(wanted, timeout=10)
                except KafkaException:
                    # A new broker's coordinator is still being made.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
        finally:
            consumer.close()


@contextmanager
def running() -> Iterator[Callable[[Worker], Worker]]:
    """Starts runtimes; whatever is left running in the end is closed without a drain."""
    started: list[Worker] = []

    def start(worker: Worker) -> Worker:
        started.append(worker)
        worker.runtime.start()
        return worker

    yield start
    for worker in started:
        worker.runtime.drain(0.0)
