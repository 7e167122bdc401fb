"""faststream over confluent-kafka: a batch subscriber that publishes a batch; acknowledged when both are done."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from bench.peers.pipelines.extraction import LINGER_SECONDS, SESSION_MS, Extractor, Settings
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker, KafkaMessage, KafkaPublishMessage

SETTINGS = Settings.given()
EXTRACTOR = Extractor(SETTINGS)
BROKER = KafkaBroker(
    SETTINGS.bootstrap,
    config={"session.timeout.ms": SESSION_MS},
    allow_auto_create_topics=False,
    linger_ms=5,
    logger=None,
)


async def raw(message: KafkaMessage) -> list[bytes]:
    """A decoder that leaves the bytes to the engine, which parses the events."""
    return [record.value() for record in message.raw_message]


@BROKER.subscriber(
    SETTINGS.source,
    group_id=SETTINGS.group,
    auto_offset_reset="earliest",
    batch=True,
    max_records=SETTINGS.records,
    polling_interval=LINGER_SECONDS,
    ack_policy=AckPolicy.NACK_ON_ERROR,
    decoder=raw,
)
async def extract(values: list[bytes], message: KafkaMessage) -> None:
    """One batch."""
    results = await asyncio.to_thread(EXTRACTOR.extract, values)
    records = zip(message.raw_message, results, strict=True)
    await BROKER.publish_batch(
        *(KafkaPublishMessage(result, key=record.key()) for record, result in records), topic=SETTINGS.output
    )


if __name__ == "__main__":
    asyncio.run(FastStream(BROKER, logger=None).run())
