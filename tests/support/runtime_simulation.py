"""The whole Kafka runtime without threads: a group and brokers of a few lines, and a naive account of what may happen.

``PollThread``, ``ReleaseThread`` and everything between them are the real ones, run by hand; only the Kafka client and
the publisher are played. The account knows no ledger and no epochs: it writes down what the client delivered in each
assignment and what the brokers acknowledged, and looks through all of it whenever an offset is committed.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_INVALID, TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, TopicPartition

from consumer.delivery.commands import Command, Delivered, Lost, Revoke, Rewound
from consumer.delivery.done_note import read
from consumer.delivery.ledger import Ledger
from consumer.events import Outcome, Output, Partition
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.consume.poll_thread import PollSettings, PollThread
from consumer.kafka.publish.release_thread import ReleaseThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from consumer.delivery.ledger import Commit, Order, Release
    from consumer.events import SourceRecord

PARTITIONS = (Partition("in", 0), Partition("in", 1))
OUTCOME = Outcome("done", (Output("out", None, b""),))
Step = tuple[str, int]
"""What happens while a revocation waits: ``process``, ``ack`` or ``wait``, and which or how long."""


@dataclass
class Log:
    """A partition on the brokers."""

    records: list[tuple[int, bytes | None]] = field(default_factory=list)
    end: int = 0
    committed: int | None = None
    note: str = ""
    """What the last commit carried."""
    leader_epoch: int = -1
    """Of records that are appended now; -1 from brokers that give none."""
    leader_epochs: dict[int, int] = field(default_factory=dict)
    """Of each record."""
    committed_leader_epoch: int = -1
    acknowledged: set[int] = field(default_factory=set)
    """Records whose outputs were, in whatever assignment."""

    def append(self, gap: int, key: bytes | None) -> None:
        """One record, behind ``gap`` offsets that hold none: compacted, aborted, or markers."""
        self.records.append((self.end + gap, key))
        self.leader_epochs[self.end + gap] = self.leader_epoch
        self.end += gap + 1


@dataclass(eq=False)
class Held:
    """One assignment of a partition as the brokers know it: from assign, or from a step back, to its end."""

    partition: Partition
    position: int
    log: Log
    delivered: list[tuple[int, bytes | None]] = field(default_factory=list)
    handed: set[int] = field(default_factory=set)
    """Those of ``delivered`` that went to the worker: others were passed over."""
    durable: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    end: int | None = None
    told_end: int | None = None
    committed: int = -1
    over: bool = False
    begin: int = 0
    """Where a seek put it."""

    def safe(self) -> int:
        """The next record to read may be this one and none after it: found by looking at everything."""
        behind = self.begin
        for offset, _ in self.delivered:
            passed_over = offset not in self.handed and offset in self.log.acknowledged
            if offset not in self.durable and not passed_over:
                return offset
            behind = offset + 1
        return max(behind, self.end or 0)

    def behind(self) -> int:
        """The offset before which this assignment has seen everything."""
        return max(self.delivered[-1][0] + 1 if self.delivered else 0, self.told_end or 0)

    def in_flight(self) -> int:
        return len(self.handed) - len(self.durable)


class Message:
    """What the runtime asks of ``confluent_kafka.Message``."""

    def __init__(
        self,
        partition: Partition,
        offset: int,
        key: bytes | None,
        error: KafkaError | None = None,
        leader_epoch: int = -1,
    ) -> None:
        self.at = partition
        self._offset, self._key, self._error = offset, key, error
        self._leader_epoch = leader_epoch

    def topic(self) -> str:
        return self.at.topic

    def partition(self) -> int:
        return self.at.number

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes:
        return b"four"

    def error(self) -> KafkaError | None:
        return self._error

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_NOT_AVAILABLE, 0

    def leader_epoch(self) -> int | None:
        return None if self._leader_epoch < 0 else self._leader_epoch

    def headers(self) -> None:
        return None


class Client:
    """A member of the group. Rebalances happen inside ``poll`` and ``consume``, as librdkafka's do."""

    def __init__(self, brokers: Brokers, settings: Mapping[str, Any], logger: object) -> None:  # noqa: ARG002
        self.brokers = brokers
        self.settings = settings
        self.paused: set[Partition] = set()
        self.closed = False
        self.lost = False
        """Brokers do not answer this client."""
        self.asked = 0
        self.answers: deque[tuple[KafkaError | None, list[TopicPartition]]] = deque()

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        assert topics == ["in"]
        self.callbacks = callbacks
        self.brokers.client = self

    def consumer_group_metadata(self) -> bytes:
        return b"CGMDv2:" + (7).to_bytes(4, sys.byteorder)

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        for each, partition in zip(partitions, _named(partitions), strict=True):
            begin = self.brokers.logs[partition].committed or 0
            self.brokers.begin(partition, each.offset if each.offset >= 0 else begin)

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        for partition in _named(partitions):
            self.brokers.take_away(partition)  # a pause stays, also over the next assignment

    def pause(self, partitions: list[TopicPartition]) -> None:
        assert set(_named(partitions)) <= self.brokers.held.keys(), "a pause without an assignment does nothing"
        self.paused.update(_named(partitions))

    def resume(self, partitions: list[TopicPartition]) -> None:
        assert set(_named(partitions)) <= self.paused, "resuming what is not paused rewinds it"
        self.paused.difference_update(_named(partitions))

    def seek(self, position: TopicPartition) -> None:
        """What is fetched is thrown away."""
        (partition,) = _named([position])
        self.brokers.take_away(partition)
        self.brokers.begin(partition, position.offset)
        self.brokers.held[partition].begin = position.offset

    def poll(self, timeout: float) -> Message | None:  # noqa: ARG002
        self._callbacks()
        return self.brokers.next_message(self.paused)

    def consume(self, count: int, timeout: float) -> list[Message]:  # noqa: ARG002
        self._callbacks()
        found = (self.brokers.next_message(self.paused) for _ in range(count))
        return [message for message in found if message is not None]

    def _callbacks(self) -> None:
        if self.answers and self.brokers.answering:
            self.settings["on_commit"](*self.answers.popleft())
        # What poll returned is seen by the runtime only after consume: a revocation in between would have to know of
        # it.
        stepped_back, self.brokers.stepped_back = self.brokers.stepped_back, False
        if self.brokers.rebalances and not stepped_back:
            kind, partition = self.brokers.rebalances.popleft()
            held = self.brokers.held.get(partition)
            if kind == "lost":
                self.brokers.take_away(partition)  # someone else has it, whatever the callback does
            self.callbacks[f"on_{kind}"](self, [TopicPartition(partition.topic, partition.number)])
            if kind == "revoke" and held is not None:
                self.brokers.given_back.append(held)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[Any] | None:
        error = None if self.brokers.healthy else KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
        for position in offsets:
            self.brokers.commit(position, error is None)
        if asynchronous:
            self.answers.append((error, offsets))
            return None
        if error is not None:
            raise KafkaException(error)
        return offsets

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:  # noqa: ARG002
        if not self.brokers.tells_committed:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        logs = [(partition, self.brokers.logs[partition]) for partition in _named(partitions)]
        unknown = OFFSET_INVALID
        return [
            TopicPartition(
                *partition,
                unknown if log.committed is None else log.committed,
                metadata=log.note,
                leader_epoch=log.committed_leader_epoch,
            )
            for partition, log in logs
        ]

    def list_topics(self, topic: str, timeout: float) -> None:  # noqa: ARG002
        self.asked += 1
        if self.lost:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def close(self) -> None:
        self.closed = True


