"""Schemas of a Schema Registry: those that events were written with, and the one that results are written with.

A worker uses it through ``awaited``, ``rexstream check`` directly. Owns the schemas that were fetched, for as long as
the worker runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka.schema_registry import Schema

from consumer.codecs.avro_codec import unknown_schema
from consumer.codecs.avro_schemas import JSON_PAYLOAD, parse_writer_schema
from consumer.events import BadInput
from consumer.kafka.registry.client import RegistryConnection, RegistryRefused, RegistryUnavailable, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka.schema_registry import SchemaRegistryClient

    from consumer.codecs.avro_codec import SchemaFor, SchemaId
    from consumer.codecs.avro_schemas import WriterSchema
    from consumer.config.tree import RegistryConfig

MAX_ID = 2**31 - 1
"""Registries number schemas with Java's int. Asked for a larger one, some answer 404 without an error code, which would
look like a wrong url."""

RESULT_SCHEMA = "schemas/avro/extraction_result.avsc"

_MAX_DEPTH = 32
"""Deepest chain of references. A registry has no circular references, but another server at its url might."""

_NO_SCHEMA: Mapping[int, Any] = {40403: None}
_NO_SUCH_PATH = object()
_NO_GUID: Mapping[int, Any] = {40403: None, 404: _NO_SUCH_PATH, -1: _NO_SUCH_PATH}
"""A registry without GUIDs answers 404 as for any path that it does not know: with that number, or none, as error code.
"""
_NOT_FOUND: Mapping[int, Any] = dict.fromkeys((40401, 40402, 40403, 40408))
"""Error codes of a registry for a subject, version, schema or compatibility mode that is not there. Any web server
answers 404; only a registry adds these."""


@dataclass(frozen=True, slots=True)
class SubjectState:
    """Whether an output topic's subject has, or would accept, the result schema."""

    number: int | None
    """Id of the schema there, None while it is not registered."""
    compatibility: str
    """Mode of the subject, or the registry's default."""
    accepts: bool
    """Whether the schema is there, or could be registered."""


MOST_SCHEMAS = 500
"""Parsed schemas that are kept, some 10 to 50 KB each. The oldest goes, and is fetched again when it is needed."""


