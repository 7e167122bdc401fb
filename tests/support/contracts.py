"""The JSON Schemas of events, results and headers, for tests that look whether they are true."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jsonschema import Draft7Validator

from consumer.config.shipped import shipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.events import Header


def contract(name: str) -> dict[str, Any]:
    """A schema of ``schemas/json``."""
    schema: dict[str, Any] = json.loads(shipped(f"schemas/json/{name}.schema.json").read_text("utf-8"))
    return schema


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without room for fields that it does not name: readers leave it, writers have none to add."""
    inner = {key: closed(item) if isinstance(item, dict) else item for key, item in schema.items()}
    return {"additionalProperties": False, **inner} if "properties" in schema else inner


RESULT = Draft7Validator(closed(contract("extraction_result")))
RESULT_HEADERS = Draft7Validator(contract("result_headers"))
DEAD_LETTER_HEADERS = contract("dead_letter_headers")


def text_of(headers: Sequence[Header]) -> dict[str, str]:
    """Headers by name, the last of each; what is no UTF-8, as the record's own may be, with replacement characters."""
    return {name: (value or b"").decode(errors="replace") for name, value in headers}


def check_result(value: bytes, headers: Sequence[Header]) -> None:
    """Raise ValidationError for a JSON result, or headers of it, that the schemas do not take."""
    fields = json.loads(value)
    RESULT.validate(fields)
    RESULT_HEADERS.validate(text_of(headers))
    assert text_of(headers)["rexstream-result-id"] == fields["result_id"]
    assert text_of(headers)["rexstream-task"] == fields["task"]
    assert text_of(headers)["rexstream-task-fingerprint"] == fields["task_fingerprint"]


def check_dead_letter(headers: Sequence[Header], carried: Sequence[str] | None = None) -> None:
    """Raise ValidationError for headers of a dead letter that the schema does not take.

    ``carried``: names of the record's own; None where they may be any.
    """
    schema = DEAD_LETTER_HEADERS if carried is None else closed(DEAD_LETTER_HEADERS)
    own = {name: text for name, text in text_of(headers).items() if name not in (carried or ())}
    Draft7Validator(schema).validate(own)
