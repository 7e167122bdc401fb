"""A worker's HTTP port in its client.id."""

from __future__ import annotations

import pytest

from consumer.config.tree import Config, KafkaConfig, ObservabilityConfig
from consumer.kafka.clients.http_port import HttpPort, client_id, told_by
from consumer.kafka.clients.settings import consumer_settings


@pytest.mark.parametrize(
    ("http", "told"),
    [
        ("0.0.0.0:9464", HttpPort(9464, loopback=False)),
        ("[::]:9464", HttpPort(9464, loopback=False)),
        ("worker-1.example:80", HttpPort(80, loopback=False)),
        ("127.0.0.1:9464", HttpPort(9464, loopback=True)),
        ("[::1]:9464", HttpPort(9464, loopback=True)),
        ("localhost:9464", HttpPort(9464, loopback=True)),
    ],
)
def test_what_a_worker_tells_is_what_is_read(http: str, told: HttpPort) -> None:
    """Its port, and whether others reach it; of port 0 the one that it got."""
    assert told_by(client_id(http)) == told
    assert told_by(client_id(http, 5)) == told._replace(port=5)


@pytest.mark.parametrize(
    "other",
    ["rexstream", "rexstream-start", "rexstream-http-0", "rexstream-http-65536", "rexstream-http-1x", "app", ""],
)
def test_other_ids_tell_nothing(other: str) -> None:
    """Among them that of a worker without HTTP, or of before."""
    assert told_by(other) is None
    assert client_id("") == "rexstream"


def test_only_the_consumer_tells_it_and_an_owners_own_id_stays() -> None:
    """kafka.client's client.id wins; without HTTP it is what it always was."""
    open_to_all = Config(observability=ObservabilityConfig(http="0.0.0.0:0"))
    assert consumer_settings(open_to_all, 9470)["client.id"] == "rexstream-http-9470"
    assert consumer_settings(Config())["client.id"] == "rexstream-loopback-9464"
    assert consumer_settings(Config(observability=ObservabilityConfig(http="")))["client.id"] == "rexstream"
    own = Config(kafka=KafkaConfig(client={"client.id": "reviews"}))
    assert consumer_settings(own, 9470)["client.id"] == "reviews"
