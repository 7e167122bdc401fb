"""``rexstream check``: is the configuration valid and, if asked, does everything that it names answer?"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Literal

import click

from consumer.cli.dependencies import Finding
from consumer.cli.options import config_options, loaded
from consumer.config.topics import output_topic, plain_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from consumer.config.tree import Config
    from consumer.kafka.registry.resolver import SubjectState


_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_INVALID = 2
_UNREACHABLE = 3


@click.command(name="check")
@config_options
@click.option("--connect", is_flag=True, help="Also try Kafka, the topics, the model server and the schema registry.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def command(config_file: str | None, overrides: tuple[str, ...], connect: bool, as_json: bool) -> None:
    """Validate the configuration; with --connect, try every dependency.

    Never joins the consumer group and changes nothing. Exit code 0 when a worker could start (warnings do not count), 2
    for a bad configuration, 3 when a dependency is missing.

    \b
    Example:
      rexstream check --config rexstream.yaml --connect
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli import dependencies

    found = loaded(config_file, overrides)
    config = found.config
    findings = [dependencies.Finding("configuration", "ok", f"{len(config.routes)} route(s), {len(found.tasks)} tasks")]
    findings += [dependencies.Finding(p.key, "warn", f"{p.what}; {p.fix}") for p in found.warnings]
    findings += [
        *dependencies.client_findings(config),
        *dependencies.bundle_findings(config),
        *dependencies.tls_findings(config),
    ]
    code = _INVALID if _failed(findings) else 0
    if connect and not code:
        tried = [
            *dependencies.kafka_findings(config),
            *dependencies.model_findings(config),
            *registry_findings(config),
        ]
        code = _UNREACHABLE if _failed(tried) else 0
        findings += tried
    _print(findings, as_json)
    sys.exit(code)


def _failed(findings: Sequence[Finding]) -> bool:
    return any(finding.status == "fail" for finding in findings)


def _print(findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        rows = [{"subject": f.subject, "status": f.status, "detail": f.detail} for f in findings]
        click.echo(json.dumps({"ok": not _failed(findings), "findings": rows}, ensure_ascii=False))
        return
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        status = click.style(f"{finding.status:<4}", fg=_COLOURS[finding.status])
        click.echo(f"{status}  {finding.subject:<{width}}  {finding.detail}")


# What ``rexstream check`` finds out about the Schema Registry: does it answer, and may results be written?


def registry_findings(config: Config) -> Iterator[Finding]:
    """Whether the Schema Registry, if one is configured, lets this client in and takes Avro results.

    Registers nothing.
    """
    if config.kafka.registry.url is None:
        return
    # Not at the top: the registry's client is loaded only where there is a registry.
    from consumer.config.shipped import shipped
    from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable
    from consumer.kafka.registry.resolver import RESULT_SCHEMA, SchemaResolver

    try:
        resolver = SchemaResolver(config.kafka.registry, shipped(RESULT_SCHEMA).read_text("utf-8"))
        yield Finding("schema registry", "ok", f"{resolver.probe()} subject(s)")
    except (RegistryUnavailable, RegistryRefused) as error:
        yield Finding("schema registry", "fail", str(error))
        return
    for topic, only_inline in _avro_topics(config).items():
        subject = f"subject {topic}-value"
        try:
            state = resolver.subject_state(topic)
        except (RegistryUnavailable, RegistryRefused) as error:
            yield Finding(subject, "fail", str(error))
        else:
            yield _subject_finding(subject, state, config.kafka.registry.auto_register, only_inline)


def _avro_topics(config: Config) -> dict[str, bool]:
    """Topics of Avro results -> whether only events that bring a schema send results there."""
    routes = [route for route in config.routes if route.output_format == "avro"]
    wanted = {output_topic(route.output, task) for route in routes for task in route.tasks}
    return {topic: topic not in wanted for topic in sorted(wanted | {plain_topic(route.output) for route in routes})}


def _subject_finding(subject: str, state: SubjectState, auto_register: bool, only_inline: bool) -> Finding:
    # Either way a worker would start, and pause at the first result there.
    bad: Literal["warn", "fail"] = "warn" if only_inline else "fail"
    mode = f"compatibility {state.compatibility}"
    if state.number is not None:
        return Finding(subject, "ok", f"has the result schema, id {state.number}; {mode}")
    if not state.accepts:
        detail = f"{mode} forbids the result schema; change the subject's mode, or the route's output"
        return Finding(subject, bad, detail)
    if auto_register:
        return Finding(subject, "ok", f"takes the result schema, which its first result registers; {mode}")
    detail = f"does not have the result schema, and auto_register is false; register it ({mode} allows it)"
    return Finding(subject, bad, detail)
