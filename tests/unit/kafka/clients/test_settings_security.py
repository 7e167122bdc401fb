"""From ``kafka.security`` to librdkafka's settings, with files that can and cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from certificates import Authority
from confluent_kafka import Consumer, Producer

from consumer.config.credential_files import CredentialFileError
from consumer.config.tree import Config, KafkaConfig, SecurityConfig
from consumer.kafka.clients.settings import (
    consumer_settings,
    metadata_settings,
    producer_settings,
    security_settings,
    way_out,
)

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = Authority()
CERTIFICATE, KEY = AUTHORITY.issue("worker")
LOCKED_CERTIFICATE, LOCKED_KEY = AUTHORITY.issue("locked", password=b"opal-42")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    contents = {
        "password": b"caf\xc3\xa9 7\r\n\n",
        "ca": AUTHORITY.pem,
        "certificate": CERTIFICATE,
        "key": KEY,
        "locked-certificate": LOCKED_CERTIFICATE,
        "locked-key": LOCKED_KEY,
        "key-password": b"opal-42\n",
        "wrong-password": b"opal-43\n",
        "empty": b"",
        "blank": b"\n",
        "binary": b"hunter2\xff",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def section(files: Path, **names: str) -> SecurityConfig:
    """Keys that end in ``_file`` take the name of a file in ``files``."""
    given = {key: str(files / name) if key.endswith("_file") else name for key, name in names.items()}
    return SecurityConfig.model_validate(given)


LOGIN = {"protocol": "sasl_ssl", "mechanism": "SCRAM-SHA-256", "username": "u"}


def test_without_a_protocol_nothing_is_set() -> None:
    """What stands in kafka.client then counts alone."""
    assert security_settings(SecurityConfig()) == {}


def test_every_client_gets_all_of_it_and_librdkafka_takes_it(files: Path) -> None:
    """Consumer, producer and the client that asks for offsets log in alike; line ends of password files are dropped."""
    security = section(
        files,
        **LOGIN,
        password_file="password",
        ca_file="ca",
        certificate_file="locked-certificate",
        key_file="locked-key",
        key_password_file="key-password",
    )
    expected = {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "u",
        "sasl.password": "café 7",
        "ssl.ca.location": str(files / "ca"),
        "ssl.certificate.location": str(files / "locked-certificate"),
        "ssl.key.location": str(files / "locked-key"),
        "ssl.key.password": "opal-42",
    }
    config = Config(kafka=KafkaConfig(security=security))
    for settings in (consumer_settings, producer_settings, metadata_settings):
        assert expected.items() <= settings(config).items()
    Consumer({**consumer_settings(config), "log_level": 0}).close()
    Producer({**producer_settings(config), "log_level": 0})


def test_a_password_from_the_environment_is_taken_as_it_is(files: Path) -> None:
    """Nothing is cut off it."""
    security = section(files, **LOGIN, password="two words\n")
    assert security_settings(security)["sasl.password"] == "two words\n"


PAIR = {"certificate_file": "certificate", "key_file": "key"}


@pytest.mark.parametrize(
    ("names", "key", "words"),
    [
        ({"password_file": "missing"}, "password_file", "cannot be read: No such file"),
        ({"password_file": "."}, "password_file", "cannot be read: Is a directory"),
        ({"password_file": "empty"}, "password_file", "is empty"),
        ({"password_file": "blank"}, "password_file", "is empty"),
        ({"password_file": "binary"}, "password_file", "is not UTF-8 text"),
        ({"ca_file": "missing"}, "ca_file", "cannot be read"),
        ({"ca_file": "empty"}, "ca_file", "is empty"),
        ({"ca_file": "password"}, "ca_file", "has no certificate in PEM form"),
        ({"ca_file": "key"}, "ca_file", "has no certificate in PEM form"),
        ({**PAIR, "certificate_file": "missing"}, "certificate_file", "cannot be read"),
        ({**PAIR, "key_file": "missing"}, "key_file", "cannot be read"),
        ({**PAIR, "key_file": "ca"}, "key_file", "has no private key in PEM form that fits"),
        ({**PAIR, "certificate_file": "locked-certificate"}, "key_file", "is not the key of the certificate in"),
        ({**PAIR, "key_file": "locked-key"}, "key_file", "is encrypted; set kafka.security.key_password_file"),
        (
            {"certificate_file": "locked-certificate", "key_file": "locked-key", "key_password_file": "wrong-password"},
            "key_file",
            "and the key's password",
        ),
        ({**PAIR, "key_password_file": "missing"}, "key_password_file", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files: Path, names: dict[str, str], key: str, words: str) -> None:
    """Key, file and way out are said before a client is made, and never what is in the file."""
    with pytest.raises(CredentialFileError) as caught:
        security_settings(section(files, **{"protocol": "ssl", **names}))
    said = str(caught.value)
    assert said.startswith(f"kafka.security.{key} {files}")
    assert words in said
    assert "; " in said
    assert not {word for word in ("hunter2", "caf", "opal") if word in said}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("SASL authentication error: Authentication failed", "username and password"),
        ("SSL handshake failed: certificate verify failed: broker certificate", "ca_file"),
        ("Disconnected: connecting to a PLAINTEXT broker listener?", "no TLS is spoken there"),
        ("Disconnected: SSL connection closed by peer (after 0ms in state SSL_HANDSHAKE)", "no TLS is spoken there"),
        ("ssl/tls alert certificate required: SSL alert number 116", "certificate_file"),
        ('Failed to acquire SASL OAUTHBEARER token: {"error": "invalid_client"}', "client.secret, scope"),
        ("Failed to acquire SASL OAUTHBEARER token: error adding trust anchors from file: x", "name a file with"),
        ("Failed to acquire SASL OAUTHBEARER token: SSL certificate OpenSSL verify result", "https.ca.location"),
        ('SASL authentication error: {"status":"invalid_token"}', "issuer and audience"),
    ],
)
def test_a_clients_error_leads_to_the_key(reason: str, words: str) -> None:
    """What librdkafka says is followed by where to look, when it is a matter of security."""
    assert words in (way_out(reason) or "")
    assert way_out("Connect to ipv4#10.0.0.1:9092 failed: Connection refused") is None


def client(**settings: str) -> Config:
    return Config(kafka=KafkaConfig(client=settings))


OIDC = {"sasl.mechanisms": "OAUTHBEARER", "sasl.oauthbearer.method": "OIDC"}


def test_a_token_endpoint_is_believed_by_the_authorities_of_this_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka's own default is one distribution's path, also where that is not there."""
    monkeypatch.setattr("consumer.kafka.clients.settings._AUTHORITIES", (None, "/no/such/file", __file__, "/no/other"))
    assert metadata_settings(client(**OIDC))["https.ca.location"] == __file__
    assert "https.ca.location" not in metadata_settings(client())
    for given in ("https.ca.location", "https.ca.pem"):
        made = producer_settings(client(**OIDC, **{given: "mine"}))
        assert {key: value for key, value in made.items() if key.startswith("https.")} == {given: "mine"}


def test_tokens_go_together_with_the_security_section(files: Path) -> None:
    """Protocol and authorities here, the token's settings in kafka.client; all kinds of client get both."""
    security = section(files, protocol="sasl_ssl", mechanism="OAUTHBEARER", ca_file="ca")
    made = Config(kafka=KafkaConfig(security=security, client={"sasl.oauthbearer.client.id": "worker"}))
    for kind in (consumer_settings, producer_settings, metadata_settings):
        assert kind(made)["sasl.mechanism"] == "OAUTHBEARER"
        assert kind(made)["sasl.oauthbearer.client.id"] == "worker"
        assert "sasl.username" not in kind(made)
