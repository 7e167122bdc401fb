"""Writer schemas from a Schema Registry, cached, with the three ways to fail told apart."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from consumer.codecs.avro_codec import parse_writer_schema
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumer.codecs.avro_codec import ParsedSchema
    from consumer.config import RegistryConfig

UNKNOWN_SECONDS = 60.0
"""How long an unknown id stays unknown: a producer's bad bytes must not become a request per record, and a schema that
is registered late must still be found."""

_MAX_UNKNOWN = 10_000
"""Unknown ids remembered at most: random bytes may hold any of four thousand million."""

_SCHEMA_NOT_FOUND = 40403
_CONFLICT = 409
_RETRIABLE = frozenset({408, 429})


class RegistryUnavailable(Exception):  # noqa: N818 - the name says what it is
    """No answer, or one that says to come back: transient. Back off and ask again."""


class RegistryRefused(Exception):  # noqa: N818 - the name says what it is
    """The registry does not let this worker in, or is no registry: a deployment fault."""


class RegistryClient(Protocol):
    """The part of confluent_kafka's SchemaRegistryClient that is used."""

    def get_schema(self, schema_id: int) -> Any:
        """The schema of an id: ``schema_str``, ``schema_type``, ``references``."""
        ...

    def get_version(self, subject_name: str, version: int) -> Any:
        """A version of a subject, for the references of schemas."""
        ...

    def register_schema(self, subject_name: str, schema: Any) -> int:
        """Register a schema, or find it registered; its id."""
        ...

    def get_subjects(self) -> list[str]:
        """Names of all subjects."""
        ...


