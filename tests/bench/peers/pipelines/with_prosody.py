"""prosody-events: one handler call a key, which waits for its batch and for its result's delivery."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from bench.peers.pipelines.extraction import Batches, Extractor, Settings
from prosody import EventHandler, ProsodyClient


class Handler(EventHandler):
    """Many at a time, each key's in order."""

    def __init__(self, client: Any, settings: Settings) -> None:
        self._client, self._output = client, settings.output
        self._batches = Batches(settings.records, Extractor(settings).results)

    async def on_message(self, context: Any, message: Any) -> None:  # noqa: ARG002
        """One event."""
        result = await self._batches.extract(message.payload)
        await self._client.send(self._output, message.key, result)

    async def on_excise(self, context: Any, message: Any) -> None:
        """No event has none."""

    async def on_timer(self, context: Any, timer: Any) -> None:
        """None is set."""


async def main(settings: Settings) -> None:
    """Until killed."""
    client = await ProsodyClient.create(
        bootstrap_servers=settings.bootstrap,
        group_id=settings.group,
        source_system=f"{settings.group}-results",
        subscribed_topics=settings.source,
        max_concurrency=4 * settings.records,
        mode="best-effort",
        probe_port=None,
        telemetry_enabled=False,
    )
    await client.subscribe(Handler(client, settings))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Settings.given()))
