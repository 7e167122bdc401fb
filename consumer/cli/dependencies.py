"""What ``rexstream check`` finds out about the configuration's dependencies, one finding a line."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from consumer.config.topics import PLACEHOLDER, output_topic, plain_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import TopicMetadata

    from consumer.config.tree import Config

_DAY_MS = 24 * 3600 * 1000
DEAD_LETTER_RETENTION_MS = 30 * _DAY_MS
"""How long dead letters should stay, so that a cause can be found and mended before they are replayed."""

ANSWER_SECONDS = 5.0
"""Time a dependency has to answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and, unless it is well, the way out."""

    subject: str
    status: Literal["ok", "warn", "fail"]
    detail: str


def client_findings(config: Config) -> Iterator[Finding]:
    """Whether librdkafka takes the settings. Nothing is connected to: the clients are told of no broker."""
    from confluent_kafka import Consumer, KafkaException, Producer

    from consumer.config.credential_files import CredentialFileError
    from consumer.kafka.clients.settings import consumer_settings, producer_settings

    try:
        for make, settings in ((Consumer, consumer_settings(config)), (Producer, producer_settings(config))):
            del settings["bootstrap.servers"]
            client = make({**settings, "log_level": 0})
            if isinstance(client, Consumer):
                client.close()
    except CredentialFileError as error:
        yield Finding("kafka.security", "fail", str(error))
    except (KafkaException, ValueError, TypeError) as error:
        # librdkafka's text names the property, and of a refused value says only what may stand there.
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        yield Finding("kafka.client", "fail", f"{reason}; see librdkafka's CONFIGURATION.md")
    else:
        yield Finding("kafka.client", "ok", "librdkafka takes the settings")


def bundle_findings(config: Config) -> Iterator[Finding]:
    """Whether the tokenizer and limits that belong to the model can be read."""
    if config.model.bundle is None:
        detail = "is not set, and a worker needs it; name the folder <model>/<version>/bundle that the export wrote"
        yield Finding("model.bundle", "warn", detail)
        return
    from pathlib import Path

    from consumer.serving.bundle import load_bundle

    try:
        bundle = load_bundle(Path(config.model.bundle))
    except (OSError, ValueError) as error:
        yield Finding("model.bundle", "fail", str(error))
    else:
        yield Finding("model.bundle", "ok", f"{config.model.bundle}, contract {bundle.contract}")


def tls_findings(config: Config) -> Iterator[Finding]:
    """Whether the files for TLS to the model server, if it is configured, can be used."""
    if config.model.tls is None:
        return
    from consumer.config.credential_files import CredentialFileError
    from consumer.serving.channels import read_credentials

    try:
        read_credentials(config.model.tls)
    except CredentialFileError as error:
        yield Finding("model.tls", "fail", str(error))
    else:
        yield Finding("model.tls", "ok", "files can be used")


def kafka_findings(config: Config) -> Iterator[Finding]:
    """Whether the brokers answer and the topics are as they should be. Joins no group, creates no topic."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    from consumer.cli.rights import group_findings, topic_rights
    from consumer.kafka.clients.cluster import EMBEDDED_CLUSTER_ID
    from consumer.kafka.clients.settings import metadata_settings, way_out

    servers = config.kafka.bootstrap_servers
    reasons: list[str] = []

    def note(error: KafkaError) -> None:
        # "All brokers are down" follows every single reason and says less.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            reasons.append(error.str())

    settings: dict[str, Any] = {**metadata_settings(config), "log_level": 0, "error_cb": note}
    admin = AdminClient(settings)
    try:
        metadata = admin.list_topics(timeout=ANSWER_SECONDS)
    except KafkaException as error:
        admin.poll(0)
        reason = reasons[-1] if reasons else error.args[0].str()
        fix = way_out(reason) or "check kafka.bootstrap_servers and kafka.security"
        yield Finding("kafka", "fail", f"{servers}: {reason}; {fix}")
        return
    yield Finding("kafka", "ok", f"{servers}: {len(metadata.brokers)} broker(s), cluster {metadata.cluster_id}")
    embedded = (metadata.cluster_id or "").startswith(EMBEDDED_CLUSTER_ID)
    existing = [topic for topic in _wanted_topics(config) if topic in metadata.topics]
    # The embedded broker does not refuse such questions, it never answers.
    rights = {} if embedded else topic_rights(admin, existing, ANSWER_SECONDS)
    yield from topic_findings(config, metadata.topics, rights)
    yield from transaction_findings(config, len(metadata.brokers), embedded=embedded)
    if embedded:
        detail = "unknown retention: the embedded broker is in memory and keeps about 4 MB a partition"
        yield Finding(f"topic {config.delivery.dead_letter_topic}", "warn", detail)
    else:
        yield from topic_setting_findings(config, admin, set(metadata.topics))
        yield from group_findings(config, admin, ANSWER_SECONDS)


