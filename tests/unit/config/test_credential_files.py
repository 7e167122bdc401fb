"""Files with certificates, keys and passwords are refused before they are used, with what is wrong about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificates import Authority

from consumer.config.credential_files import (
    CredentialFileError,
    check_files,
    credential_files,
    earliest_expiry,
    read_certificates,
    read_pair,
    read_password,
)
from consumer.config.tree import Config

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = Authority()
CERTIFICATE, KEY = AUTHORITY.issue("worker")
OTHER_KEY = AUTHORITY.issue("another")[1]
ENCRYPTED = AUTHORITY.issue("locked", password=b"correct-horse")


def written(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def refusal(folder: Path, certificate: bytes, key: bytes) -> str:
    with pytest.raises(CredentialFileError) as caught:
        read_pair("c", written(folder, "c.pem", certificate), "k", written(folder, "k.pem", key))
    return str(caught.value)


def test_good_files_are_read_as_they_are(tmp_path: Path) -> None:
    """Comments, chains and bundles of several authorities are fine."""
    bundle = "# Behörde\n".encode() + AUTHORITY.pem + Authority("Second").pem
    assert read_certificates("ca", written(tmp_path, "ca.pem", bundle)) == bundle
    chain = CERTIFICATE + AUTHORITY.pem
    files = written(tmp_path, "c.pem", chain), written(tmp_path, "k.pem", KEY)
    assert read_pair("c", files[0], "k", files[1]) == (chain, KEY)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a folder, or no name of a file: the setting and the file are named."""
    for file in (str(tmp_path / "none.pem"), str(tmp_path), "a\0b"):
        with pytest.raises(CredentialFileError, match=r"^model\.tls\.ca_file .* cannot be read"):
            read_certificates("model.tls.ca_file", file)


def test_a_file_without_content(tmp_path: Path) -> None:
    """Often a mount that has not come, so it is told apart from rubbish; a line end alone is no password either."""
    empty, blank = written(tmp_path, "empty", b""), written(tmp_path, "blank", b"\r\n")
    for file in (empty, blank):
        with pytest.raises(CredentialFileError, match=r"^p .* is empty; "):
            read_password("p", file)
    with pytest.raises(CredentialFileError, match=r"^ca .* is empty"):
        read_certificates("ca", empty)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbfhunter2", "BYTE ORDER MARK"),
        ("hunter2".encode("utf-16-le"), "NUL"),  # librdkafka would take the first letter
        (b"shop\nhunter2\n", "a line end in it"),
        (b"\nhunter2", "begins with a line end"),
        (b"${HUNTER2}", "variable that nothing has replaced"),
    ],
)
def test_a_password_with_what_is_not_seen(content: bytes, words: str, tmp_path: Path) -> None:
    """As Windows saves it, or with the user's name in it: no login would say so. It is not quoted."""
    with pytest.raises(CredentialFileError, match=words) as caught:
        read_password("p", written(tmp_path, "password", content))
    assert "unter" not in str(caught.value)
    for good in ("p$w {x}' \"", " p ", "${a} b", "pä ss"):
        assert read_password("p", written(tmp_path, "password", f"{good}\r\n".encode())) == good


def test_a_key_that_a_password_opens(tmp_path: Path) -> None:
    """With the right one it is taken, with a wrong one the password is named among what to look at, and not quoted."""
    files = written(tmp_path, "c.pem", ENCRYPTED[0]), written(tmp_path, "k.pem", ENCRYPTED[1])
    assert read_pair("c", files[0], "k", files[1], "correct-horse") == ENCRYPTED
    with pytest.raises(CredentialFileError, match="and the key's password") as caught:
        read_pair("c", files[0], "k", files[1], "wrong-horse")
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"certificate", KEY, CERTIFICATE[:-80], CERTIFICATE[40:]])
def test_a_file_without_a_certificate(tmp_path: Path, content: bytes) -> None:
    """Rubbish, half a certificate and a key are none."""
    with pytest.raises(CredentialFileError, match="has no certificate in PEM form"):
        read_certificates("ca", written(tmp_path, "ca.pem", content))


