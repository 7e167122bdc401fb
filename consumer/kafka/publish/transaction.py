"""One transaction's outputs: handed to the producer, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.publish.at_least_once import ProducerClient
from consumer.kafka.publish.producers import KEYED, NOTHING_LEFT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import TopicPartition

    from consumer.delivery.commands import Processed
    from consumer.delivery.ledger import Release
    from consumer.events import Output, Partition
    from consumer.kafka.publish.producers import Oversize, PartitionCounts

SLICE_SECONDS = 1.0
"""Longest single wait for a broker; in between the release thread hears of revocations, and shows that it turns."""


REPORTS_SECONDS = 0.1

_CONSEQUENCES = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._STATE})
"""What records get of a transaction that failed for another reason."""

_SEE_LOG = "the brokers let it not into the transaction; the client's own line before this one says why"


class TransactionalProducer(ProducerClient, Protocol):
    """What transactions need of ``confluent_kafka.Producer`` too. Methods raise KafkaException; times in seconds."""

    def init_transactions(self, timeout: float) -> None:
        """Fence earlier holders of the transactional id; may be called again when the time was not enough."""

    def begin_transaction(self) -> None:
        """Open a transaction."""

    def send_offsets_to_transaction(self, positions: list[TopicPartition], group_metadata: Any, timeout: float) -> None:
        """Make the group's offsets part of the transaction."""

    def commit_transaction(self, timeout: float) -> None:
        """Commit; may be called again when the time was not enough."""

    def abort_transaction(self, timeout: float) -> None:
        """Abort; may be called again when the time was not enough."""


class Ownership(Protocol):
    """What the group says of this worker now."""

    @property
    def epochs(self) -> Mapping[Partition, int]:
        """Assigned partitions with their epochs."""

    @property
    def group_metadata(self) -> object:
        """The consumer's ``consumer_group_metadata()``, taken no later than ``epochs`` is read; None before it has any.

        Metadata of a later generation would commit offsets of partitions that this generation gave to others. That of
        an earlier one is refused by the broker, and taken anew in the next transaction.
        """


class Producers(Protocol):
    """The producer of now, and the next one with the same transactional id."""

    @property
    def current(self) -> TransactionalProducer:
        """What to produce with."""

    def replace(self) -> TransactionalProducer:
        """Take another one, which then is ``current``."""


@dataclass(eq=False, slots=True)
class Held:
    """A released outcome that is not durable yet. ``outputs`` has smaller ones in place of those refused for size."""

    release: Release[Processed]
    outputs: list[Output]
    since: float
    """Monotonic seconds of its release."""


Verdict = Literal["refused", "too large together", "replaced"]


@dataclass(frozen=True, slots=True)
class _Failed:
    held: Held
    index: int
    error: KafkaError
    alone: bool
    """Whether a size is that of this very record."""


class Refused(NamedTuple):
    """Why a transaction cannot be committed: a topic (or what else is named) with the error's name and text."""

    what: str
    code: str
    reason: str


@dataclass(eq=False, slots=True)
class Transaction:
    """What goes in, and what was refused. Reports that come after an abort reach an object nobody looks at any more.

    With ``singly`` every record is produced by itself, so that a refusal for its size speaks of this very record:
    brokers refuse a whole batch for one record, or for the size of all of them together.
    """

    batch: list[Held]
    offsets: Mapping[Partition, tuple[int, int]]
    """(epoch, position) of each partition."""
    singly: bool
    started: float
    refused: Refused | None = None
    """Set when the next one must not follow at once."""
    _failed: list[_Failed] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a record was refused: then nothing is left but an abort."""
        return bool(self._failed)

    def produce(self, producer: TransactionalProducer, counts: PartitionCounts, oversize: Oversize) -> None:
        """Hand over all outputs, or those up to the first that is refused at once."""
        for held in self.batch:
            for index in range(len(held.outputs)):
                self._produce_one(producer, counts, oversize, held, index)
                while self.singly and not self._failed and producer.flush(SLICE_SECONDS):
                    pass  # message.timeout.ms bounds it
                if self._failed:
                    return

    def judge(self, oversize: Oversize) -> Verdict:
        """What a refusal means. A record refused alone for its size is replaced by a smaller one."""
        # A refusal fails the rest of the transaction too: the client purges it, and takes nothing more.
        first = next((each for each in self._failed if each.error.code() not in _CONSEQUENCES), self._failed[0])
        topic = first.held.outputs[first.index].topic
        if first.error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
            reason = _SEE_LOG if first.error.code() in _CONSEQUENCES else first.error.str()
            self.refused = Refused(topic, first.error.name(), reason)
            return "refused"
        if not first.alone:
            return "too large together"
        if not _shrink(oversize, first.held, first.index):
            self.refused = Refused(topic, first.error.name(), NOTHING_LEFT)
            return "refused"
        return "replaced"

    def _produce_one(
        self, producer: TransactionalProducer, counts: PartitionCounts, oversize: Oversize, held: Held, index: int
    ) -> None:
        while True:
            output = held.outputs[index]
            partition = counts.place(output, held.release.partition.topic)
            try:
                producer.produce(
                    output.topic,
                    value=output.value,
                    key=output.key,
                    partition=KEYED if partition is None else partition,
                    headers=list(output.headers),
                    on_delivery=partial(self._report, held, index),
                    timestamp=output.timestamp_ms or 0,  # 0 is now
                )
            except BufferError:
                if len(producer):
                    producer.poll(SLICE_SECONDS)
                    continue
                # Larger than the whole queue: it would never find room.
            except KafkaException as error:
                problem = error.args[0]
                if problem.fatal():
                    raise
                if problem.code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    producer.poll(REPORTS_SECONDS)  # where another record was refused meanwhile, its report says why
                    self._failed.append(_Failed(held, index, problem, alone=True))
                    return
            else:
                return
            if not _shrink(oversize, held, index):
                self._failed.append(_Failed(held, index, KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), alone=True))
                return

    def _report(self, held: Held, index: int, error: KafkaError | None, _: Any) -> None:
        if error is not None:
            self._failed.append(_Failed(held, index, error, alone=self.singly))


def _shrink(oversize: Oversize, held: Held, index: int) -> bool:
    smaller = oversize.instead(held.release.outcome.record, held.outputs[index])
    if smaller is not None:
        held.outputs[index] = smaller
    return smaller is not None
