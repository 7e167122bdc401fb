"""Records of the result and dead-letter topics as text for a reader, or as JSON for a machine.

``record_json`` is for ``tail``, which shows records of any kind; the rest, from ``row`` on, is for ``dead-letters``.
The values of dead letters are shown only where that is asked for.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import click

from consumer.delivery.dead_letters import PREFIX, SPRING
from consumer.delivery.letters import Letter, LetterFilter, header_texts

if TYPE_CHECKING:
    from consumer.delivery.letter_summary import LetterSummary
    from consumer.events import SourceRecord

_SPRING_NUMBERS = {SPRING + "original-partition", SPRING + "original-offset", SPRING + "original-timestamp"}
COLUMNS = f"{'failed at (UTC)':<19}  {'stage/class':<26}  {'task':<18}  {'replays':>7}  id: message"
"""Heads of the columns of ``row``."""


def record_json(record: SourceRecord) -> str:
    """A result's own JSON; any other record as an object with its place, key, headers and value.

    Bytes that are not UTF-8 stand under ``key_base64``, ``value_base64``, and in headers as ``{"base64": ...}``.
    """
    if record.value is not None and result_of(record.value) is not None:
        text = record.value.decode()
        return json_line(json.loads(text)) if "\n" in text or "\r" in text else text
    described: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp_ms,
        **_named("key", record.key),
        "headers": [[name, _text(value)] for name, value in record.headers],
        **_named("value", record.value),
    }
    return json_line(described)


def json_line(content: Any) -> str:
    """``content`` as JSON. Half a surrogate pair, which JSON may escape and UTF-8 has not, stays escaped."""
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or change its colours: reviews are anybody's text."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def result_of(value: bytes | None) -> dict[str, Any] | None:
    """The value as an extraction result, or None when it is something else."""
    try:
        content = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    paths = content.get("extractions") if isinstance(content, dict) else None
    is_result = isinstance(paths, list) and all(
        isinstance(path, list) and all(isinstance(fact, dict) for fact in path) for path in paths
    )
    return cast("dict[str, Any]", content) if is_result else None


def row(letter: Letter) -> str:
    """One letter in the columns of ``COLUMNS``; a longer entry pushes the others on."""
    moment = None if letter.failed_at_ms is None else datetime.fromtimestamp(letter.failed_at_ms / 1000, UTC)
    failed_at = f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "?"
    return (
        f"{failed_at:<19}  {printable(f'{letter.stage}/{letter.reason}'):<26}  "
        f"{printable(letter.shown_task or '-'):<18}  {letter.replay_count:>7}  "
        f"{printable(letter.shown_id)}: {printable(letter.message)}"
    )


def fields(letter: Letter) -> dict[str, Any]:
    """The failure as its headers describe it: no key, no value, none of the record's own headers."""
    record = letter.record
    texts = header_texts(record)
    attempts = texts.get(PREFIX + "attempts", "")
    return {
        "id": letter.shown_id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "stage": letter.stage,
        "class": letter.reason,
        "task": letter.shown_task,
        "message": letter.message,
        "exception": texts.get(PREFIX + "exception"),
        "attempts": int(attempts) if attempts.isdecimal() else None,
        "first_failed_at": texts.get(PREFIX + "first-failed-at"),
        "failed_at": texts.get(PREFIX + "failed-at"),
        "model": texts.get(PREFIX + "model"),
        "model_version": texts.get(PREFIX + "model-version"),
        "service_version": texts.get(PREFIX + "service-version"),
        "replay_count": letter.replay_count,
        "value_bytes": None if record.value is None else len(record.value),
        "dead_letter": {"topic": record.topic, "partition": record.partition, "offset": record.offset},
    }


def in_full(letter: Letter, *, replayed: bool, with_value: bool) -> dict[str, Any]:
    """``fields``, whether it was replayed, key and headers, and the value if asked for."""
    record = letter.record
    return {
        **fields(letter),
        "replayed": replayed,
        **_named("key", record.key),
        "headers": [
            [name, int.from_bytes(value, "big", signed=True) if value and name in _SPRING_NUMBERS else _text(value)]
            for name, value in record.headers
        ],
        **(_named("value", record.value) if with_value else {}),
    }


def lines_in_full(described: dict[str, Any]) -> list[str]:
    """What ``in_full`` gives, a line for each header."""
    place = described["dead_letter"]
    lines = [
        f"{printable(described['id'])}  ({printable(place['topic'])}-{place['partition']}@{place['offset']})",
        f"  replayed  {'yes' if described['replayed'] else 'no'}",
        f"  key       {_shown(described, 'key')}",
        *(f"  header    {printable(name)}: {printable(str(value))}" for name, value in described["headers"]),
    ]
    if "value" in described or "value_base64" in described:
        return [*lines, f"  value     {_shown(described, 'value')}"]
    size = described["value_bytes"]
    return [*lines, "  value     omitted" if size is None else f"  value     {size} bytes; --value shows them"]


def counts(letter_filter: LetterFilter) -> str:
    """How many letters of which class there were, and what was left out."""
    total = sum(letter_filter.by_class.values())
    classes = ", ".join(f"{count} {stage}/{reason}" for (stage, reason), count in letter_filter.by_class.most_common())
    text = click.style(f"{total} dead letters", bold=True) + (f": {printable(classes)}" if classes else "")
    return text + besides(letter_filter)


def besides(read: LetterFilter | LetterSummary) -> str:
    """What was read and left out, in parentheses; empty for nothing."""
    others = [
        f"{count} {what}"
        for count, what in (
            (read.replayed, "replayed already"),
            (read.copies, "further copies"),
            (read.other_records, "records that are no dead letters"),
        )
        if count
    ]
    return f" (besides {', '.join(others)})" if others else ""


def _shown(described: dict[str, Any], name: str) -> str:
    if f"{name}_base64" in described:
        return f"(base64) {described[f'{name}_base64']}"
    return "null" if described[name] is None else printable(described[name])


def _named(name: str, value: bytes | None) -> dict[str, str | None]:
    """``{name: text}``, or ``{name_base64: ...}`` for what is not UTF-8."""
    text = _text(value)
    return {f"{name}_base64": text["base64"]} if isinstance(text, dict) else {name: text}


def _text(value: bytes | None) -> str | dict[str, str] | None:
    """Bytes as text, or ``{"base64": ...}`` for what is not UTF-8."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
