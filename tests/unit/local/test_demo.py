"""The demo's own producer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.kafka.clients.cluster import Reader
from consumer.local.broker import EmbeddedBroker
from consumer.local.demo import INPUT, Demo, _fingerprint, configuration
from consumer.local.demo_events import DemoEvent, sample_events
from consumer.local.processes import ChildError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.broker


def held(address: str) -> int:
    with Reader(address) as reader:
        watermarks = (reader.watermarks(INPUT, partition) for partition in reader.partitions(INPUT))
        return sum(high - low for low, high in watermarks)


def test_more_than_a_partition_holds_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """The error names the bound, and not one event has been produced."""
    events = [DemoEvent("same", b"x" * 100_000) for _ in range(30)]
    with EmbeddedBroker() as broker, Demo(tmp_path) as demo:
        with pytest.raises(ChildError, match="more than 2 MB"):
            demo.send(broker.bootstrap_servers, events)
        assert held(broker.bootstrap_servers) == 0


def test_the_server_warms_up_with_the_batches_that_the_worker_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A larger one would take seconds of the demo's start for nothing."""
    started: list[Sequence[str]] = []

    class Recorded:
        def __init__(self, arguments: Sequence[str], log: Path) -> None:  # noqa: ARG002
            started.append(arguments)

        def __enter__(self) -> Recorded:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def wait_until(self, condition: object, seconds: float) -> None:
            """Nothing was started."""

    monkeypatch.setattr("consumer.local.demo.Child", Recorded)
    with Demo(tmp_path) as demo:
        models, exported = demo.export_model()
    assert exported
    (arguments,) = started
    worker = configuration("broker:1", "model:1", models, "127.0.0.1:1")
    assert arguments[arguments.index("--max-tokens") + 1] == str(worker["batching"]["max_tokens"])


def test_another_checkpoint_or_exporter_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder outlives a release, and what another one exported may be of another form."""
    checkpoint, code = tmp_path / "checkpoint", tmp_path / "consumer"
    exporter, prompts = code / "model" / "export.py", code / "extraction" / "prompts.py"
    weights = checkpoint / "weights"
    for file in (exporter, prompts, weights):
        file.parent.mkdir(parents=True)
        file.write_text("one")
    monkeypatch.setattr("consumer.local.demo.consumer.__file__", str(code / "__init__.py"))
    folders = [_fingerprint(checkpoint)]
    for file in (exporter, prompts, weights):
        file.write_text("another")
        folders.append(_fingerprint(checkpoint))
    assert len(set(folders)) == 4


def test_the_shipped_reviews_are_sent(tmp_path: Path) -> None:
    """All that the demo sends fits into the embedded broker."""
    events = sample_events()
    with EmbeddedBroker() as broker, Demo(tmp_path) as demo:
        demo.send(broker.bootstrap_servers, events)
        assert held(broker.bootstrap_servers) == len(events)
