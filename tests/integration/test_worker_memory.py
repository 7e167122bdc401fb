"""``rexstream run`` before the worst that producers may send: the memory of its process stays below what the docs say.

docs/operations.md has the formula; here it is worked out from the configuration of each worker.
"""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest
import stub_server
import yaml
from cells import cells_of
from confluent_kafka import Consumer, Producer
from stub_model import TOKENIZER
from stub_server import StubServer
from worker_run import Run

from consumer.config.tree import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import grpc

    from consumer.extraction.window import Cells, Window

MIB = 2**20
PARTITIONS = 8
"""The embedded broker keeps about 4 MB of each."""

TASKS = ("category", "event", "ner", "product_features", "purchase_intention", "relation", "review_topics", "sentiment")
SLOW_CALLS = PARTITIONS * len(TASKS)
"""The first record of each partition in a call for each task, at most: others must be answered beside them."""

HAN = [chr(0x4E00 + number) for number in range(3000)]
CHANCE = random.Random(17)


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def server() -> Iterator[StubServer]:
    stub = StubServer(threads=SLOW_CALLS + 8)
    yield stub
    stub.gate.set()
    stub.stop()


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Makes the test's worker."""
    runs: list[Run] = []

    def make(environment: dict[str, str], **settings: Any) -> Run:
        topics = [mock_broker.topic(PARTITIONS, label) for label in ("in", "out", "dead")]
        route = {"input": topics[0], "tasks": [*TASKS], "output": topics[1]}
        runs.append(
            Run(mock_broker.bootstrap, topics, server, tmp_path, routes=[route], environment=environment, **settings)
        )
        return runs[-1]

    yield make
    for run in runs:
        run.kill()


def words(characters: int) -> str:
    return "".join(CHANCE.choices(HAN, k=characters))


def memory(run: Run, field: str) -> float:
    """MiB of the worker's process: ``VmRSS`` now, ``VmHWM`` at its highest."""
    status = Path(f"/proc/{run.process.pid}/status").read_text("utf-8")
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024


def ceiling() -> float:
    """The formula of docs/operations.md with the defaults, in MiB."""
    config = Config()
    limits, batching = config.limits, config.batching
    known = 256 * MIB + limits.in_flight_bytes + limits.work_bytes + 96 * limits.value_bytes
    return (known + batching.max_in_flight * batching.max_tokens * 3072) / MIB


def send(run: Run, events: Sequence[dict[str, Any]]) -> None:
    """Events round the partitions, in order in each."""
    producer = Producer({"bootstrap.servers": run.bootstrap, "message.max.bytes": 2_000_000, "linger.ms": 5})
    for number, event in enumerate(events):
        producer.produce(run.input, json.dumps(event, ensure_ascii=False).encode(), partition=number % PARTITIONS)
    assert producer.flush(60) == 0


def slow_for_long_texts(late: threading.Event) -> Callable[[Any, grpc.ServicerContext], None]:
    """Calls with windows of more than 256 tokens wait for ``late``."""

    def before(request: Any, _: grpc.ServicerContext) -> None:
        if request.inputs["input_ids"].tensor_shape.dim[1].size > 256:
            late.wait(60)

    return before


