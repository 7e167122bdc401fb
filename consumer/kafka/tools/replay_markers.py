"""The marker topic: one record for each dead letter that was replayed, keyed by the letter's id and its group.

Its value says which record was sent for the letter, and the how-manieth replay that is: only who may write to this
topic can say so. Beside it goes one keyed by the letter's id alone, where releases look that did not tell groups apart:
after a rollback they would replay the letter again.

The topic is compacted, so a marker stays as long as the topic and outlives its letter, whatever the letters' retention.
From a topic that deletes by age markers could go first, and their letters would be replayed twice.

The ``dead-letters`` commands read markers and make the topic; the replayer writes them.
"""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from consumer.config.names import marker_topic
from consumer.delivery.letters import Markers
from consumer.kafka.clients.cluster import ClientErrors, Reader, TopicUnusable
from consumer.kafka.tools.reader import read_to_end

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

FORMAT = 1
"""Of a marker's value. Values without one are of format 1, empty ones are older."""

_MARKER = "marker"
"""Of a value that is there for older releases: the key of the marker that it stands beside."""

_POLICY = "cleanup.policy"
_GRACE_SECONDS = 2.0
"""Added to the client's own time-out, so that its error arrives, which has the reason."""
_NO_ANSWER = frozenset(
    {KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT}
)


def marker_topic_fault(settings: Mapping[str, str]) -> str | None:
    """What is wrong with a marker topic's settings (those of DescribeConfigs); None for nothing."""
    if "delete" not in settings.get(_POLICY, "delete"):
        return None
    if settings.get("retention.ms") == "-1" and settings.get("retention.bytes", "-1") == "-1":
        return None
    return "is not compacted, so its markers go and dead letters would be replayed twice; set cleanup.policy=compact"


def marker_value(place: str, count: int) -> bytes:
    """The marker of replay number ``count`` of a record, which stands at ``place`` (``topic-partition-offset``) now.

    Not null: that would be a tombstone, which compaction takes away together with the key.
    """
    return json.dumps({"format": FORMAT, "place": place, "count": count}).encode()


def older_releases_value(marker_key: str) -> bytes:
    """The value of a marker that only older releases heed: for them it is what its key, the letter's id, says."""
    return json.dumps({"format": FORMAT, _MARKER: marker_key}).encode()


def read_markers(
    bootstrap_servers: str, dead_letter_topic: str, *, client: Mapping[str, Any], timeout: float
) -> Markers:
    """All markers; none where nothing was replayed yet. Raises as ``read_to_end``, and TopicUnusable for a marker of a
    newer release: its letter could be replayed twice.
    """
    at_ms: dict[str, int] = {}
    counts: dict[str, int] = {}
    topic = marker_topic(dead_letter_topic)
    for message in read_to_end(bootstrap_servers, topic, client=client, timeout=timeout):
        if not (key := message.key()):
            continue
        said = _said(message.value() or b"")
        if isinstance(written := said.get("format", FORMAT), int) and written > FORMAT:
            raise TopicUnusable(
                f"topic {topic!r} has markers of format {written} (first at offset {message.offset()} of partition "
                f"{message.partition()}), this release of Rexstream reads up to {FORMAT} and could replay their "
                "letters twice; use the newer release that has replayed them"
            )
        if _MARKER in said:
            continue
        at_ms[key.decode(errors="replace")] = message.timestamp()[1]
        # An infinite count, or none.
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
            counts[str(said["place"])] = int(said["count"])
    return Markers(at_ms, counts)


def _said(value: bytes) -> Mapping[str, Any]:
    """What a marker holds; nothing in those of older releases, whose value is empty, nor in what is none."""
    try:
        said = json.loads(value)
    except (ValueError, RecursionError):  # a million brackets
        return {}
    return said if isinstance(said, dict) else {}


def ensure_marker_topic(
    bootstrap_servers: str, dead_letter_topic: str, *, client: Mapping[str, Any], timeout: float
) -> None:
    """Create the marker topic, compacted, where it is missing: one that is there needs no right to create it.

    Raises ClusterUnreachable, and TopicUnusable when it cannot be created, or is there and unfit.
    """
    topic = marker_topic(dead_letter_topic)
    with Reader(bootstrap_servers, client=client, timeout=timeout) as reader:
        there = bool(reader.partitions(topic))
    errors = ClientErrors(bootstrap_servers)
    admin = AdminClient(errors.settings(client))

    def answer(future: Future[Any]) -> Any:
        try:
            return future.result(timeout + _GRACE_SECONDS)
        except FutureTimeoutError:
            raise errors.unreachable(timeout) from None
        except KafkaException as error:
            if error.args[0].code() in _NO_ANSWER:
                raise errors.unreachable(timeout) from None
            raise

    if not there:
        new = [NewTopic(topic, num_partitions=1, config={_POLICY: "compact"})]
        try:
            answer(admin.create_topics(new, operation_timeout=timeout, request_timeout=timeout)[topic])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicUnusable(
                    f"topic {topic!r} cannot be created: {error.args[0].str()}; create it with cleanup.policy=compact "
                    "and one partition, or grant this client CREATE on it"
                ) from None
        else:
            return
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        entries: dict[str, Any] = answer(admin.describe_configs([resource], request_timeout=timeout)[resource])
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return  # markers may be written to it all the same
        raise TopicUnusable(f"the settings of topic {topic!r} cannot be read: {error.args[0].str()}") from None
    fault = marker_topic_fault({name: entry.value for name, entry in entries.items() if entry.value is not None})
    if fault is not None:
        raise TopicUnusable(f"topic {topic!r} {fault}")
