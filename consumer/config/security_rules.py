"""Combinations of ``kafka.security`` that cannot be, and secrets where others can read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.config.problems import Problem, dotted
from consumer.config.secrets import HIDDEN, is_secret, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.problems import KeyPath, Origin
    from consumer.config.tree import Config, KafkaConfig, SecurityConfig

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
"""librdkafka key -> the key of ``kafka.security`` that says the same."""
_UNVERIFIED = {
    "enable.ssl.certificate.verification": ("false", "f", "0"),
    "ssl.endpoint.identification.algorithm": ("none",),
}
"""librdkafka key -> the values with which TLS takes anyone for the brokers."""
_ON_COMMAND_LINE = "is given on the command line, which every user of this machine can read"


def security_problems(kafka: KafkaConfig, origin: Origin) -> Iterator[tuple[KeyPath, str, str]]:
    """Key, what is wrong with it, and the way out."""
    section: KeyPath = ("kafka", "security")
    security = kafka.security
    for name, what, fix in (*_protocol_problems(security), *_login_problems(security), *_key_problems(security)):
        yield (*section, name), what, fix
    if security.password is not None and not _from_environment(origin((*section, "password"))):
        what = "is typed where others can read it"
        yield (*section, "password"), what, f"remove it and set {_PASSWORD_VARIABLE}, or password_file"
    url: KeyPath = ("kafka", "registry", "url")
    if HIDDEN in str(shown(url, kafka.registry.url)) and _from_flag(origin(url)):
        fix = "remove name and password from it and set kafka.registry.username and password_file"
        yield url, f"holds a password and {_ON_COMMAND_LINE}", fix
    for key, value in kafka.client.items():
        path: KeyPath = ("kafka", "client", key)
        if security.protocol is not None and key in _CLIENT_KEYS:
            what = "is set beside kafka.security.protocol, and only one of the two places can count"
            yield path, what, f"write it as kafka.security.{_CLIENT_KEYS[key]}"
        if (is_secret(path) or HIDDEN in str(shown(path, value))) and _from_flag(origin(path)):
            yield path, _ON_COMMAND_LINE, f"set {_variable(key)} instead"


def security_warnings(config: Config, origin: Origin) -> Iterator[Problem]:
    """What can work and is not safe."""
    security = config.kafka.security
    if security.protocol == "sasl_plaintext":
        read = "the records and the password" if security.mechanism == "PLAIN" else "the records"
        what = f"lets everyone on the way read {read}"
        yield Problem("kafka.security.protocol", origin(("kafka", "security", "protocol")), what, "use sasl_ssl")
    for key, value in config.kafka.client.items():
        path: KeyPath = ("kafka", "client", key)
        if str(value).strip().lower() in _UNVERIFIED.get(key, ()):
            what = f"is {value}, so whoever answers at the brokers' address is sent the records and the login"
            fix = "remove it, and name the authority of the brokers' certificates in kafka.security.ca_file"
            yield Problem(dotted(path), origin(path), what, fix)
        if is_secret(path) and not _from_environment(origin(path)):
            what = "is a secret in the configuration file"
            yield Problem(dotted(path), origin(path), what, f"set {_variable(key)} instead, or use kafka.security")


def _protocol_problems(security: SecurityConfig) -> Iterator[tuple[str, str, str]]:
    protocol = security.protocol or "plaintext"
    for name in _SASL:
        if getattr(security, name) is not None and not protocol.startswith("sasl"):
            yield name, f"is set, but kafka.security.protocol is {protocol}", "set protocol to sasl_ssl, or remove it"
    for name in _TLS:
        if getattr(security, name) is not None and not protocol.endswith("ssl"):
            yield name, f"is set, but kafka.security.protocol is {protocol}", "set protocol to ssl or sasl_ssl"


def _login_problems(security: SecurityConfig) -> Iterator[tuple[str, str, str]]:
    if not (security.protocol or "").startswith("sasl"):
        return
    if security.mechanism is None:
        yield (
            "mechanism",
            f"is not set, and {security.protocol} needs one",
            "set SCRAM-SHA-512, or what the brokers take; for any other write all of it into kafka.client",
        )
    if security.username is None:
        yield "username", f"is not set, and {security.protocol} needs one", "set it"
    if security.password is None and security.password_file is None:
        what = f"is not set, and {security.protocol} needs a password"
        yield "password_file", what, f"set it, or the variable {_PASSWORD_VARIABLE}"
    if security.password is not None and security.password_file is not None:
        yield "password_file", "is set, and kafka.security.password too", "keep one of them"


def _key_problems(security: SecurityConfig) -> Iterator[tuple[str, str, str]]:
    if (security.certificate_file is None) != (security.key_file is None):
        given, other = ("key", "certificate") if security.certificate_file is None else ("certificate", "key")
        what = f"is set without kafka.security.{other}_file, and neither is of use alone"
        yield f"{given}_file", what, "set both, or neither"
    if security.key_password_file is not None and security.key_file is None:
        yield "key_password_file", "is set without kafka.security.key_file", "set the key, or remove its password"


def _from_environment(origin: str | None) -> bool:
    # A key of a file has the file's name, which may be anything, and a colon before its line.
    return origin is not None and origin.startswith("REXSTREAM_") and ":" not in origin


def _from_flag(origin: str | None) -> bool:
    return (origin or "").startswith("--set ")


def _variable(key: str) -> str:
    """The variable that sets a key of ``kafka.client``."""
    return f"REXSTREAM_KAFKA__CLIENT__{key.upper().replace('.', '_')}"
