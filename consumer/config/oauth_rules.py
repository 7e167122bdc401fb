"""A login with tokens (SASL OAUTHBEARER): which of ``kafka.security`` and ``kafka.client`` it needs and excludes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumer.config.problems import Check, KeyPath
    from consumer.config.tree import KafkaConfig

OAUTH = "OAUTHBEARER"
MSK_IAM = "AWS_MSK_IAM"
NO_MSK_IAM = (
    "Rexstream does not sign for AWS IAM; MSK takes SCRAM-SHA-512 (protocol sasl_ssl) and mutual TLS (ssl) as well"
)
TOKEN_URL = "sasl.oauthbearer.token.endpoint.url"  # noqa: S105 - a name

_PREFIX = "sasl.oauthbearer."
_METHOD = _PREFIX + "method"
_GRANT = _PREFIX + "grant.type"
_SOURCE = _PREFIX + "metadata.authentication.type"
_UNSIGNED = "enable.sasl.oauthbearer.unsecure.jwt"
_MECHANISMS = ("sasl.mechanisms", "sasl.mechanism")
_NEEDED = {
    "client.id": "the name of this client there",
    "client.secret": "its secret, best as REXSTREAM_KAFKA__CLIENT__SASL_OAUTHBEARER_CLIENT_SECRET",
    "token.endpoint.url": "the address where tokens are given",
}
"""What the grant client_credentials needs, which is the default."""


def uses_oidc(client: Mapping[str, Any]) -> bool:
    """Whether librdkafka gets the tokens by itself, from a token endpoint."""
    return _text(client, _METHOD) == "oidc"


def oauth_checks(kafka: KafkaConfig) -> Iterator[Check]:
    """The checks of a login with tokens."""
    client, security = kafka.client, kafka.security
    passed = next((key for key in _MECHANISMS if key in client), None)
    mechanism = security.mechanism if passed is None else str(client[passed]).strip().upper()
    if passed is not None:
        yield mechanism == MSK_IAM, _at(passed), "is AWS_MSK_IAM, for which there is no signer here", NO_MSK_IAM
    if mechanism != OAUTH:
        for key in client:
            yield (
                key.startswith(_PREFIX) or key == _UNSIGNED,
                _at(key),
                f"is set, but the mechanism is {mechanism or 'none'}",
                "set kafka.security.mechanism to OAUTHBEARER, or remove it",
            )
        return
    if passed is not None:
        protocol = _text(client, "security.protocol") or "plaintext"
        yield (
            security.protocol is None and not protocol.startswith("sasl"),
            _at("security.protocol"),
            f"is {protocol}, so no login takes place",
            f"set kafka.security's protocol to sasl_ssl and mechanism to OAUTHBEARER, and remove kafka.client.{passed}",
        )
    for name in ("username", "password", "password_file"):
        yield (
            getattr(security, name) is not None,
            ("kafka", "security", name),
            "is set, but OAUTHBEARER logs in with a token",
            "remove it: sasl.oauthbearer.client.id and .client.secret in kafka.client are for the token endpoint",
        )
    yield from _tokens(client)


def _tokens(client: Mapping[str, Any]) -> Iterator[Check]:
    """Where the tokens come from."""
    unsigned = _text(client, _UNSIGNED) in ("true", "t", "1")
    yield (
        not uses_oidc(client) and not unsigned,
        _at(_METHOD),
        "is not oidc, so no client would ever get a token",
        "set it to oidc, and sasl.oauthbearer.token.endpoint.url, .client.id and .client.secret beside it",
    )
    if not uses_oidc(client):
        return
    own_grant = _text(client, _GRANT) not in ("", "client_credentials") or _text(client, _SOURCE) not in ("", "none")
    for name, what in _NEEDED.items():
        keys = (_PREFIX + name, _PREFIX + "client.credentials." + name)
        given = any(_text(client, key) for key in keys)
        yield not given and not own_grant, _at(keys[0]), "is not set, and oidc needs it", f"set it: {what}"
    url = _text(client, TOKEN_URL)
    yield (
        url != "" and not url.startswith(("http://", "https://")),
        _at(TOKEN_URL),
        "is not an http or https address",
        "write it as https://host/path",
    )


def _text(client: Mapping[str, Any], key: str) -> str:
    """A setting as librdkafka compares it; empty where it is not there."""
    return str(client.get(key, "")).strip().lower()


def _at(key: str) -> KeyPath:
    return ("kafka", "client", key)
