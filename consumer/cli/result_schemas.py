"""The registry's schemas of results, for the commands that read results in every format."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from consumer.cli.options import Unreachable
from consumer.codecs.result_values import read_result
from consumer.events import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from consumer.codecs.avro_codec import SchemaId
    from consumer.codecs.avro_schemas import WriterSchema
    from consumer.config.tree import RegistryConfig
    from consumer.kafka.registry.resolver import SchemaResolver

AnswerT = TypeVar("AnswerT")


class ResultSchemas:
    """Schemas by id, each asked for once. Nothing of the registry is loaded before the first is needed.

    Methods raise Unreachable while the registry does not answer, and click.UsageError for one that refuses.
    """

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._resolver: SchemaResolver | None = None
        self._refused: dict[SchemaId, BadInput] = {}

    def read(self, value: bytes) -> Any:
        """As ``read_result``, whose errors it raises besides."""
        return read_result(value, None if self._config.url is None else self._schema_for)

    def also_under(self, topic: str, number: int, *, only_ask: bool = False) -> None:
        """Have the schema of this id under the subject of ``topic``, too, where it is not; or ask if it could be."""
        self._asked(lambda resolver: resolver.also_under(topic, number, only_ask=only_ask))

    def _schema_for(self, number: SchemaId) -> WriterSchema:
        """Raises BadInput (stage ``decode``)."""
        # Others may write to the topics, too: a question for each of their records would take for ever.
        if (refused := self._refused.get(number)) is not None:
            raise BadInput(refused.stage, refused.reason, refused.message)
        try:
            return self._asked(lambda resolver: resolver.fetch(number))
        except BadInput as bad:
            self._refused[number] = bad
            raise

    def _asked(self, question: Callable[[SchemaResolver], AnswerT]) -> AnswerT:
        # Not at the top: commands on JSON results should not load the registry's client.
        from consumer.config.shipped import shipped
        from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable
        from consumer.kafka.registry.resolver import RESULT_SCHEMA, SchemaResolver

        try:
            if self._resolver is None:
                self._resolver = SchemaResolver(self._config, shipped(RESULT_SCHEMA).read_text("utf-8"))
            return question(self._resolver)
        except RegistryUnavailable as error:
            raise Unreachable(str(error)) from None
        except RegistryRefused as error:
            raise click.UsageError(str(error)) from None
