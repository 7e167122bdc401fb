"""Dead letters as lines, for a reader or as JSON for a machine. Their values are shown only where that is asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.result_lines import header_value, printable, text_or_base64
from consumer.delivery.compatible_headers import SPRING
from consumer.delivery.dead_letters import PREFIX
from consumer.delivery.letters import header_texts

if TYPE_CHECKING:
    from consumer.delivery.letters import Letter, Sieve

_SPRING_NUMBERS = {SPRING + "original-partition", SPRING + "original-offset", SPRING + "original-timestamp"}
COLUMNS = f"{'failed at (UTC)':<19}  {'stage/class':<26}  {'task':<18}  {'replays':>7}  id: message"


def row(letter: Letter) -> str:
    """One letter in the columns of ``COLUMNS``; a longer entry pushes the others on."""
    message = printable(letter.message)
    return (
        f"{_moment(letter.failed_at_ms):<19}  {printable(f'{letter.stage}/{letter.reason}'):<26}  "
        f"{printable(letter.shown_task or '-'):<18}  {letter.replay_count:>7}  {printable(letter.shown_id)}: {message}"
    )


def fields(letter: Letter) -> dict[str, Any]:
    """What is said of a failure: no key, no value, none of the record's own headers."""
    said = {
        name.removeprefix(PREFIX): text for name, text in header_texts(letter.record).items() if name.startswith(PREFIX)
    }
    record = letter.record
    return {
        "id": letter.shown_id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "stage": letter.stage,
        "class": letter.reason,
        "task": letter.shown_task,
        "message": letter.message,
        "exception": said.get("exception"),
        "attempts": int(attempts) if (attempts := said.get("attempts", "")).isdecimal() else None,
        "first_failed_at": said.get("first-failed-at"),
        "failed_at": said.get("failed-at"),
        "model": said.get("model"),
        "model_version": said.get("model-version"),
        "service_version": said.get("service-version"),
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
        **text_or_base64("key", record.key),
        "headers": [
            [
                name,
                int.from_bytes(value, "big", signed=True) if value and name in _SPRING_NUMBERS else header_value(value),
            ]
            for name, value in record.headers
        ],
        **(text_or_base64("value", record.value) if with_value else {}),
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


def counts(sieve: Sieve) -> str:
    """How many letters of which class there were, and what was left out."""
    total = sum(sieve.by_class.values())
    classes = ", ".join(f"{count} {stage}/{reason}" for (stage, reason), count in sieve.by_class.most_common())
    others = [
        f"{count} {what}"
        for count, what in (
            (sieve.replayed, "replayed already"),
            (sieve.copies, "further copies"),
            (sieve.strangers, "records that are no dead letters"),
        )
        if count
    ]
    text = click.style(f"{total} dead letters", bold=True) + (f": {printable(classes)}" if classes else "")
    return f"{text} (besides {', '.join(others)})" if others else text


def json_line(content: dict[str, Any]) -> str:
    """One line."""
    return json.dumps(content, ensure_ascii=False)


def _moment(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "?"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None).isoformat(" ", "seconds")


def _shown(described: dict[str, Any], name: str) -> str:
    if f"{name}_base64" in described:
        return f"(base64) {described[f'{name}_base64']}"
    return "null" if described[name] is None else printable(described[name])
