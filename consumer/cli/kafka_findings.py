"""The checks of Kafka that ``rexstream check --connect`` makes: brokers, topics, their settings, this client's rights.

Joins no group and creates no topic; rights are read from the cluster's answers, never tried out.
"""

from __future__ import annotations

from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from consumer.cli.broker_findings import broker_findings
from consumer.cli.dependencies import ANSWER_SECONDS, Finding
from consumer.cli.kafka_start_findings import start_offset_findings
from consumer.cli.pattern_findings import matched_topics, pattern_findings
from consumer.codecs.mapping import described
from consumer.config.names import marker_topic, result_topics, runnable
from consumer.config.topic_patterns import is_pattern
from consumer.extraction.task import INLINE
from consumer.kafka.clients.cluster import EMBEDDED_CLUSTER_ID, ClientErrors
from consumer.kafka.clients.settings import metadata_settings
from consumer.kafka.tools.replay_markers import marker_topic_fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from concurrent.futures import Future

    from confluent_kafka.admin._metadata import TopicMetadata

    from consumer.config.tree import Config

_Key = TypeVar("_Key")

_DAY_MS = 24 * 3600 * 1000
DEAD_LETTER_RETENTION_MS = 30 * _DAY_MS
"""How long dead letters should stay, so that a cause can be found and mended before they are replayed."""


def route_findings(config: Config, tasks: Collection[str]) -> Iterator[Finding]:
    """What the events of each route may ask for. ``tasks``: those that are loaded."""
    for index, route in enumerate(config.routes):
        found = runnable(route, tasks)
        names = ", ".join(name for name in found if name != INLINE)
        may = f"may choose among {names} (event_tasks {route.event_tasks})" if names else "has no tasks to choose from"
        if names and not route.may_name("tasks"):
            may = f"runs {names}"
        schema = "may not bring a schema (inline_schemas false)"
        if INLINE in found:
            calls = min(config.limits.inline_model_calls, config.limits.model_calls)
            schema = f"may bring a schema (inline_schemas true) of at most {calls} model calls"
        elif route.inline_schemas:
            why = "format text" if route.format == "text" else "fields names none"
            schema = f"may not bring a schema ({why})"
        detail = f"an event of {route.input} {may}, and {schema}"
        yield Finding(f"routes.{index}", "ok", detail)
        if route.is_mapped:
            said = "; ".join(f"{name}: {where}" for name, where in described(route).items())
            what = f"preset {route.preset or 'none'}; {said}; try it with rexstream extract --route TOPIC --input FILE"
            yield Finding(f"routes.{index}.fields", "ok", what)
        if route.on_delete == "forward":
            topics = ", ".join(result_topics(route, tasks))
            what = f"forward: a null value, or a delete that the preset knows, becomes a null value on {topics}"
            yield Finding(f"routes.{index}.on_delete", "ok", f"{what}; without a key it is dropped")


def reachable_topics(config: Config, tasks: Collection[str]) -> Iterator[Finding]:
    """Every topic that a worker reads or may write to, without looking for it. ``tasks``: those that are loaded."""
    letters = config.delivery.dead_letter_topic
    for topic, used in _used_topics(config, tasks).items():
        if is_pattern(topic):
            yield Finding(f"topics {topic}", "ok", "input; --connect shows those that match now")
        else:
            yield Finding(f"topic {topic}", "ok", f"{used.what}; must be there, --connect looks for it")
    yield Finding(f"topic {marker_topic(letters)}", "ok", "markers of dead-letters replay, which creates it")


def kafka_findings(config: Config, tasks: Collection[str]) -> Iterator[Finding]:
    """Whether the brokers answer and the topics are as they should be. Joins no group, creates no topic.

    ``tasks``: the names of those that are loaded.
    """
    servers = config.kafka.bootstrap_servers
    metadata = yield from broker_findings(config)
    if metadata is None:
        return
    yield Finding("kafka", "ok", f"{servers}: {len(metadata.brokers)} broker(s), cluster {metadata.cluster_id}")
    embedded = (metadata.cluster_id or "").startswith(EMBEDDED_CLUSTER_ID)
    named = _used_topics(config, tasks)
    matched = matched_topics(config, metadata.topics)
    used = {topic: each for topic, each in named.items() if topic not in matched}
    existing = [topic for topic in (*used, *chain(*matched.values())) if topic in metadata.topics]
    admin = AdminClient(ClientErrors(servers).settings(metadata_settings(config)))
    # The embedded broker does not refuse this request, it never answers it.
    rights = {} if embedded else topic_rights(admin, existing)
    yield from topic_findings(used, metadata.topics, rights)
    outputs = {topic: each.input for topic, each in used.items() if each.input is not None}
    yield from pattern_findings(config, matched, outputs, metadata.topics, rights)
    yield from transaction_findings(config, len(metadata.brokers), embedded=embedded)
    if embedded:
        yield Finding(
            f"topic {config.delivery.dead_letter_topic}",
            "warn",
            "unknown retention: the embedded broker is in memory and takes 2 MB a partition",
        )
    else:
        yield from topic_setting_findings(config, tasks, admin, set(metadata.topics))
        yield group_finding(config, admin)
    yield from start_offset_findings(config)


