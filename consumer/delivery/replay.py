"""A dead letter as it is sent again: the original record, with the headers by which its source treats it as the same.

The three headers: the default event id, which a new place would change and with it every ``result_id``; the task that
failed, since its siblings have their results; and how often the record was replayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from consumer.codecs.control_headers import EVENT_ID, ONLY_TASKS
from consumer.delivery.compatible_headers import CONNECT, SPRING
from consumer.delivery.dead_letters import KIP_1191, PREFIX, REPLAY_COUNT
from consumer.delivery.outcome import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.delivery.letters import Letter
    from consumer.events import Header

Skipped = Literal["value_omitted", "replayed_too_often", "impossible_task"]

WHY_SKIPPED: dict[Skipped, str] = {
    "value_omitted": "the dead-letter topic was too small for their value",
    "replayed_too_often": "they were replayed as often as --max-replays allows",
    "impossible_task": "no task can have the name that they failed for",
}

_STRIPPED = (PREFIX, KIP_1191, CONNECT, SPRING)


def why_not(letter: Letter, max_replays: int) -> Skipped | None:
    """Why ``letter`` cannot be sent again, or None when it can. ``max_replays`` is how often a record may be."""
    if letter.value_omitted:
        return "value_omitted"
    if letter.replay_count >= max_replays:
        return "replayed_too_often"
    # Such a name may hold the comma that separates names in the header, and so name tasks that have their results.
    if not letter.possible_task:
        return "impossible_task"
    return None


def replayed(letter: Letter) -> Output:
    """The record to produce to the letter's original topic, stamped by the producer.

    Its event id, where the value brings none, is that of the first round; tasks stay narrowed to those of an earlier
    round when this one failed before its tasks were known.
    """
    record = letter.record
    kept = [
        (name, value)
        for name, value in record.headers
        if not name.startswith(_STRIPPED) and name not in (EVENT_ID, ONLY_TASKS)
    ]
    default_id = f"{letter.topic}-{letter.partition}-{letter.offset}".encode()
    kept.append((EVENT_ID, _readable(record.headers, EVENT_ID) or default_id))
    only = letter.task.encode() if letter.task is not None else _readable(record.headers, ONLY_TASKS)
    if only:
        kept.append((ONLY_TASKS, only))
    kept.append((REPLAY_COUNT, str(letter.replay_count + 1).encode()))
    return Output(letter.topic, record.key, record.value, tuple(kept), letter.partition)


def _readable(headers: Sequence[Header], name: str) -> bytes | None:
    """What a source would honour: the last value of that name, unless it is not UTF-8, which it would refuse."""
    for key, value in reversed(headers):
        if key == name and value is not None:
            return value if value.decode(errors="ignore").encode() == value else None
    return None
