"""No secret is ever shown: not by what a configuration says of itself, and not by what is said about a bad one."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from stub_server import write_bundle

from consumer.cli import cli
from consumer.config.loading import load_config
from consumer.config.problems import HIDDEN, ConfigError
from consumer.config.tree import Config

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "Kx9-verschlossen"
NOBODY = "127.0.0.1:1"
PLACES = (
    "kafka.client.sasl.password",
    "kafka.client.ssl.key.password",
    "kafka.client.ssl.keystore.password",
    "kafka.client.ssl.key.pem",
    "kafka.client.sasl.oauthbearer.client.secret",
    "kafka.client.sasl.oauthbearer.config",
    "kafka.client.sasl.pasword",
)
"""Keys of the configuration that hold a secret themselves, the last of them mistyped."""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("REXSTREAM_"):
            monkeypatch.delenv(name)
    # Without a bundle nothing would be connected to.
    monkeypatch.setenv("REXSTREAM_MODEL__BUNDLE", str(write_bundle(tmp_path / "bundle")))
    # Nobody answers here, and how long that is waited for changes nothing.
    monkeypatch.setattr("consumer.cli.dependencies.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("consumer.cli.broker_findings.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("consumer.cli.model_findings.ANSWER_SECONDS", 0.2)


def run(*arguments: str, **environ: str) -> str:
    result = CliRunner(env=environ).invoke(cli, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", [("config", "print"), ("check", "--json"), ("check", "--connect")])
def test_commands_that_show_the_configuration(place: str, command: tuple[str, ...]) -> None:
    """Neither printed nor quoted by librdkafka's own refusal, set by a flag or by a variable."""
    addresses = ["--set", f"kafka.bootstrap_servers={NOBODY}", "--set", f"model.target={NOBODY}"]
    variable = "REXSTREAM_" + place.upper().replace(".", "__", 2).replace(".", "_")
    for output in (
        run(*command, *addresses, "--set", f"{place}={SECRET}"),
        run(*command, *addresses, **{variable: SECRET}),
    ):
        assert output
        assert SECRET not in output


def test_the_password_of_the_security_section() -> None:
    """It comes by its variable; a print shows that there is one."""
    given = {
        "REXSTREAM_KAFKA__SECURITY__PASSWORD": SECRET,
        "REXSTREAM_KAFKA__SECURITY__USERNAME": "reviews",
        "REXSTREAM_KAFKA__SECURITY__PROTOCOL": "sasl_plaintext",
        "REXSTREAM_KAFKA__SECURITY__MECHANISM": "PLAIN",
        "REXSTREAM_KAFKA__BOOTSTRAP_SERVERS": NOBODY,
        "REXSTREAM_MODEL__TARGET": NOBODY,
    }
    printed = run("config", "print", **given)
    assert HIDDEN in printed
    assert "username: reviews" in printed
    for output in (printed, run("check", "--connect", "--json", **given)):
        assert SECRET not in output


def test_passwords_in_files_stay_there(tmp_path: Path) -> None:
    """Of the registry's password only the file's name is known to the configuration; userinfo in a URL is hidden."""
    file = tmp_path / "password"
    file.write_text(SECRET)
    flags = ["--set", f"kafka.registry.url=http://{NOBODY}", "--set", f"kafka.registry.password_file={file}"]
    flags += ["--set", "kafka.registry.username=u", "--set", f"kafka.bootstrap_servers={NOBODY}"]
    flags += ["--set", f"model.target={NOBODY}"]
    printed = run("config", "print", *flags)
    assert str(file) in printed
    assert SECRET not in printed + run("check", "--connect", *flags)
    url = f"http://u:{SECRET}@registry:8081"
    with_userinfo = run("config", "print", REXSTREAM_KAFKA__REGISTRY__URL=url)
    assert f"{HIDDEN}@registry:8081" in with_userinfo
    assert SECRET not in with_userinfo + run("config", "print", "--set", f"kafka.registry.url={url}")


@pytest.mark.parametrize(
    "text",
    [
        "kafka: {client: {sasl.password:S}}",
        "kafka: {client: {sasl.password S}}",
        "kafka: {client: {sasl.password: [S]}}",
        "kafka: {client: {sasl.password: {a: S}}}",
        "kafka: {client: {sasl.password: {S: S}}}",
        'kafka: {client: {sasl.password "S"}}',
        "kafka: {client: [sasl.password, S]}",
        "kafka: {client: {sasl.password: S, sasl.password: S}}",
        "kafka: {client: {sasl.password: *S}}",
        "kafka: {client: {sasl.password: !S x}}",
        "kafka: {client: {sasl.password: !<S> x}}",
        "kafka: {client: {sasl.password: %S}}",
        "kafka: {client: {sasl.password: @S}}",
        "kafka: {client: {sasl.password: 'S}}",
        'kafka: {client: {sasl.password: "S\\q"}}',
        "kafka:\n  client:\n    sasl.password: S: S",
        "kafka:\n  client:\n    sasl.password: - S",
        "kafka:\n  client:\n\tsasl.password: S",
        "kafka:\n  client:\n    sasl.password: |S",
        "kafka: {clinet: {sasl.password: S}}",
        "kafk: {client: {sasl.password: S}}",
        "kafka: {registry: {password: S}}",
        "kafka: {registry: {pasword_file: [S]}}",
        "kafka: {registry: {url: 'http://u:S@h'}, client: 1}",
        "kafka: {security: {password: [S]}}",
        "kafka: {security: {pasword: S}}",
        "password: S",
    ],
)
def test_what_is_said_about_a_bad_file(tmp_path: Path, text: str) -> None:
    """Mistyped keys, missing spaces and quotes, passwords that YAML takes for an alias or a tag: none is quoted."""
    path = tmp_path / "rexstream.yaml"
    path.write_text(text.replace("S", SECRET).replace(f"'{SECRET}}}", f"'{SECRET}"))
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), {})
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(map(repr, caught.value.problems))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a traceback would show what was read"


def test_a_configuration_s_own_repr() -> None:
    """A log line or a traceback that shows the object shows no secret of it, and the object still has it."""
    tree: dict[str, Any] = {
        "kafka": {
            "client": {"sasl.password": SECRET, "sasl.username": "u"},
            "security": {"password": SECRET},
            "registry": {"url": f"http://u:{SECRET}@registry:8081"},
        }
    }
    config = Config.model_validate(tree)
    for section in (config, config.kafka, config.kafka.security, config.kafka.registry):
        assert SECRET not in repr(section) + str(section)
    assert "sasl.username" in repr(config)
    assert config.kafka.client["sasl.password"] == SECRET
    assert json.loads(config.model_dump_json())["kafka"]["security"]["password"] == SECRET
    assert yaml.safe_dump(config.model_dump(mode="json"))
