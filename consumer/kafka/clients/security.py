"""librdkafka's security settings from ``kafka.security``, with every file looked at before a client is made.

librdkafka names no configuration key, and says of a file that is no certificate only what OpenSSL thinks of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.config.credential_files import read_certificates, read_pair, read_password

if TYPE_CHECKING:
    from consumer.config.tree import SecurityConfig


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
