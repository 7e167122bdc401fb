"""sentry-arroyo: Reduce, RunTaskInThreads with two batches at a time, Unfold, Produce, CommitOffsets once a second."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration, build_kafka_producer_configuration
from arroyo.commit import ONCE_PER_SECOND
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, Produce, Reduce, RunTaskInThreads, Unfold
from arroyo.processing.strategies.abstract import ProcessingStrategyFactory
from arroyo.types import Topic, Value
from bench.peers.pipelines.extraction import CALLS, LINGER_SECONDS, SESSION_MS, Extractor, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS = Settings.given()
EXTRACTOR = Extractor(SETTINGS)


def run_batch(message: Any) -> list[Any]:
    """A batch of payloads to as many payloads of results."""
    payloads = message.payload
    results = EXTRACTOR.extract([payload.value for payload in payloads])
    return [KafkaPayload(payload.key, result, []) for payload, result in zip(payloads, results, strict=True)]


def appended(batch: list[Any], value: Any) -> list[Any]:
    """Arroyo's accumulator."""
    batch.append(value.payload)
    return batch


class Factory(ProcessingStrategyFactory):
    """The strategies of one assignment."""

    def create_with_partitions(self, commit: Any, partitions: Mapping[Any, int]) -> Any:  # noqa: ARG002
        """From the last step to the first, as arroyo wants them."""
        produce = Produce(PRODUCER, Topic(SETTINGS.output), CommitOffsets(commit))
        unfold = Unfold(lambda payloads: [Value(payload, {}, None) for payload in payloads], produce)
        threads = RunTaskInThreads(run_batch, concurrency=CALLS, max_pending_futures=2 * CALLS, next_step=unfold)
        return Reduce(SETTINGS.records, LINGER_SECONDS, appended, list, threads)


PRODUCER = KafkaProducer(
    build_kafka_producer_configuration({"bootstrap.servers": SETTINGS.bootstrap}, override_params={"linger.ms": 5})
)

if __name__ == "__main__":
    consumer = KafkaConsumer(
        build_kafka_consumer_configuration(
            {"bootstrap.servers": SETTINGS.bootstrap, "session.timeout.ms": SESSION_MS},
            group_id=SETTINGS.group,
            auto_offset_reset="earliest",
        )
    )
    StreamProcessor(consumer, Topic(SETTINGS.source), Factory(), ONCE_PER_SECOND).run()
