"""What a running worker lets out while it logs all it can: no secret and no review."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

from stub_server import StubServer
from worker_run import TEXTS, Run, reviews

if TYPE_CHECKING:
    from pathlib import Path


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


SECRET = "Kx9-verschlossen"


def test_debug_logs_and_pages_show_no_secret(mock_broker: Broker, tmp_path: Path) -> None:
    """At level debug, with librdkafka's own debugging on and a registry that does not answer, the log, /status,
    /readyz, /livez and /metrics hold neither a password nor a review.
    """
    (tmp_path / "password").write_text(SECRET)
    topics = [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
    routes = [
        {"input": topics[0], "tasks": ["sentiment"], "output": topics[1]},
        {"input": topics[2] + "-avro", "format": "avro", "tasks": ["sentiment"], "output": topics[1]},
    ]
    environment = {
        "REXSTREAM_OBSERVABILITY__LOG_LEVEL": "debug",
        "REXSTREAM_KAFKA__CLIENT__DEBUG": "conf,security,feature",
        "REXSTREAM_KAFKA__CLIENT__SASL_USERNAME": "reviews",
        "REXSTREAM_KAFKA__CLIENT__SASL_PASSWORD": SECRET,
        "REXSTREAM_KAFKA__CLIENT__SSL_KEY_PASSWORD": SECRET,
        "REXSTREAM_KAFKA__REGISTRY__USERNAME": "reviews",
        "REXSTREAM_KAFKA__REGISTRY__PASSWORD_FILE": str(tmp_path / "password"),
    }
    server = StubServer()
    run = Run(
        mock_broker.bootstrap,
        topics,
        server,
        tmp_path,
        routes=routes,
        registry="http://127.0.0.1:1",
        environment=environment,
    )
    try:
        run.start()
        run.send([*reviews(5), ("bad", b'{"text": 7, "' + TEXTS[0].encode() + b'": 1}')])
        run.wait(lambda: any(line["event"] == "dead letter" for line in run.lines()))
        pages = [str(run.get(page)) for page in ("/status", "/readyz", "/livez", "/metrics")]
        run.signal(signal.SIGTERM)
        log = (tmp_path / "worker.log").read_text()
        assert "sasl.username" in log, "librdkafka said what it was configured with"
        for shown in (log, *pages):
            assert SECRET not in shown
            assert not any(text in shown or ascii(text)[1:-1] in shown for text in TEXTS)
    finally:
        run.kill()
        server.stop()
