"""What the brokers allow this client, for ``rexstream check --connect``: asked for, never tried out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.cli.dependencies import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from confluent_kafka.admin import AdminClient

    from consumer.config.tree import Config


def topic_rights(admin: AdminClient, topics: Collection[str], seconds: float) -> dict[str, frozenset[str]]:
    """Operations, such as ``READ``, by topic, of those topics of which the cluster tells them within ``seconds``.

    Without an authorizer it tells all operations there are; brokers older than 2.3 tell none.
    """
    from confluent_kafka import KafkaException, TopicCollection

    if not topics:
        return {}
    asked = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=seconds
    )
    found: dict[str, frozenset[str]] = {}
    for topic, future in asked.items():
        try:
            told = future.result().authorized_operations
        except KafkaException:
            continue
        if told:
            found[topic] = frozenset(operation.name for operation in told)
    return found


def group_findings(config: Config, admin: AdminClient, seconds: float) -> Iterator[Finding]:
    """Whether this client may be a member of the consumer group and commit. Joins nothing."""
    from confluent_kafka import KafkaError, KafkaException

    group = config.kafka.group_id
    subject = f"group {group}"
    (asked,) = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=seconds
    ).values()
    refused = Finding(subject, "fail", "no right to READ; grant this client READ on the group")
    try:
        told = asked.result().authorized_operations
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            yield refused
        else:
            # Also where no group has been yet and its coordinator is still to be chosen.
            yield Finding(subject, "warn", f"rights unknown: {error.args[0].name()}; check again in a while")
        return
    if told and "READ" not in {operation.name for operation in told}:
        yield refused
        return
    detail = "may READ" if told else "the cluster tells no rights"
    if config.delivery.mode == "exactly_once":
        # A worker's ids are its own, and a question by one would open a transaction's producer.
        detail += f"; WRITE on the transactional ids {group}-* is not checked: only using one would tell"
    yield Finding(subject, "ok", detail)
