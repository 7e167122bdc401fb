"""librdkafka's security settings from ``kafka.security``, with every file looked at before a client is made.

librdkafka names no configuration key, and says of a file that is no certificate only what OpenSSL thinks of it.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.config import SecurityConfig


class SecurityFileError(ValueError):
    """A file that cannot be used. The message names the key, the file and the way out, and never its content."""


def security_settings(security: SecurityConfig) -> dict[str, str]:
    """What every kind of client needs; nothing when ``protocol`` is not set. Raises SecurityFileError."""
    if security.protocol is None:
        return {}
    password = security.password
    if security.password_file is not None:
        password = _secret("password_file", security.password_file)
    if security.ca_file is not None:
        _check_certificates(security.ca_file)
    key_password = None
    if security.key_password_file is not None:
        key_password = _secret("key_password_file", security.key_password_file)
    if security.certificate_file is not None and security.key_file is not None:
        _check_pair(security.certificate_file, security.key_file, key_password)
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
    if "PLAINTEXT broker listener" in reason:
        return "check kafka.security.protocol and the port in kafka.bootstrap_servers: no TLS is spoken there"
    return None


def _secret(key: str, file: str) -> str:
    content = _content(key, file)
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        # The error would quote the bytes, which are the secret.
        raise _fault(key, file, "is not UTF-8 text", "write the password as such") from None
    if not text:
        raise _fault(key, file, "is empty", "write the password into it")
    return text


def _check_certificates(file: str) -> None:
    _content("ca_file", file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=file)
    except (OSError, ValueError):  # SSLError is an OSError
        found = 0
    else:
        found = context.cert_store_stats()["x509"]
    if not found:
        what = "has no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        raise _fault("ca_file", file, what, "name a file that has, or convert it with openssl x509")


def _check_pair(certificate: str, key: str, password: str | None) -> None:
    _content("certificate_file", certificate)
    if b"ENCRYPTED" in _content("key_file", key) and password is None:
        raise _fault("key_file", key, "is encrypted", "set kafka.security.key_password_file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=password or "")
    except (OSError, ValueError) as error:
        reason = f" ({error.reason})" if isinstance(error, ssl.SSLError) and error.reason else ""
        what = f"is no PEM key that fits kafka.security.certificate_file {certificate}{reason}"
        fix = "name the two that were issued together" + (" and the key's password" if password is not None else "")
        raise _fault("key_file", key, what, fix) from None


def _content(key: str, file: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "it is no file name"
        raise _fault(key, file, f"cannot be read: {reason}", "name a file that this user may read") from None
    if not content:
        raise _fault(key, file, "is empty", "name a file with content")
    return content


def _fault(key: str, file: str, what: str, fix: str) -> SecurityFileError:
    return SecurityFileError(f"kafka.security.{key} {file} {what}; {fix}")
