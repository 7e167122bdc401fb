"""Outputs that a topic refuses: what the refusal means, and what takes the place of one that is refused for itself.

Both publishers come here when brokers refuse an output, and not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from confluent_kafka import KafkaError

from consumer.delivery.dead_letter_size import smaller, with_key, without_timestamp
from consumer.events import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.delivery.ledger import Release
    from consumer.events import Output, SourceRecord
    from consumer.kafka.clients.observer import KafkaObserver

NO_TOPIC = "it is missing, or no broker answers"
NOTHING_LEFT = "a dead letter is larger than it takes, even without value, key and details: raise its max.message.bytes"

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
"""A record or a batch is larger than max.message.bytes, or than a segment of the topic (segment.bytes)."""

BESIDE_ANOTHER = KafkaError._INVALID_DIFFERENT_RECORD
"""Another record of its batch was refused."""


def refused_for_itself(error: KafkaError, output: Output) -> bool:
    """Whether ``error`` may be about ``output`` and no other: its topic takes others, so trying again helps nobody.

    Besides its size: a compacted topic takes no record without a key, and a topic may bound how old or new timestamps
    are (message.timestamp.before.max.ms), of which only dead letters bring the producer's.
    """
    code = error.code()
    return (
        code in TOO_LARGE
        or code == BESIDE_ANOTHER
        or (code == KafkaError.INVALID_RECORD and output.key is None)
        or (code == KafkaError.INVALID_TIMESTAMP and output.timestamp_ms is not None)
    )


@dataclass(frozen=True, slots=True)
class Replacements:
    """What replaces an output that its topic refuses for what it is (``refused_for_itself``).

    For a result that is a dead letter, made by ``make(record, output, why)``.
    """

    dead_letter_topic: str
    make: Callable[[SourceRecord, Output, Literal["size", "no key"]], Output]
    observer: KafkaObserver

    def replace(self, release: Release, output: Output, error: KafkaError) -> Output | None:
        """A dead letter for a result; for a dead letter one that the topic rather takes (``dead_letter_size``).

        It takes the place of ``output`` in the outcome of ``release``. None when nothing is left that could be changed.
        """
        code = error.code()
        self.observer.produce_refused(output.topic, error.name())
        instead: Output | None
        if output.topic != self.dead_letter_topic:
            instead = self.make(release.record, output, "size" if code in TOO_LARGE else "no key")
        elif code in TOO_LARGE:
            instead = smaller(output)
        else:
            instead = without_timestamp(output) if code == KafkaError.INVALID_TIMESTAMP else with_key(output)
        if instead is not None:
            outputs = release.outcome.outputs
            release.outcome = Outcome("done", tuple(instead if each is output else each for each in outputs))
        return instead
