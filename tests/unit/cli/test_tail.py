"""``rexstream tail`` against the embedded broker."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from rich.cells import cell_len

from consumer.cli import cli
from consumer.kafka.tools import reader as tailing
from consumer.kafka.tools.reader import Tail
from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def topic() -> str:
    return f"topic-{time.monotonic_ns()}"


def produce(address: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": address})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(10) == 0


def result(number: int) -> bytes:
    facts = [[{"type": "颜色", "span": "发黄", "start": 0, "end": 2, "score": 0.9}]]
    return json.dumps({"event_id": f"e-{number}", "task": "t", "extractions": facts}, ensure_ascii=False).encode()


def tail(address: str, topic: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["tail", "-b", address, "--topic", topic, *arguments])


def test_results_come_out_as_lines(address: str, topic: str) -> None:
    """From the beginning, one readable line a result, exit code 0 at the limit."""
    produce(address, topic, result(1), result(2), result(3))
    found = tail(address, topic, "--from", "beginning", "--limit", "3")
    assert found.exit_code == 0, found.output
    assert sorted(line.split() for line in found.stdout.splitlines()) == [
        [f"e-{n}", "t", "颜色=发黄"] for n in (1, 2, 3)
    ]


def test_json_lines_are_the_results_themselves(address: str, topic: str) -> None:
    """--json changes nothing in a result."""
    produce(address, topic, result(7))
    assert tail(address, topic, "--from", "beginning", "--limit", "1", "--json").stdout.encode() == result(7) + b"\n"


def test_silence_ends_it(address: str, topic: str) -> None:
    """Idle time without --limit is a normal end; before the limit is reached it is failed work."""
    produce(address, topic, result(1))
    assert tail(address, topic, "--from", "beginning", "--idle-timeout", "0.5").exit_code == 0
    short = tail(address, topic, "--from", "beginning", "--limit", "2", "--idle-timeout", "2")
    assert short.exit_code == 1
    assert "1 of 2" in short.stderr


def test_from_the_end_shows_what_comes_after_it_is_ready(address: str, topic: str) -> None:
    """What was there is not shown; not one record that is produced once the tail exists is missed."""
    # Connected beforehand, so that it is as quick as the tail's own look-ups.
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0})
    for number in range(50):
        producer.produce(topic, result(number))
    assert producer.flush(10) == 0
    with Tail(address, [topic], "end") as following:
        for number in range(100, 120):
            producer.produce(topic, result(number))
        assert producer.flush(10) == 0
        messages = [following.poll(10) for _ in range(20)]
        assert following.poll(0.2) is None
    assert {message.value() for message in messages if message} == {result(number) for number in range(100, 120)}


def test_a_topic_that_appears_later_is_read_from_its_beginning(
    address: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tail can be started before anything has been produced, and creates no topic itself."""
    monkeypatch.setattr(tailing, "_REFRESH_SECONDS", 0.1)
    with Tail(address, [topic], "end") as following:
        assert list(following.waiting_for) == [topic]
        assert topic not in AdminClient({"bootstrap.servers": address}).list_topics(timeout=5).topics
        produce(address, topic, result(1))
        deadline = time.monotonic() + 20
        while (message := following.poll(0.1)) is None:
            assert time.monotonic() < deadline
        assert len(following.waiting_for) == 0
    assert message.value() == result(1)


def test_the_broker_going_away_is_told_and_not_fatal(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail says so and keeps trying."""
    monkeypatch.setattr(tailing, "_REFRESH_SECONDS", 0.1)
    told = threading.Event()
    with EmbeddedBroker(topics={topic: 1}) as broker:
        following = Tail(broker.bootstrap_servers, [topic], "end", timeout=0.3, on_trouble=lambda _: told.set())
    with following:
        deadline = time.monotonic() + 30
        while not told.is_set():
            assert following.poll(0.1) is None
            assert time.monotonic() < deadline


def test_no_broker_is_exit_code_3() -> None:
    """The message names the address."""
    found = CliRunner().invoke(cli, ["tail", "-b", "127.0.0.1:1", "--timeout", "0.5"])
    assert found.exit_code == 3
    assert "127.0.0.1:1" in found.stderr


def test_ctrl_c_is_exit_code_130(address: str, topic: str) -> None:
    """An interrupted tail ends at once, without a traceback."""
    produce(address, topic, result(1))
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "tail", "-b", address, "--topic", topic, "--from", "beginning"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "e-1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_a_topic_that_is_not_there_may_be_a_slip(address: str) -> None:
    """The one that is meant is named; a name that no topic can have is told apart from a right that is missing."""
    produce(address, "shop.facts", result(1))
    waiting = tail(address, "shop.fact", "--idle-timeout", "0.1")
    assert "does not exist yet; waiting for it; did you mean shop.facts?" in waiting.stderr
    listed = CliRunner().invoke(cli, ["dead-letters", "list", "-b", address, "--dead-letter-topic", "shop.fact"])
    assert listed.exit_code == 2
    assert "did you mean shop.facts?" in listed.stderr


def test_a_terminal_gets_what_fits_it(address: str, topic: str) -> None:
    """In a pseudo-terminal of 60 columns no line is longer; elsewhere a record is one line."""
    facts = [[{"type": "属性词", "span": f"续航{n}"}, {"type": "负向情感", "span": "不行"}] for n in range(5)]
    produce(address, topic, json.dumps({"event_id": "e-1", "task": "t", "extractions": facts}).encode())
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    arguments = ["tail", "-b", address, "--topic", topic, "--from", "beginning", "--limit", "1"]
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**environment, "TERM": "dumb"},
        check=False,
        timeout=60,
    )
    os.close(slave)
    seen = os.read(master, 65_536).decode()
    os.close(master)
    assert (process.returncode, process.stderr) == (0, b"")
    lines = seen.splitlines()
    assert lines[0] == "e-1  t"
    assert len(lines) == 6
    assert max(map(cell_len, lines)) <= 60
    assert len(tail(address, topic, *arguments[5:]).stdout.splitlines()) == 1
