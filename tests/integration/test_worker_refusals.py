"""``rexstream run`` with a configuration that parses and cannot work: exit code 2 and the reason, no traceback."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest
from stub_server import StubServer
from worker_run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Broker(Protocol):
    """What the ``mock_broker`` fixture gives."""

    bootstrap: str

    def topic(self, partitions: int) -> str: ...


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """That of a worker whose model answers; no test gets as far as to Kafka."""
    stub = StubServer()
    Run("127.0.0.1:9", ("in", "out", "dead"), stub, tmp_path)
    yield tmp_path / "config.yaml"
    stub.stop()


def run(config: Path, *settings: str) -> str:
    """What a worker that ends with code 2 writes."""
    command = [sys.executable, "-m", "consumer", "run", "--config", str(config)]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:70000", "65535"), (f"{'x' * 70}.example:9464", "label"), ("a]b:9464", "which no host is called")],
)
def test_an_http_address_that_cannot_be_opened(config: Path, address: str, words: str) -> None:
    """A port that no socket has, a name that no resolver takes, and what only looks like host:port."""
    said = run(config, f"observability.http={address}")
    assert "observability.http" in said
    assert words in said


def test_a_password_file_that_cannot_be_read(config: Path, tmp_path: Path) -> None:
    """The file is named; one that is no text is not quoted."""
    registry = ("kafka.registry.url=http://127.0.0.1:9", "kafka.registry.username=reader")
    missing = tmp_path / "nowhere"
    assert f"password_file {missing} cannot be read" in run(
        config, *registry, f"kafka.registry.password_file={missing}"
    )
    binary = tmp_path / "binary"
    binary.write_bytes(b"gehe\xfeim")
    said = run(config, *registry, f"kafka.registry.password_file={binary}")
    assert f"password_file {binary} is not UTF-8" in said
    assert "gehe" not in said


def test_exactly_once_on_the_embedded_broker(config: Path, mock_broker: Broker) -> None:
    """Its transactions answer OK and keep nothing, so a worker would double and lose without a sign."""
    said = run(config, f"kafka.bootstrap_servers={mock_broker.bootstrap}", "delivery.mode=exactly_once")
    assert "the embedded broker" in said
    assert "at_least_once" in said


def test_a_start_time_on_the_embedded_broker(config: Path, mock_broker: Broker) -> None:
    """It answers any time with "no such record", so a worker would skip all that is there."""
    place = (f"kafka.bootstrap_servers={mock_broker.bootstrap}", f"routes.0.input={mock_broker.topic(1)}")
    said = run(config, *place, "kafka.start=2026-11-01T00:00:00Z")
    assert "the embedded broker cannot look up times" in said
    assert "kafka.start latest" in said
