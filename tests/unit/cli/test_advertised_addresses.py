"""Brokers that advertise what cannot be reached: ``check`` and ``tail`` name the address, every time."""

from __future__ import annotations

import json
import socket
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from stub_server import StubServer, write_bundle

from consumer.cli import cli
from consumer.cli.kafka_findings import kafka_findings
from consumer.config.tree import Config
from consumer.kafka.clients import cluster
from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from consumer.cli.dependencies import Finding

pytestmark = pytest.mark.broker

TOPICS = {"reviews.raw": 1, "reviews.extracted": 1, "reviews.dead": 1}
REFUSED = ("127.0.0.1", 1)


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """``wait(seconds)``: for what does not answer; what does has the usual 5 s, since machines may be busy."""
    return lambda seconds: monkeypatch.setattr("consumer.cli.broker_findings.ANSWER_SECONDS", seconds)


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield "127.0.0.1", listening.getsockname()[1]


def failed(broker: EmbeddedBroker, servers: str | None = None) -> list[Finding]:
    kafka = {"bootstrap_servers": servers or broker.bootstrap_servers}
    found = kafka_findings(Config.model_validate({"kafka": kafka}), ())
    return [finding for finding in found if finding.status == "fail"]


def test_check_fails_whatever_answers_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: Callable[[float], None]
) -> None:
    """An only broker, whose first answer came from the address that was configured: two of eight runs passed."""
    wait(2.0)
    monkeypatch.setenv("REXSTREAM_MODEL__BUNDLE", str(write_bundle(tmp_path)))
    server = StubServer()
    with EmbeddedBroker(topics=TOPICS) as broker:
        broker.advertise(1, *REFUSED)
        settings = (
            "--set",
            f"kafka.bootstrap_servers={broker.bootstrap_servers}",
            "--set",
            f"model.target={server.target}",
        )
        result = CliRunner().invoke(cli, ["check", "--connect", "--json", *settings])
        assert result.exit_code == 3
        (finding,) = [row for row in json.loads(result.stdout)["findings"] if row["status"] == "fail"]
        assert finding["subject"] == "kafka"
        assert "127.0.0.1:1 (Connect to" in finding["detail"]
        assert "advertised.listeners" in finding["detail"]
    server.stop()


def test_one_of_three_is_enough(silent: tuple[str, int], wait: Callable[[float], None]) -> None:
    """The two others answer for the whole cluster, but not for the partitions that it leads."""
    with EmbeddedBroker(brokers=3, topics=TOPICS) as broker:
        assert failed(broker) == []
        broker.advertise(3, *silent)
        wait(4.0)
        (finding,) = failed(broker)
        assert f"127.0.0.1:{silent[1]} (it takes connections and does not answer)" in finding.detail


def test_another_cluster_at_the_advertised_address() -> None:
    """``localhost:9092`` on a machine that has a broker of its own."""
    with EmbeddedBroker(topics=TOPICS) as broker, EmbeddedBroker() as other:
        host, port = other.bootstrap_servers.split(":")
        broker.advertise(1, host, int(port))
        # The first answer may have come from either.
        assert any("another cluster answers there" in finding.detail for finding in failed(broker))


def test_bootstrap_addresses_that_are_not_used(wait: Callable[[float], None]) -> None:
    """One that is dead is a warning while another answers; brokers of two clusters in one list are a fault."""
    with EmbeddedBroker(topics=TOPICS) as broker, EmbeddedBroker(topics=TOPICS) as other:
        config = Config.model_validate({"kafka": {"bootstrap_servers": f"{broker.bootstrap_servers},127.0.0.1:1"}})
        wait(2.0)
        (first, *_) = kafka_findings(config, ())
        wait(5.0)
        assert (first.subject, first.status) == ("kafka.bootstrap_servers", "warn")
        assert first.detail.startswith("127.0.0.1:1: Connect to")
        (finding,) = failed(broker, f"{broker.bootstrap_servers},{other.bootstrap_servers}")
        assert "name brokers of one cluster only" in finding.detail


def test_a_command_names_the_address() -> None:
    """With exit code 3, whether it got the cluster's first answer or not."""
    with EmbeddedBroker(topics=TOPICS) as broker:
        broker.advertise(1, *REFUSED)
        result = CliRunner().invoke(cli, ["tail", "-b", broker.bootstrap_servers, "--timeout", "3"])
        assert result.exit_code == 3, result.output
        assert "127.0.0.1:1 (Connect to" in result.output
        assert "advertised.listeners" in result.output


def test_a_tail_says_why_it_sees_nothing(silent: tuple[str, int]) -> None:
    """From the beginning it asks the leader nothing before it reads, so it would wait without a word."""
    with EmbeddedBroker(brokers=2, topics=TOPICS) as broker:
        broker.advertise(1, *silent)
        broker.advertise(2, *silent)
        options = ["--from", "beginning", "--idle-timeout", "1.6", "--topic", "reviews.raw", "--timeout", "2.5"]
        result = CliRunner().invoke(cli, ["tail", "-b", broker.bootstrap_servers, *options])
        assert f"127.0.0.1:{silent[1]}" in result.output


def test_an_answer_counts_for_the_address_that_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is slow asks where the first answer sent it; a cluster that is always slow is believed."""
    answers = iter([("B", "ssl://b:1/1"), ("A", "ssl://a:1/bootstrap"), *[("B", "b:1/1")] * 5])

    class Asked(AbstractContextManager["Asked"]):
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

        def metadata(self) -> SimpleNamespace:
            cluster_id, name = next(answers)
            return SimpleNamespace(cluster_id=cluster_id, orig_broker_name=name)

    monkeypatch.setattr(cluster, "Reader", Asked)
    assert list(cluster.unreachable_brokers(["A:1"], "B")) == ["A:1"]
    assert cluster.unreachable_brokers(["a:1"], "B") == {}
    assert next(answers, None) is None