def transaction_findings(config: Config, brokers: int, *, embedded: bool) -> Iterator[Finding]:
    """Whether a cluster of so many ``brokers`` keeps what exactly_once promises."""
    if config.delivery.mode != "exactly_once":
        return
    if embedded:
        yield Finding(
            "delivery.mode",
            "fail",
            "exactly_once, and the embedded broker's transactions are not real; use Apache Kafka or at_least_once",
        )
    elif brokers == 1:
        yield Finding(
            "delivery.mode",
            "warn",
            "exactly_once on one broker: killed within a commit, it may come back without that commit's markers, and "
            "readers wait there; use three brokers",
        )


class _Used(NamedTuple):
    """What a topic is to a worker."""

    what: str
    input: str | None
    """The input topic whose partition numbers its records keep; None for an input topic."""


def _used_topics(config: Config, tasks: Collection[str]) -> dict[str, _Used]:
    """Every topic that a worker reads or may write to: by what the routes are for, and by what events may ask for."""
    used = {route.input: _Used("input", None) for route in config.routes}
    for index, route in enumerate(config.routes):
        for topic, names in result_topics(route, tasks).items():
            what = f"results of {', '.join(names)}"
            if not set(names) & set(route.tasks):
                key = "inline_schemas" if names == [INLINE] else "event_tasks"
                what += f", for events that ask for it (routes.{index}.{key})"
            used.setdefault(topic, _Used(what, route.input))
    return {**used, config.delivery.dead_letter_topic: _Used("dead letters", config.routes[0].input)}


