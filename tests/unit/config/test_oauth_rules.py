"""A login with tokens: what belongs together, and what is refused before a client is made."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.config.loading import load, load_config
from consumer.config.problems import ConfigError, Problem

SECRET = {"REXSTREAM_KAFKA__CLIENT__SASL_OAUTHBEARER_CLIENT_SECRET": "hunter2"}
OIDC = {
    "sasl.oauthbearer.method": "oidc",
    "sasl.oauthbearer.client.id": "worker",
    "sasl.oauthbearer.token.endpoint.url": "https://login.example/token",
}
SECURITY = {"kafka.security.protocol": "sasl_ssl", "kafka.security.mechanism": "OAUTHBEARER"}
PASSED_THROUGH = {"kafka.client.security.protocol": "sasl_ssl", "kafka.client.sasl.mechanisms": "OAUTHBEARER"}


def flags(client: dict[str, str], login: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in login.items()] + [
        f"kafka.client.{key}={value}" for key, value in client.items()
    ]


def refused(environ: dict[str, str], *overrides: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(None, environ, overrides)
    assert "hunter2" not in str(caught.value)
    return {problem.key: problem for problem in caught.value.problems}


@pytest.mark.parametrize("login", [SECURITY, PASSED_THROUGH, {**PASSED_THROUGH, "kafka.client.sasl.mechanism": "x"}])
def test_the_secret_comes_from_the_environment(login: dict[str, str]) -> None:
    """With the section or without it; a secret from there is no reason for a warning."""
    loaded = load(None, SECRET, flags(OIDC, login))
    assert loaded.config.kafka.client["sasl.oauthbearer.client.secret"] == "hunter2"
    assert loaded.warnings == ()
    assert "hunter2" not in repr(loaded.config)


@pytest.mark.parametrize(
    "client",
    [
        {**OIDC, "sasl.oauthbearer.scope": "reviews", "sasl.oauthbearer.extensions": "a=b", "https.ca.location": "ca"},
        {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": "https://login.example/token",
            "sasl.oauthbearer.grant.type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "sasl.oauthbearer.assertion.private.key.file": "key",
        },
        {"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.metadata.authentication.type": "azure_imds"},
    ],
    ids=["scope", "signed by a key", "azure"],
)
def test_what_librdkafka_has_for_tokens_is_passed_through(client: dict[str, str]) -> None:
    """Grants with a secret of another kind need none here."""
    assert client.items() <= load_config(None, SECRET, flags(client, SECURITY)).kafka.client.items()


def test_an_endpoint_under_its_other_name() -> None:
    """librdkafka has two names for the client's id and secret."""
    other = {key: value for key, value in OIDC.items() if not key.endswith("client.id")}
    prefix = "REXSTREAM_KAFKA__CLIENT__SASL_OAUTHBEARER_CLIENT_CREDENTIALS_CLIENT"
    assert (
        load_config(
            None, {f"{prefix}_ID": "w", f"{prefix}_SECRET": "hunter2"}, flags(other, SECURITY)
        ).kafka.security.mechanism
        == "OAUTHBEARER"
    )


def test_a_secret_on_the_command_line_is_refused() -> None:
    """Every user of the machine can read it there."""
    key = "kafka.client.sasl.oauthbearer.client.secret"
    problem = refused({}, *flags(OIDC, SECURITY), f"{key}=hunter2")[key]
    assert problem.fix == f"set {next(iter(SECRET))} instead"


@pytest.mark.parametrize("missing", [*OIDC, "sasl.oauthbearer.client.secret"])
@pytest.mark.parametrize("login", [SECURITY, PASSED_THROUGH], ids=["section", "client"])
def test_each_setting_that_a_token_needs_is_named(missing: str, login: dict[str, str]) -> None:
    """Without a method librdkafka waits for ever for somebody to hand it a token."""
    client = {key: value for key, value in OIDC.items() if key != missing}
    problem = refused({} if missing.endswith("secret") else SECRET, *flags(client, login))
    assert list(problem) == [f"kafka.client.{missing}"]


@pytest.mark.parametrize(
    ("login", "client", "key", "words"),
    [
        ({}, OIDC, "client.sasl.oauthbearer.method", "the mechanism is none; set kafka.security.mechanism"),
        (
            {"kafka.client.security.protocol": "sasl_ssl", "kafka.client.sasl.mechanism": "PLAIN"},
            OIDC,
            "client.sasl.oauthbearer.client.id",
            "the mechanism is PLAIN",
        ),
        (
            {"kafka.client.sasl.mechanisms": "oauthbearer"},
            OIDC,
            "client.security.protocol",
            "is plaintext, so no login takes place",
        ),
        ({**SECURITY, "kafka.security.username": "u"}, OIDC, "security.username", "OAUTHBEARER logs in with a token"),
        ({**SECURITY, "kafka.security.password_file": "p"}, OIDC, "security.password_file", ".client.secret"),
        (
            SECURITY,
            {**OIDC, "sasl.oauthbearer.token.endpoint.url": "login.example/token"},
            "client.sasl.oauthbearer.token.endpoint.url",
            "write it as https://host/path",
        ),
        (SECURITY, {**OIDC, "sasl.mechanisms": "OAUTHBEARER"}, "client.sasl.mechanisms", "kafka.security.mechanism"),
        ({"kafka.client.sasl.mechanisms": "AWS_MSK_IAM"}, {}, "client.sasl.mechanisms", "MSK takes SCRAM-SHA-512"),
        (
            {"kafka.security.protocol": "sasl_ssl", "kafka.security.mechanism": "AWS_MSK_IAM"},
            {},
            "security.mechanism",
            "MSK takes SCRAM-SHA-512",
        ),
    ],
)
def test_what_cannot_be_is_refused(login: dict[str, str], client: dict[str, str], key: str, words: str) -> None:
    """At start, with the key and the way out; librdkafka would wait, or name its own properties."""
    assert words in str(refused(SECRET if client else {}, *flags(client, login))[f"kafka.{key}"])


def test_tokens_that_nobody_signed_are_warned_of(write: Any) -> None:
    """For a broker on one's own machine; they need no endpoint."""
    path = write(
        "kafka:\n  security: {protocol: sasl_plaintext, mechanism: OAUTHBEARER}\n"
        "  client: {enable.sasl.oauthbearer.unsecure.jwt: true}\n"
    )
    keys = [warning.key for warning in load(path, {}).warnings]
    assert keys == ["kafka.security.protocol", "kafka.client.enable.sasl.oauthbearer.unsecure.jwt"]