class SchemaResolver:
    """Writer schemas by id, and ids of the result schema.

    ``schema_for`` and ``is_cached`` answer from memory. The others wait: call them on threads.
    """

    def __init__(
        self,
        config: RegistryConfig,
        result_schema: str,
        connect: Callable[[RegistryConfig], SchemaRegistryClient] = connect,
    ) -> None:
        """``result_schema`` is its JSON text.

        Raises RegistryRefused for a password, certificate or key that cannot be used.
        """
        self._connection = RegistryConnection(config, connect)
        self.renew = self._connection.renew
        """``renew()``: read the files of ``kafka.registry`` again. From any thread."""
        self._auto_register = config.auto_register
        self._result_schema = Schema(result_schema, "AVRO")
        self._schemas: dict[SchemaId, WriterSchema] = {}
        self.schema_for: SchemaFor = self._schemas.__getitem__
        """The schema of an id that was fetched. Raises KeyError for any other."""
        self.is_cached: Callable[[SchemaId], bool] = self._schemas.__contains__
        """Whether ``schema_for`` would answer."""

    def fetch(self, number: SchemaId) -> WriterSchema:
        """The schema of an id or a GUID, fetched when it is not cached; waits up to the configured timeout.

        ``JSON_PAYLOAD`` for a JSON Schema. Raises BadInput (stage ``decode``) UnknownSchemaId, UnknownSchemaReference
        or NotAvroSchema; RegistryUnavailable; RegistryRefused.
        """
        if number in self._schemas:
            return self._schemas[number]
        found = self._found(number)
        if found is None:
            raise unknown_schema(number)
        kind = getattr(found, "schema_type", None) or "AVRO"
        if kind == "JSON":
            self._schemas[number] = JSON_PAYLOAD
            return JSON_PAYLOAD
        if kind != "AVRO":
            frame = {"PROTOBUF": "Protobuf"}.get(kind, str(kind)[:40])
            what = f"{frame} frame, id {number}: the registry has a {str(kind)[:40]} schema there"
            raise BadInput("decode", "NotAvroSchema", f"{what}; Avro and JSON are read: send one of them")
        try:
            parsed = parse_writer_schema(found.schema_str, self._referenced(found, number))
        except ValueError as error:
            what = f"schema {number}: {error}; register a valid one"
            raise BadInput("decode", "NotAvroSchema", what) from None
        self._schemas[number] = parsed
        return parsed

    def trim(self) -> None:
        """Forget all schemas but the last ``MOST_SCHEMAS``. Called where they are used: none goes before it was."""
        for number in list(self._schemas)[:-MOST_SCHEMAS]:
            del self._schemas[number]

    def result_schema_id(self, topic: str) -> int:
        """Id of the result schema under ``<topic>-value``, where it is registered or, without auto_register, found.

        Raises RegistryUnavailable or RegistryRefused, the latter also for a schema that is not there, or that the
        subject's compatibility rule forbids.
        """
        subject = f"{topic}-value"
        if self._auto_register:
            return self._connection.ask(lambda client: client.register_schema(subject, self._result_schema))
        number = self._registered(subject, self._result_schema)
        if number is None:
            what = f"subject {subject} of the schema registry does not have this version's result schema"
            raise RegistryRefused(f"{what}; register {RESULT_SCHEMA} there, or set kafka.registry.auto_register")
        return number

    def also_under(self, topic: str, number: int, *, only_ask: bool = False) -> None:
        """Have the schema of an id under ``<topic>-value``, too: registered there or, without auto_register, found.

        Records with that id are then written to the topic by the subject's own rules. ``only_ask``: nothing is
        registered, but asked whether it could be. Raises RegistryUnavailable or RegistryRefused, the latter also for an
        id that is not there.
        """
        subject = f"{topic}-value"
        schema = self._found(number)
        if schema is None:
            raise RegistryRefused(f"the schema registry has no schema {number}; check kafka.registry.url")
        if self._registered(subject, schema) is not None:
            return
        if not self._auto_register:
            what = f"subject {subject} of the schema registry does not have schema {number}, that of the results"
            raise RegistryRefused(f"{what}; register it there, or set kafka.registry.auto_register")
        if not only_ask:
            self._connection.ask(lambda client: client.register_schema(subject, schema))
        elif not self._accepts(subject, schema):
            what = f"the compatibility rule of subject {subject} of the schema registry forbids schema {number}"
            raise RegistryRefused(f"{what}, that of the results; change the rule, or leave the results in the shadow")

    def subject_state(self, topic: str) -> SubjectState:
        """Whether ``<topic>-value`` has, or would accept, the result schema; changes nothing.

        Raises RegistryUnavailable or RegistryRefused.
        """
        subject, schema, ask = f"{topic}-value", self._result_schema, self._connection.ask
        number = self._registered(subject, schema)
        mode = ask(lambda client: client.get_compatibility(subject), _NOT_FOUND)
        if mode is None:
            mode = ask(lambda client: client.get_compatibility())
        return SubjectState(number, str(mode), number is not None or self._accepts(subject, schema))

    def answers(self) -> bool:
        """Whether the registry answers at all, whatever it says: it is asked for its own compatibility mode."""
        try:
            self._connection.ask(lambda client: client.get_compatibility(), _NOT_FOUND)
        except RegistryUnavailable:
            return False
        except RegistryRefused:
            pass
        return True

    def probe(self) -> int:
        """Number of subjects, to see that the registry answers. Raises RegistryUnavailable or RegistryRefused."""
        return len(self._connection.ask(lambda client: client.get_subjects()))

    def _found(self, number: SchemaId) -> Any:
        ask = self._connection.ask
        if isinstance(number, int):
            return None if number > MAX_ID else ask(lambda client: client.get_schema(number), _NO_SCHEMA)
        found = ask(lambda client: client.get_schema_by_guid(number), _NO_GUID)
        if found is _NO_SUCH_PATH:
            # Only newer registries have GUIDs. Whether it is one at all, and lets us in, shows another question.
            ask(lambda client: client.get_compatibility(), _NOT_FOUND)
            what = f"the registry cannot look up schemas by GUID, as {number} in the value's header is one"
            raise BadInput("decode", "UnknownSchemaId", f"{what}; send ids of four bytes, or use a newer registry")
        return found

    def _referenced(self, schema: Schema, number: SchemaId, depth: int = 0) -> dict[str, Any]:
        """Types that a schema takes from others, parsed in the order of their need."""
        named: dict[str, Any] = {}
        for reference in getattr(schema, "references", None) or ():
            if depth == _MAX_DEPTH:
                raise ValueError(f"references more than {_MAX_DEPTH} deep")
            found = self._version(reference.subject, reference.version)
            if found is None:
                what = f"schema {number} refers to version {reference.version} of subject {reference.subject}"
                fix = "which the registry does not have; register it again"
                raise BadInput("decode", "UnknownSchemaReference", f"{what}, {fix}")
            named |= self._referenced(found.schema, number, depth + 1)
            parse_writer_schema(found.schema.schema_str, named)
        return named

    def _version(self, subject: str, version: int) -> Any:
        # A soft-deleted version is hidden by default, and still needed by schemas that refer to it.
        return self._connection.ask(lambda client: client.get_version(subject, version, deleted=True), _NOT_FOUND)

    def _accepts(self, subject: str, schema: Schema) -> bool:
        """Whether a schema could be registered under a subject that does not have it."""
        ask = self._connection.ask
        accepts = ask(lambda client: client.test_compatibility_all_versions(subject, schema), _NOT_FOUND)
        # None: there is no such subject yet, or it has no versions, so nothing to be incompatible with.
        return accepts is not False

    def _registered(self, subject: str, schema: Schema) -> int | None:
        """Id of a schema under a subject, None when it is not there."""
        ask = self._connection.ask
        found = ask(lambda client: client.lookup_schema(subject, schema), _NOT_FOUND)
        if found is None:
            # Registries compare texts, and find one of another layout only when asked to normalize.
            found = ask(lambda client: client.lookup_schema(subject, schema, normalize_schemas=True), _NOT_FOUND)
        return None if found is None else int(found.schema_id)
