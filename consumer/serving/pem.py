"""PEM files for TLS, looked at before they are used: gRPC says of bad ones only that a connection failed, much later.

Files are read once; a renewed certificate takes effect when the process is started again.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class PemError(ValueError):
    """A file that cannot be used. The message names the setting, the file and the way out, and never its content."""


def read_certificates(setting: str, file: str) -> bytes:
    """The content of a file with one or more certificates. Raises PemError."""
    content = _content(setting, file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=file)
    except (OSError, ValueError):  # SSLError is an OSError
        found = 0
    else:
        found = context.cert_store_stats()["x509"]
    if not found:
        what = "has no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        raise PemError(f"{setting} {file} {what}; name a file that has, or convert it with openssl x509")
    return content


def read_pair(setting: str, file: str, key_setting: str, key_file: str) -> tuple[bytes, bytes]:
    """A certificate (with its chain, if any) and the private key that belongs to it. Raises PemError."""
    certificate = read_certificates(setting, file)
    key = _content(key_setting, key_file)
    if b"ENCRYPTED" in key:
        what = "is encrypted, and gRPC reads only keys that are not"
        raise PemError(f"{key_setting} {key_file} {what}; decrypt it with openssl pkey, readable by this user alone")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(file, key_file, password=b"")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        if reason == "KEY_VALUES_MISMATCH":
            what = f"is not the key of the certificate in {setting} {file}"
            raise PemError(f"{key_setting} {key_file} {what}; name the two that were issued together") from None
        what = f"has no private key in PEM form that fits {setting} {file}{f' ({reason})' if reason else ''}"
        raise PemError(f"{key_setting} {key_file} {what}; name the key that the certificate was made for") from None
    return certificate, key


def _content(setting: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "it is no file name"
        raise PemError(
            f"{setting} {file!r} cannot be read: {reason}; name a PEM file that this user may read"
        ) from None
