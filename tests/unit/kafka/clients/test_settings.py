from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from consumer.config.tree import Config, DeliveryConfig, KafkaConfig
from consumer.kafka.clients.settings import (
    consumer_settings,
    metadata_settings,
    producer_settings,
    transaction_settings,
)


def config(**client: Any) -> Config:
    return Config(kafka=KafkaConfig(client={name.replace("_", "."): value for name, value in client.items()}))


def test_the_guarantees_are_set_and_librdkafka_accepts_them() -> None:
    """No automatic commits, nothing skipped, nothing uncommitted read; idempotent, acknowledged by all, murmur2."""
    consumer, producer = consumer_settings(config()), producer_settings(config())
    Consumer(consumer).close()
    Producer(producer)
    assert consumer["auto.offset.reset"] == "earliest"
    assert consumer["enable.auto.commit"] is False
    assert consumer["enable.auto.offset.store"] is False
    assert consumer["enable.partition.eof"] is True
    assert consumer["isolation.level"] == "read_committed"
    assert consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert producer["enable.idempotence"] is True
    assert producer["acks"] == "all"
    assert producer["partitioner"] == "murmur2_random"
    assert producer["message.timeout.ms"] == 0


def test_a_topic_that_is_missing_is_said_to_be_before_a_transaction_times_out() -> None:
    """While it counts as being created, its record holds up all others of the transaction."""
    settings = transaction_settings(config(), "id")
    assert settings["topic.metadata.propagation.max.ms"] < settings["message.timeout.ms"]


def test_every_producer_reports_each_output() -> None:
    """No offset is committed without, and a replay's markers name the places that the reports tell."""
    for settings in (producer_settings(config()), transaction_settings(config(), "id")):
        assert "delivery.report.only.error" not in settings


def test_a_record_as_large_as_the_limit_fits_the_producers_queue() -> None:
    """Otherwise it would never fit into the queue."""
    producer = producer_settings(config())
    assert producer["message.max.bytes"] < producer["queue.buffering.max.kbytes"] * 1024


def test_only_the_transactional_producer_keeps_brokers_that_are_away() -> None:
    """librdkafka's own way hangs its transactions, and the other clients without it; who asks for either gets it."""
    name = "metadata.recovery.strategy"
    assert transaction_settings(config(), "id")[name] == "none"
    assert all(name not in of(config()) for of in (consumer_settings, producer_settings, metadata_settings))
    given = config(metadata_recovery_strategy="rebootstrap")
    assert transaction_settings(given, "id")[name] == "rebootstrap"


def test_what_is_fetched_ahead_lasts_until_it_is_looked_at_again() -> None:
    """Else a worker would wait for records that are there; at 5,000 events a second, which is more than one does."""
    consumer = consumer_settings(config())
    assert consumer["queued.min.messages"] / 5000 >= 4 * consumer["fetch.queue.backoff.ms"] / 1000
    assert consumer_settings(config(fetch_queue_backoff_ms=9))["fetch.queue.backoff.ms"] == 9


def test_the_size_of_a_fetch_can_be_set_by_both_of_its_names() -> None:
    """librdkafka takes the later of the two."""
    names = list(consumer_settings(config(fetch_message_max_bytes=123_456)))
    assert names.index("max.partition.fetch.bytes") < names.index("fetch.message.max.bytes")
    assert consumer_settings(config(max_partition_fetch_bytes=123_456))["max.partition.fetch.bytes"] == 123_456


def test_settings_reach_the_clients_that_know_them() -> None:
    """So that none of them warns about the other's."""
    given = config(linger_ms=50, session_timeout_ms=9000, security_protocol="PLAINTEXT")
    assert consumer_settings(given)["session.timeout.ms"] == 9000
    assert "linger.ms" not in consumer_settings(given)
    assert producer_settings(given)["linger.ms"] == 50
    assert "session.timeout.ms" not in producer_settings(given)
    assert metadata_settings(given)["security.protocol"] == "PLAINTEXT"
    assert not {"linger.ms", "session.timeout.ms"} & metadata_settings(given).keys()


def test_a_crashed_worker_is_given_up_before_commits_that_wait_for_it_pause_the_others() -> None:
    """With room for a rebalance. Static members keep librdkafka's own time; who asks for another has it."""
    assert 1.5 * consumer_settings(config())["session.timeout.ms"] <= 1000 * DeliveryConfig().commit_pause_seconds
    assert "session.timeout.ms" not in consumer_settings(config(group_instance_id="a"))
    assert consumer_settings(config(session_timeout_ms=45_000))["session.timeout.ms"] == 45_000


def test_kip_848_drops_what_only_the_classic_protocol_knows() -> None:
    """librdkafka refuses the combination."""
    settings = consumer_settings(config(group_protocol="consumer", group_instance_id="a"))
    Consumer(settings).close()
    assert not {"partition.assignment.strategy", "session.timeout.ms"} & settings.keys()


@pytest.mark.parametrize("name", ["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"])
def test_kip_848_with_a_classic_setting_is_refused_by_name(name: str) -> None:
    """Instead of a client that does not start."""
    given = Config(kafka=KafkaConfig(client={"group.protocol": "consumer", name: "1"}))
    with pytest.raises(ValueError, match=f"{name} cannot be combined with group.protocol: consumer"):
        consumer_settings(given)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("enable.auto.commit", True, "committed when their results are durable"),
        ("enable.idempotence", False, "written twice or out of order"),
        ("acks", "1", "all in-sync replicas"),
        ("auto.offset.reset", "latest", "silently skip data"),
        ("partition.assignment.strategy", "range", "sets cooperative-sticky"),
        ("bootstrap.servers", "x:1", "kafka.bootstrap_servers"),
        ("group.id", "g", "kafka.group_id"),
        ("transactional.id", "t", "would open transactions"),
    ],
)
def test_what_would_break_a_guarantee_is_refused_with_the_reason(name: str, value: Any, reason: str) -> None:
    """A worker that starts keeps its promises."""
    with pytest.raises(ValueError, match=f"(?s){name}.*{reason}"):
        consumer_settings(Config(kafka=KafkaConfig(client={name: value})))
