"""``rexstream check``."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, KafkaError, KafkaException
from stub_server import StubServer, write_bundle

from consumer.cli import broker_findings, cli
from consumer.cli.kafka_findings import DEAD_LETTER_RETENTION_MS, topic_setting_findings, transaction_findings
from consumer.config.tree import Config
from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

TOPICS = {"reviews.raw": 4, "reviews.extracted": 4, "reviews.dead": 4}
NOBODY = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("REXSTREAM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("REXSTREAM_MODEL__BUNDLE", str(write_bundle(tmp_path / "bundle")))


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with EmbeddedBroker(topics=TOPICS) as running:
        yield running.bootstrap_servers


@pytest.fixture
def model_server() -> Iterator[str]:
    """Knows version 1 of any model."""
    server = StubServer()
    yield server.target
    server.stop()


def check(*settings: str, options: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Result:
    flags = [argument for setting in settings for argument in ("--set", setting)]
    return CliRunner().invoke(cli, ["check", *options, *flags], env=env)


def findings(result: Result) -> dict[str, str]:
    return {row["subject"]: row["status"] for row in json.loads(result.stdout)["findings"]}


CONNECT = ("--connect", "--json")


def test_a_valid_configuration_needs_no_network() -> None:
    """Without --connect nothing is tried: all addresses may be dead."""
    result = check(f"kafka.bootstrap_servers={NOBODY}", f"model.target={NOBODY}")
    assert result.exit_code == 0
    assert result.stdout.startswith("ok    configuration")


def test_a_bad_configuration_ends_with_exit_code_2() -> None:
    """As for every command."""
    assert check("model.nme=x").exit_code == 2


def test_a_setting_that_librdkafka_does_not_know_is_a_bad_configuration() -> None:
    """A mistyped pass-through key is found before a worker starts, and its value is not shown."""
    result = check(options=("--json",), env={"REXSTREAM_KAFKA__CLIENT__SASL_PASWORD": "hunter2"})
    assert result.exit_code == 2
    assert findings(result)["kafka.client"] == "fail"
    assert "sasl.pasword" in result.output
    assert "hunter2" not in result.output


def test_a_password_file_that_is_not_there_is_a_bad_configuration() -> None:
    """The key and the file are named, without a connection being tried."""
    section = ("protocol=sasl_ssl", "mechanism=SCRAM-SHA-512", "username=u", "password_file=/nonexistent/password")
    result = check(*(f"kafka.security.{setting}" for setting in section), options=("--json",))
    assert result.exit_code == 2
    assert findings(result)["kafka.security"] == "fail"
    assert "kafka.security.password_file /nonexistent/password cannot be read" in result.output


def test_a_value_that_librdkafka_refuses_is_a_bad_configuration() -> None:
    """The bounds of the client's own settings hold too."""
    assert check("kafka.client.fetch.wait.max.ms=-5").exit_code == 2


def test_a_missing_bundle_is_a_bad_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be read, and none at all: ``run`` ends with the same code."""
    result = check(f"model.bundle={tmp_path}", options=("--json",))
    assert result.exit_code == 2
    assert findings(result)["model.bundle"] == "fail"
    monkeypatch.delenv("REXSTREAM_MODEL__BUNDLE")
    result = check(options=("--connect", "--json"))
    assert result.exit_code == CliRunner().invoke(cli, ["run"]).exit_code == 2
    assert findings(result)["model.bundle"] == "fail"


def test_warnings_do_not_fail() -> None:
    """A route without tasks can be meant."""
    result = check("routes.0.tasks=[]", options=("--json",))
    assert result.exit_code == 0
    assert findings(result)["routes.0.tasks"] == "warn"


@pytest.mark.broker
def test_everything_answers(broker: str, model_server: str) -> None:
    """With all dependencies there the exit code is 0, and what the broker does not tell is a warning."""
    result = check(f"kafka.bootstrap_servers={broker}", f"model.target={model_server}", options=CONNECT)
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert rows["ok"] is True
    assert findings(result) == {
        "configuration": "ok",
        "routes.0": "ok",
        "kafka.client": "ok",
        "model.bundle": "ok",
        "kafka": "ok",
        "topic reviews.raw": "ok",
        "topic reviews.extracted": "ok",
        "topic reviews.dead": "warn",
        "model rexuninlu": "ok",
        "model signatures": "ok",
        "model answers": "ok",
        "server-side batching": "ok",
    }
    assert any("unknown retention" in row["detail"] for row in rows["findings"])


@pytest.mark.broker
def test_a_check_joins_no_group_and_creates_no_topic(broker: str, model_server: str) -> None:
    """Looking changes nothing: a missing topic is missing afterwards, and is what fails."""
    settings = (f"kafka.bootstrap_servers={broker}", f"model.target={model_server}", "routes.0.input=not.there")
    for _ in range(2):
        result = check(*settings, options=CONNECT)
        assert result.exit_code == 3
        assert findings(result)["topic not.there"] == "fail"
    probe = Consumer({"bootstrap.servers": broker, "group.id": "probe"})
    assert "not.there" not in probe.list_topics(timeout=5).topics
    probe.close()


@pytest.mark.broker
def test_topics_of_templates_are_looked_for(broker: str, model_server: str) -> None:
    """Every task's topic must be there, and that of inline schemas, which any event may bring."""
    result = check(
        f"kafka.bootstrap_servers={broker}",
        f"model.target={model_server}",
        "routes.0.output=out.{task}",
        "routes.0.tasks=[ner]",
        options=CONNECT,
    )
    assert result.exit_code == 3
    assert findings(result)["topic out.ner"] == "fail"
    assert findings(result)["topic out"] == "fail"


