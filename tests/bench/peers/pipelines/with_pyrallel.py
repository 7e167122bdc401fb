"""pyrallel-consumer, asyncio engine: a worker call waits for its batch and for its result's delivery."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from bench.peers.pipelines.extraction import SESSION_MS, Batches, Extractor, Settings
from confluent_kafka.aio import AIOProducer
from pyrallel_consumer.config import ExecutionConfig, KafkaConfig, ParallelConsumerConfig
from pyrallel_consumer.consumer import PyrallelConsumer
from pyrallel_consumer.dto import ExecutionMode, OrderingMode


async def main(settings: Settings) -> None:
    """Until killed."""
    batches = Batches(settings.records, Extractor(settings).extract)
    producer = AIOProducer(
        {"bootstrap.servers": settings.bootstrap, "enable.idempotence": True, "linger.ms": 5},
        batch_size=settings.records,
        buffer_timeout=0.005,  # a second by default, for which each record would wait
    )

    async def extract(item: Any) -> None:
        result = await batches.extract(item.payload)
        await (await producer.produce(settings.output, value=result, key=item.key))

    config = KafkaConfig(
        BOOTSTRAP_SERVERS=[settings.bootstrap],
        CONSUMER_GROUP=settings.group,
        SESSION_TIMEOUT_MS=SESSION_MS,
        dlq_enabled=False,
        parallel_consumer=ParallelConsumerConfig(
            ordering_mode=OrderingMode.UNORDERED,
            execution=ExecutionConfig(mode=ExecutionMode.ASYNC),
        ),
    )
    consumer = PyrallelConsumer(config, extract, settings.source)
    await consumer.start()
    await consumer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(Settings.given()))
