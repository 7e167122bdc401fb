"""One transaction: its steps, its outputs as they are handed to the producer, and what became of each.

``exactly_once`` goes through the steps; ``transaction_failures`` decides what follows one that failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from consumer.delivery.ledger import Release
from consumer.events import Outcome
from consumer.kafka.publish.producers import KEYED, LATER, PartitionCounts, produce
from consumer.kafka.publish.refusals import (
    BESIDE_ANOTHER,
    NO_TOPIC,
    NOTHING_LEFT,
    TOO_LARGE,
    Replacements,
    refused_for_itself,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from consumer.events import Output, Partition

SLICE_SECONDS = 1.0
"""Longest single wait for a broker; in between the release thread handles revocations, and the watchdog sees that its
loop runs."""

REPORTS_SECONDS = 0.1

INITIAL_SECONDS = 10.0
"""Longest wait for the coordinator at the start. librdkafka asks again by itself meanwhile; a second call while its
request is in flight makes two requests, and the second answer fences the producer of the first."""

OFFSETS_SECONDS = 2.0
"""Wait for the offsets to be taken into the transaction. librdkafka goes on beyond it where a broker does not answer at
all, up to transaction.timeout.ms; a rebalance does not wait for that."""

LOST_SECONDS = 5.0
"""A call that has not returned so long after transaction.timeout.ms is given up: by then the brokers have ended the
transaction."""

COMMIT_SECONDS = 10.0
"""Longest single wait for a commit, far above what it takes. It is cut into fewer slices than other waits: once, after
a broker's restart, librdkafka ended the process on a call that resumed a commit while its answer arrived."""

_CONSEQUENCES = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT, KafkaError._STATE, BESIDE_ANOTHER})
"""Errors of records whose transaction failed for another reason."""

TIMED_OUT = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT})
"""A record that could not be written in time. It holds up every input topic: where a partition takes no record, it
takes no end of the transaction either, and the brokers let the producer begin no other one before."""

_SEE_LOG = "the brokers did not let it into the transaction; the client's own line before this one says why"


Step = Enum("Step", "INITIALISE BEGIN PRODUCE FLUSH REVIEW SEND_OFFSETS AWAIT_OFFSETS COMMIT ABORT")
"""What is done next with a producer. A transaction that goes well takes the steps in this order, without REVIEW, which
finds out why an output was refused and leads to ABORT; from COMMIT and ABORT it goes on with BEGIN."""

WITHOUT_TRANSACTION = (Step.INITIALISE, Step.BEGIN)
"""Steps at which no transaction is open."""


class Refused(NamedTuple):
    """Why a transaction cannot be committed: a topic (or what else is named), and its error."""

    what: str
    error: KafkaError


NO_MEMBER = Refused("the group", KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "it has given this worker up"))


class _Failed(NamedTuple):
    release: Release
    output: Output
    error: KafkaError
    alone: bool
    """Whether a refusal for size is about this very record."""