def test_what_events_may_ask_for_is_said() -> None:
    """Both keys are named: their defaults decide what a producer can make a worker do."""

    def said(*settings: str) -> str:
        rows = json.loads(check(*settings, options=("--json",)).stdout)["findings"]
        return next(str(row["detail"]) for row in rows if row["subject"] == "routes.0")

    assert "may choose among product_features (event_tasks route)" in said()
    assert "may bring a schema (inline_schemas true) of at most 256 model calls" in said()
    assert "may not bring a schema" in said("routes.0.inline_schemas=false")
    assert "sentiment" in said("routes.0.event_tasks=any")
    assert "an event of reviews.raw runs product_features, and" in said("routes.0.preset=connect")
    assert "may not bring a schema (format text)" in said("routes.0.format=text")


def test_a_mapping_is_said_field_by_field() -> None:
    """What comes from where, and where deletes go: a mapping can be read before it goes live."""
    fields = "routes.0.fields={text: [content, body], attributes: {stars: rating.stars}, language: null}"
    settings = ("routes.0.preset=maxwell", "routes.0.on_delete=forward", "routes.0.output=out.{task}", fields)
    rows = json.loads(check(*settings, options=("--json",)).stdout)["findings"]
    said = {row["subject"]: row["detail"] for row in rows}
    assert "may not bring a schema (fields names none)" in said["routes.0"]
    assert said["routes.0.fields"].startswith("preset maxwell; text: content or body; event_id: event_id of the row or")
    assert "language: not read" in said["routes.0.fields"]
    assert "attributes: stars from rating.stars" in said["routes.0.fields"]
    assert "becomes a null value on out.product_features;" in said["routes.0.on_delete"]
    assert "routes.0.fields" not in findings(check(options=("--json",)))


def test_whether_checksums_are_checked_is_said() -> None:
    """It is on by default, which a cluster with old, damaged batches notices."""
    rows = json.loads(check(options=("--json",)).stdout)["findings"]
    assert next(row["detail"] for row in rows if row["subject"] == "kafka.client").endswith("check.crcs true")


def test_every_topic_that_can_be_reached_is_listed_without_a_network() -> None:
    """By what may be asked of the routes as they are: tasks, schemas, and where dead letters and markers go."""
    template = ("routes.0.output=out.{task}", "routes.0.tasks=[ner]")

    def topics(*settings: str) -> set[str]:
        found = findings(check(*template, *settings, options=("--json",)))
        return {subject.removeprefix("topic ") for subject in found if subject.startswith("topic ")}

    always = {"reviews.raw", "reviews.dead", "reviews.dead.replayed", "out.ner"}
    assert topics() == {*always, "out"}
    assert topics("routes.0.inline_schemas=false") == always
    assert {*always, "out", "out.sentiment", "out.event"} < topics("routes.0.event_tasks=any")


@pytest.mark.broker
def test_other_partition_counts_are_a_warning(model_server: str) -> None:
    """Results can then not lie beside their input."""
    with EmbeddedBroker(topics={**TOPICS, "reviews.extracted": 2}) as other:
        result = check(
            f"kafka.bootstrap_servers={other.bootstrap_servers}", f"model.target={model_server}", options=CONNECT
        )
    assert result.exit_code == 0
    assert findings(result)["topic reviews.extracted"] == "warn"


def test_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """All dependencies are tried and reported in one run, with the reason of each, and the exit code is 3."""
    monkeypatch.setattr(broker_findings, "ANSWER_SECONDS", 0.5)
    result = check(
        f"kafka.bootstrap_servers={NOBODY}",
        f"model.target={NOBODY}",
        f"kafka.registry.url=http://{NOBODY}",
        options=CONNECT,
    )
    assert result.exit_code == 3
    found = findings(result)
    assert [found["kafka"], found["model rexuninlu"], found["schema registry"]] == ["fail"] * 3
    assert "Connection refused" in result.stdout


class Admin:
    """Answers with topic settings as a cluster would; None for a topic whose settings this client may not read."""

    def __init__(self, **topics: dict[str, str] | None) -> None:
        self.topics = {name.replace("_", "."): settings for name, settings in topics.items()}

    def describe_configs(self, resources: list[Any], **_: object) -> dict[Any, Future[Any]]:
        futures: dict[Any, Future[Any]] = {}
        for resource in resources:
            future: Future[Any] = Future()
            settings = self.topics.get(resource.name, {})
            if settings is None:
                future.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
            else:
                future.set_result({name: SimpleNamespace(value=value) for name, value in settings.items()})
            futures[resource] = future
        return futures


