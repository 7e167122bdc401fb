"""Where Apache Kafka's jars cannot be kept, its tests are skipped with the reason, and do not fail."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import apache_kafka
import pytest
from apache_kafka import JAVA_RELEASE, KafkaUnavailable, fetch_jars

if TYPE_CHECKING:
    from pathlib import Path


def test_a_checkout_that_cannot_be_written_is_a_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a read-only one, or a full disk."""
    (tmp_path / ".cache").touch()
    monkeypatch.setattr(apache_kafka, "ROOT", tmp_path)
    monkeypatch.setattr(apache_kafka, "java_release", lambda: JAVA_RELEASE)
    monkeypatch.setattr(shutil, "which", lambda _: "mvn")
    with pytest.raises(KafkaUnavailable, match=r"\.cache/kafka cannot be written \(.*\); run where it can"):
        fetch_jars()
