"""Which librdkafka settings ``kafka.client`` may pass through, and which kind of client each is for: one table.

The configuration's checks read it to refuse a setting before a worker starts; ``consumer.kafka.clients.settings`` reads
it to refuse the same in a configuration that was made in code, and to give each client only its own settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from consumer.config.problems import is_secret, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Client = Literal["consumer", "producer", "both"]


class ClientRule(NamedTuple):
    """One librdkafka setting."""

    client: Client = "both"
    """The kind of client that the setting is for. librdkafka warns when the other kind gets it."""
    breaks: str | None = None
    """The guarantee that setting it would break; None for a setting that is free."""
    fix: str = ""
    harmless: tuple[str, ...] = ()
    """The values that may be set all the same, because they change nothing that matters."""


_OURS = "remove it: Rexstream sets it"
_COMMITS = "offsets are committed when their results are durable, never by a timer"
_ELSEWHERE = "has a key of its own"
_SAFE = "a result counts as written only when all in-sync replicas have it"
_KEYED = "results of a key must land on the partition where Java clients would put them (murmur2)"
_RETRIES = "would give up results that a broker may still accept"

CLIENT_RULES: dict[str, ClientRule] = {
    # Refused.
    "bootstrap.servers": ClientRule("both", _ELSEWHERE, "set kafka.bootstrap_servers instead"),
    "metadata.broker.list": ClientRule("both", _ELSEWHERE, "set kafka.bootstrap_servers instead"),
    "group.id": ClientRule("consumer", _ELSEWHERE, "set kafka.group_id instead"),
    "enable.auto.commit": ClientRule("consumer", _COMMITS, _OURS),
    "auto.commit.interval.ms": ClientRule("consumer", _COMMITS, "set delivery.commit_interval_ms instead"),
    "enable.auto.offset.store": ClientRule("consumer", _COMMITS, _OURS),
    "auto.offset.reset": ClientRule(
        "consumer",
        "would silently skip data for a new group, an added partition or an expired offset",
        "remove it, and set kafka.start: it says where a new group begins, and skips nothing afterwards",
        ("earliest", "smallest", "beginning", "error"),
    ),
    "enable.partition.eof": ClientRule(
        "consumer", "the end of a partition is how lag reaches zero behind transaction markers", _OURS
    ),
    "isolation.level": ClientRule(
        "consumer", "would turn reviews of aborted transactions into results", "remove it", ("read_committed",)
    ),
    "partition.assignment.strategy": ClientRule(
        "consumer",
        "would take all partitions away at every rebalance, where workers give up only those that move",
        "remove it: Rexstream sets cooperative-sticky; or set group.protocol: consumer for the broker's own assignment",
        ("cooperative-sticky",),
    ),
    "enable.idempotence": ClientRule("producer", "without it a retried result is written twice or out of order", _OURS),
    "enable.gapless.guarantee": ClientRule("producer", "one refused record would stop all others", _OURS),
    "delivery.report.only.error": ClientRule("producer", "without reports no offset could ever be committed", _OURS),
    "transactional.id": ClientRule(
        "producer", "would open transactions that delivery.mode does not ask for", "remove it"
    ),
    "acks": ClientRule("producer", _SAFE, _OURS),
    "request.required.acks": ClientRule("producer", _SAFE, _OURS),
    "retries": ClientRule("producer", _RETRIES, _OURS),
    "message.send.max.retries": ClientRule("producer", _RETRIES, _OURS),
    "partitioner": ClientRule("producer", _KEYED, _OURS),
    "partitioner_cb": ClientRule("producer", _KEYED, _OURS),
    # Free, and for one kind of client only.
    "allow.auto.create.topics": ClientRule("consumer"),
    "check.crcs": ClientRule("consumer"),
    "coordinator.query.interval.ms": ClientRule("consumer"),
    "fetch.error.backoff.ms": ClientRule("consumer"),
    "fetch.max.bytes": ClientRule("consumer"),
    "fetch.message.max.bytes": ClientRule("consumer"),
    "fetch.min.bytes": ClientRule("consumer"),
    "fetch.queue.backoff.ms": ClientRule("consumer"),
    "fetch.wait.max.ms": ClientRule("consumer"),
    "group.instance.id": ClientRule("consumer"),
    "group.protocol": ClientRule("consumer"),
    "group.protocol.type": ClientRule("consumer"),
    "group.remote.assignor": ClientRule("consumer"),
    "heartbeat.interval.ms": ClientRule("consumer"),
    "max.partition.fetch.bytes": ClientRule("consumer"),
    "max.poll.interval.ms": ClientRule("consumer"),
    "queued.max.messages.kbytes": ClientRule("consumer"),
    "queued.min.messages": ClientRule("consumer"),
    "session.timeout.ms": ClientRule("consumer"),
    "batch.num.messages": ClientRule("producer"),
    "batch.size": ClientRule("producer"),
    "compression.codec": ClientRule("producer"),
    "compression.level": ClientRule("producer"),
    "compression.type": ClientRule("producer"),
    "delivery.timeout.ms": ClientRule("producer"),
    "linger.ms": ClientRule("producer"),
    "max.in.flight": ClientRule("producer"),
    "max.in.flight.requests.per.connection": ClientRule("producer"),
    "message.timeout.ms": ClientRule("producer"),
    "queue.buffering.max.kbytes": ClientRule("producer"),
    "queue.buffering.max.messages": ClientRule("producer"),
    "queue.buffering.max.ms": ClientRule("producer"),
    "request.timeout.ms": ClientRule("producer"),
    "retry.backoff.ms": ClientRule("producer"),
    "retry.backoff.max.ms": ClientRule("producer"),
    "sticky.partitioning.linger.ms": ClientRule("producer"),
}
"""librdkafka's names. A setting that is not here is free, and for both kinds of client."""

_ANY = ClientRule()
_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type")


def brokers_assign(client: Mapping[str, Any]) -> bool:
    """Whether the group uses KIP-848's protocol, in which the brokers assign the partitions."""
    return str(client.get("group.protocol", "classic")).lower() == "consumer"


def client_problems(client: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The setting, what is wrong with it, and the way out, for each one that cannot be passed through."""
    for key, value in client.items():
        rule = CLIENT_RULES.get(key, _ANY)
        if key in _CLASSIC_ONLY and brokers_assign(client):
            what = "cannot be combined with group.protocol: consumer (KIP-848), where the broker decides"
            yield key, what, "remove it"
        if not isinstance(value, (str, int, float)):
            yield key, "is neither text nor a number nor true/false", "librdkafka settings are flat: dots in the key"
        elif is_secret((key,)) and not isinstance(value, str):
            yield key, f"YAML reads this secret as {kind_of(value)}", "put it in quotes"
        elif rule.breaks is not None and str(value).strip().lower() not in rule.harmless:
            yield key, rule.breaks, rule.fix


def known_to(client: Client, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for this kind of client: those for both kinds, and its own."""
    return {key: value for key, value in settings.items() if CLIENT_RULES.get(key, _ANY).client in ("both", client)}