class SchemaResolver:
    """Writer schemas by id. ``fetch`` waits and belongs on a thread; ``schema_for`` answers from memory."""

    def __init__(
        self,
        config: RegistryConfig,
        clock: Callable[[], float] = time.monotonic,
        client: RegistryClient | None = None,
    ) -> None:
        """``clock`` counts seconds. Without a client one is made for ``config.url``, which must then be set."""
        self._url = config.url
        self._clock = clock
        self._client = client or connect(config)
        self._schemas: dict[int, ParsedSchema] = {}
        self._unknown_until: dict[int, float] = {}

    def schema_for(self, number: int) -> ParsedSchema:
        """The schema of an id that was fetched. Raises KeyError for any other."""
        return self._schemas[number]

    def is_cached(self, number: int) -> bool:
        """Whether ``schema_for`` would answer."""
        return number in self._schemas

    def fetch(self, number: int) -> ParsedSchema:
        """The schema of an id, asked for when it is not cached; waits up to the configured timeout.

        Raises BadInput (stage ``decode``) UnknownSchemaId, also for the minute after the registry said so, or
        NotAvroSchema; RegistryUnavailable; RegistryRefused.
        """
        if number in self._schemas:
            return self._schemas[number]
        if self._clock() < self._unknown_until.get(number, float("-inf")):
            raise self._unknown(number)
        found = self._ask(number)
        kind = getattr(found, "schema_type", "AVRO")
        if kind != "AVRO":
            what = f"schema {number} is {kind}, not Avro; send Avro, or set the route's format to what is sent"
            raise BadInput("decode", "NotAvroSchema", what)
        try:
            parsed = parse_writer_schema(found.schema_str, self._referenced(found))
        except ValueError as error:
            what = f"schema {number}: {error}; register a valid one"
            raise BadInput("decode", "NotAvroSchema", what) from None
        self._schemas[number] = parsed
        self._unknown_until.pop(number, None)
        return parsed

    def register(self, topic: str, schema_text: str) -> int:
        """Register the schema of a topic's values under ``<topic>-value``; its id.

        Raises RegistryUnavailable or RegistryRefused, the latter also for a schema that the subject's compatibility
        rule forbids.
        """
        from confluent_kafka.schema_registry import Schema

        return int(self._call(lambda: self._client.register_schema(f"{topic}-value", Schema(schema_text, "AVRO"))))

    def probe(self) -> int:
        """Number of subjects, to see that the registry answers. Raises RegistryUnavailable or RegistryRefused."""
        return len(self._call(self._client.get_subjects))

    def _ask(self, number: int) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        def ask() -> Any:
            try:
                return self._client.get_schema(number)
            except SchemaRegistryError as error:
                # Any web server answers 404; only a registry says that the schema is what was not found.
                if error.http_status_code == 404 and error.error_code == _SCHEMA_NOT_FOUND:
                    self._remember_unknown(number)
                    raise self._unknown(number) from None
                raise

        return self._call(ask)

    def _remember_unknown(self, number: int) -> None:
        now = self._clock()
        if len(self._unknown_until) >= _MAX_UNKNOWN:
            self._unknown_until = {known: until for known, until in self._unknown_until.items() if until > now}
        if len(self._unknown_until) < _MAX_UNKNOWN:
            self._unknown_until[number] = now + UNKNOWN_SECONDS

    def _referenced(self, schema: Any) -> dict[str, Any]:
        """Types that a schema takes from others, parsed in the order of their need."""
        named: dict[str, Any] = {}
        for reference in getattr(schema, "references", None) or ():
            version = partial(self._client.get_version, reference.subject, reference.version)
            found = self._call(version).schema
            named |= self._referenced(found)
            parse_writer_schema(found.schema_str, named)
        return named

    def _call(self, request: Callable[[], Any]) -> Any:
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return request()
        except SchemaRegistryError as error:
            code = error.http_status_code
            what = f"schema registry {_without_userinfo(self._url)} answered {code}"
            if code in _RETRIABLE or code >= 500:
                raise RegistryUnavailable(what) from None
            fix = "check kafka.registry.url"
            if code in (401, 403):
                fix = "check kafka.registry's username and password_file"
            elif code == _CONFLICT:
                fix = "the subject's compatibility rule forbids this schema"
            raise RegistryRefused(f"{what} (code {error.error_code}); {fix}") from None
        except BadInput:
            raise
        except Exception as error:
            # Which HTTP library is underneath differs between releases of the client, and with it its errors. Taking
            # all of them for an outage loses nothing: the worker waits and says why.
            what = f"schema registry {_without_userinfo(self._url)} gives no usable answer ({type(error).__name__})"
            raise RegistryUnavailable(f"{what}; check its url and that it runs") from None

    def _unknown(self, number: int) -> BadInput:
        what = f"the registry has no schema {number}; register the producer's schema or ask it for its registry"
        return BadInput("decode", "UnknownSchemaId", what)


def connect(config: RegistryConfig) -> RegistryClient:
    """A client for ``config.url``. Raises RegistryRefused when the password file cannot be read."""
    # Not at the top: it loads an HTTP client and its certificates, which a worker without a registry never needs.
    from confluent_kafka.schema_registry import SchemaRegistryClient

    settings: dict[str, Any] = {"url": config.url, "timeout": config.timeout_seconds, "max.retries": 0}
    if config.username is not None and config.password_file is not None:
        try:
            password = Path(config.password_file).read_text(encoding="utf-8").strip("\r\n")
        except OSError as error:
            what = f"kafka.registry.password_file {config.password_file} cannot be read: {error.strerror}"
            raise RegistryRefused(what) from None
        except UnicodeDecodeError:
            # The error would quote the bytes, which are the password.
            what = f"kafka.registry.password_file {config.password_file} is not UTF-8 text; write the password as such"
            raise RegistryRefused(what) from None
        settings["basic.auth.user.info"] = f"{config.username}:{password}"
    client: RegistryClient = SchemaRegistryClient.new_client(settings)
    return client


def _without_userinfo(url: str | None) -> str:
    scheme, separator, rest = (url or "").partition("://")
    return scheme + separator + rest.rpartition("@")[2]
