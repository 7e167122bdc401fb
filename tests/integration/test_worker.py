"""``rexstream run`` as a process, between a broker and a model server that are not its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Protocol

import pytest
import stub_server
from stub_server import StubServer
from worker_run import TEXTS, Run, expected, ids, reviews

from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Run]:
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    run = Run(mock_broker.bootstrap, topics, server, tmp_path)
    yield run
    run.kill()


def test_a_worker_from_first_poll_to_last_commit(worker: Run) -> None:
    """Good and bad events in, one outcome for each, all committed, exit code 0 on SIGTERM, every log line is JSON."""
    worker.start()
    bad: list[tuple[str, bytes | None]] = [("b", b"\xff"), ("b", b"{"), ("b", b'{"text": ""}'), ("b", None)]
    values: list[tuple[str, bytes | None]] = [*reviews(30), *bad, *reviews(30, 30)]
    worker.send(values)
    worker.wait_for_results(120)
    worker.wait(lambda: len(worker.dead_letters()) == 3)
    worker.wait(lambda: worker.lag() == 0)
    assert worker.get("/livez")[0] == 200
    assert worker.get("/readyz") == (200, {"ok": True, "reasons": []})
    status = worker.get("/status")[1]
    assert status["state"] == "consuming"
    assert status["totals"] == {"done": 60, "dead_letter": 3, "dropped": 1}
    assert len(status["assignment"]) == 2
    assert 'rexstream_events_total{outcome="dropped"' in worker.get("/metrics")[1]
    assert worker.signal(signal.SIGTERM) == 0

    assert ids(worker.results()) == expected(60)
    classes = sorted(dict(headers_of(m))["rexstream-dlq-class"] or b"" for m in worker.dead_letters())
    assert classes == [b"EmptyText", b"InvalidJson", b"InvalidUtf8"]
    lines = worker.lines()
    assert {"timestamp", "level", "event", "logger", "worker"} <= set.intersection(*(set(line) for line in lines))
    assert not any(text in json.dumps(lines, ensure_ascii=False) for text in TEXTS), "review text is no log line"


def test_the_results_of_one_key_come_in_the_order_of_its_events(worker: Run) -> None:
    """Many batches are in flight at once; what one key sees is still its own order."""
    worker.start()
    worker.send(reviews(200))
    worker.wait_for_results(400)
    seen: dict[str, list[int]] = {}
    for message in read_to_end(worker.bootstrap, worker.output):
        result = json.loads(message.value() or b"")
        if result["task"] == "sentiment":
            seen.setdefault((message.key() or b"").decode(), []).append(int(result["event_id"][1:]))
    assert set(seen) == {f"k{i}" for i in range(7)}
    assert all(numbers == sorted(numbers) for numbers in seen.values())


def test_an_outage_of_the_model_server_pauses_and_dead_letters_nothing(worker: Run, server: StubServer) -> None:
    """While it is gone the worker is alive and not ready; when it is back, every event gets its results."""
    worker.start()
    worker.send(reviews(20))
    worker.wait_for_results(40)
    server.stop()
    worker.send(reviews(100, 20))
    worker.wait(lambda: worker.get("/readyz")[0] == 503)
    worker.wait(lambda: worker.get("/status")[1]["paused"] == ["outage"])
    assert worker.get("/livez")[0] == 200
    server.start()
    worker.wait_for_results(240)
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    assert worker.dead_letters() == []
    assert ids(worker.results()) == expected(120)
    worker.wait(lambda: worker.lag() == 0)


def test_a_worker_that_starts_during_an_outage_says_that_it_is_paused(worker: Run, server: StubServer) -> None:
    """In its metrics, before it has joined the group: what scales by lag must not start more that wait as well."""

    def paused(reason: str) -> list[str]:
        metrics = worker.get("/metrics")[1].splitlines()
        return [line.rpartition(" ")[2] for line in metrics if line.startswith("rexstream_paused") and reason in line]

    server.stop()
    worker.start()
    worker.wait(lambda: paused("outage") == ["1.0"])
    server.start()
    worker.wait(lambda: worker.get("/readyz")[0] == 200)
    worker.wait(lambda: paused("outage") == ["0.0"])


def test_a_killed_worker_loses_nothing_and_its_successor_doubles_only_what_was_in_flight(
    worker: Run, server: StubServer
) -> None:
    """SIGKILL in the middle: what was not committed is read again, and its copies have equal result ids."""
    worker.start()
    worker.send(reviews(40))
    worker.wait_for_results(80)
    worker.wait(lambda: worker.lag() == 0)
    server.gate.clear()
    worker.send(reviews(60, 40))
    calls = server.calls
    worker.wait(lambda: server.calls > calls)
    worker.kill()
    server.gate.set()
    worker.start()
    worker.wait_for_results(200)
    worker.wait(lambda: worker.lag() == 0)
    results = worker.results()
    assert set(ids(results)) == set(expected(100))
    committed_before = {f"e{i}" for i in range(40)}
    copies = [r for r in results if r["event_id"] in committed_before]
    assert ids(copies) == expected(40), "what was committed before the crash is not processed again"
    by_id: dict[str, set[tuple[str, str]]] = {}
    for result in results:
        by_id.setdefault(result["result_id"], set()).add((result["event_id"], result["task"]))
    assert all(len(names) == 1 for names in by_id.values())


def test_sigterm_in_the_middle_finishes_what_is_in_flight_and_doubles_nothing(worker: Run, server: StubServer) -> None:
    """A drained worker's successor goes on exactly where it stopped."""
    worker.start()
    # Its first call is no event's; held back, it would keep the worker from joining.
    worker.wait(lambda: any(line["event"] == "consuming" for line in worker.lines()))
    server.gate.clear()
    worker.send(reviews(150))
    worker.wait(lambda: server.calls > 1)
    timer = threading.Timer(1.0, server.gate.set)
    timer.start()
    assert worker.signal(signal.SIGTERM) == 0
    timer.join()
    worker.start()
    worker.wait_for_results(300)
    assert ids(worker.results()) == expected(150)


