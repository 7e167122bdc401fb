"""A double of the Confluent Schema Registry's HTTP interface: schemas by id, subjects, and what they let in."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from held_ports import HeldPorts

if TYPE_CHECKING:
    import ssl

NOT_FOUND = (404, {"error_code": 40403, "message": "Schema not found"})
NO_SUBJECT = (404, {"error_code": 40401, "message": "Subject not found"})
NO_MODE = (404, {"error_code": 40408, "message": "Subject does not have subject-level compatibility configured"})

_SCHEMA = re.compile(r"/schemas/ids/(\d+)")
_VERSIONS = re.compile(r"/subjects/([^/]+)/versions")
_SUBJECT = re.compile(r"/subjects/([^/]+)")
_COMPATIBILITY = re.compile(r"/compatibility/subjects/([^/]+)/versions")
_MODE = re.compile(r"/config/([^/]+)")


class RegistryDouble:
    """Starts on a free port; ``stop`` and ``start`` again keep the port.

    ``answers`` by path go before all else. Subjects in ``closed`` let no other schema in, as a compatibility rule would
    have it; ``modes`` are the subjects' own. With ``tls`` it speaks https.
    """

    FIRST_REGISTERED = 501
    """Ids that it gives itself, apart from those that tests choose."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._held = HeldPorts()
        (self.port,) = self._held.ports
        self._tls = tls
        self.closed: set[str] = set()
        self.modes: dict[str, str] = {}
        self.answers: dict[str, tuple[int, Any]] = {}
        self.schemas: dict[int, str] = {}
        self.subjects: dict[str, int] = {}
        self.requests: list[str] = []
        self.authorization: str | None = None
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it listens, or did."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, request: Any) -> None:
                double.authorization = self.headers.get("Authorization")
                status, body = double._answer(self.path.partition("?")[0], request)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Connections are refused from here on."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def _answer(self, path: str, request: Any) -> tuple[int, Any]:
        with self._lock:
            self.requests.append(path)
            if path in self.answers:
                return self.answers[path]
            if request is None and (asked := _SCHEMA.fullmatch(path)) and int(asked[1]) in self.schemas:
                return 200, {"schema": self.schemas[int(asked[1])]}
            if request is None and path == "/subjects":
                return 200, sorted(self.subjects)
            if request is None and path == "/config":
                return 200, {"compatibilityLevel": "BACKWARD"}
            if request is None and (asked := _MODE.fullmatch(path)):
                return (200, {"compatibilityLevel": self.modes[asked[1]]}) if asked[1] in self.modes else NO_MODE
            if request is not None and (asked := _COMPATIBILITY.fullmatch(path)):
                return (
                    (200, {"is_compatible": asked[1] not in self.closed}) if asked[1] in self.subjects else NO_SUBJECT
                )
            if request is not None and (asked := _VERSIONS.fullmatch(path)):
                return self._registered(asked[1], request["schema"])
            if request is not None and (asked := _SUBJECT.fullmatch(path)):
                return self._found(asked[1], request["schema"])
            return NOT_FOUND

    def _registered(self, subject: str, schema: str) -> tuple[int, Any]:
        if subject in self.closed and self.schemas.get(self.subjects.get(subject, -1)) != schema:
            return 409, {"error_code": 409, "message": "Schema being registered is incompatible: must at /fields/14"}
        self.subjects[subject] = number = self._number_of(schema)
        return 200, {"id": number}

    def _found(self, subject: str, schema: str) -> tuple[int, Any]:
        if subject not in self.subjects:
            return NO_SUBJECT
        number = self.subjects[subject]
        if self.schemas[number] != schema:
            return NOT_FOUND
        return 200, {"subject": subject, "id": number, "version": 1, "schema": schema}

    def _number_of(self, schema: str) -> int:
        """The same id for the same schema, whatever the subject, as the registry does it."""
        for number, known in self.schemas.items():
            if known == schema:
                return number
        number = max((self.FIRST_REGISTERED - 1, *self.schemas)) + 1
        self.schemas[number] = schema
        return number
