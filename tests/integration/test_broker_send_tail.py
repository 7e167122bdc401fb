"""``broker``, ``send`` and ``tail`` together, as the processes that a user would start."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from held_ports import HeldPorts

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.broker

REXSTREAM = (sys.executable, "-m", "consumer")
WAIT_SECONDS = 30.0
PARENT = """
import subprocess, sys
subprocess.Popen([*sys.argv[1:], "broker", "--port", "0", "--exit-with-parent"]).wait()
"""


@contextmanager
def started(*arguments: str, stderr: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """A command as a child that does not outlive the block."""
    process = subprocess.Popen([*REXSTREAM, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


@pytest.fixture
def free_port() -> Iterator[int]:
    held = HeldPorts()
    yield held.ports[0]
    held.close()


def test_reviews_go_in_and_results_come_out() -> None:
    """A file sent by one process is read back by another, and a waiting tail shows results as they come."""
    with started("broker", "--port", "0") as broker:
        address = line_of(broker)
        sent = subprocess.run(
            [*REXSTREAM, "send", "-b", address, "--limit", "100", "--json"],
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=True,
        )
        assert json.loads(sent.stdout)["acknowledged"] == 100
        read = subprocess.run(
            [
                *REXSTREAM,
                "tail",
                "-b",
                address,
                "--topic",
                "reviews.raw",
                "--from",
                "beginning",
                "--limit",
                "100",
                "--json",
            ],
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=True,
        )
        sample = Path(__file__).resolve().parents[2] / "schemas/samples/reviews.jsonl"
        expected = [json.loads(line) for line in sample.read_text("utf-8").splitlines()[:100]]
        values = [json.loads(json.loads(line)["value"]) for line in read.stdout.decode().splitlines()]
        assert sorted(values, key=str) == sorted(expected, key=str)

        producer = Producer({"bootstrap.servers": address})
        with started("tail", "-b", address, "--from", "beginning", "--idle-timeout", "30") as tail:
            for event_id in ("first", "second"):
                producer.produce(
                    "reviews.extracted", json.dumps({"event_id": event_id, "task": "t", "extractions": []}), b"key"
                )
                assert producer.flush(10) == 0
                # Shown now, not when a buffer is full or the tail ends.
                assert line_of(tail).startswith(event_id)


def test_the_fixed_port_is_an_address_for_everyone(free_port: int) -> None:
    """Clients that know only the port reach the cluster, and again after the broker was started anew."""
    for _ in range(2):
        with started("broker", "--port", str(free_port), "--topic", "t:2") as broker:
            assert line_of(broker) == f"127.0.0.1:{free_port}"
            metadata = AdminClient({"bootstrap.servers": f"localhost:{free_port}"}).list_topics(timeout=10)
            assert len(metadata.topics["t"].partitions) == 2


def test_a_producer_that_ignores_every_warning_is_refused() -> None:
    """10 MB to a partition: what was acknowledged is all there, the rest is refused, and one line says why."""
    with started("broker", "--port", "0", stderr=subprocess.PIPE) as broker:
        address = line_of(broker)
        errors: list[str] = []
        acknowledged: list[bytes] = []
        producer = Producer({"bootstrap.servers": address, "log_level": 0})
        for number in range(1000):
            producer.produce(
                "reviews.raw",
                b"%05d" % number + b"x" * 10_000,
                partition=2,
                on_delivery=lambda error, message: (
                    errors.append(error.name()) if error else acknowledged.append(message.value() or b"")
                ),
            )
            producer.poll(0)
            if number == 99:  # 1 MB, which fits: the refusal that follows may come before these are stored
                assert producer.flush(WAIT_SECONDS) == 0
                assert len(acknowledged) == 100
        assert producer.flush(WAIT_SECONDS) == 0
        assert set(errors) == {"POLICY_VIOLATION"}
        read = subprocess.run(
            [
                *(*REXSTREAM, "tail", "-b", address, "--topic", "reviews.raw"),
                *("--from", "beginning", "--json", "--limit", str(len(acknowledged))),
            ],
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=True,
        )
        broker.terminate()
        _, said = broker.communicate(timeout=WAIT_SECONDS)
        assert broker.returncode == 0
    values = [json.loads(line)["value"].encode() for line in read.stdout.decode().splitlines()]
    assert values == acknowledged
    assert 1_000_000 < sum(map(len, values)) <= 2 * 1024**2
    # The last line: stopping with the producer still connected adds nothing.
    *warning, line = said.splitlines()
    assert line.startswith("REFUSED")
    assert not any(other.startswith("REFUSED") for other in warning)
    for part in ("'reviews.raw' partition 2", "2 MB", "Apache Kafka", "restart"):
        assert part in line


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_the_broker_ends_with_the_process_that_started_it() -> None:
    """A parent that is killed hard leaves no broker behind."""
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
            *REXSTREAM,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline().startswith("127.0.0.1:")
    finally:
        parent.kill()
        parent.wait()
    # The broker holds the other end of this pipe: it reaches its end when the broker is gone.
    assert parent.stdout.read() == ""
    parent.stdout.close()
