"""``kafka.security``: which combinations can be, and where secrets may stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from consumer.config.loading import load, load_config
from consumer.config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from pathlib import Path

LOGIN = {"mechanism": "SCRAM-SHA-512", "username": "u", "password_file": "p"}
PASSWORD = "REXSTREAM_KAFKA__SECURITY__PASSWORD"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(client: dict[str, Any] | None = None, **security: str) -> str:
        path = tmp_path / "rexstream.yaml"
        path.write_text(yaml.safe_dump({"kafka": {"security": security, "client": client or {}}}), encoding="utf-8")
        return str(path)

    return write_file


def refused(path: str | None, environ: dict[str, str] | None = None, *overrides: str) -> dict[str, Problem]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {}, overrides)
    return {problem.key: problem for problem in caught.value.problems}


@pytest.mark.parametrize(
    "security",
    [
        {},
        {"protocol": "plaintext"},
        {"protocol": "ssl"},
        {"protocol": "ssl", "ca_file": "ca"},
        {"protocol": "ssl", "certificate_file": "c", "key_file": "k", "key_password_file": "p"},
        {"protocol": "sasl_plaintext", **LOGIN},
        {"protocol": "sasl_ssl", "ca_file": "ca", "certificate_file": "c", "key_file": "k", **LOGIN},
    ],
)
def test_what_can_be_is_accepted(write: Any, security: dict[str, str]) -> None:
    """Files are not looked at: the machine that checks a configuration need not have them."""
    assert load_config(write(**security), {}).kafka.security.protocol == security.get("protocol")


@pytest.mark.parametrize(
    ("security", "key", "words"),
    [
        ({"mechanism": "PLAIN"}, "mechanism", "protocol is plaintext; set protocol to sasl_ssl"),
        ({"protocol": "ssl", "username": "u"}, "username", "protocol is ssl"),
        ({"protocol": "plaintext", "password_file": "p"}, "password_file", "protocol is plaintext"),
        ({"ca_file": "ca"}, "ca_file", "set protocol to ssl"),
        ({"protocol": "sasl_plaintext", "ca_file": "ca", **LOGIN}, "ca_file", "protocol is sasl_plaintext"),
        ({"protocol": "sasl_ssl", "username": "u", "password_file": "p"}, "mechanism", "set SCRAM-SHA-512"),
        ({"protocol": "sasl_ssl", "mechanism": "PLAIN", "password_file": "p"}, "username", "is not set"),
        ({"protocol": "sasl_ssl", "mechanism": "PLAIN", "username": "u"}, "password_file", PASSWORD),
        ({"protocol": "ssl", "certificate_file": "c"}, "certificate_file", "without kafka.security.key_file"),
        ({"protocol": "ssl", "key_file": "k"}, "key_file", "without kafka.security.certificate_file"),
        ({"protocol": "ssl", "key_password_file": "p"}, "key_password_file", "without kafka.security.key_file"),
        ({"protocol": "tls"}, "protocol", "is text (tls)"),
        ({"protocol": "sasl_ssl", **LOGIN, "mechanism": "SCRAM-SHA-1"}, "mechanism", "did you mean SCRAM-SHA-512"),
        ({"protocol": "sasl_ssl", **LOGIN, "password": "hunter2"}, "password", f"set {PASSWORD}"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(write: Any, security: dict[str, str], key: str, words: str) -> None:
    """The key is named, and no password is repeated."""
    problem = refused(write(**security))[f"kafka.security.{key}"]
    assert words in str(problem)
    assert "hunter2" not in str(problem)


def test_a_password_comes_from_the_environment_only(write: Any) -> None:
    """Neither from the file, which is shared and kept, nor from a flag, which the process table shows."""
    section = {"protocol": "sasl_ssl", "mechanism": "PLAIN", "username": "u"}
    config = load_config(write(**section), {PASSWORD: "0123"})
    assert config.kafka.security.password == "0123"
    flag = refused(write(**section), {}, "kafka.security.password=hunter2")["kafka.security.password"]
    assert "password_file" in flag.fix
    assert "hunter2" not in str(flag)
    both = refused(write(**section, password_file="p"), {PASSWORD: "x"})
    assert list(both) == ["kafka.security.password_file"]


@pytest.mark.parametrize(
    ("key", "own"),
    [
        ("security.protocol", "protocol"),
        ("sasl.mechanisms", "mechanism"),
        ("ssl.ca.location", "ca_file"),
        ("ssl.key.pem", "key_file"),
        ("ssl.keystore.location", "key_file"),
    ],
)
def test_one_thing_is_not_said_in_two_places(write: Any, key: str, own: str) -> None:
    """A pass-through setting that would override the section is refused and led to it; alone it may stand."""
    problem = refused(write({key: "x"}, protocol="ssl"))[f"kafka.client.{key}"]
    assert problem.fix == f"write it as kafka.security.{own}"
    load_config(write({key: "x"}), {})
    load_config(write({"ssl.endpoint.identification.algorithm": "none"}, protocol="ssl"), {})


def test_a_passed_through_secret_is_not_taken_from_the_command_line() -> None:
    """Every user of the machine can read it there."""
    problem = refused(None, {}, "kafka.client.sasl.password=hunter2")["kafka.client.sasl.password"]
    assert problem.fix == "set REXSTREAM_KAFKA__CLIENT__SASL_PASSWORD instead"
    assert "hunter2" not in str(problem)


def test_what_is_unsafe_is_warned_of(write: Any) -> None:
    """A secret in the file, and records or passwords that travel in the clear."""
    in_file = load(write({"sasl.password": "hunter2"}), {}).warnings
    assert [warning.key for warning in in_file] == ["kafka.client.sasl.password"]
    assert "hunter2" not in str(in_file)
    assert load(None, {"REXSTREAM_KAFKA__CLIENT__SASL_PASSWORD": "x"}).warnings == ()
    plain, scram = (
        load(write(**{**LOGIN, "protocol": "sasl_plaintext", "mechanism": mechanism}), {}).warnings[0].what
        for mechanism in ("PLAIN", "SCRAM-SHA-256")
    )
    assert "the password" in plain
    assert "the password" not in scram
    assert load(write(protocol="sasl_ssl", **LOGIN), {}).warnings == ()


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("kafka.registry.url=https://u:hunter2@h:8081", "kafka.registry.url"),
        ("kafka.registry.url=https://hunter2@h:8081", "kafka.registry.url"),
        ("kafka.registry={url: 'https://u:hunter2@h:8081'}", "kafka.registry.url"),
        (
            "kafka.client.sasl.oauthbearer.token.endpoint.url=https://u:hunter2@h/t",
            "kafka.client.sasl.oauthbearer.token.endpoint.url",
        ),
    ],
)
def test_a_url_with_a_password_is_not_taken_from_the_command_line(flag: str, key: str) -> None:
    """It stands in the process table like any other; in a variable, and without userinfo, it may come."""
    problem = refused(None, {}, flag)[key]
    assert "command line" in problem.what
    assert "hunter2" not in str(problem)
    variable = {"REXSTREAM_KAFKA__REGISTRY__URL": "https://u:hunter2@h:8081"}
    assert load_config(None, variable).kafka.registry.url == variable["REXSTREAM_KAFKA__REGISTRY__URL"]
    load_config(None, {}, ["kafka.registry.url=https://h:8081/a@b"])


def test_a_file_is_no_environment_whatever_its_name(tmp_path: Path) -> None:
    """REXSTREAM_prod.yaml begins like a variable, and a password in it is one in a file all the same."""
    path = tmp_path / "REXSTREAM_prod.yaml"
    section = {"protocol": "sasl_ssl", "mechanism": "PLAIN", "username": "u", "password": "hunter2"}
    path.write_text(yaml.safe_dump({"kafka": {"security": section}}))
    assert f"set {PASSWORD}" in refused(str(path))["kafka.security.password"].fix
    path.write_text(yaml.safe_dump({"kafka": {"client": {"sasl.password": "hunter2"}}}))
    assert [warning.key for warning in load(str(path), {}).warnings] == ["kafka.client.sasl.password"]


@pytest.mark.parametrize("word", ["null", "~", "true", "0123", " "])
def test_a_password_is_taken_as_it_is_written(write: Any, word: str) -> None:
    """What YAML would read otherwise is a password like any other."""
    path = write(protocol="sasl_ssl", mechanism="PLAIN", username="u")
    assert load_config(path, {PASSWORD: word}).kafka.security.password == word


def test_an_empty_password_is_refused_by_its_own_name(write: Any) -> None:
    """A variable that its template left empty is what has to be mended, and no other key is."""
    problem = refused(write(protocol="sasl_ssl", mechanism="PLAIN", username="u"), {PASSWORD: ""})
    assert list(problem) == ["kafka.security.password"]
    assert problem["kafka.security.password"].origin == PASSWORD
    assert "is empty text" in problem["kafka.security.password"].what


@pytest.mark.parametrize(
    ("key", "value", "warned"),
    [
        ("enable.ssl.certificate.verification", False, True),
        ("enable.ssl.certificate.verification", "False", True),
        ("enable.ssl.certificate.verification", 0, True),
        ("enable.ssl.certificate.verification", True, False),
        ("ssl.endpoint.identification.algorithm", "none", True),
        ("ssl.endpoint.identification.algorithm", "https", False),
    ],
)
def test_tls_that_takes_anyone_for_the_brokers_is_warned_of(write: Any, key: str, value: Any, warned: bool) -> None:
    """It is encrypted, and to whom nobody knows."""
    warnings = load(write({key: value}, protocol="ssl"), {}).warnings
    assert [warning.key for warning in warnings] == [f"kafka.client.{key}"] * warned
    assert all(warning.origin and "ca_file" in warning.fix for warning in warnings)


@pytest.mark.parametrize(
    ("url", "username", "warned"),
    [
        ("http://registry:8081", "u", True),
        ("http://u:hunter2@registry:8081", None, True),
        ("http://hunter2@10.0.0.7:8081/api", None, True),
        ("http://u:a@b@registry:8081", None, True),
        ("http://127.0.0.1@registry:8081", None, True),
        ("http://localhost.example:8081", "u", True),
        ("https://registry:8081,http://registry-2:8081", "u", True),
        ("https://registry:8081, http://u:hunter2@registry-2", None, True),
        ("http://[fd00::1]:8081", "u", True),
        ("http://registry:8081", None, False),
        ("http://registry:8081/a@b", None, False),
        ("https://u:hunter2@registry:8081", None, False),
        ("https://registry:8081", "u", False),
        ("http://127.0.0.1:8081", "u", False),
        ("http://u:hunter2@127.9.9.9", None, False),
        ("http://localhost:8081", "u", False),
        ("http://[::1]:8081", "u", False),
    ],
)
def test_a_login_at_the_registry_in_the_clear_is_warned_of(
    tmp_path: Path, url: str, username: str | None, warned: bool
) -> None:
    """Everyone on the way could read it; this machine's own loopback is no way."""
    path = tmp_path / "rexstream.yaml"
    login = {} if username is None else {"username": username, "password_file": "p"}
    path.write_text(yaml.safe_dump({"kafka": {"registry": {"url": url, **login}}}))
    warnings = load(str(path), {}).warnings
    assert [warning.key for warning in warnings] == ["kafka.registry.url"] * warned
    assert "hunter2" not in str(warnings)


def test_a_client_secret_that_goes_to_a_token_endpoint_in_the_clear_is_warned_of(write: Any) -> None:
    """OAUTHBEARER's secret is a password, too."""
    key = "sasl.oauthbearer.token.endpoint.url"

    def warned(url: str) -> list[str]:
        client = {"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": "c", key: url}
        login = {"protocol": "sasl_ssl", "mechanism": "OAUTHBEARER"}
        secret = {"REXSTREAM_KAFKA__CLIENT__SASL_OAUTHBEARER_CLIENT_SECRET": "hunter2"}
        return [warning.key for warning in load(write(client, **login), secret).warnings]

    assert warned("http://login.example/token") == [f"kafka.client.{key}"]
    for fine in ("https://login.example/token", "http://127.0.0.1:8080/token"):
        assert warned(fine) == []