class Brokers:
    """The group's coordinator, the logs, and the account."""

    def __init__(self) -> None:
        self.answers_others = True
        """Whether they answer a client that is made now."""
        self.logs = {partition: Log() for partition in PARTITIONS}
        self.held: dict[Partition, Held] = {}
        self.given_back: list[Held] = []
        self.rebalances: deque[tuple[str, Partition]] = deque()
        self.messages: deque[Message] = deque()
        """What the client returns before anything else."""
        self.healthy = True
        self.tells_committed = True
        """Whether a client is told what is committed when it asks for it."""
        self.answering = True
        self.tell_ends = True
        self.stepped_back = False
        self.client: Client | None = None
        self._round = 0

    def begin(self, partition: Partition, position: int) -> None:
        assert partition not in self.held
        self.held[partition] = Held(partition, position, self.logs[partition])

    def take_away(self, partition: Partition) -> None:
        held = self.held.pop(partition, None)
        if held is not None:
            held.over = True

    def next_message(self, paused: set[Partition]) -> Message | None:
        if self.messages:
            return self.messages.popleft()
        self._round += 1
        for partition in sorted(self.held.keys() - paused, key=lambda p: (p.number + self._round) % 2):
            held, log = self.held[partition], self.logs[partition]
            following = [record for record in log.records if record[0] >= held.position]
            if following:
                offset, key = following[0]
                if offset < held.behind():  # a step back is an assignment of its own
                    self.stepped_back = True
                    self.take_away(partition)
                    self.begin(partition, offset)
                    held = self.held[partition]
                held.position = offset + 1
                held.delivered.append((offset, key))
                held.end = None
                return Message(partition, offset, key, leader_epoch=log.leader_epochs[offset])
            if held.told_end != log.end and self.tell_ends:
                held.position = held.told_end = log.end
                if not held.delivered or log.end > held.delivered[-1][0]:
                    held.end = log.end
                return Message(partition, log.end, None, KafkaError(KafkaError._PARTITION_EOF))
        return None

    def commit(self, position: TopicPartition, succeeds: bool) -> None:
        """Where every commit is judged, before anyone knows whether it succeeds."""
        partition, offset, note = (
            Partition(position.topic, position.partition),
            position.offset,
            position.metadata or "",
        )
        held = self.held.get(partition)
        assert held is not None, f"{partition} is not ours: {offset} must not be committed"
        assert offset <= held.safe(), f"{offset} of {partition} passes {held.safe()}, the durable prefix"
        assert offset >= held.committed, f"{partition} goes back from {held.committed} to {offset}"
        log = self.logs[partition]
        if note:
            named = read(offset, note)
            assert named is not None, f"{note} of {offset} cannot be read"
            for each, _ in log.records:
                assert each not in named or each in log.acknowledged, f"{each} of {partition} is named and not done"
        held.committed = offset
        if succeeds:
            log.committed, log.note = offset, note
            log.committed_leader_epoch = -1 if position.leader_epoch is None else position.leader_epoch