def transaction_findings(config: Config, brokers: int, *, embedded: bool) -> Iterator[Finding]:
    """Whether a cluster of so many ``brokers`` keeps what exactly_once promises."""
    if config.delivery.mode != "exactly_once":
        return
    if embedded:
        detail = "exactly_once, and the embedded broker's transactions are not real; use Apache Kafka or at_least_once"
        yield Finding("delivery.mode", "fail", detail)
    elif brokers == 1:
        detail = (
            "exactly_once on one broker: killed within a commit, it may come back without that commit's markers, and "
            "readers wait there; use three brokers"
        )
        yield Finding("delivery.mode", "warn", detail)


def _wanted_topics(config: Config) -> dict[str, str | None]:
    """Every topic of a worker -> the input beside whose records its own are placed; None for an input."""
    inputs = [route.input for route in config.routes]
    wanted: dict[str, str | None] = dict.fromkeys(inputs)
    for route in config.routes:
        named = {output_topic(route.output, task) for task in route.tasks} | {plain_topic(route.output)}
        wanted.update(dict.fromkeys(sorted(named), route.input))
    return {**wanted, config.delivery.dead_letter_topic: inputs[0]}


def topic_findings(
    config: Config, topics: Mapping[str, TopicMetadata], rights: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    """Whether the topics are there and may be used. ``rights`` are operations by topic, of those that tell them."""
    for topic, input_topic in _wanted_topics(config).items():
        found = topics.get(topic)
        subject = f"topic {topic}"
        if found is None:
            hint = " (the topic of inline schemas)" if _is_only_plain(config, topic) else ""
            detail = f"does not exist{hint}; create it, or grant this client DESCRIBE on it"
            yield Finding(subject, "warn" if hint else "fail", detail)
        elif found.error is not None:
            yield Finding(subject, "fail", f"{found.error.str()}; grant this client DESCRIBE on it")
        else:
            count = len(found.partitions)
            source = None if input_topic is None else topics.get(input_topic)
            needed = "READ" if input_topic is None else "WRITE"
            if topic in rights and needed not in rights[topic]:
                detail = f"{count} partition(s), but no right to {needed}; grant this client {needed} on it"
                yield Finding(subject, "warn" if _is_only_plain(config, topic) else "fail", detail)
            elif source is not None and source.error is None and len(source.partitions) != count:
                detail = f"{count} partitions, but {input_topic} has {len(source.partitions)}"
                yield Finding(subject, "warn", f"{detail}; records are placed by their key, not beside their input")
            else:
                may = f", may {needed}" if topic in rights else ""
                yield Finding(subject, "ok", f"{count} partition(s){may}")


def _is_only_plain(config: Config, topic: str) -> bool:
    """Whether results go to ``topic`` only for events that bring a schema."""
    wanted = {output_topic(route.output, task) for route in config.routes for task in route.tasks}
    is_plain = any(PLACEHOLDER in route.output and plain_topic(route.output) == topic for route in config.routes)
    return is_plain and topic not in wanted


def topic_setting_findings(config: Config, admin: AdminClient, existing: set[str]) -> Iterator[Finding]:
    """Whether dead letters stay long enough and fit, and their markers stay. ``existing`` are the topics there are."""
    from consumer.kafka.tools.replay_markers import marker_topic, marker_topic_fault

    letters = config.delivery.dead_letter_topic
    if letters not in existing:
        return
    markers = marker_topic(letters)
    inputs = [route.input for route in config.routes]
    settings = _topic_settings(admin, [topic for topic in (letters, markers, *inputs) if topic in existing])
    subject = f"topic {letters}"
    of_letters = settings.get(letters)
    if of_letters is None:
        yield Finding(subject, "warn", "unknown retention: the cluster does not tell topic settings to this client")
        return
    if "compact" in of_letters.get("cleanup.policy", ""):
        yield Finding(subject, "warn", "is compacted, so of dead letters with one key only the last stays; use delete")
    of_inputs = {topic: settings[topic] for topic in inputs if topic in settings}
    yield from _retention_findings(subject, of_letters, of_inputs)
    if markers in settings and (fault := marker_topic_fault(settings[markers])) is not None:
        yield Finding(f"topic {markers}", "warn", fault)
    for topic, of_input in of_inputs.items():
        largest, room = int(of_input.get("max.message.bytes", 0)), int(of_letters.get("max.message.bytes", 0))
        if largest > room:
            detail = f"takes {room} bytes a record, but {topic} takes {largest}; such dead letters lose their value"
            yield Finding(subject, "warn", f"{detail}; raise its max.message.bytes")


def _retention_findings(
    subject: str, of_letters: Mapping[str, str], of_inputs: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Whether dead letters stay for a month, and for as long as the records that they are about.

    A letter keeps its record's timestamp, and from that its retention counts: with less than the input's, the letter of
    a record that waited long is gone as soon as it is written.
    """
    kept = _retention_ms(of_letters)
    if kept == inf:
        return
    longest = max(of_inputs, key=lambda topic: _retention_ms(of_inputs[topic]), default=None)
    window = _retention_ms(of_inputs[longest]) if longest is not None else 0.0
    detail = f"keeps dead letters for {kept / _DAY_MS:.1f} days"
    if kept < window:
        days = "for ever" if window == inf else f"for {window / _DAY_MS:.1f} days"
        detail += f", less than {longest} its records ({days}), so letters go while their records can still be read"
    elif kept >= DEAD_LETTER_RETENTION_MS:
        return
    needed = "-1" if window == inf else f"{max(window, DEAD_LETTER_RETENTION_MS) / _DAY_MS:g} days or more"
    yield Finding(subject, "warn", f"{detail}; set its retention.ms to {needed}")


def _retention_ms(settings: Mapping[str, str]) -> float:
    """How long a topic keeps records; infinite where none goes by its age."""
    retention = int(settings.get("retention.ms", -1))
    return inf if retention < 0 or "delete" not in settings.get("cleanup.policy", "delete") else retention


def _topic_settings(admin: AdminClient, topics: list[str]) -> dict[str, dict[str, str]]:
    """Settings by topic, of those topics that the cluster tells about."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in dict.fromkeys(topics)]
    found: dict[str, dict[str, str]] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=ANSWER_SECONDS).items():
        try:
            entries: dict[str, Any] = future.result()
        except KafkaException:
            continue
        found[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
    return found


def model_findings(config: Config) -> Iterator[Finding]:
    """Whether the model server answers and has the configured version."""
    import grpc

    from consumer.serving.channels import open_blocking_channel, tls_hint
    from consumer.serving.descriptors import GET_MODEL_STATUS, ModelVersionStatus

    model = config.model
    subject = f"model {model.name}"
    request = GET_MODEL_STATUS.request()
    request.model_spec.name = model.name
    if model.version is not None:
        request.model_spec.version.value = model.version
    with open_blocking_channel(model) as channel:
        call = channel.unary_unary(GET_MODEL_STATUS.path)
        try:
            raw = call(request.SerializeToString(), timeout=ANSWER_SECONDS, wait_for_ready=False)
        except grpc.RpcError as error:
            detail = f"{model.target}: {error.code().name} {error.details()}"
            hint = tls_hint(error.details() or "", model.tls)
            yield Finding(subject, "fail", f"{detail}; {hint or 'check model.target, model.name and model.version'}")
            return
    versions = GET_MODEL_STATUS.response.FromString(raw).model_version_status
    states = {entry.version: ModelVersionStatus.State.Name(entry.state) for entry in versions}
    told = ", ".join(f"version {version} {state}" for version, state in sorted(states.items())) or "no version"
    if "AVAILABLE" not in states.values():
        yield Finding(subject, "fail", f"{model.target}: {told}; load the model, or wait until it is loaded")
    elif model.label is not None:
        detail = f"{model.target}: {told}; whether label {model.label} exists shows only when it is used"
        yield Finding(subject, "warn", detail)
    else:
        yield Finding(subject, "ok", f"{model.target}: {told}")
