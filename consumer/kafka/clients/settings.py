"""librdkafka settings of the consumer, the producer and the metadata client, from the configuration.

What the user passes through (``kafka.client``) is merged last, except where it would break a delivery guarantee: that
is refused with the reason. Settings that only one kind of client knows reach only that kind; those of
``kafka.security`` reach all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumer.config.credential_files import read_certificates, read_pair, read_password

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.config.tree import Config, SecurityConfig


MAX_POLL_INTERVAL_MS = 300_000
"""The group gives our partitions away when the poll thread is silent for this long. Its longest silences are the
budget of a revocation (at most a tenth of it) and a synchronous commit (at most 60 s): together a third of it."""

PREFETCH_KBYTES = 16_384
"""Records fetched ahead, over all partitions. librdkafka's default (64 MiB) is thrown away by every pause."""

MESSAGE_BYTES = 32 * 1024 * 1024
"""Largest record the producer hands to the broker. A dead letter holds its input whole, so this lies far above any
input topic's max.message.bytes: the broker, not the client, says what is too large for a topic."""

QUEUE_KBYTES = 131_072
"""Bound of the producer's queue; larger than ``MESSAGE_BYTES``, or such a record would never find room."""

CONNECTING = {
    # The first pause between tries to connect, about; it grows to reconnect.backoff.max.ms (10 s). A login that fails
    # must not be tried 20 times a second.
    "reconnect.backoff.ms": 1000,
    # A broker that starts may answer, for a moment, that it knows no topic. The client then believes it until it asks
    # again, by default five minutes later, and neither fetches nor produces meanwhile.
    "topic.metadata.refresh.interval.ms": 10_000,
}

