"""``rexstream check --connect`` and the Schema Registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from registry_double import RegistryDouble

from consumer.cli.dependencies import bare_avro_findings, registry_findings
from consumer.config.loading import load_config
from consumer.config.shipped import shipped
from consumer.kafka.registry.resolver import RESULT_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from consumer.cli.dependencies import Finding

SHIPPED = shipped(RESULT_SCHEMA).read_text("utf-8")
ROUTE = ("routes.0.output_format=avro", "routes.0.output=out.{task}", "routes.0.tasks=[sentiment]")
SUBJECT, INLINE = "subject out.sentiment-value", "subject out-value"


@pytest.fixture
def registry() -> Iterator[RegistryDouble]:
    double = RegistryDouble()
    yield double
    double.stop()


def found(registry: RegistryDouble, *settings: str) -> dict[str, Finding]:
    config = load_config(None, {}, [f"kafka.registry.url={registry.url}", *ROUTE, *settings])
    return {finding.subject: finding for finding in registry_findings(config, ("sentiment", "ner"))}


def test_a_registry_that_takes_the_result_schema(registry: RegistryDouble) -> None:
    """A new subject takes anything, one with the schema has it; the modes are told, and nothing is registered."""
    registry.schemas, registry.subjects, registry.modes = {5: SHIPPED}, {"out-value": 5}, {"out-value": "FULL"}
    findings = found(registry)
    assert {subject: finding.status for subject, finding in findings.items()} == {
        "schema registry": "ok",
        SUBJECT: "ok",
        INLINE: "ok",
    }
    assert "compatibility BACKWARD" in findings[SUBJECT].detail
    assert "id 5; compatibility FULL" in findings[INLINE].detail
    assert registry.subjects == {"out-value": 5}
    assert not [path for path in registry.requests if path.startswith("/subjects/") and path.endswith("/versions")]


def test_a_schema_that_is_not_there_fails_without_auto_register(registry: RegistryDouble) -> None:
    """A worker would wait at its first result, also at that of an inline schema, which any event may bring."""
    findings = found(registry, "kafka.registry.auto_register=false")
    assert (findings[SUBJECT].status, findings[INLINE].status) == ("fail", "fail")
    assert "auto_register" in findings[SUBJECT].detail


def test_only_the_subjects_that_can_be_reached_are_asked_about(registry: RegistryDouble) -> None:
    """A route that takes no schemas needs none for them; one that takes any task needs all."""
    assert set(found(registry, "routes.0.inline_schemas=false")) == {"schema registry", SUBJECT}
    assert set(found(registry, "routes.0.event_tasks=any")) == {
        "schema registry",
        SUBJECT,
        INLINE,
        "subject out.ner-value",
    }


def test_a_subject_that_forbids_the_result_schema_fails(registry: RegistryDouble) -> None:
    """It is found before the first result is."""
    registry.schemas, registry.subjects = {5: '"string"'}, {"out.sentiment-value": 5}
    registry.closed = {"out.sentiment-value"}
    finding = found(registry)[SUBJECT]
    assert finding.status == "fail"
    assert "forbids" in finding.detail


def test_a_route_of_avro_without_a_registry_is_told_what_it_reads(registry: RegistryDouble) -> None:
    """Before all of its events are dead letters; with one, and for other formats, there is nothing to say."""
    avro = ("routes.0.input=a", "routes.1.input=b", "routes.1.format=avro", "routes.1.output=c")
    (finding,) = bare_avro_findings(load_config(None, {}, [*ROUTE, *avro]))
    assert (finding.subject, finding.status) == ("routes.1.format", "warn")
    assert "kafka.registry.url is missing" in finding.detail
    assert not list(bare_avro_findings(load_config(None, {}, [*ROUTE, *avro, f"kafka.registry.url={registry.url}"])))


def test_subjects_of_json_results_are_not_asked_about(registry: RegistryDouble) -> None:
    """They have no schema."""
    assert set(found(registry, "routes.0.output_format=json")) == {"schema registry"}


def test_a_refusal_is_told_without_the_password(registry: RegistryDouble, tmp_path: Path) -> None:
    """Of the registry as a whole, or of one subject."""
    (tmp_path / "password").write_text("hunter2")
    settings = ("kafka.registry.username=reader", f"kafka.registry.password_file={tmp_path / 'password'}")
    registry.answers["/config/out-value"] = (403, {"error_code": 40301, "message": "no"})
    findings = found(registry, *settings)
    assert (findings["schema registry"].status, findings[SUBJECT].status, findings[INLINE].status) == (
        "ok",
        "ok",
        "fail",
    )
    registry.answers["/subjects"] = (401, {"error_code": 40101, "message": "no"})
    findings = found(registry, *settings)
    assert {subject: finding.status for subject, finding in findings.items()} == {"schema registry": "fail"}
    assert "hunter2" not in str(findings)