@dataclass(eq=False, slots=True)
class Transaction:
    """The releases and offsets of one transaction, and the outputs that were refused.

    Reports that come after an abort reach an object that is no longer used.

    With ``singly`` every record is produced by itself, so that a refusal for its size is about this very record:
    brokers refuse a whole batch for one record, or for the size of all of them together.
    """

    batch: Sequence[Release] = ()
    offsets: Mapping[Partition, tuple[int, int]] = field(default_factory=dict)
    """(epoch, position) of each partition."""
    singly: bool = False
    started: float = 0.0
    """When it was opened, in monotonic seconds."""
    seconds: float = 0.0
    """How long it took until all of it was written."""
    refused: Refused | None = None
    """Why the next transaction must not follow at once; None when it may."""
    held: Collection[str] = ()
    """The input topics whose outcomes wait because one of their outputs was refused."""
    failed: list[_Failed] = field(default_factory=list)
    """Outputs that were refused: with any, nothing is left but an abort."""

    def produce(self, producer: Producer, counts: PartitionCounts, replacements: Replacements) -> None:
        """Hand over all outputs, or those up to the first that is refused at once."""
        for release in self.batch:
            for output in release.outcome.outputs:
                self._produce_one(producer, counts, replacements, release, output)
                while self.singly and not self.failed and producer.flush(SLICE_SECONDS):
                    pass  # message.timeout.ms bounds it
                if self.failed:
                    return

    def positions(self, leader_epochs: Mapping[Partition, int]) -> list[TopicPartition]:
        """The offsets as the client takes them, with the leader epoch of what was read of each partition."""
        return [
            TopicPartition(*p, offset, leader_epoch=leader_epochs.get(p, -1)) for p, (_, offset) in self.offsets.items()
        ]

    def lost(self, epochs: Mapping[Partition, int]) -> list[Partition]:
        """Partitions in it that have another epoch now, or none: they went to another worker."""
        return sorted(p for p, (epoch, _) in self.offsets.items() if epochs.get(p) != epoch)

    @property
    def topics(self) -> list[str]:
        """The topics of its outputs."""
        return sorted({output.topic for release in self.batch for output in release.outcome.outputs})

    @property
    def inputs(self) -> frozenset[str]:
        """The input topics of its outcomes."""
        return frozenset(release.partition.topic for release in self.batch)

    def review(
        self, replacements: Replacements, *, slow: bool = False
    ) -> Literal["refused", "batch too large", "replaced"]:
        """What a refusal means. A record refused alone for what it is, its size above all, is replaced.

        ``held`` are the input topics that a topic's refusal concerns; all, where it is not known which record it was.
        With ``slow`` none are then: the brokers may have ended the transaction.
        """
        # A refusal fails the rest of the transaction too: the client purges it, and takes nothing more.
        first = next((each for each in self.failed if each.error.code() not in _CONSEQUENCES), self.failed[0])
        error = first.error
        inputs: Collection[str] = (first.release.partition.topic,)
        if error.code() in _CONSEQUENCES:
            error = KafkaError(error.code(), _SEE_LOG)
            inputs = () if slow else self.inputs
        elif refused_for_itself(error, first.output):
            if not first.alone:
                return "batch too large"
            if replacements.replace(first.release, first.output, error) is not None:
                return "replaced"
            error = KafkaError(error.code(), NOTHING_LEFT)
        self.refused = Refused(first.output.topic, error)
        if error.code() not in TIMED_OUT and not error.txn_requires_abort():
            self.held = inputs
        return "refused"

    def _produce_one(
        self, producer: Producer, counts: PartitionCounts, replacements: Replacements, release: Release, output: Output
    ) -> None:
        while True:
            partition = counts.place(output, release.partition.topic)
            report = partial(self._report, release, output)
            try:
                produce(producer, output, KEYED if partition in (None, LATER) else partition, report)
            except BufferError:
                if len(producer):
                    producer.poll(SLICE_SECONDS)
                    continue
                problem = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)  # larger than the whole queue: it would never fit
            except KafkaException as error:
                problem = error.args[0]
                if problem.fatal():
                    raise
            else:
                return
            if problem.code() not in TOO_LARGE:
                producer.poll(REPORTS_SECONDS)  # where another record was refused meanwhile, its report says why
            elif (smaller := replacements.replace(release, output, problem)) is not None:
                output = smaller
                continue
            self.failed.append(_Failed(release, output, problem, alone=True))
            return

    def _report(self, release: Release, output: Output, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self.failed.append(_Failed(release, output, error, alone=self.singly))


def first_unplaced(batch: Sequence[Release], counts: PartitionCounts) -> tuple[str, Refused | None] | None:
    """The first input topic one of whose outputs has no place, and why; None for why where it is not known yet."""
    for release in batch:
        for output in release.outcome.outputs:
            partition = counts.place(output, release.partition.topic)
            if partition is None:
                error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, NO_TOPIC)
                return release.partition.topic, Refused(output.topic, error)
            if partition == LATER:
                return release.partition.topic, None
    return None


def one_of_each_partition(transaction: Transaction, counts: PartitionCounts) -> list[Release]:
    """Enough of its outcomes to produce to every partition that was in it; what was refused never came into it."""
    seen: set[tuple[str, int | bytes | None]] = set()
    chosen = []
    for release in transaction.batch:
        if release.partition.topic in transaction.held:
            continue
        first = []
        for output in release.outcome.outputs:
            partition = counts.place(output, release.partition.topic)
            if partition is None:
                continue  # its topic is gone
            place = (output.topic, output.key if partition in (LATER, KEYED) else partition)
            if place not in seen:
                seen.add(place)
                first.append(output)
        if first:
            chosen.append(Release(release.partition, release.record, Outcome("done", tuple(first))))
    return chosen
