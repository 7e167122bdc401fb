"""aiokafka: getmany, a batch in a thread, send, wait for the acknowledgements, commit."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from bench.peers.pipelines.extraction import LINGER_SECONDS, SESSION_MS, Extractor, Settings


async def main(settings: Settings) -> None:
    """Until killed."""
    extractor = Extractor(settings)
    consumer = AIOKafkaConsumer(
        settings.source,
        bootstrap_servers=settings.bootstrap,
        group_id=settings.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=SESSION_MS // 3,
    )
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True, linger_ms=5)
    await consumer.start()
    await producer.start()
    while True:
        found = await consumer.getmany(timeout_ms=int(LINGER_SECONDS * 1000), max_records=settings.records)
        records = [record for one in found.values() for record in one]
        if not records:
            continue
        results = await asyncio.to_thread(extractor.extract, [record.value for record in records])
        sent = [
            await producer.send(settings.output, result, key=record.key)
            for record, result in zip(records, results, strict=True)
        ]
        await asyncio.gather(*sent)
        await consumer.commit({partition: one[-1].offset + 1 for partition, one in found.items()})


if __name__ == "__main__":
    asyncio.run(main(Settings.given()))