def test_a_key_that_does_not_fit(tmp_path: Path) -> None:
    """Another certificate's key, no key, rubbish, an encrypted key: each is told, and none is quoted."""
    assert "is not the key of the certificate in c" in refusal(tmp_path, CERTIFICATE, OTHER_KEY)
    assert "has no private key" in refusal(tmp_path, CERTIFICATE, CERTIFICATE)
    assert "has no private key" in refusal(tmp_path, CERTIFICATE, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n")
    assert "is encrypted" in refusal(tmp_path, *ENCRYPTED)
    assert "has no certificate" in refusal(tmp_path, KEY, CERTIFICATE)
    body = OTHER_KEY.splitlines()[1].decode()
    assert body not in refusal(tmp_path, CERTIFICATE, OTHER_KEY)


def test_the_files_that_a_configuration_uses(tmp_path: Path) -> None:
    """By section and setting; what is passed through to librdkafka belongs to Kafka, but no folder of authorities."""
    keytab = written(tmp_path, "keytab", b"k")
    config = Config.model_validate(
        {
            "kafka": {
                "security": {"protocol": "ssl", "ca_file": "ca", "key_password_file": "p"},
                "registry": {"url": "https://r", "username": "u", "password_file": "rp"},
                "client": {
                    "sasl.kerberos.keytab": keytab,
                    "ssl.crl.location": str(tmp_path / "none"),
                    "ssl.ca.location": str(tmp_path),
                    "ssl.keystore.location": "x" * 5000,
                    "client.rack": keytab,
                },
            },
            "model": {"tls": {"certificate_file": "c", "key_file": "k", "server_name": "s"}},
        }
    )
    assert credential_files(config) == {
        "kafka.security": {
            "kafka.security.ca_file": "ca",
            "kafka.security.key_password_file": "p",
            "kafka.client.sasl.kerberos.keytab": keytab,
        },
        "kafka.registry": {"kafka.registry.password_file": "rp"},
        "model.tls": {"model.tls.certificate_file": "c", "model.tls.key_file": "k"},
    }
    assert credential_files(Config()) == {}


def test_files_that_do_not_fit_together_are_found(tmp_path: Path) -> None:
    """Pairs, an encrypted key's password, and what is empty or gone; those that are passed through, too."""
    files = {
        "s.ca_file": written(tmp_path, "ca", AUTHORITY.pem),
        "s.certificate_file": written(tmp_path, "c", ENCRYPTED[0]),
        "s.key_file": written(tmp_path, "k", ENCRYPTED[1]),
        "s.key_password_file": written(tmp_path, "p", b"correct-horse\n"),
    }
    check_files(files)
    for name, content, words in (
        ("p", b"wrong", "the key's password"),
        ("p", b"", "is empty"),
        ("k", OTHER_KEY, "is not the key of the certificate"),
        ("c", CERTIFICATE[:-40], "has no certificate"),
        ("ca", b"x", "has no certificate"),
    ):
        before = (tmp_path / name).read_bytes()
        written(tmp_path, name, content)
        with pytest.raises(CredentialFileError, match=words):
            check_files(files)
        written(tmp_path, name, before)
    check_files(files)
    passed = {
        "kafka.client.ssl.certificate.location": written(tmp_path, "pc", CERTIFICATE),
        "kafka.client.ssl.key.location": written(tmp_path, "pk", OTHER_KEY),
    }
    with pytest.raises(CredentialFileError, match="is not the key"):
        check_files(passed)
    written(tmp_path, "pk", ENCRYPTED[1])
    check_files(passed)
    with pytest.raises(CredentialFileError, match="cannot be read"):
        check_files({"kafka.client.ssl.crl.location": str(tmp_path / "gone")})


def test_the_first_certificate_to_expire_counts() -> None:
    """Of a chain or a bundle; what is no certificate, or a broken one, is passed over."""
    short, long = (AUTHORITY.issue("w", days=days)[0] for days in (3, 300))
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    ends = [earliest_expiry(content) for content in (long + b"# text\n" + short, short, long, broken + short)]
    assert ends[0] == ends[1] == ends[3]
    assert ends[2] is not None
    assert ends[1] is not None
    assert ends[2] - ends[1] == 297 * 86_400
    assert earliest_expiry(KEY) is None
    assert earliest_expiry(broken) is None