def topic_findings(
    used: Mapping[str, _Used], topics: Mapping[str, TopicMetadata], rights: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    """Whether the topics are there and may be used. ``rights`` are operations by topic, where they are known."""
    for topic, (what, input_topic) in used.items():
        found, source = topics.get(topic), topics.get(input_topic or topic)
        subject = f"topic {topic}"
        needed = "READ" if input_topic is None else "WRITE"
        if found is None:
            yield Finding(subject, "fail", f"does not exist ({what}); create it, or grant this client DESCRIBE on it")
        elif found.error is not None:
            yield Finding(subject, "fail", f"{found.error.str()}; grant this client DESCRIBE on it")
        elif needed not in rights.get(topic, {needed}):
            yield Finding(
                subject,
                "fail",
                f"{len(found.partitions)} partition(s), but no right to {needed}; grant this client {needed} on it",
            )
        elif source is not None and source.error is None and len(source.partitions) != len(found.partitions):
            yield Finding(
                subject,
                "warn",
                f"{len(found.partitions)} partitions, but {input_topic} has {len(source.partitions)}; records are "
                "placed by their key, not beside their input",
            )
        else:
            may = f", may {needed}" if topic in rights else ""
            yield Finding(subject, "ok", f"{what}: {len(found.partitions)} partition(s){may}")


def topic_setting_findings(
    config: Config, tasks: Collection[str], admin: AdminClient, existing: set[str]
) -> Iterator[Finding]:
    """Whether the dead-letter topic keeps letters long enough and takes their size, its marker topic keeps markers,
    and result topics take what has no key.

    ``existing``: the topics of the cluster.
    """
    letters = config.delivery.dead_letter_topic
    if letters not in existing:
        return
    markers = marker_topic(letters)
    matched = matched_topics(config, existing)
    inputs = [topic for route in config.routes for topic in matched.get(route.input, (route.input,))]
    outputs = [topic for route in config.routes for topic in result_topics(route, tasks)]
    # A topic that gets deletes is meant to be compacted, and is fit for it where one task alone writes to it.
    fit = {
        topic
        for route in config.routes
        if route.on_delete == "forward"
        for topic, names in result_topics(route, tasks).items()
        if len(names) == 1
    }
    settings = _topic_settings(admin, [topic for topic in (letters, markers, *inputs, *outputs) if topic in existing])
    for topic in dict.fromkeys(outputs):
        if topic not in fit and "compact" in settings.get(topic, {}).get("cleanup.policy", ""):
            yield Finding(
                f"topic {topic}",
                "warn",
                "is compacted: events without a key become dead letters (ResultWithoutKey), and of results with one "
                "key only the last stays; use delete, or give each task a topic of its own ({task} in output)",
            )
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
    for topic in _largest(of_inputs, matched):
        largest, limit = (int(of.get("max.message.bytes", 0)) for of in (of_inputs[topic], of_letters))
        if largest > limit:
            yield Finding(
                subject,
                "warn",
                f"takes {limit} bytes a record, but {topic} takes {largest}; such dead letters lose their value; raise "
                "its max.message.bytes",
            )


def _largest(of_inputs: Mapping[str, Mapping[str, str]], matched: Mapping[str, list[str]]) -> list[str]:
    """The input topics, of a pattern only the one that takes the largest records."""

    def size(topic: str) -> int:
        return int(of_inputs[topic].get("max.message.bytes", 0))

    by_pattern = {topic for found in matched.values() for topic in found}
    largest = [max(known, key=size) for found in matched.values() if (known := [t for t in found if t in of_inputs])]
    return [*(topic for topic in of_inputs if topic not in by_pattern), *largest]


def _retention_findings(
    subject: str, of_letters: Mapping[str, str], of_inputs: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Whether dead letters stay for a month, and for as long as the records that they are about.

    A letter keeps its record's timestamp, and from that its retention counts: with less than the input's, the letter of
    a record that waited long is gone as soon as it is written.
    """
    kept = _retention_ms(of_letters)
    longest = max(of_inputs, key=lambda topic: _retention_ms(of_inputs[topic]), default="")
    needed = _retention_ms(of_inputs[longest]) if longest else 0.0
    if kept >= max(needed, DEAD_LETTER_RETENTION_MS):
        return
    detail = f"keeps dead letters for {kept / _DAY_MS:.1f} days"
    if kept < needed:
        days = "for ever" if needed == inf else f"for {needed / _DAY_MS:.1f} days"
        detail += f", less than {longest} its records ({days}), so letters go while their records can still be read"
    value = "-1" if needed == inf else f"{max(needed, DEAD_LETTER_RETENTION_MS) / _DAY_MS:g} days or more"
    yield Finding(subject, "warn", f"{detail}; set its retention.ms to {value}")


def _retention_ms(settings: Mapping[str, str]) -> float:
    """How long a topic keeps records; infinite where none is deleted by its age."""
    retention = int(settings.get("retention.ms", -1))
    return inf if retention < 0 or "delete" not in settings.get("cleanup.policy", "delete") else retention


def _topic_settings(admin: AdminClient, topics: list[str]) -> dict[str, dict[str, str]]:
    """Settings by topic, of those topics whose settings this client may read."""
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in dict.fromkeys(topics)]
    return {
        resource.name: {name: entry.value for name, entry in entries.items() if entry.value is not None}
        for resource, entries in _answers(admin.describe_configs(resources, request_timeout=ANSWER_SECONDS))
    }


def topic_rights(admin: AdminClient, topics: Collection[str]) -> dict[str, frozenset[str]]:
    """Authorized operations, such as ``READ``, by topic, for those topics that the cluster describes.

    Without an authorizer it answers with all operations there are; brokers older than 2.3 answer with none.
    """
    if not topics:
        return {}
    asked = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=ANSWER_SECONDS
    )
    return {
        topic: frozenset(operation.name for operation in described.authorized_operations)
        for topic, described in _answers(asked)
        if described.authorized_operations
    }


def _answers(asked: Mapping[_Key, Future[Any]]) -> Iterator[tuple[_Key, Any]]:
    """The answers that arrived; those that were refused or came too late are left out."""
    for key, future in asked.items():
        if not isinstance(future.exception(), KafkaException):
            yield key, future.result()


def group_finding(config: Config, admin: AdminClient) -> Finding:
    """Whether this client may be a member of the consumer group and commit. Joins nothing."""
    group = config.kafka.group_id
    subject = f"group {group}"
    (asked,) = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=ANSWER_SECONDS
    ).values()
    try:
        operations = asked.result().authorized_operations
        refused = bool(operations) and "READ" not in {operation.name for operation in operations}
    except KafkaException as error:
        refused = error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED
        if not refused:
            # Also seen before the first group of a cluster, while the coordinator is not chosen yet.
            return Finding(subject, "warn", f"rights unknown: {error.args[0].name()}; check again in a while")
    if refused:
        return Finding(subject, "fail", "no right to READ; grant this client READ on the group")
    detail = "may READ" if operations else "the cluster reports no rights"
    if config.delivery.mode == "exactly_once":
        # Each worker makes up its transactional id, and asking about one would take a transactional producer.
        detail += f"; WRITE on the transactional ids {group}-* is not checked: only using one would show"
    return Finding(subject, "ok", detail)
