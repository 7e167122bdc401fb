"""librdkafka settings of the consumer, the producer and the metadata client, from the configuration.

What the user passes through (``kafka.client``) is merged last, except where it would break a delivery guarantee: that
is refused with the reason (``consumer.config.client_rules``). Settings that only one kind of client knows reach only
that kind; those of ``kafka.security`` reach all.
"""

from __future__ import annotations

from os.path import isfile
from ssl import get_default_verify_paths
from typing import TYPE_CHECKING, Any

from consumer.config.client_rules import brokers_assign, client_problems, known_to
from consumer.config.credential_files import read_certificates, read_pair, read_password
from consumer.config.oauth_rules import uses_oidc
from consumer.kafka.clients.http_port import PLAIN, client_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.config.client_rules import Client
    from consumer.config.tree import Config, SecurityConfig


MAX_POLL_INTERVAL_MS = 300_000
"""The group gives our partitions away when the poll thread is silent for this long. Its longest silences are the
budget of a revocation (at most a tenth of it) and a synchronous commit (at most 60 s): together a third of it."""

SESSION_TIMEOUT_MS = 20_000
"""How long a crashed worker keeps its partitions. Where another starts meanwhile, its joining waits for the crashed
one, and so do the commits of all others (seen with librdkafka 2.16). Hence no more than two thirds of the default of
delivery.commit_pause_seconds, at which they would pause, too; librdkafka's 45 s is longer than that. And twice the 9 s
after which brokers give a crashed coordinator up: without one for so long, a worker loses its partitions."""

PREFETCH_KBYTES = 16_384
"""Records fetched ahead, over all partitions. librdkafka's default (64 MiB) is thrown away by every pause."""

PREFETCH_RECORDS = 1_000
"""No more are asked for while so many wait, over all partitions, whose queue is one: a worker takes 0.2 s for them at
its fastest. A record takes some 400 bytes beside its own in the client's queue, which no bound in bytes counts."""

FETCH_BYTES = 262_144
"""What one fetch brings of a partition, about: a quarter of librdkafka's default, 12,000 short records that are
compressed, 3,000 of 80 bytes that are not. A larger batch comes whole, one with each fetch (60 records of 5 MB from 20
partitions took half the time of the default's). Brokers that are far away want more: docs/operations.md, Memory."""

FETCH_BACKOFF_MS = 50
"""When a partition with enough records is looked at again. With librdkafka's default, a second, a partition gave some
4,300 reviews a second at most (and 33,000 with this), since no more were asked for while 2,000 waited."""

MESSAGE_BYTES = 32 * 1024 * 1024
"""Largest record the producer hands to the broker. A dead letter holds its input whole, so this lies far above any
input topic's max.message.bytes: the broker, not the client, decides what is too large for a topic."""

QUEUE_KBYTES = 131_072
"""Bound of the producer's queue; larger than ``MESSAGE_BYTES``, or such a record would never fit into it."""

