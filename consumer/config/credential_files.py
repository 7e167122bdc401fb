"""Files with certificates, keys and passwords, checked before a client is made of them.

Used for the brokers, the registry and the model server: their libraries report a bad file late, without the setting's
name, and may quote what is in it. A client reads its files when it is made; ``consumer.worker.credentials`` sees that a
running worker makes it again when they change.
"""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from consumer.config.text_rules import text_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.config.tree import Config, ModelTlsConfig, RegistryConfig, SecurityConfig

SECTIONS = ("kafka.security", "kafka.registry", "model.tls")
"""Sections that name files, one for the clients of each dependency. ``kafka.client`` belongs to the first."""

EXPIRES_SOON_DAYS = 14.0
"""Certificates with fewer days left are warned of."""

_PASSED_THROUGH = ("location", "file", "keytab")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class CredentialFileError(ValueError):
    """A file that cannot be used. The message names the setting, the file and the way out, and never its content."""


def read_password(setting: str, file: str) -> str:
    """The text of a file without the line ends behind it. Raises CredentialFileError, also for what is not seen."""
    content = _content(setting, file)
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        # The error would quote the bytes, which are the secret.
        raise CredentialFileError(f"{setting} {file} is not UTF-8 text; write the password as such") from None
    if not text:
        raise CredentialFileError(f"{setting} {file} is empty; write the password into it")
    if (fault := text_fault(("password",), text, "")) is not None:  # by the rules for one in a variable
        raise CredentialFileError(f"{setting} {file} {'; '.join(fault)}")
    return text


def read_certificates(setting: str, file: str) -> bytes:
    """The content of a file with one or more certificates in PEM form. Raises CredentialFileError."""
    content = _content(setting, file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(OSError, ValueError):  # SSLError is an OSError
        context.load_verify_locations(cafile=file)
    if not context.cert_store_stats()["x509"]:
        what = "has no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        raise CredentialFileError(f"{setting} {file} {what}; name a file that has, or convert it with openssl x509")
    return content


def read_pair(
    setting: str,
    file: str,
    key_setting: str,
    key_file: str,
    password: str | None = None,
    if_encrypted: str = "decrypt it with openssl pkey, readable by this user alone",
) -> tuple[bytes, bytes]:
    """A certificate (with its chain, if any) and the private key that belongs to it, which ``password`` opens.

    ``if_encrypted`` is what to do about a key that needs a password when there is none. Raises CredentialFileError.
    """
    certificate = read_certificates(setting, file)
    key = _content(key_setting, key_file)
    if b"ENCRYPTED" in key and password is None:
        raise CredentialFileError(f"{key_setting} {key_file} is encrypted; {if_encrypted}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(file, key_file, password=password or "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        if reason == "KEY_VALUES_MISMATCH":
            what, fix = "is not the key of the certificate in", "name the two that were issued together"
        else:
            what, fix = "has no private key in PEM form that fits", "name the key that the certificate was made for"
        if password is not None:
            fix += " and the key's password"
        where = f"{setting} {file} ({reason})" if reason else f"{setting} {file}"
        raise CredentialFileError(f"{key_setting} {key_file} {what} {where}; {fix}") from None
    return certificate, key


def credential_files(config: Config) -> dict[str, dict[str, str]]:
    """Section (one of ``SECTIONS``) -> setting -> file, for all that this configuration uses."""
    kafka, found = config.kafka, {}
    if kafka.security.protocol is not None:
        found["kafka.security"] = _named(kafka.security, "kafka.security")
    passed = {
        f"kafka.client.{key}": str(file)
        for key, file in kafka.client.items()
        # Librdkafka takes a folder of authorities, and "probe", in place of a file.
        if key.rpartition(".")[2] in _PASSED_THROUGH and os.path.isfile(str(file))  # Path's raises for some names
    }
    found["kafka.security"] = found.get("kafka.security", {}) | passed
    if kafka.registry.url is not None:
        found["kafka.registry"] = _named(kafka.registry, "kafka.registry")
    if config.model.tls is not None:
        found["model.tls"] = _named(config.model.tls, "model.tls")
    return {section: files for section, files in found.items() if files}


def check_files(files: Mapping[str, str]) -> None:
    """Whether one section of ``credential_files`` can be used: readable, certificates, keys that are theirs.

    Raises CredentialFileError for the first file that cannot.
    """
    named = {setting.rpartition(".")[2]: (setting, file) for setting, file in files.items()}
    password = None if "key_password_file" not in named else read_password(*named["key_password_file"])
    if "certificate_file" in named and "key_file" in named:
        read_pair(*named["certificate_file"], *named["key_file"], password)
    if "ca_file" in named:
        read_certificates(*named["ca_file"])
    for setting, file in files.items():
        if setting.endswith("password_file"):
            read_password(setting, file)
        else:
            _content(setting, file)
    certificate, key = (f"kafka.client.ssl.{name}.location" for name in ("certificate", "key"))
    # An encrypted key's password is no file there, but a setting, and so none that could have been changed with it.
    if certificate in files and key in files and b"ENCRYPTED" not in _content(key, files[key]):
        read_pair(certificate, files[certificate], key, files[key])


def earliest_expiry(content: bytes) -> float | None:
    """When the first of the PEM certificates in ``content`` expires, in seconds since the epoch; None without any."""
    found = _CERTIFICATE.findall(content)
    if not found:
        return None
    # Not at the top: it takes 9 MB, and only TLS with files needs it.
    from cryptography.x509 import load_pem_x509_certificate

    ends = []
    for certificate in found:
        with suppress(Exception):  # a bundle of authorities may hold one that only OpenSSL takes
            ends.append(load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp())
    return min(ends, default=None)


def _named(files: SecurityConfig | RegistryConfig | ModelTlsConfig, section: str) -> dict[str, str]:
    return {f"{section}.{name}": str(file) for name, file in files if name.endswith("_file") and file is not None}


def _content(setting: str, file: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "it is no file name"
        what = f"{setting} {file} cannot be read: {reason}"
        raise CredentialFileError(f"{what}; name a file that this user may read") from None
    if not content:
        raise CredentialFileError(f"{setting} {file} is empty; name a file with content")
    return content