_CONSUMER_ONLY = frozenset(
    {
        "auto.offset.reset",
        "check.crcs",
        "enable.partition.eof",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "group.instance.id",
        "group.protocol",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "isolation.level",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "partition.assignment.strategy",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "session.timeout.ms",
        "allow.auto.create.topics",
        "coordinator.query.interval.ms",
        "group.protocol.type",
    }
)
_PRODUCER_ONLY = frozenset(
    {
        "batch.num.messages",
        "batch.size",
        "compression.codec",
        "compression.level",
        "compression.type",
        "delivery.timeout.ms",
        "linger.ms",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "message.send.max.retries",
        "message.timeout.ms",
        "partitioner",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "request.timeout.ms",
        "retries",
        "retry.backoff.ms",
        "retry.backoff.max.ms",
        "sticky.partitioning.linger.ms",
    }
)
_CLASSIC_ONLY = frozenset(
    {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"}
)
_ELSEWHERE = {
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "group.id": "set kafka.group_id",
}
_FIXED = {
    "enable.auto.commit": "offsets are committed when their results are durable, never by a timer",
    "enable.auto.offset.store": "offsets are committed when their results are durable",
    "auto.commit.interval.ms": "offsets are committed when their results are durable; see delivery.commit_interval_ms",
    "enable.partition.eof": "the end of a partition is how lag reaches zero behind transaction markers",
    "enable.idempotence": "without it a retried result is written twice or out of order",
    "acks": "a result is durable only when all in-sync replicas have it",
    "request.required.acks": "a result is durable only when all in-sync replicas have it",
    "enable.gapless.guarantee": "one refused record would stop every other one for good",
    "transactional.id": "the at-least-once producer opens no transaction",
    "partitioner": "results of a key must land where the Java clients would put them (murmur2)",
    "delivery.report.only.error": "without reports no offset could ever be committed",
}


def consumer_settings(config: Config) -> dict[str, Any]:
    """Settings of the group's consumer. Raises ValueError, naming the key and the way out, for unsafe ones."""
    given = _given(config)
    settings: dict[str, Any] = {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "group.id": config.kafka.group_id,
        "client.id": "rexstream",
        **CONNECTING,
        # librdkafka's default is the end: a new group, a new partition or an expired offset would skip data.
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "queued.max.messages.kbytes": PREFETCH_KBYTES,
        "queued.min.messages": min(10_000, max(100, config.limits.in_flight_events)),
        "fetch.max.bytes": PREFETCH_KBYTES * 1024,
    }
    if given.get("group.protocol") == "consumer":
        _refuse_classic(given)
        for name in _CLASSIC_ONLY:
            settings.pop(name, None)
    elif given.get("partition.assignment.strategy", "cooperative-sticky") != "cooperative-sticky":
        raise ValueError(
            "kafka.client: partition.assignment.strategy must be cooperative-sticky, or be left out: an eager one "
            "takes every partition away at every rebalance."
        )
    if given.get("auto.offset.reset", "earliest") not in ("earliest", "smallest", "beginning", "error"):
        raise ValueError(
            f"kafka.client: auto.offset.reset {given['auto.offset.reset']!r} would silently skip records of every new "
            "partition and expired offset. Leave it out, or set it to error; to start at the end, set the group's "
            "offsets with kafka-consumer-groups --reset-offsets --to-latest."
        )
    return {**settings, **{name: value for name, value in given.items() if name not in _PRODUCER_ONLY}}


def producer_settings(config: Config) -> dict[str, Any]:
    """Settings of the at-least-once producer. Raises ValueError, naming the key and the way out, for unsafe ones."""
    settings: dict[str, Any] = {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "client.id": "rexstream",
        **CONNECTING,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        # 0 is for ever: while the brokers are away, results wait and nothing is lost.
        "message.timeout.ms": 0,
        "message.max.bytes": MESSAGE_BYTES,
        "queue.buffering.max.kbytes": QUEUE_KBYTES,
        "linger.ms": 5,
        "compression.type": "lz4",
    }
    return {**settings, **{name: value for name, value in _given(config).items() if name not in _CONSUMER_ONLY}}


def transaction_settings(config: Config, transactional_id: str) -> dict[str, Any]:
    """Settings of the exactly-once producer. Raises ValueError, naming the key and the way out, for unsafe ones."""
    timeout = config.delivery.transaction_timeout_ms
    return {
        # librdkafka's default forgets all brokers when none can be reached, and begins with the bootstrap addresses.
        # With 2.16 the transactional producer was seen not to survive that: after an only broker hung,
        # send_offsets_to_transaction never returned, whatever its timeout. Without it clients were seen to stay without
        # a connection for good; ``StuckClientDetector`` notices, and another producer takes its place.
        "metadata.recovery.strategy": "none",
        **producer_settings(config),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": timeout,
        # A record that cannot be written for this long fails its transaction, which is then tried again as a whole.
        "message.timeout.ms": timeout,
    }


def metadata_settings(config: Config) -> dict[str, Any]:
    """Settings of the client that only asks for offsets and metadata."""
    given = _given(config)
    return {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "client.id": "rexstream-lag",
        **CONNECTING,
        **{name: value for name, value in given.items() if name not in _CONSUMER_ONLY | _PRODUCER_ONLY},
    }


def _given(config: Config) -> Mapping[str, Any]:
    for name in config.kafka.client:
        if name in _ELSEWHERE:
            raise ValueError(f"kafka.client: {name} has a key of its own: {_ELSEWHERE[name]}.")
        if name in _FIXED:
            raise ValueError(f"kafka.client: {name} cannot be changed: {_FIXED[name]}. Leave it out.")
    return {**security_settings(config.kafka.security), **config.kafka.client}


def _refuse_classic(given: Mapping[str, Any]) -> None:
    refused = sorted(_CLASSIC_ONLY & given.keys())
    if refused:
        raise ValueError(
            f"kafka.client: {', '.join(refused)} cannot be combined with group.protocol: consumer (KIP-848), where the "
            "broker decides. Leave it out, or set group.protocol to classic."
        )


# librdkafka's security settings from ``kafka.security``, with every file looked at before a client is made.
#
# librdkafka names no configuration key, and says of a file that is no certificate only what OpenSSL thinks of it.


def security_settings(security: SecurityConfig) -> dict[str, str]:
    """What every kind of client needs; nothing when ``protocol`` is not set. Raises CredentialFileError."""
    if security.protocol is None:
        return {}
    password, key_password = security.password, None
    if security.password_file is not None:
        password = read_password("kafka.security.password_file", security.password_file)
    if security.ca_file is not None:
        read_certificates("kafka.security.ca_file", security.ca_file)
    if security.key_password_file is not None:
        key_password = read_password("kafka.security.key_password_file", security.key_password_file)
    if security.certificate_file is not None and security.key_file is not None:
        read_pair(
            "kafka.security.certificate_file",
            security.certificate_file,
            "kafka.security.key_file",
            security.key_file,
            key_password,
            "set kafka.security.key_password_file",
        )
    settings = {
        "security.protocol": security.protocol,
        "sasl.mechanism": security.mechanism,
        "sasl.username": security.username,
        "sasl.password": password,
        "ssl.ca.location": security.ca_file,
        "ssl.certificate.location": security.certificate_file,
        "ssl.key.location": security.key_file,
        "ssl.key.password": key_password,
    }
    return {name: value for name, value in settings.items() if value is not None}


def way_out(reason: str) -> str | None:
    """What to look at after a client's error, by librdkafka's text; None when it is no matter of security."""
    if "SASL" in reason:
        return "check kafka.security's mechanism, username and password"
    if "certificate verify failed" in reason:
        return (
            "check that kafka.security.ca_file is the authority of the brokers' certificates, and that these name the "
            "addresses in kafka.bootstrap_servers"
        )
    if "alert" in reason and "certificate" in reason:
        return "check kafka.security's certificate_file and key_file, which the broker asks for or does not take"
    # Of the same broker librdkafka says now the one, now the other.
    if "PLAINTEXT broker listener" in reason or ("closed by peer" in reason and "SSL_HANDSHAKE" in reason):
        return "check kafka.security.protocol and the port in kafka.bootstrap_servers: it seems no TLS is spoken there"
    return None
