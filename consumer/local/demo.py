"""The demo: broker, model server and worker as processes of their own on this machine, run by ``rexstream demo``.

It starts the parts, sends the events, and reads every outcome; ``demo_outcome`` audits and ``demo_summary`` draws them.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import confluent_kafka as ck
import yaml
from prometheus_client.parser import text_string_to_metric_families

import consumer
from consumer.config.shipped import shipped
from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable, look_up
from consumer.kafka.tools.reader import Tail, headers_of
from consumer.kafka.tools.sender import NewRecord, Sender
from consumer.local.demo_outcome import Seen, WorkerNumbers
from consumer.local.partition_budget import PartitionBudget, PartitionFull
from consumer.local.processes import Child, ChildError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.local.demo_events import DemoEvent


INPUT, OUTPUT, DEAD = "reviews.raw", "reviews.extracted", "reviews.dead"
MODEL = "rexuninlu"
MAX_TOKENS = 4096
"""Padded tokens of a batch, and of the largest one of the warm-up: on two cores many thousand take seconds."""
COST: Final = {"floor_seconds": 0.01, "fixed_seconds": 0.0055, "linear_seconds": 1.2e-4, "square_seconds": 6e-8}
"""Of the demo model on two cores, as ``rexstream tune`` measures it: padding is dear there, and another call is not."""

_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses without a proxy: one that the environment names cannot reach this machine's loopback."""


class Demo(ExitStack):
    """The parts of the demo in the order in which they are needed. A context manager that stops what it started."""

    START_SECONDS = 120.0
    STALL_SECONDS = 60.0

    def __init__(self, folder: Path) -> None:
        """``folder`` takes the exported model, kept for the next time, and this run's logs and configuration."""
        super().__init__()
        self._folder = folder
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._worker: Child

    def _start(self, *arguments: str) -> Child:
        return self.enter_context(Child(arguments, self._logs / f"{arguments[0]}.log"))

    def export_model(self) -> tuple[Path, bool]:
        """The demo model as a SavedModel: the folder that the server polls, and whether it was exported just now."""
        checkpoint = shipped("deploy/demo-model")
        models = self._folder / "models" / _fingerprint(checkpoint)
        if (models / MODEL / "1" / "saved_model.pb").exists():
            return models, False
        log = self._logs / "export.log"
        arguments = ["--checkpoint", str(checkpoint), "--output", str(models / MODEL), "--version", "1"]
        with Child(["export", *arguments, "--max-tokens", str(MAX_TOKENS)], log) as export:
            export.wait_until(lambda: (models / MODEL / "1" / "saved_model.pb").exists(), 300)
        return models, True

    def parameters(self, models: Path) -> int:
        """How many the model has, as its export counted them."""
        bundle = json.loads((models / MODEL / "1" / "bundle" / "bundle.json").read_text("utf-8"))
        return int(bundle["model"]["parameters"])

    def start_servers(self, models: Path) -> tuple[str, str]:
        """Embedded broker and local model server; their addresses."""
        addresses = self._folder / "broker.address"
        addresses.unlink(missing_ok=True)
        broker = self._start("broker", "--port", "0", "--address-file", str(addresses), "--exit-with-parent")
        server = self._start("serve", "--models", str(models), "--port", "0", "--json", "--exit-with-parent")
        broker.wait_until(lambda: addresses.exists() and bool(addresses.read_text().strip()), self.START_SECONDS)
        server.wait_until(lambda: _address_in(server.output()) is not None, self.START_SECONDS)
        return addresses.read_text().strip(), _address_in(server.output()) or ""

    def start_worker(self, broker: str, model_server: str, models: Path) -> str:
        """``rexstream run`` on a configuration file that is written for this run; its HTTP address once it is ready."""
        http = f"127.0.0.1:{_free_port()}"
        path = self._folder / "config.yaml"
        path.write_text(yaml.safe_dump(configuration(broker, model_server, models, http), allow_unicode=True))
        # The embedded broker makes a topic when it is first asked about it.
        producer = ck.Producer({"bootstrap.servers": broker})
        for topic in (INPUT, OUTPUT, DEAD):
            producer.list_topics(topic, timeout=10)
        self._worker = self._start("run", "--config", str(path))
        self._worker.wait_until(lambda: _is_ready(f"http://{http}/readyz"), self.START_SECONDS)
        return http

    def send(self, broker: str, events: Sequence[DemoEvent]) -> None:
        """Produce all events; returns when the broker has acknowledged every one.

        Raises ChildError, before the first is produced, when the embedded broker cannot hold all of them.
        """
        try:
            budget = PartitionBudget(look_up(broker, INPUT).partitions)
            partitions = [budget.admit(event.key.encode(), event.value) for event in events]
        except (ClusterUnreachable, TopicUnusable, PartitionFull) as error:
            raise ChildError(f"nothing was sent to {INPUT}: {error}") from error
        sender = Sender(broker, INPUT, timeout=30)
        places = zip(events, partitions, strict=True)
        sender.send(NewRecord(event.key, event.key.encode(), event.value, (), number) for event, number in places)
        if failures := sender.finish().failures:
            raise ChildError(f"the broker did not take every event: {'; '.join(failures[:3])}")

    def collect(self, broker: str, expected: int, progress: Callable[[int], None]) -> Seen:
        """Read results and dead letters until ``expected`` came; raises ChildError when none comes for a minute."""
        seen = Seen()
        last = time.monotonic()
        with Tail(broker, (OUTPUT, DEAD), "beginning") as tail:
            while (count := len(seen.results) + len(seen.dead_letters)) < expected:
                if message := tail.poll(0.1):
                    _note(seen, message)
                    last = time.monotonic()
                    progress(len(seen.results) + len(seen.dead_letters))
                else:
                    self._worker.require_running()
                if time.monotonic() - last > self.STALL_SECONDS:
                    end = self._worker.last_lines()
                    raise ChildError(f"{count} of {expected} outcomes came, then none for a minute{end}")
        return seen

    def worker_numbers(self, http: str) -> WorkerNumbers:
        """The worker's own figures, from /metrics and /status."""
        samples = {
            (sample.name, sample.labels.get("outcome", "")): sample.value
            for family in text_string_to_metric_families(_get(f"http://{http}/metrics"))
            for sample in family.samples
        }
        batches = json.loads(_get(f"http://{http}/status"))["batches"]
        return WorkerNumbers(
            batches=int(samples["rexstream_batch_rows_count", ""]),
            windows=int(samples["rexstream_batch_rows_sum", ""]),
            batch_rows_p50=batches["rows_p50"],
            padding_ratio=batches["padding_ratio"],
            rss_bytes=samples.get(("process_resident_memory_bytes", ""), 0.0),
            dropped=int(samples.get(("rexstream_events_total", "dropped"), 0)),
        )

    def stop_worker(self) -> None:
        """Drain. Raises ChildError when the worker does not end cleanly."""
        if (code := self._worker.stop()) != 0:
            raise ChildError(f"the worker ended with exit code {code}{self._worker.last_lines()}")


