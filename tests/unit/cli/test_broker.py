"""``rexstream broker`` as a process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, KafkaException, Producer
from held_ports import HeldPorts

from consumer.cli import cli
from consumer.kafka.clients.cluster import ClusterUnreachable, is_embedded, look_up
from consumer.local.broker import EmbeddedBroker, EmbeddedBrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.broker


@contextmanager
def broker(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a child; the process and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "broker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_listens_where_it_was_told_and_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    """The port is the given one, the address is in the file when it is printed, and both signals end it with 0."""
    free, address_file = HeldPorts(), tmp_path / "address"
    (port,) = free.ports
    with broker("--port", str(port), "--topic", "reviews.raw:7", "--address-file", str(address_file)) as (
        process,
        address,
    ):
        assert address == f"127.0.0.1:{port}"
        assert address_file.read_text() == address + "\n"
        assert look_up(address, "reviews.raw").partitions == 7
        assert look_up(address, "another").partitions == 4
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        warning = process.stderr.read()
    for said in (
        "in memory",
        "would lose data",
        "2 MB",
        "refused",
        "at-least-once only",
        "exactly-once needs Apache Kafka",
    ):
        assert said in warning


def test_a_taken_port_is_bad_usage() -> None:
    """Exit code 2 and the way out."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(cli, ["broker", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "--port" in result.output


@pytest.mark.parametrize("value", ["reviews.raw", ":4", "reviews.raw:0", "reviews.raw:many"])
def test_a_topic_needs_a_name_and_a_number_of_partitions(value: str) -> None:
    """Anything but NAME:PARTITIONS is refused with an example."""
    result = CliRunner().invoke(cli, ["broker", "--port", "0", "--topic", value])
    assert result.exit_code == 2
    assert "reviews.raw:8" in result.output


def test_an_address_file_that_cannot_be_written_is_bad_usage(tmp_path: Path) -> None:
    """Nobody waits for an address that never comes."""
    result = CliRunner().invoke(cli, ["broker", "--port", "0", "--address-file", str(tmp_path / "no" / "file")])
    assert result.exit_code == 2
    assert "--address-file" in result.output


def test_groups_of_both_protocols_read_what_was_produced() -> None:
    """A classic group and a KIP-848 group each get every record."""
    with EmbeddedBroker(topics={"t": 2}) as embedded:
        producer = Producer({"bootstrap.servers": embedded.bootstrap_servers})
        for number in range(50):
            producer.produce("t", b"%d" % number)
        assert producer.flush(10) == 0
        for protocol in ("classic", "consumer"):
            consumer = Consumer(
                {
                    "bootstrap.servers": embedded.bootstrap_servers,
                    "group.id": protocol,
                    "group.protocol": protocol,
                    "auto.offset.reset": "earliest",
                }
            )
            consumer.subscribe(["t"])
            values = {message.value() for _ in range(50) if (message := consumer.poll(10)) is not None}
            consumer.close()
            assert values == {b"%d" % number for number in range(50)}


def test_the_embedded_broker_is_told_apart() -> None:
    """Clients can know that they talk to the mock cluster; an address without a broker is an error of its own."""
    with EmbeddedBroker() as embedded:
        assert is_embedded(embedded.bootstrap_servers)
        address = embedded.bootstrap_servers
    with pytest.raises(ClusterUnreachable, match=address):
        is_embedded(address, timeout=0.3)


def test_a_closed_broker_is_gone() -> None:
    """Closing twice is allowed, and nobody answers afterwards."""
    embedded = EmbeddedBroker()
    embedded.close()
    embedded.close()
    with pytest.raises(KafkaException):
        Producer({"bootstrap.servers": embedded.bootstrap_servers, "log_level": 0}).list_topics(timeout=0.3)


def test_a_topic_without_partitions_is_refused() -> None:
    """The error names the topic."""
    with pytest.raises(EmbeddedBrokerError, match="'t'"):
        EmbeddedBroker(topics={"t": 0})