class Publisher:
    """Holds what it is sent until a test lets it be acknowledged; checks the order of release."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.under_way: list[Release] = []
        self.acknowledged: list[Release] = []
        self.blocked: dict[str, frozenset[str] | None] = {}
        self.stuck = False
        self.idle_seconds = 0.0
        self.meanwhile: Callable[[], None] | None = None
        """What the poll thread does while the release thread is in the middle of a round."""

    def send(self, release: Release) -> None:
        held = self._runtime.assignment_of[release.partition, release.record.epoch]
        assert held not in self._runtime.brokers.given_back, "released although it knew that the partition is gone"
        assert release.record.offset not in held.sent, "released twice"
        held.sent.add(release.record.offset)
        key = dict(held.delivered)[release.record.offset]
        for offset, other in held.delivered:
            if offset not in held.handed:
                continue
            if offset < release.record.offset and self._runtime.order != "none" and offset not in held.sent:
                assert self._runtime.order == "key", (
                    f"{offset} should have been released before {release.record.offset}"
                )
                assert key is None or other != key, f"{offset} has the same key and was not released before"
        self.under_way.append(release)

    def commit(self, commits: Mapping[Partition, Commit]) -> Mapping[Partition, Commit]:
        return commits

    def run_once(self, *, linger: bool = True) -> list[Release]:  # noqa: ARG002
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        durable, self.acknowledged = self.acknowledged, []
        return durable

    def try_again(self) -> None:
        """Nothing here is refused."""

    def flush(self, seconds: float) -> int:  # noqa: ARG002
        return len(self.under_way)

    def acknowledge(self, index: int) -> None:
        release = self.under_way.pop(index)
        self._runtime.assignment_of[release.partition, release.record.epoch].durable.add(release.record.offset)
        self._runtime.brokers.logs[release.partition].acknowledged.add(release.record.offset)
        self.acknowledged.append(release)


class Commands(SimpleQueue[Command]):
    """While the poll thread waits for the answer to a revocation, the rest of the world goes on."""

    def __init__(
        self, meanwhile: Callable[[Revoke], None], on_lost: Callable[[Lost], None], on_rewound: Callable[[], None]
    ) -> None:
        self._meanwhile = meanwhile
        self._on_rewound = on_rewound
        self._on_lost = on_lost
        self.last: Command | None = None

    def get_nowait(self) -> Command:
        item = super().get_nowait()
        if isinstance(item, Lost):
            self._on_lost(item)
        return item

    def put(self, item: Command, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self.last = item
        if isinstance(item, Revoke):
            self._meanwhile(item)
        elif isinstance(item, Rewound):
            self._on_rewound()


class Runtime:
    """The real runtime, its two threads run by hand, on played brokers."""

    def __init__(
        self,
        order: Order,
        cap: int,
        *,
        revoke_seconds: float = 10.0,
        brokers: Brokers | None = None,
        **settings: Any,
    ) -> None:
        """``brokers``: those of a runtime that was killed."""
        self.now = 0.0
        self.order = order
        self.cap = cap
        self.brokers = brokers or Brokers()
        self.unprocessed: list[SourceRecord] = []
        self.done: list[SourceRecord] = []
        self.assignment_of: dict[tuple[Partition, int], Held] = {}
        self.reasons: set[str] = set()
        self.fatal: list[BaseException] = []
        self.counts: Counter[str] = Counter()
        self.meanwhile: list[Step] = []
        self.waited: list[float] = []
        self.commands = Commands(self._while_revoking, self._lost, lambda: self.release.run_once())
        self.clients: list[Client] = []

        def new_client(settings: Mapping[str, Any], logger: object) -> Any:
            self.clients.append(Client(self.brokers, settings, logger))
            return self.clients[-1]

        self.source = PollThread(
            PollSettings(settings, ["in"], cap, 1_000_000, revoke_seconds, 30.0, "in", notes=True),
            self.commands,
            self._on_records,
            self._on_revoked,
            self.fatal.append,
            lambda: self.brokers.answers_others,
            self,
            clock=lambda: self.now,
            new_consumer=new_client,
        )
        self.source.in_flight.stall_seconds = 0.0  # a stall would wait for a thread that is not there
        self.publisher = Publisher(self)
        publisher: Any = self.publisher
        self.release = ReleaseThread(
            Ledger(order),
            self.commands,
            publisher,
            self.source,
            self,
            self.fatal.append,
            1.0,
            lambda: self.now,
        )
        self.source.subscribe()

    def __getattr__(self, name: str) -> Any:
        """An observer that only counts."""
        if name not in vars(KafkaObserver):
            raise AttributeError(name)

        def count(*_: Any) -> None:
            self.counts[name] += 1

        return count

    def _on_records(self, records: list[SourceRecord]) -> None:
        assert not self.reasons, f"records arrive although consumption is paused for {self.reasons}"
        assert self.commands.last == Delivered(records), "they can be processed before the ledger knows them"
        for record in records:
            held = self.brokers.held[Partition.of(record)]
            known = self.assignment_of.setdefault((Partition.of(record), record.epoch), held)
            assert known is held, "two assignments share an epoch"
            held.handed.add(record.offset)
        self.unprocessed += records

    def _on_revoked(self, epochs: Mapping[Partition, int]) -> None:
        assert not set(epochs.values()) & set(self.source.epochs.values()), (
            "an epoch that is reported to be over is not"
        )

    def _lost(self, lost: Lost) -> None:
        known = (self.assignment_of.get(each) for each in lost.epochs.items())
        self.brokers.given_back += [held for held in known if held is not None]

    def _while_revoking(self, revoke: Revoke) -> None:
        started = self.now
        for what, which in self.meanwhile:
            self.release.run_once()
            if what == "process":
                self.processed(which)
            elif what == "ack":
                self.acknowledge(which)
            else:
                self.now += which % 4
        self.release.run_once()
        if revoke.reply.empty():
            self.now = max(self.now, revoke.deadline)
            self.release.run_once()
        self.waited.append(self.now - started)
        assert not revoke.reply.empty(), "a revocation is answered at its deadline"

    def processed(self, index: int) -> None:
        """Any record that was not processed yet is now, also of an assignment that is over."""
        if self.unprocessed:
            record = self.unprocessed.pop(index % len(self.unprocessed))
            self.done.append(record)
            self.commands.put((record, OUTCOME))

    def processed_again(self, index: int) -> None:
        """Any record that was processed before is once more."""
        if self.done:
            self.commands.put((self.done[index % len(self.done)], OUTCOME))

    def acknowledge(self, index: int) -> None:
        """Any output that is under way."""
        if self.publisher.under_way:
            self.publisher.acknowledge(index % len(self.publisher.under_way))

    def rebalance(
        self, kind: str, partitions: Iterable[Partition] = PARTITIONS, meanwhile: Sequence[Step] = ()
    ) -> None:
        """``assign``, ``revoke`` or ``lost``, one partition at a poll."""
        self.meanwhile = list(meanwhile)
        owned = set(self.brokers.held)
        for partition in partitions:
            if (kind == "assign") != (partition in owned):
                self.brokers.rebalances.append((kind, partition))
        while self.brokers.rebalances:
            self.source.run_once()

    def step(self) -> None:
        """Both threads come round, a second later."""
        self.now += 1.0
        self.source.run_once()
        self.release.run_once()

    def run_until_idle(self) -> None:
        """Everything is processed while commits fail; then they work, until nothing changes any more."""
        for reason in list(self.reasons):
            self.reasons.discard(reason)
            self.source.resume(reason)
        self.brokers.healthy = self.brokers.answering = False
        for _ in range(3):
            self._process_everything()
        self.brokers.healthy = self.brokers.answering = True
        quiet = 0
        while quiet < 4:
            before = self._state()
            self._process_everything()
            quiet = quiet + 1 if self._state() == before else 0

    def _process_everything(self) -> None:
        while self.unprocessed:
            self.processed(0)
        self.step()
        while self.publisher.under_way:
            self.publisher.acknowledge(-1)
        self.step()

    def _state(self) -> tuple[Any, ...]:
        committed = [log.committed for log in self.brokers.logs.values()]
        return len(self.done), committed, self.source.in_flight.events, len(self.clients[-1].answers)


def runtime_with(records: int, **settings: object) -> Runtime:
    """Both partitions assigned, so many records in flight of the first."""
    runtime = Runtime("key", 100, **settings)  # type: ignore[arg-type]  # the settings of any client
    runtime.rebalance("assign")
    deliver(runtime, records)
    return runtime


def successor(killed: Runtime) -> Runtime:
    """SIGKILL, and another process that reads on: what the brokers hold is all that it knows."""
    brokers = killed.brokers
    for partition in list(brokers.held):
        brokers.take_away(partition)
    brokers.rebalances.clear()
    brokers.messages.clear()
    runtime = Runtime(killed.order, killed.cap, brokers=brokers)
    runtime.rebalance("assign")
    return runtime


def deliver(runtime: Runtime, records: int) -> None:
    for _ in range(records):
        runtime.brokers.logs[PARTITIONS[0]].append(0, None)
    before = len(runtime.unprocessed)
    while len(runtime.unprocessed) < before + records:
        runtime.source.run_once()


def _named(partitions: list[TopicPartition]) -> list[Partition]:
    return [Partition(p.topic, p.partition) for p in partitions]