GOOD = {"retention.ms": str(DEAD_LETTER_RETENTION_MS), "cleanup.policy": "delete", "max.message.bytes": "1048588"}


@pytest.mark.parametrize(
    ("letters", "of_input", "words"),
    [
        (GOOD, GOOD, []),
        ({**GOOD, "retention.ms": "-1"}, GOOD, []),
        ({**GOOD, "retention.ms": "604800000"}, GOOD, ["7.0 days"]),
        (
            {**GOOD, "retention.ms": "604800000"},
            {**GOOD, "retention.ms": "604800000"},
            ["7.0 days; set its retention.ms to 30 days"],
        ),
        ({**GOOD, "cleanup.policy": "compact"}, GOOD, ["compacted"]),
        (GOOD, {**GOOD, "max.message.bytes": "2000000"}, ["2000000"]),
        (GOOD, None, []),
        (None, GOOD, ["unknown retention"]),
        (
            GOOD,
            {**GOOD, "retention.ms": str(DEAD_LETTER_RETENTION_MS * 2)},
            ["reviews.raw its records (for 60.0 days)"],
        ),
        (GOOD, {**GOOD, "retention.ms": "-1"}, ["(for ever)"]),
        (GOOD, {**GOOD, "retention.ms": "-1", "cleanup.policy": "compact"}, ["retention.ms to -1"]),
        ({**GOOD, "retention.ms": "-1"}, {**GOOD, "retention.ms": "-1"}, []),
        ({**GOOD, "retention.ms": "86400000"}, {**GOOD, "retention.ms": "-1"}, ["1.0 days, less than reviews.raw"]),
    ],
)
def test_settings_of_the_dead_letter_topic(
    letters: dict[str, str], of_input: dict[str, str] | None, words: list[str]
) -> None:
    """Letters that would go before their records, or before they can be replayed, or not fit, are warned of."""
    admin: Any = Admin(reviews_dead=letters, reviews_raw=of_input)
    found = list(topic_setting_findings(Config(), (), admin, set(TOPICS)))
    assert [finding.status for finding in found] == ["warn"] * len(words)
    for finding, word in zip(found, words, strict=True):
        assert word in finding.detail


@pytest.mark.parametrize(("policy", "warned"), [("compact", False), ("delete", True)])
def test_markers_of_replayed_letters_must_stay(policy: str, warned: bool) -> None:
    """Without one a letter would be replayed again; where nothing was replayed there is no topic yet."""
    of_markers = {"cleanup.policy": policy, "retention.ms": "604800000"}
    admin: Any = Admin(reviews_dead=GOOD, reviews_raw=GOOD, reviews_dead_replayed=of_markers)
    found = list(topic_setting_findings(Config(), (), admin, {*TOPICS, "reviews.dead.replayed"}))
    assert [(f.subject, f.status) for f in found] == [("topic reviews.dead.replayed", "warn")] * warned
    assert list(topic_setting_findings(Config(), (), admin, set(TOPICS))) == []


def test_result_topics_must_take_what_has_no_key() -> None:
    """A compacted one does not."""
    admin: Any = Admin(reviews_dead=GOOD, reviews_raw=GOOD, reviews_extracted={**GOOD, "cleanup.policy": "compact"})
    (found,) = topic_setting_findings(Config(), (), admin, {*TOPICS, "reviews.extracted"})
    assert (found.subject, found.status) == ("topic reviews.extracted", "warn")
    assert "ResultWithoutKey" in found.detail


@pytest.mark.parametrize(
    ("mode", "brokers", "embedded", "status"),
    [
        ("exactly_once", 3, False, []),
        ("exactly_once", 1, False, ["warn"]),
        ("exactly_once", 1, True, ["fail"]),
        ("at_least_once", 1, False, []),
        ("at_least_once", 1, True, []),
    ],
)
def test_exactly_once_needs_brokers_that_keep_it(mode: str, brokers: int, embedded: bool, status: list[str]) -> None:
    """The embedded broker's transactions are not real; an only broker may lose the markers of a commit."""
    config = Config.model_validate({"delivery": {"mode": mode}})
    assert [found.status for found in transaction_findings(config, brokers, embedded=embedded)] == status


def test_limits_that_do_not_agree_are_a_warning() -> None:
    """For each task that a route may run, with the text that would fit; the defaults agree, for all shipped tasks."""
    default = check("routes.0.event_tasks=any", options=("--json",))
    assert "limits.model_calls" not in findings(default)
    result = check("limits.text_chars=50000", options=("--json",))
    assert result.exit_code == 0
    (found,) = (row for row in json.loads(result.stdout)["findings"] if row["subject"] == "limits.model_calls")
    assert found["status"] == "warn"
    assert "50000 characters" in found["detail"]
    assert "for task product_features, and 8192 are allowed" in found["detail"]
    fits = found["detail"].rpartition("limits.text_chars to ")[2].split()[0]
    assert "limits.model_calls" not in findings(check(f"limits.text_chars={fits}", options=("--json",)))
    assert "limits.model_calls" in findings(check("limits.model_calls=10", options=("--json",)))
