"""Combinations of ``kafka.security`` that cannot work, and secrets where others can read them."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from consumer.config.oauth_rules import OAUTH, TOKEN_URL, oauth_checks
from consumer.config.problems import HIDDEN, Check, KeyPath, Origin, dotted, is_secret, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config, KafkaConfig, ModelTlsConfig, RegistryConfig, SecurityConfig

_SASL = ("mechanism", "username", "password", "password_file")
_TLS = ("ca_file", "certificate_file", "key_file", "key_password_file")
_PASSWORD_VARIABLE = "REXSTREAM_KAFKA__SECURITY__PASSWORD"  # noqa: S105 - a name
_CLIENT_KEYS = {
    "security.protocol": "protocol",
    "sasl.mechanism": "mechanism",
    "sasl.mechanisms": "mechanism",
    "sasl.username": "username",
    "sasl.password": "password_file",
    "ssl.ca.location": "ca_file",
    "ssl.ca.pem": "ca_file",
    "ssl.certificate.location": "certificate_file",
    "ssl.certificate.pem": "certificate_file",
    "ssl.key.location": "key_file",
    "ssl.key.pem": "key_file",
    "ssl.key.password": "key_password_file",
    "ssl.keystore.location": "key_file",
    "ssl.keystore.password": "key_password_file",
}
"""librdkafka key -> the key of ``kafka.security`` for the same thing."""
_UNVERIFIED = {
    "enable.ssl.certificate.verification": ("false", "f", "0"),
    "ssl.endpoint.identification.algorithm": ("none",),
}
"""librdkafka key -> the values with which TLS does not check that it talks to the brokers."""
_HTTP = re.compile(
    r"(?:^|,)\s*http://(?P<userinfo>[^/?#,]*@)?(?P<host>\[[^\]/?#,]*\]|[^:/?#,]*)[^,]*", re.IGNORECASE | re.ASCII
)
"""The ``http`` addresses of a list with commas between them, which the registry's client takes."""
_ON_COMMAND_LINE = "is given on the command line, which every user of this machine can read"


def security_checks(kafka: KafkaConfig, origin: Origin) -> Iterator[Check]:
    """The checks of ``kafka.security``, and of the secrets in ``kafka.registry`` and ``kafka.client``."""
    section: KeyPath = ("kafka", "security")
    security = kafka.security
    protocol = security.protocol or "plaintext"
    what = f"is set, but kafka.security.protocol is {protocol}"
    for name in _SASL:
        unused = getattr(security, name) is not None and not protocol.startswith("sasl")
        yield unused, (*section, name), what, "set protocol to sasl_ssl, or remove it"
    for name in _TLS:
        unused = getattr(security, name) is not None and not protocol.endswith("ssl")
        yield unused, (*section, name), what, "set protocol to ssl or sasl_ssl"
    if protocol.startswith("sasl"):
        yield from _login(section, security)
    yield from oauth_checks(kafka)
    yield key_pair(section, security)
    yield (
        security.key_password_file is not None and security.key_file is None,
        (*section, "key_password_file"),
        "is set without kafka.security.key_file",
        "set the key, or remove its password",
    )
    yield (
        security.password is not None and not _from_environment(origin((*section, "password"))),
        (*section, "password"),
        "is typed where others can read it",
        f"remove it and set {_PASSWORD_VARIABLE}, or password_file",
    )
    url: KeyPath = ("kafka", "registry", "url")
    yield (
        HIDDEN in str(shown(url, kafka.registry.url)) and _from_flag(origin(url)),
        url,
        f"holds a password and {_ON_COMMAND_LINE}",
        "remove name and password from it and set kafka.registry.username and password_file",
    )
    for key, value in kafka.client.items():
        path: KeyPath = ("kafka", "client", key)
        yield (
            security.protocol is not None and key in _CLIENT_KEYS,
            path,
            "is set beside kafka.security.protocol, and only one of the two places can count",
            f"write it as kafka.security.{_CLIENT_KEYS.get(key)}",
        )
        secret = is_secret(path) or HIDDEN in str(shown(path, value))
        yield secret and _from_flag(origin(path)), path, _ON_COMMAND_LINE, f"set {_variable(key)} instead"


