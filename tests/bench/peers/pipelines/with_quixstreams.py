"""quixstreams: a sink that gets the records of a checkpoint, of all partitions together, and writes results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from bench.peers.pipelines.extraction import LINGER_SECONDS, SESSION_MS, Extractor, Settings
from quixstreams import Application
from quixstreams.sinks import BaseSink

SETTINGS = Settings.given()
APPLICATION = Application(
    SETTINGS.bootstrap,
    consumer_group=SETTINGS.group,
    auto_offset_reset="earliest",
    commit_every=SETTINGS.records,
    commit_interval=LINGER_SECONDS,
    consumer_poll_timeout=LINGER_SECONDS,
    consumer_extra_config={"session.timeout.ms": SESSION_MS},
    producer_extra_config={"linger.ms": 5},
    use_changelog_topics=False,
    auto_create_topics=False,
    processing_guarantee="at-least-once",
    loglevel="WARNING",
)


class Results(BaseSink):
    """One batch between two checkpoints; its results are delivered before the offsets are committed."""

    def __init__(self) -> None:
        super().__init__()
        self._extractor = Extractor(SETTINGS)
        self._batch: list[tuple[Any, bytes]] = []
        self._producer: Any = None

    def setup(self) -> None:
        """Called when the application starts."""
        self._producer = APPLICATION.get_producer()

    def add(self, value: Any, key: Any, **_: Any) -> None:
        """One record."""
        self._batch.append((key, value))

    def flush(self) -> None:
        """Called by the checkpoint before it commits."""
        batch, self._batch = self._batch, []
        for (key, _), result in zip(batch, self._extractor.extract([value for _, value in batch]), strict=True):
            self._producer.produce(SETTINGS.output, value=result, key=key)
        if self._producer.flush():
            raise RuntimeError("results were not delivered")


if __name__ == "__main__":
    topic = APPLICATION.topic(SETTINGS.source, value_deserializer="bytes", key_deserializer="bytes")
    APPLICATION.dataframe(topic).sink(Results())
    APPLICATION.run()
