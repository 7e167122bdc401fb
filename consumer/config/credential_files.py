"""Files with certificates, keys and passwords, checked before a client is made of them.

Used for the brokers, the registry and the model server: their libraries report a bad file late, without the setting's
name, and may quote what is in it. Files are read once; a renewed one takes effect when its client is made again.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path


class CredentialFileError(ValueError):
    """A file that cannot be used. The message names the setting, the file and the way out, and never its content."""


def read_password(setting: str, file: str) -> str:
    """The text of a file without the line ends behind it. Raises CredentialFileError."""
    content = _content(setting, file)
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        # The error would quote the bytes, which are the secret.
        raise CredentialFileError(f"{setting} {file} is not UTF-8 text; write the password as such") from None
    if not text:
        raise CredentialFileError(f"{setting} {file} is empty; write the password into it")
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