def status(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.get("/status")[1]
    return found


def test_the_document_says_what_the_formula_gives() -> None:
    """And the file for Docker Compose gives a worker more than that."""
    root = Path(__file__).parents[2]
    document = (root / "docs/operations.md").read_text("utf-8")
    said = re.search(r"with the defaults and one input topic \*\*(\d+) MiB\*\*", document)
    assert said is not None
    assert int(said[1]) == ceiling()
    services = yaml.safe_load((root / "deploy/compose/compose.yaml").read_text("utf-8"))["services"]
    assert int(services["worker"]["mem_limit"].removesuffix("m")) >= 1.2 * ceiling()


@pytest.mark.broker
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_events_of_many_windows_stay_below_the_ceiling(server: StubServer, worker: Callable[..., Run]) -> None:
    """Four hundred schemas of 512 types, no two alike, long texts with eight tasks, objects of nothing but short names,
    while the model server does not answer.
    """
    run = worker({"REXSTREAM_LIMITS__TEXT_CHARS": "50000"})
    run.start()
    run.wait(lambda: run.get("/readyz")[0] == 200)
    server.gate.clear()
    names = [words(28) for _ in range(1500)]
    types: list[dict[str, Any]] = [
        {
            "text": words(650),
            "schema": dict.fromkeys(f"{n:03}{name}" for n, name in enumerate(CHANCE.sample(names, 512))),
        }
        for _ in range(400)
    ]
    long = [{"text": words(49_000)} for _ in range(40)]
    short = {"text": "好", "attributes": {f"{number:x}": "" for number in range(60_000)}}
    send(run, [*types, *long, *([short] * 8)])
    run.wait(lambda: status(run)["in_flight"]["events"] == 448)
    before = -1.0
    while (now := memory(run, "VmRSS")) != before:  # until it has taken all that it takes
        before = now
        threading.Event().wait(1.0)
    assert memory(run, "VmHWM") < ceiling()


@pytest.mark.broker
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_results_that_wait_for_a_slow_record_stay_below_the_budget(
    server: StubServer, worker: Callable[..., Run]
) -> None:
    """Each partition begins with a record whose answer is late; 184 MB of results would be held behind these eight.

    When the answers come, everything goes on.
    """
    late = threading.Event()
    server.before = slow_for_long_texts(late)
    environment = {
        "REXSTREAM_LIMITS__WORK_BYTES": str(32 * MIB),
        "REXSTREAM_BATCHING__MAX_IN_FLIGHT": str(SLOW_CALLS + 4),
    }
    run = worker(environment, delivery={"order": "partition"})
    run.start()
    run.wait(lambda: run.get("/readyz")[0] == 200)
    begin = memory(run, "VmRSS")
    filler = "界" * 32_000
    slow = [{"text": words(300)}] * PARTITIONS
    send(run, [*slow, *[{"text": "好", "attributes": {"filler": filler}}] * 30 * PARTITIONS])
    run.wait(lambda: status(run)["in_flight"]["events"] == 31 * PARTITIONS)
    busy = -1
    while (calls := server.calls) != busy:
        busy = calls
        threading.Event().wait(1.0)
    assert memory(run, "VmHWM") < begin + 23 + 32 + 70  # records, budget, one decoded value and the like
    late.set()
    run.wait(lambda: run.lag() == 0)
    assert memory(run, "VmHWM") < begin + 23 + 32 + 110


@pytest.mark.broker
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_model_that_finds_everything_stays_below_the_ceiling(
    worker: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of facts in every window, on every level, up to the limits, for a thousand reviews with eight tasks."""

    def everything(window: Window, _version: int, _tokenizer: object) -> Cells:
        start, end = window.text_start, window.length - 1
        types = np.flatnonzero(window.input_ids[:start] == TOKENIZER.type)[:13].tolist()
        text = range(start, min(end, start + 8))
        links = [(row, kind) for row in text for kind in types]
        spans = [(row, column) for row in text for column in text if row <= column]
        return cells_of(dict.fromkeys([*spans, *links, *((kind, row) for row, kind in links)], 2.0))

    monkeypatch.setattr(stub_server, "stub_cells", everything)
    run = worker({})
    run.start()
    run.wait(lambda: run.get("/readyz")[0] == 200)
    send(run, [{"text": words(500)} for _ in range(1000)])
    run.wait(lambda: status(run)["in_flight"]["events"] == 1000)
    for _ in range(5):
        threading.Event().wait(1.0)
    assert memory(run, "VmHWM") < ceiling()


@pytest.mark.broker
def test_with_room_for_one_event_at_a_time_everything_is_done_in_order(worker: Callable[..., Run]) -> None:
    """A budget of one byte: the oldest event goes on beyond it, and then the next."""
    run = worker({"REXSTREAM_LIMITS__WORK_BYTES": "1"}, delivery={"order": "partition"})
    run.start()
    values = [{"event_id": f"e{n}", "text": f"袋口封得严实{n}" * (1 + n % 40)} for n in range(80)]
    send(run, values)
    run.wait_for_results(len(values) * len(TASKS))
    run.wait(lambda: run.lag() == 0)
    assert len(run.results()) == len(values) * len(TASKS)
    assert run.end() == 0


def taken(run: Run) -> float:
    """``rexstream_work_bytes``."""
    lines = run.get("/metrics")[1].splitlines()
    return float(next(line for line in lines if line.startswith("rexstream_work_bytes")).split()[1])


@pytest.mark.broker
def test_what_a_revoked_partition_held_is_given_back(server: StubServer, worker: Callable[..., Run]) -> None:
    """Another member takes half of the partitions, with results that wait for the first record of each."""
    late = threading.Event()
    server.before = slow_for_long_texts(late)
    run = worker({"REXSTREAM_BATCHING__MAX_IN_FLIGHT": str(SLOW_CALLS + 4)}, delivery={"order": "partition"})
    run.start()
    run.wait(lambda: run.get("/readyz")[0] == 200)
    events = [{"text": words(300)}] * PARTITIONS + [{"text": f"袋口封得严实{n}"} for n in range(19 * PARTITIONS)]
    send(run, events)
    run.wait(lambda: sum(status(run)["totals"].values()) == 19 * PARTITIONS)
    server.stop()
    run.wait(lambda: "outage" in status(run)["paused"])  # nothing to wait for: a revocation takes no time
    before = taken(run)
    assert before > len(events) * len(TASKS) * 2000
    other = Consumer(
        {
            "bootstrap.servers": run.bootstrap,
            "group.id": run.group,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }
    )
    try:
        other.subscribe([run.input])
        run.wait(lambda: len(other.consume(100, 0.1)) >= 0 and len(other.assignment()) == PARTITIONS // 2)
        run.wait(lambda: taken(run) < 0.6 * before)
    finally:
        other.close()
    late.set()
    server.start()
    run.wait(lambda: run.lag() == 0)
    run.wait(lambda: taken(run) == 0)