_AUTHORITIES = (
    get_default_verify_paths().cafile,
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where systems have the certificates of public authorities in one file; a folder of them is not read here."""

CONNECTING = {
    # The first pause between tries to connect, about; it grows to reconnect.backoff.max.ms (10 s). A login that fails
    # must not be tried 20 times a second.
    "reconnect.backoff.ms": 1000,
    # A broker that starts may answer, for a moment, that it knows no topic. The client then believes it until it asks
    # again, by default five minutes later, and neither fetches nor produces meanwhile.
    "topic.metadata.refresh.interval.ms": 10_000,
}


def consumer_settings(config: Config, http_port: int | None = None) -> dict[str, Any]:
    """Settings of the group's consumer. Raises ValueError, naming the key and the way out, for unsafe ones.

    ``http_port``: the one that the worker serves HTTP on, where that is not the configured one.
    """
    given = _given(config, "consumer")
    return {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "group.id": config.kafka.group_id,
        "client.id": client_id(config.observability.http, http_port),
        **CONNECTING,
        # librdkafka's default is the end: a new group, a new partition or an expired offset would skip data.
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        # librdkafka's default is not to look: a byte that changed on a broker's disk would become a fact.
        "check.crcs": True,
        "isolation.level": "read_committed",
        **({} if brokers_assign(given) else {"partition.assignment.strategy": "cooperative-sticky"}),
        # A static member's name stays while its process is started again, which may take longer.
        **({} if brokers_assign(given) or "group.instance.id" in given else {"session.timeout.ms": SESSION_TIMEOUT_MS}),
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "queued.max.messages.kbytes": PREFETCH_KBYTES,
        "queued.min.messages": min(PREFETCH_RECORDS, max(100, config.limits.in_flight_events)),
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
        "fetch.max.bytes": PREFETCH_KBYTES * 1024,
        "max.partition.fetch.bytes": FETCH_BYTES,
        **given,
    }


def producer_settings(config: Config) -> dict[str, Any]:
    """Settings of the at-least-once producer. Raises ValueError, naming the key and the way out, for unsafe ones."""
    return {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "client.id": PLAIN,
        **CONNECTING,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        # 0 is for ever: while the brokers are away, results wait and nothing is lost.
        "message.timeout.ms": 0,
        # Within this time of a topic's first use, a topic that is missing counts as being created (30 s by default).
        # Longer, a transaction with a record for it would hold up all others.
        "topic.metadata.propagation.max.ms": 5000,
        "message.max.bytes": MESSAGE_BYTES,
        "queue.buffering.max.kbytes": QUEUE_KBYTES,
        "linger.ms": 5,
        "compression.type": "lz4",
        **_given(config, "producer"),
    }


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
        # A record that cannot be written for this long fails its transaction, which is then tried again with half of
        # the records: early enough for an abort of ours, since one by the brokers costs the producer.
        "message.timeout.ms": timeout * 2 // 3,
    }


def metadata_settings(config: Config) -> dict[str, Any]:
    """Settings of the client that only asks for offsets and metadata."""
    return {
        "bootstrap.servers": config.kafka.bootstrap_servers,
        "client.id": "rexstream-lag",
        **CONNECTING,
        **_given(config, "both"),
    }


def _given(config: Config, client: Client) -> dict[str, Any]:
    for key, what, fix in client_problems(config.kafka.client):
        raise ValueError(f"kafka.client: {key} {what}; {fix}.")
    given = {**security_settings(config.kafka.security), **config.kafka.client}
    return known_to(client, {**_token_authorities(given), **given})


def _token_authorities(given: Mapping[str, Any]) -> dict[str, str]:
    """The authorities of the system for the token endpoint of OAUTHBEARER, where no others are given.

    librdkafka's own default is a path of one distribution, and on another no token endpoint with https is believed.
    """
    if not uses_oidc(given) or "https.ca.location" in given or "https.ca.pem" in given:
        return {}
    found = next((file for file in _AUTHORITIES if file is not None and isfile(file)), None)
    return {} if found is None else {"https.ca.location": found}


def security_settings(security: SecurityConfig) -> dict[str, str]:
    """What every kind of client needs, of ``kafka.security``; nothing when ``protocol`` is not set.

    Every file is looked at before a client is made: librdkafka names no configuration key, and of a file that is no
    certificate it reports only OpenSSL's own error. Raises CredentialFileError.
    """
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


_CLOSED = "check kafka.security and the port: TLS or a login seems to be wanted there, or it is no Kafka broker's"
_NO_TLS = "check kafka.security.protocol and the port in kafka.bootstrap_servers: it seems no TLS is spoken there"
_WAYS_OUT = (
    (
        ("OAUTHBEARER token", "trust anchors"),
        "name a file with the authorities of the token endpoint in https.ca.location of kafka.client",
    ),
    (
        ("OAUTHBEARER token", "certificate"),
        (
            "check that https.ca.location of kafka.client is the authority of the token endpoint's certificate, and "
            "that this names the host of sasl.oauthbearer.token.endpoint.url"
        ),
    ),
    (
        ("OAUTHBEARER token",),
        (
            "check sasl.oauthbearer.client.id, client.secret, scope and token.endpoint.url in kafka.client, and that "
            "this machine reaches the endpoint"
        ),
    ),
    (
        ("invalid_token",),
        (
            "the brokers do not take the token: check sasl.oauthbearer.scope in kafka.client, and the issuer and "
            "audience that the brokers expect"
        ),
    ),
    (("SASL",), "check kafka.security's mechanism, username and password"),
    (
        ("certificate verify failed",),
        (
            "check that kafka.security.ca_file is the authority of the brokers' certificates, and that these name the "
            "addresses in kafka.bootstrap_servers"
        ),
    ),
    (
        ("alert", "certificate"),
        "check kafka.security's certificate_file and key_file, which the broker asks for or does not take",
    ),
    # Of the same broker librdkafka reports now the one, now the other.
    (("PLAINTEXT broker listener",), _NO_TLS),
    (("closed by peer", "SSL_HANDSHAKE"), _NO_TLS),
    (("wrong version number",), _NO_TLS),
    (("answer the TLS handshake",), _NO_TLS),
    # Four first bytes of what is no Kafka: HTTP, and an alert of TLS.
    (("Invalid response size 1213486160",), "an HTTP server answers there: check the port"),
    (("Invalid response size 3525",), "TLS is spoken there: set kafka.security.protocol to ssl or sasl_ssl"),
    (("before it answers",), _CLOSED),
    # The same, where the request came behind the end of the connection.
    (("Broken pipe", "in state UP"), _CLOSED),
    (("Connection reset", "in state UP"), _CLOSED),
    (("does not answer",), "check the port, and kafka.security.protocol: perhaps TLS is spoken there"),
)
"""Words that an error has, all of them, and what to look at. The first that fits counts."""


def way_out(reason: str) -> str | None:
    """What to look at after a client's error, by librdkafka's text; None when it is no matter of security."""
    return next((fix for words, fix in _WAYS_OUT if all(word in reason for word in words)), None)
