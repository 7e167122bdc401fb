"""The checks that ``rexstream check`` makes of files and registry.

Those of Kafka are in ``kafka_findings``, those of the model server in ``model_findings``. Here only
``registry_findings`` connects to anything: it checks in the Schema Registry whether results may be written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from confluent_kafka import Consumer, KafkaException, Producer

from consumer.config.credential_files import EXPIRES_SOON_DAYS, CredentialFileError
from consumer.config.names import result_topics
from consumer.kafka.clients.settings import consumer_settings, producer_settings
from consumer.serving.bundle import load_bundle
from consumer.serving.channels import read_credentials
from consumer.worker.credentials import CredentialWatch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from consumer.config.tree import Config
    from consumer.kafka.registry.resolver import SubjectState

ANSWER_SECONDS = 5.0
"""Longest wait for a dependency's answer."""


class Finding(NamedTuple):
    """One line of the report: what was checked, its status, and what to do unless it is ok."""

    subject: str
    status: Literal["ok", "warn", "fail"]
    detail: str


def client_findings(config: Config) -> Iterator[Finding]:
    """Whether librdkafka takes the settings. Nothing is connected to: the clients get no broker address."""
    try:
        for make, settings in ((Consumer, consumer_settings(config)), (Producer, producer_settings(config))):
            del settings["bootstrap.servers"]
            client = make({**settings, "log_level": 0})
            if isinstance(client, Consumer):
                client.close()
                checksums = str(settings["check.crcs"]).lower()
    except CredentialFileError as error:
        yield Finding("kafka.security", "fail", str(error))
    except (KafkaException, ValueError, TypeError) as error:
        # librdkafka's text names the property, and for a refused value lists only what may stand there.
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        yield Finding("kafka.client", "fail", f"{reason}; see librdkafka's CONFIGURATION.md")
    else:
        yield Finding("kafka.client", "ok", f"librdkafka takes the settings; check.crcs {checksums}")


def bundle_findings(config: Config) -> Iterator[Finding]:
    """Whether the tokenizer and limits that belong to the model can be read."""
    if config.model.bundle is None:
        yield Finding(
            "model.bundle",
            "fail",
            "is not set, and a worker needs it; name the folder <model>/<version>/bundle that the export wrote",
        )
        return
    try:
        bundle = load_bundle(Path(config.model.bundle))
    except (OSError, ValueError) as error:
        yield Finding("model.bundle", "fail", str(error))
    else:
        yield Finding("model.bundle", "ok", bundle.name)


def tls_findings(config: Config) -> Iterator[Finding]:
    """Whether the files for TLS to the model server, if it is configured, can be used."""
    if config.model.tls is None:
        return
    try:
        read_credentials(config.model.tls)
    except CredentialFileError as error:
        yield Finding("model.tls", "fail", str(error))
    else:
        yield Finding("model.tls", "ok", "files can be used")


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
