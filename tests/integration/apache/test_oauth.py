"""SASL OAUTHBEARER against a real broker, with tokens from an endpoint that gives short-lived ones over TLS."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from token_endpoint import CLIENT, SECRET, TokenEndpoint
from worker_run import Run, expected, ids, reviews

from consumer.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apache_kafka import ApacheKafka
    from click.testing import Result
    from stub_server import StubServer

ENVIRONMENT = {"REXSTREAM_KAFKA__CLIENT__SASL_OAUTHBEARER_CLIENT_SECRET": SECRET}


@pytest.fixture
def endpoint(secure_kafka: ApacheKafka) -> Iterator[TokenEndpoint]:
    found = TokenEndpoint(secure_kafka.certificates / "broker.pem")
    yield found
    found.close()


@pytest.fixture
def worker(
    secure_kafka: ApacheKafka,
    apache_kafka: str,
    new_topic: Callable[..., str],
    endpoint: TokenEndpoint,
    server: StubServer,
    tmp_path: Path,
) -> Iterator[Run]:
    if apache_kafka != secure_kafka.bootstrap_servers:
        pytest.skip("the cluster that was given has no listeners known here")
    kafka: dict[str, Any] = {
        "bootstrap_servers": secure_kafka.address("OAUTH"),
        "security": {"protocol": "sasl_plaintext", "mechanism": "OAUTHBEARER"},
        "client": {
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": CLIENT,
            "sasl.oauthbearer.scope": "reviews",
            "sasl.oauthbearer.token.endpoint.url": endpoint.url,
            "https.ca.location": str(secure_kafka.certificates / "ca.pem"),
        },
    }
    topics = [new_topic(partitions=1) for _ in range(3)]
    found = Run(secure_kafka.bootstrap_servers, topics, server, tmp_path, kafka=kafka, environment=ENVIRONMENT)
    yield found
    found.kill()


def run(worker: Run, *arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), env={**ENVIRONMENT, "REXSTREAM_CONFIG": str(worker.config_file)})


def test_a_worker_and_every_command_log_in_with_tokens(worker: Run, endpoint: TokenEndpoint) -> None:
    """Tokens are renewed while nothing happens; the broker ends connections that do not show a new one in time."""
    worker.start()
    worker.wait(lambda: any(line["event"] == "assigned" for line in worker.lines()))
    before = endpoint.given
    worker.wait(lambda: endpoint.given >= before + 3)  # consumer, producer and the client for the lag
    worker.send(reviews(5))
    worker.wait_for_results(10)
    shown = [str(worker.get(path)) for path in ("/status", "/metrics", "/readyz")]
    assert worker.signal(signal.SIGTERM) == 0
    assert ids(worker.results()) == expected(5)
    for command in (
        ("check", "--connect", "--json"),
        ("tail", "--topic", worker.input, "--from", "beginning", "--limit", "5", "--json"),
        ("dead-letters", "replay", "--dead-letter-topic", worker.dead, "--json"),
    ):
        done = run(worker, *command)
        assert done.exit_code == 0, done.output
        shown.append(done.output)
    shown.append(json.dumps(worker.lines()))
    assert not [text for text in shown if SECRET in text]


def test_an_endpoint_that_refuses_is_named(worker: Run, endpoint: TokenEndpoint) -> None:
    """Exit code 3, with the endpoint's own words and the settings to look at."""
    endpoint.refuses = True
    done = run(worker, "tail", "--topic", worker.input, "--limit", "1", "--timeout", "2")
    assert done.exit_code == 3
    assert "invalid_client" in done.stderr
    assert "check sasl.oauthbearer.client.id, client.secret, scope and token.endpoint.url" in done.stderr
    assert SECRET not in done.output