def test_sigusr1_logs_the_stack_of_every_thread_and_task(worker: Run, server: StubServer) -> None:
    """Asked of a worker with events in flight, it shows where each of them waits, and goes on; every line is JSON."""
    worker.start()
    worker.wait(lambda: any(line["event"] == "consuming" for line in worker.lines()))
    server.gate.clear()
    calls = server.calls
    worker.send(reviews(5))
    worker.wait(lambda: server.calls > calls)
    worker.process.send_signal(signal.SIGUSR1)

    def stacks(kind: str) -> dict[str, str]:
        lines = [line for line in worker.lines() if line.get("reason") == "SIGUSR1"]
        return {line[kind]: "\n".join(line["stack"]) for line in lines if kind in line}

    # Tasks come last, and threads without an order.
    worker.wait(lambda: any("Worker._heartbeat" in stack for stack in stacks("asyncio_task").values()))
    threads = stacks("thread")
    assert "poll_thread.py" in threads["rexstream-poll"]
    assert "release_thread.py" in threads["rexstream-release"]
    assert {"MainThread", "http"} <= threads.keys()
    worker.wait(lambda: any("EventProcessor._run_task" in stack for stack in stacks("asyncio_task").values()))
    waiting = [stack for stack in stacks("asyncio_task").values() if "EventProcessor._run_task" in stack]
    assert any("TaskRunner.infer" in stack for stack in waiting), "not only where a task begins, but where it waits"
    server.gate.set()
    worker.wait_for_results(10)
    assert not any(text in json.dumps(worker.lines(), ensure_ascii=False) for text in TEXTS)
    assert worker.signal(signal.SIGTERM) == 0


HUNG = """
import ctypes, sys
from consumer.worker import lifecycle
from consumer.cli import main

libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)

async def hang(_):
    {call}

lifecycle.Worker._heartbeat = hang
sys.argv = ["rexstream", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("call", ["[None for _ in iter(int, 1)]", "libc.pthread_mutex_lock(mutex)"])
def test_sigusr1_logs_stacks_while_the_event_loop_hangs(worker: Run, tmp_path: Path, call: str) -> None:
    """In Python code that never ends as well as in a call in C that no signal handler interrupts."""
    program = tmp_path / "hung.py"
    program.write_text(HUNG.format(call=call))
    worker.program = [sys.executable, str(program)]
    worker.start()
    worker.process.send_signal(signal.SIGUSR1)
    worker.wait(lambda: any(" hang" in place for line in worker.lines() for place in line.get("stack", ())))


def test_a_model_of_another_contract_stops_consumption_and_dead_letters_nothing(
    worker: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker and a model that do not fit each other are a fault of the deployment: not ready, nothing consumed."""
    monkeypatch.setattr(stub_server, "CONTRACT", 1)
    worker.start()
    worker.send(reviews(10))
    worker.wait(lambda: any(line.get("code") == "CONTRACT" for line in worker.lines()))
    worker.wait(lambda: worker.get("/readyz")[0] == 503)
    assert worker.results() == []
    monkeypatch.undo()
    worker.wait_for_results(20)
    assert worker.dead_letters() == []


def test_a_worker_says_what_is_wrong_with_its_configuration(tmp_path: Path) -> None:
    """An unknown key ends it with code 2, the key and the nearest name."""
    config = tmp_path / "config.yaml"
    config.write_text("batching: {max_token: 4096}\n")
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "run", "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "batching.max_token" in done.stderr
    assert "max_tokens" in done.stderr
