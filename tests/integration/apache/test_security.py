"""TLS and SASL against a real broker: what a worker does with them, and what is said when they do not fit."""

from __future__ import annotations

import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from kafka_listeners import KEY_PASSWORD, PASSWORD, USER
from topic_audit import command as audit
from worker_run import Run, expected, ids, reviews, start_looking_often

from consumer.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apache_kafka import ApacheKafka
    from click.testing import Result
    from stub_server import StubServer


@pytest.fixture
def topics(secure_kafka: ApacheKafka, apache_kafka: str, new_topic: Callable[..., str]) -> list[str]:
    """Input, output, dead letters on the broker that has the secure listeners."""
    if apache_kafka != secure_kafka.bootstrap_servers:
        pytest.skip("the cluster that was given has no listeners known here")
    return [new_topic(partitions=1) for _ in range(3)]


@pytest.fixture
def section(secure_kafka: ApacheKafka, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The worker's kafka section for a listener of the broker; ``_file`` keys name files of ``certificates``."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "wrong").write_text("not it\n")
    (tmp_path / "key-password").write_text(f"{KEY_PASSWORD}\n")

    def make(listener: str, **security: str) -> dict[str, Any]:
        for key, name in security.items():
            if key.endswith("_file"):
                folder = tmp_path if "password" in key else secure_kafka.certificates
                security[key] = str(folder / name)
        return {"bootstrap_servers": secure_kafka.address(listener), "security": security}

    return make


LOGIN = {"mechanism": "SCRAM-SHA-512", "username": USER, "password_file": "password"}
SCRAM_TLS = {"protocol": "sasl_ssl", "ca_file": "ca.pem", **LOGIN}
MUTUAL = {
    "protocol": "ssl",
    "ca_file": "ca.pem",
    "certificate_file": "client-encrypted.pem",
    "key_file": "client-encrypted.key",
    "key_password_file": "key-password",
}


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli, list(arguments), env=env)


@pytest.mark.parametrize(
    ("listener", "security"),
    [pytest.param("SCRAM_TLS", SCRAM_TLS, id="sasl_ssl"), pytest.param("MUTUAL", MUTUAL, id="mutual-tls")],
)
def test_a_worker_does_its_work_and_tells_no_secret(
    listener: str,
    security: dict[str, str],
    secure_kafka: ApacheKafka,
    topics: list[str],
    section: Callable[..., dict[str, Any]],
    server: StubServer,
    tmp_path: Path,
) -> None:
    """Consumer, producer and lag client all log in; no password is in a log line, in an endpoint or in a command."""
    kafka = section(listener, **security)
    worker = Run(secure_kafka.bootstrap_servers, topics, server, tmp_path, kafka=kafka)
    worker.start()
    try:
        worker.send(reviews(20))
        worker.wait_for_results(40)
        worker.wait(lambda: worker.lag() == 0)
        shown = [str(worker.get(path)) for path in ("/status", "/metrics", "/readyz")]
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    assert ids(worker.results()) == expected(20)
    config = str(worker.config_file)
    for command in (("check", "--connect"), ("check", "--connect", "--json"), ("config", "print")):
        result = run(*command, "--config", config)
        assert result.exit_code == 0, result.output
        shown.append(result.output)
    shown.append(json.dumps(worker.lines()))
    assert not [text for text in shown if PASSWORD in text or KEY_PASSWORD in text]
    assert kafka["bootstrap_servers"] in shown[-2]


def test_commands_log_in_as_workers_do(topics: list[str], section: Callable[..., Any], tmp_path: Path) -> None:
    """``send``, ``tail``, ``dead-letters`` and the audit take the same section; the password may be a variable."""
    login = {**LOGIN, "mechanism": "SCRAM-SHA-256"}
    del login["password_file"]
    path = tmp_path / "client.yaml"
    path.write_text(yaml.safe_dump({"kafka": section("SCRAM", protocol="sasl_plaintext", **login)}))
    lines = tmp_path / "reviews.jsonl"
    lines.write_text("".join(json.dumps({"text": f"轻便{number}"}) + "\n" for number in range(3)))
    env = {"REXSTREAM_KAFKA__SECURITY__PASSWORD": PASSWORD, "REXSTREAM_CONFIG": str(path)}
    source, output, dead = topics
    sent = run("send", "--topic", source, "--input", str(lines), "--json", env=env)
    assert sent.exit_code == 0, sent.output
    assert json.loads(sent.stdout)["acknowledged"] == 3
    tailed = run("tail", "--topic", source, "--from", "beginning", "--limit", "3", "--json", env=env)
    assert tailed.exit_code == 0, tailed.output
    listed = run("dead-letters", "list", "--dead-letter-topic", dead, "--json", env=env)
    assert listed.exit_code == 0, listed.output
    found = CliRunner().invoke(audit, ["--input", source, "--output", output, "--dead", dead, "--json"], env=env)
    assert json.loads(found.stdout)["inputs"] == 3


