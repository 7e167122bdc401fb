"""What ``kafka.client`` may pass through."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.config.client_rules import CLIENT_RULES
from consumer.config.loading import load_config
from consumer.config.problems import ConfigError, Problem
from consumer.config.tree import Config, KafkaConfig
from consumer.kafka.clients.settings import consumer_settings, metadata_settings, producer_settings


def refused(path: str | None = None, environ: dict[str, str] | None = None, *overrides: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {}, overrides)
    return {problem.key: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enable.auto.commit", "true"),
        ("enable.auto.offset.store", "true"),
        ("auto.offset.reset", "latest"),
        ("enable.idempotence", "false"),
        ("acks", "1"),
        ("request.required.acks", "0"),
        ("partitioner", "random"),
        ("isolation.level", "read_uncommitted"),
        ("partition.assignment.strategy", "range"),
        ("transactional.id", "x"),
        ("retries", "0"),
        ("group.id", "x"),
        ("bootstrap.servers", "x:1"),
    ],
)
def test_client_settings_that_break_a_guarantee_are_refused(key: str, value: str) -> None:
    """The pass-through passes nothing that loses, doubles or misplaces a result."""
    problem = refused(None, None, f"kafka.client.{key}={value}")[f"kafka.client.{key}"]
    assert problem.what
    assert problem.fix


def test_client_settings_are_flat(write: Any) -> None:
    """A nested mapping is not what librdkafka reads."""
    assert "kafka.client.topic" in refused(write("kafka: {client: {topic: {acks: 1}}}"))


def test_the_brokers_assignment_excludes_classic_settings() -> None:
    """KIP-848 clients refuse a session timeout, so it is said before they do."""
    settings = ["kafka.client.group.protocol=consumer", "kafka.client.session.timeout.ms=9000"]
    assert "kafka.client.session.timeout.ms" in refused(None, None, *settings)


@pytest.mark.parametrize("key", ["fetch.wait.max.ms", "linger.ms", "auto.offset.reset", "isolation.level"])
def test_what_is_accepted_is_accepted_by_the_clients(key: str) -> None:
    """No setting passes here to be refused when the worker starts."""
    value = {"auto.offset.reset": "earliest", "isolation.level": "read_committed"}.get(key, "20")
    config = load_config(None, {}, [f"kafka.client.{key}={value}"])
    for settings in (consumer_settings, producer_settings, metadata_settings):
        assert settings(config)["bootstrap.servers"] == "127.0.0.1:9092"


def test_a_secret_that_yaml_reads_as_a_number_is_refused(write: Any) -> None:
    """1_23 is 123 to YAML, and no login would say so."""
    problem = refused(write("kafka: {client: {sasl.password: 1_23}}"))["kafka.client.sasl.password"]
    assert problem.fix == "put it in quotes"


@pytest.mark.parametrize("text", ["010", "1.10", "2026-11-01", "12:30", "0123", "1e3"])
def test_a_setting_is_text_as_it_is_written(write: Any, text: str) -> None:
    """In a file as in a variable, where YAML would make 8, 1.1, a date, 750 and 83 of these; also by way of a merge."""
    for content in (
        f"kafka: {{client: {{client.rack: {text}}}}}",
        f"x-c: &c {{client.rack: {text}}}\nkafka: {{client: {{<<: *c, linger.ms: 5}}}}",
    ):
        assert load_config(write(content), {}).kafka.client["client.rack"] == text
    assert load_config(write("kafka: {client: {linger.ms: 5}}"), {}).kafka.client["linger.ms"] == 5


@pytest.mark.parametrize("key", [key for key, rule in CLIENT_RULES.items() if rule.breaks is not None])
def test_both_readers_of_the_table_refuse_the_same(key: str) -> None:
    """A configuration that was made in code is refused by each client's settings as a loaded one is, in its words."""
    problem = refused(None, None, f"kafka.client.{key}=no-such-value")[f"kafka.client.{key}"]
    config = Config(kafka=KafkaConfig(client={key: "no-such-value"}))
    for settings in (consumer_settings, producer_settings, metadata_settings):
        with pytest.raises(ValueError, match=r"kafka\.client") as caught:
            settings(config)
        assert str(caught.value) == f"kafka.client: {key} {problem.what}; {problem.fix}."


def test_each_client_gets_what_it_knows() -> None:
    """Of the free settings, the consumer's and the producer's own reach that client alone."""
    free = {key: "20" for key, rule in CLIENT_RULES.items() if rule.breaks is None and key != "group.protocol"}
    free = {key: value for key, value in free.items() if CLIENT_RULES[key].client != "both"}
    config = Config(kafka=KafkaConfig(client={**free, "client.rack": "a"}))
    for kind, settings in (
        ("consumer", consumer_settings),
        ("producer", producer_settings),
        ("both", metadata_settings),
    ):
        given = settings(config)
        assert given["client.rack"] == "a"
        assert {key for key in free if given.get(key) == "20"} == {
            key for key in free if CLIENT_RULES[key].client == kind
        }