def configuration(broker: str, model_server: str, models: Path, http: str) -> dict[str, Any]:
    """The worker's, with addresses of this run."""
    return {
        "kafka": {"bootstrap_servers": broker, "group_id": "rexstream-demo-worker"},
        "routes": [{"input": INPUT, "tasks": ["product_features", "sentiment", "category"], "output": OUTPUT}],
        "model": {"target": model_server, "name": MODEL, "bundle": str(models / MODEL / "1" / "bundle")},
        "batching": {"max_tokens": MAX_TOKENS, "max_in_flight": 1, "cost": COST},
        "delivery": {"dead_letter_topic": DEAD},
        "observability": {"http": http},
    }


def _note(seen: Seen, message: ck.Message) -> None:
    if message.topic() == DEAD:
        headers = {name: bytes(value or b"").decode("utf-8", "replace") for name, value in headers_of(message)}
        seen.dead_letters[(message.key() or b"").decode()] = headers
        return
    result = json.loads(message.value() or b"")
    key = (result["event_id"], result["task"])
    seen.doubled += key in seen.results
    seen.results[key] = result
    seen.latencies_ms.append(message.timestamp()[1] - result["record"]["timestamp"])


def _fingerprint(checkpoint: Path) -> str:
    """Changes with the checkpoint, with the code that exports it, and with the batches that it is exported for."""
    digest = hashlib.sha256(str(MAX_TOKENS).encode())
    code = Path(consumer.__file__).parent
    model = sorted((code / "model").glob("*.py"))
    files = sorted(path for path in checkpoint.iterdir() if path.is_file())
    for path in (*files, *model, code / "extraction/prompts.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _address_in(output: str) -> str | None:
    """The address in the model server's first line on standard output, once it has printed it."""
    lines = (line for line in output.splitlines() if line.startswith('{"address"'))
    return next((str(json.loads(line)["address"]) for line in lines), None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _get(url: str) -> str:
    with _LOOPBACK.open(url, timeout=5) as response:
        return str(response.read().decode())


def _is_ready(url: str) -> bool:
    try:
        return bool(_get(url))
    except OSError:  # an answer other than 200 among them
        return False
