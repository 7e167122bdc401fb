"""server.properties of a test broker, and the certificates and users of its secure listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

USER = "reviews-worker"
PASSWORD = "Umbrella blau 7!"
"""Of ``USER``, in every mechanism."""
KEY_PASSWORD = "lantern 31"
"""Opens client-encrypted.key."""

_PROTOCOLS = {
    "PLAINTEXT": "PLAINTEXT",
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "SCRAM": "SASL_PLAINTEXT",
    "SCRAM_TLS": "SASL_SSL",
    "OAUTH": "SASL_PLAINTEXT",
}
OPEN = ("PLAINTEXT",)
SECURE = tuple(_PROTOCOLS)
"""TLS shows a certificate and asks for none, MUTUAL asks for one; both SCRAM listeners take PLAIN as well. OAUTH takes
OAUTHBEARER alone, with tokens that nobody signed, and wants a new one every few seconds."""

_BASE = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=4
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=3
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=3
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=3000
group.consumer.session.timeout.ms=3000
group.consumer.min.session.timeout.ms=3000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
broker.session.timeout.ms=6000
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""
_TLS = """
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.connections.max.reauth.ms=2500
listener.name.oauth.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
"""
_LOGINS = """
listener.name.{listener}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.{listener}.scram-sha-256.sasl.jaas.config={scram}
listener.name.{listener}.scram-sha-512.sasl.jaas.config={scram}
"""
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


def server_properties(
    node: int, ports: Mapping[str, int], controllers: Mapping[int, int], data: Path, certificates: Path | None
) -> str:
    """The settings of broker ``node``.

    ``ports``: listener -> port; ``controllers``: node -> port of its controller; ``certificates``: the folder that
    ``write_certificates`` filled, when there are other listeners than PLAINTEXT.
    """
    replicas = len(controllers)
    text = _BASE.format(
        node=node,
        voters=",".join(f"{number}@127.0.0.1:{port}" for number, port in controllers.items()),
        listeners=",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
        protocols=",".join(f"{name}:{_PROTOCOLS[name]}" for name in ports),
        controller=controllers[node],
        data=data,
        replicas=replicas,
        in_sync=max(1, replicas - 1),
    )
    if certificates is not None:
        text += _TLS.format(folder=certificates)
        for listener in ("scram", "scram_tls"):
            text += _LOGINS.format(listener=listener, user=USER, password=PASSWORD, scram=_SCRAM)
    return text


def users() -> list[str]:
    """Arguments of StorageTool that make ``USER`` known from the first start on."""
    return [
        f"--add-scram={mechanism}=[name={USER},password={PASSWORD}]" for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
    ]


def write_certificates(folder: Path) -> None:
    """What both sides need, as PEM files.

    ca.pem signed broker.pem (valid for 127.0.0.1, not for localhost), client.pem with client.key, and
    client-encrypted.pem, whose key is under ``KEY_PASSWORD``. other-ca.pem signed none of these.
    """
    authority = Authority("Test Kafka Authority")
    certificate, key = authority.issue("broker", ("127.0.0.1",))
    (folder / "broker.pem").write_bytes(key + certificate)
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "other-ca.pem").write_bytes(Authority("Another Authority").pem)
    for suffix, password in (("", None), ("-encrypted", KEY_PASSWORD.encode())):
        certificate, key = authority.issue("worker", password=password)
        (folder / f"client{suffix}.pem").write_bytes(certificate)
        (folder / f"client{suffix}.key").write_bytes(key)