def security_warnings(config: Config, origin: Origin) -> Iterator[Check]:
    """Settings that work but are not safe."""
    security = config.kafka.security
    yield (
        security.protocol == "sasl_plaintext",
        ("kafka", "security", "protocol"),
        f"lets everyone on the way read the records{' and the password' if security.mechanism == 'PLAIN' else ''}",
        "use sasl_ssl",
    )
    yield (
        str(config.kafka.client.get("enable.sasl.oauthbearer.unsecure.jwt", "")).strip().lower() in ("true", "t", "1"),
        ("kafka", "client", "enable.sasl.oauthbearer.unsecure.jwt"),
        "makes tokens that nobody signed, so any client can name itself what it likes",
        "use sasl.oauthbearer.method: oidc",
    )
    registry = config.kafka.registry
    yield (
        sends_in_the_clear(registry.url or "", login=registry.username is not None),
        ("kafka", "registry", "url"),
        "is http and a login goes with it, so everyone on the way can read the password and change the schemas",
        "use https, or remove the login",
    )
    for key, value in config.kafka.client.items():
        path: KeyPath = ("kafka", "client", key)
        yield (
            key == TOKEN_URL and sends_in_the_clear(str(value), login=True),
            path,
            "is http, so everyone on the way can read the client's secret and the tokens",
            "use https",
        )
        yield (
            str(value).strip().lower() in _UNVERIFIED.get(key, ()),
            path,
            f"is {value}, so whoever answers at the brokers' address is sent the records and the login",
            "remove it, and name the authority of the brokers' certificates in kafka.security.ca_file",
        )
        yield (
            is_secret(path) and not _from_environment(origin(path)),
            path,
            "is a secret in the configuration file",
            f"set {_variable(key)} instead, or use kafka.security",
        )


def sends_in_the_clear(urls: str, *, login: bool) -> bool:
    """Whether a login leaves this machine over ``http``: ``login``, or one inside one of ``urls``."""
    return any((login or found["userinfo"]) and not _is_loopback(found["host"]) for found in _HTTP.finditer(urls))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def key_pair(section: KeyPath, files: SecurityConfig | RegistryConfig | ModelTlsConfig) -> Check:
    """A client's certificate and its key come together or not at all."""
    given, other = "certificate_file", "key_file"
    if files.certificate_file is None:
        given, other = other, given
    what = f"is set without {dotted((*section, other))}, and neither is of use alone"
    return (files.certificate_file is None) != (files.key_file is None), (*section, given), what, "set both, or neither"


def _login(section: KeyPath, security: SecurityConfig) -> Iterator[Check]:
    missing = f"is not set, and {security.protocol} needs"
    yield (
        security.mechanism is None,
        (*section, "mechanism"),
        f"{missing} one",
        "set SCRAM-SHA-512, or what the brokers take; for any other write all of it into kafka.client",
    )
    if security.mechanism == OAUTH:
        return
    yield security.username is None, (*section, "username"), f"{missing} one", "set it"
    file: KeyPath = (*section, "password_file")
    passwords = [password for password in (security.password, security.password_file) if password is not None]
    yield not passwords, file, f"{missing} a password", f"set it, or the variable {_PASSWORD_VARIABLE}"
    yield len(passwords) == 2, file, "is set, and kafka.security.password too", "keep one of them"


def _from_environment(origin: str | None) -> bool:
    # A key of a file has the file's name, which may be anything, and a colon before its line.
    return origin is not None and origin.startswith("REXSTREAM_") and ":" not in origin


def _from_flag(origin: str | None) -> bool:
    return (origin or "").startswith("--set ")


def _variable(key: str) -> str:
    """The variable that sets a key of ``kafka.client``."""
    return f"REXSTREAM_KAFKA__CLIENT__{key.upper().replace('.', '_')}"
