"""faust-streaming: an agent that takes events in batches, and acknowledges a batch when its results are delivered."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

import faust
from bench.peers.pipelines.extraction import LINGER_SECONDS, SESSION_MS, Extractor, Settings

SETTINGS = Settings.given()
EXTRACTOR = Extractor(SETTINGS)
APP = faust.App(
    SETTINGS.group,
    broker=f"kafka://{SETTINGS.bootstrap}",
    value_serializer="raw",
    key_serializer="raw",
    consumer_auto_offset_reset="earliest",
    broker_session_timeout=SESSION_MS / 1000,
    broker_heartbeat_interval=SESSION_MS / 3000,
    producer_linger=0.005,
    topic_disable_leader=True,
    store="memory://",
    processing_guarantee="at_least_once",
)
SOURCE = APP.topic(SETTINGS.source, value_serializer="raw")
OUTPUT = APP.topic(SETTINGS.output, value_serializer="raw")


@APP.agent(SOURCE)
async def extract(stream: Any) -> None:
    """Batches until stopped."""
    async for events in stream.take_events(SETTINGS.records, within=LINGER_SECONDS):
        results = await asyncio.to_thread(EXTRACTOR.extract, [event.value for event in events])
        sent = [await OUTPUT.send(key=event.key, value=result) for event, result in zip(events, results, strict=True)]
        await asyncio.gather(*sent)


if __name__ == "__main__":
    sys.argv = ["faust", "worker", "-l", "warn", "--without-web"]
    APP.main()
