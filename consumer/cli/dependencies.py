"""The checks that ``rexstream check`` makes of what a worker starts with, of certificates, and of the registry.

Those of Kafka are in ``kafka_findings``, those of the model server in ``model_findings``. Here only
``registry_findings`` connects to anything: it checks in the Schema Registry whether results may be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from consumer.config.credential_files import EXPIRES_SOON_DAYS
from consumer.config.names import result_topics
from consumer.worker.credentials import CredentialWatch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from consumer.config.tree import Config
    from consumer.kafka.registry.resolver import SubjectState
    from consumer.worker.start_checks import StartChecks

ANSWER_SECONDS = 5.0
"""Longest wait for a dependency's answer."""


class Finding(NamedTuple):
    """One line of the report: what was checked, its status, and what to do unless it is ok."""

    subject: str
    status: Literal["ok", "warn", "fail"]
    detail: str


def start_findings(checks: StartChecks) -> Iterator[Finding]:
    """What a worker would refuse before it connects; a port that a worker has already is none of this one's faults."""
    for subject, well, detail, warns in checks.found:
        yield Finding(subject, "warn" if warns else "ok" if well else "fail", detail)


def expiry_findings(config: Config) -> Iterator[Finding]:
    """How many days the certificates have left that the configuration names; of several in a file, the first counts."""
    for setting, days in CredentialWatch(config, lambda _: None).days_left().items():
        if days >= EXPIRES_SOON_DAYS:
            yield Finding(setting, "ok", f"expires in {days:.0f} days")
        else:
            what = f"expires in {days:.1f} days" if days > 0 else f"has expired {-days:.1f} days ago"
            yield Finding(setting, "warn", f"a certificate {what}; put a new one there")


def http_findings(config: Config) -> Iterator[Finding]:
    """Under which names a worker's HTTP port answers, where other machines reach it or names are configured."""
    http = config.observability
    if http.http and (http.http_hosts or not http.http.startswith(("127.", "[::1]", "localhost:"))):
        names = ", ".join(("addresses", "localhost", *http.http_hosts))
        yield Finding("observability.http", "ok", f"{http.http}, for requests to {names}; others get 403")


def bare_avro_findings(config: Config) -> Iterator[Finding]:
    """Routes that read Avro without a registry: what most serializers write would all be dead letters."""
    if config.kafka.registry.url is None:
        for number, route in enumerate(config.routes):
            if route.format == "avro":
                what = (
                    "avro, and kafka.registry.url is missing: only bare data of schemas/avro/review_event.avsc are read"
                )
                yield Finding(
                    f"routes.{number}.format", "warn", f"{what}, no value with a schema id; set it if producers use one"
                )


def registry_findings(config: Config, tasks: Collection[str]) -> Iterator[Finding]:
    """Whether the Schema Registry, if one is configured, accepts this client and the schema of Avro results.

    Registers nothing. ``tasks``: the names of those that are loaded.
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
    routes = [route for route in config.routes if route.output_format == "avro"]
    for topic in sorted({topic for route in routes for topic in result_topics(route, tasks)}):
        subject = f"subject {topic}-value"
        try:
            state = resolver.subject_state(topic)
        except (RegistryUnavailable, RegistryRefused) as error:
            yield Finding(subject, "fail", str(error))
        else:
            yield _subject_finding(subject, state, config.kafka.registry.auto_register)


def _subject_finding(subject: str, state: SubjectState, auto_register: bool) -> Finding:
    # A worker would start, and pause at the first result there.
    mode = f"compatibility {state.compatibility}"
    if state.number is not None:
        return Finding(subject, "ok", f"has the result schema, id {state.number}; {mode}")
    if not state.accepts:
        return Finding(
            subject, "fail", f"{mode} forbids the result schema; change the subject's mode, or the route's output"
        )
    if auto_register:
        return Finding(subject, "ok", f"takes the result schema, which its first result registers; {mode}")
    return Finding(
        subject,
        "fail",
        f"does not have the result schema, and auto_register is false; register it ({mode} allows it)",
    )
