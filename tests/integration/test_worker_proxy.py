"""A worker in an environment that names a proxy, which knows no address inside."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from avro_values import OLDER, REVIEWS, framed, send
from worker_run import Run

if TYPE_CHECKING:
    from pathlib import Path

    from stub_server import StubServer


@pytest.mark.broker
def test_a_registry_behind_a_proxy_says_so_and_the_model_server_is_asked_directly(
    mock_broker: Any, server: StubServer, tmp_path: Path
) -> None:
    """In the log and in /readyz, without the proxy's password; nothing is a dead letter. gRPC would use it, too."""
    topics = [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{nobody.getsockname()[1]}"
        address = f"http://user:hunter2@{proxy}"
        environment = {"HTTP_PROXY": address, "http_proxy": address, "no_proxy": "localhost", "NO_PROXY": ""}
        route = {"input": topics[0], "format": "avro", "tasks": ["sentiment"], "output": topics[1]}
        worker = Run(
            mock_broker.bootstrap,
            topics,
            server,
            tmp_path,
            routes=[route],
            registry="http://registry.example:8081",
            environment=environment,
        )
        try:
            worker.start()
            send(worker.bootstrap, worker.input, [framed(7, OLDER, event_id="e", text=REVIEWS[0])])
            worker.wait(lambda: worker.get("/status")[1]["paused"] == ["registry"])
            (reason,) = worker.get("/readyz")[1]["reasons"]
            said = f"through the proxy of $http_proxy ({proxy}); to ask it directly, add registry.example to NO_PROXY"
            assert said in reason
            assert any(said in line.get("reason", "") for line in worker.lines() if line["level"] == "error")
            assert "hunter2" not in json.dumps([reason, worker.lines()])
            assert worker.dead_letters() == []
        finally:
            worker.kill()
