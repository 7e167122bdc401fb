"""What the load consists of: review events with sequence numbers, and for each what it owes.

A review's text comes from a small pool, so that what the stub model says of it can be computed here once and compared
with every result. What an event owes is written down with the event, before anything is sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

TASKS = ("sentiment", "product_features")
"""Tasks of the route that all scenarios use."""

TEXT_CHARS = 1000
"""limits.text_chars of the workers, so that a text over it is still a small record."""

POISON_MARK = "毒窗"
"""Two characters, two tokens, in no other text: the model server dies of a window that holds them."""

_THINGS = ("屏幕", "电池", "鞋底", "外壳", "拉链", "客服", "包装", "味道", "面料", "音质")
_FOUND = ("结实", "偏硬", "清楚", "耐用", "太薄", "有点大", "比图上暗", "很顺手", "一般般", "掉色")
_ENDS = ("，下次还买", "，不太满意", "，家里人喜欢", "。用了半个月", "，退了一次货", "！")


class Outcome(NamedTuple):
    """One outcome of one record: a result of ``task``, or with ``reason`` (``stage/class``) a dead letter."""

    task: str | None
    """None in the dead letter of a record that failed before its tasks were known."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A record to send and what it owes."""

    kind: str
    key: bytes
    value: bytes | None
    owes: frozenset[Outcome]
    event_id: str | None = None
    """None where the worker cannot know one."""
    text: str | None = None


def results(tasks: tuple[str, ...] = TASKS) -> frozenset[Outcome]:
    """A result per task."""
    return frozenset(Outcome(task) for task in tasks)


def dead(reason: str, *tasks: str | None) -> frozenset[Outcome]:
    """A dead letter per task, or one for the record as a whole."""
    return frozenset(Outcome(task, reason) for task in tasks or (None,))


def text(number: int) -> str:
    """A review; there are 600 different ones."""
    first, second = _THINGS[number % 10], _THINGS[(number // 7 + 3) % 10]
    return f"{first}{_FOUND[number // 10 % 10]}，{second}{_FOUND[(number + 5) % 10]}{_ENDS[number // 100 % 6]}"


def plain(number: int, **more: object) -> Review:
    """A good review, with all tasks of the route."""
    return _event("plain", number, results(), text(number), **more)


def _event(kind: str, number: int, owes: frozenset[Outcome], words: str, **more: object) -> Review:
    event_id = f"event-{number}"
    fields = {"event_id": event_id, "text": words, "product_id": f"p{number % 17}", **more}
    return Review(kind, _key(number), json.dumps(fields, ensure_ascii=False).encode(), owes, event_id, words)


def _raw(kind: str, number: int, value: bytes | None, owes: frozenset[Outcome]) -> Review:
    return Review(kind, _key(number), value, owes)


def _key(number: int) -> bytes:
    return f"p{number % 17}".encode()


def poison(number: int) -> Review:
    """A review that kills the model server whenever a window of it is in a call."""
    return _event("poison", number, dead("extract/Poison", "sentiment"), f"包装{POISON_MARK}漏水", tasks=["sentiment"])


def large_result(number: int) -> Review:
    """A review whose results carry 6,000 bytes that do not compress: too large for a topic of 4,000."""
    noise = "".join(chr(0x4E00 + (number * 7919 + i * i * 31) % 20_000) for i in range(2000))
    owes = dead("produce/ResultTooLarge", *TASKS)
    return _event("large_result", number, owes, text(number), attributes={"noise": noise})


def unreadable(number: int) -> Review:
    """What the flood consists of."""
    return _raw("not_json", number, b'{"text": "%d' % number, dead("decode/InvalidJson"))


KINDS: Mapping[str, Callable[[int], Review]] = {
    "plain": plain,
    "one_task": lambda n: _event("one_task", n, results(("sentiment",)), text(n), tasks=["sentiment"]),
    "null": lambda n: _raw("null", n, None, frozenset()),
    "not_json": unreadable,
    "not_utf8": lambda n: _raw("not_utf8", n, b'{"text": "\xff\xfe"}', dead("decode/InvalidUtf8")),
    "no_text": lambda n: _raw("no_text", n, b'{"event_id": "x%d"}' % n, dead("validate/MissingText")),
    "blank": lambda n: _raw("blank", n, b'{"event_id": "x%d", "text": "  "}' % n, dead("validate/EmptyText")),
    "wrong_type": lambda n: _raw("wrong_type", n, b'{"text": %d}' % n, dead("validate/InvalidEvent")),
    "too_long": lambda n: _event("too_long", n, dead("validate/TextTooLong", *TASKS), text(n) + "好" * TEXT_CHARS),
    "unknown_task": lambda n: _event(
        "unknown_task",
        n,
        results(("sentiment",)) | dead("validate/UnknownTask", "stars"),
        text(n),
        tasks=["sentiment", "stars"],
    ),
}
"""Every kind of the ordinary load."""

_BAD_SHARE = 0.06


def mixture(random: Random) -> Callable[[int], Review]:
    """A load of which 6 % is not an ordinary review, chosen by ``random``."""
    others = [kind for kind in KINDS if kind != "plain"]

    def write(number: int) -> Review:
        return KINDS[random.choice(others) if random.random() < _BAD_SHARE else "plain"](number)

    return write
