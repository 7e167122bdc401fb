"""The topic that remembers which dead letters were replayed: for each one record, keyed by the letter's id.

It is compacted, so a marker stays as long as the topic and outlives its letter, whatever the letters' retention. From a
topic that deletes by age markers could go first, and their letters would be replayed twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from consumer.kafka.cluster import ClientErrors, TopicUnusable
from consumer.kafka.tailing import read_to_end

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIX = ".replayed"
_POLICY = "cleanup.policy"


def marker_topic(dead_letter_topic: str) -> str:
    """The name of the marker topic of a dead-letter topic."""
    return dead_letter_topic + SUFFIX


def marker_topic_fault(settings: Mapping[str, str]) -> str | None:
    """What is wrong with a marker topic's settings (as DescribeConfigs tells them); None for nothing."""
    if "delete" not in settings.get(_POLICY, "delete"):
        return None
    if settings.get("retention.ms") == "-1" and settings.get("retention.bytes", "-1") == "-1":
        return None
    return "is not compacted, so its markers go and dead letters would be replayed twice; set cleanup.policy=compact"


def replayed_ids(
    bootstrap_servers: str, dead_letter_topic: str, *, client: Mapping[str, Any], timeout: float
) -> set[str]:
    """Ids of the dead letters that have a marker; none where nothing was replayed yet. Raises as ``read_to_end``."""
    messages = read_to_end(bootstrap_servers, marker_topic(dead_letter_topic), client=client, timeout=timeout)
    return {key.decode(errors="replace") for message in messages if (key := message.key())}


def ensure_marker_topic(
    bootstrap_servers: str, dead_letter_topic: str, *, client: Mapping[str, Any], timeout: float
) -> None:
    """Create the marker topic, compacted, where it is missing. Raises TopicUnusable when that or the topic is unfit."""
    topic = marker_topic(dead_letter_topic)
    admin = AdminClient(ClientErrors(bootstrap_servers).settings(client))
    new = NewTopic(topic, num_partitions=1, config={_POLICY: "compact"})
    try:
        admin.create_topics([new], operation_timeout=timeout, request_timeout=timeout)[topic].result(timeout)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise TopicUnusable(
                f"topic {topic!r} cannot be created: {error.args[0].str()}; create it with cleanup.policy=compact and "
                "one partition, or grant this client CREATE on it"
            ) from None
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        entries: dict[str, Any] = admin.describe_configs([resource], request_timeout=timeout)[resource].result(timeout)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return  # it may be written to all the same; `check` warns of what it cannot see
        raise
    fault = marker_topic_fault({name: entry.value for name, entry in entries.items() if entry.value is not None})
    if fault is not None:
        raise TopicUnusable(f"topic {topic!r} {fault}")
