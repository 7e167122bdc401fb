"""The Apache Kafka that scenarios run on: one cluster at a time, kept while the next scenario wants an equal one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from apache_kafka import POM, ApacheKafka, fetch_jars

if TYPE_CHECKING:
    from chaos.scenario import Kafka


class Clusters:
    """A context manager: nothing runs after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wanted: Kafka | None = None
        self._running: ApacheKafka | None = None

    def __enter__(self) -> Clusters:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get(self, wanted: Kafka) -> ApacheKafka:
        """A running cluster as ``wanted``. Raises KafkaUnavailable when there is none to be had."""
        if self._running is None or wanted != self._wanted:
            self.stop()
            folder = Path(tempfile.mkdtemp(prefix="kafka-", dir=self._folder))
            kafka = ApacheKafka(fetch_jars(wanted.pom or POM), folder, wanted.brokers)
            for settings in folder.glob("broker-*/server.properties"):
                with settings.open("a") as lines:
                    lines.writelines(f"{line}\n" for line in wanted.settings)
            kafka.start()
            self._wanted, self._running = wanted, kafka
        return self._running

    def stop(self) -> None:
        """End what runs; also after a scenario that left it in an unknown state."""
        if self._running is not None:
            self._running.kill()
            self._running = None