def test_a_wrong_password_is_logged_again_and_again_and_ends_nothing(
    secure_kafka: ApacheKafka, topics: list[str], section: Callable[..., Any], server: StubServer, tmp_path: Path
) -> None:
    """The worker lives and is not ready, so nothing restarts it in a loop; log and ``check`` name what to mend."""
    kafka = section("SCRAM_TLS", **{**SCRAM_TLS, "password_file": "wrong"})
    worker = Run(secure_kafka.bootstrap_servers, topics, server, tmp_path, kafka=kafka)
    worker.start()
    try:
        worker.wait(lambda: any("username and password" in (line.get("fix") or "") for line in worker.lines()))
        status, answer = worker.get("/readyz")
        assert status == 503
        assert "not joined to the consumer group" in answer["reasons"]
        assert worker.get("/livez")[0] == 200
        checked = run("check", "--connect", "--json", "--config", str(worker.config_file))
        # By now it has tried several times.
        logged = [
            line for line in worker.lines() if "SASL authentication error" in line["event"] + line.get("reason", "")
        ]
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    assert checked.exit_code == 3
    detail = next(row["detail"] for row in json.loads(checked.stdout)["findings"] if row["subject"] == "kafka")
    assert kafka["bootstrap_servers"] in detail
    assert "check kafka.security's mechanism, username and password" in detail
    assert {line["level"] for line in logged} == {"error", "warning"}
    assert len(logged) <= 6
    assert "not it" not in json.dumps(worker.lines()) + checked.output


def test_a_file_that_is_not_there_ends_a_worker_before_it_waits_for_anything(
    section: Callable[..., Any], tmp_path: Path
) -> None:
    """Exit code 2, with the key, the file and what to do; the model server need not be there."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"kafka": section("SCRAM_TLS", **{**SCRAM_TLS, "ca_file": "gone.pem"})}))
    result = run("run", "--config", str(path), "--set", "observability.http=127.0.0.1:0")
    assert result.exit_code == 2
    assert "kafka.security.ca_file" in result.stderr
    assert "gone.pem cannot be read: No such file or directory; name a file" in result.stderr


@pytest.mark.parametrize(
    ("listener", "security", "words"),
    [
        pytest.param("TLS", {"protocol": "ssl", "ca_file": "other-ca.pem"}, "kafka.security.ca_file", id="wrong-ca"),
        pytest.param("TLS", {"protocol": "ssl", "ca_file": "ca.pem"}, "name the addresses", id="wrong-host"),
        pytest.param("MUTUAL", {"protocol": "ssl", "ca_file": "ca.pem"}, "certificate_file", id="no-certificate"),
        pytest.param("PLAINTEXT", {"protocol": "ssl", "ca_file": "ca.pem"}, "no TLS is spoken", id="no-tls-there"),
        pytest.param("TLS", {}, "TLS", id="tls-there"),
        pytest.param("SCRAM", {"protocol": "plaintext"}, "a login seems to be wanted there", id="login-wanted"),
    ],
)
def test_what_does_not_fit_is_named(
    listener: str,
    security: dict[str, str],
    words: str,
    request: pytest.FixtureRequest,
    section: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Exit code 3 with the client's reason and the key to look at."""
    kafka = section(listener, **security)
    if request.node.callspec.id == "wrong-host":
        kafka["bootstrap_servers"] = kafka["bootstrap_servers"].replace("127.0.0.1", "localhost")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"kafka": kafka}))
    result = run("tail", "--config", str(path), "--topic", "any", "--timeout", "5", "--limit", "1")
    assert result.exit_code == 3, result.output
    assert words in result.stderr


def test_a_renewed_client_certificate_takes_the_worker_to_its_end_and_its_successor_in(
    secure_kafka: ApacheKafka,
    topics: list[str],
    section: Callable[..., dict[str, Any]],
    server: StubServer,
    tmp_path: Path,
) -> None:
    """Mutual TLS. The certificate comes before its key: until both are there nothing happens.

    Then exit code 5 after a drain; nothing is lost and nothing there twice.
    """
    folder = secure_kafka.certificates
    key = load_pem_private_key((folder / "client-encrypted.key").read_bytes(), KEY_PASSWORD.encode())
    new = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name in ("client.pem", "client.key"):
        shutil.copy(folder / name, tmp_path)
    kafka = section("MUTUAL", protocol="ssl", ca_file="ca.pem")
    kafka["security"] |= {"certificate_file": str(tmp_path / "client.pem"), "key_file": str(tmp_path / "client.key")}
    worker = Run(secure_kafka.bootstrap_servers, topics, server, tmp_path, kafka=kafka)
    start_looking_often(worker)
    try:
        worker.send(reviews(10))
        worker.wait_for_results(20)
        shutil.copy(folder / "client-encrypted.pem", tmp_path / "client.pem")
        worker.wait(lambda: any(line["event"].startswith("changed credential files") for line in worker.lines()))
        worker.send(reviews(10, 10))
        worker.wait_for_results(40)
        worker.send(reviews(10, 20))
        (tmp_path / "client.key").write_bytes(new)
        assert worker.process.wait(60) == 5, worker.lines()[-5:]
        start_looking_often(worker)
        worker.wait_for_results(60)
        worker.wait(lambda: worker.lag() == 0)
        assert worker.signal(signal.SIGTERM) == 0
    finally:
        worker.kill()
    assert ids(worker.results()) == expected(30)
    assert worker.dead_letters() == []
