"""A token endpoint on this machine: OAuth's client credentials in, a token that nobody signed out.

A broker's OAUTH listener of kafka_listeners takes such tokens.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = "reviews-worker"
SECRET = "Regen & Sonne 8"
TOKEN_SECONDS = 3.0


class TokenEndpoint:
    """Gives tokens to ``CLIENT`` until it is closed. With ``refuses`` it answers that the client is unknown."""

    def __init__(self, certificate: Path) -> None:
        """``certificate``: a PEM file for 127.0.0.1 with its key."""
        self.given = 0
        self.refuses = False
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                login = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
                known = self.headers["Authorization"] == login and "scope=reviews" in form
                status, answer = (200, endpoint._token()) if known and not endpoint.refuses else (401, _UNKNOWN)
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _token(self) -> dict[str, Any]:
        self.given += 1
        now = time.time()
        claims = {"sub": CLIENT, "iat": now, "exp": now + TOKEN_SECONDS}
        return {"access_token": f"{_encoded({'alg': 'none'})}.{_encoded(claims)}.", "expires_in": TOKEN_SECONDS}


_UNKNOWN = {"error": "invalid_client", "error_description": "no such client"}


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
