"""What ``tail`` shows of a record, on one line and in a terminal."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from consumer.cli.tail_text import laid_out, line
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.events import SourceRecord

if TYPE_CHECKING:
    from consumer.events import Header


def record(value: bytes | None, headers: tuple[Header, ...] = (), key: bytes | None = None) -> SourceRecord:
    return SourceRecord("reviews.extracted", 2, 7, 0, key, value, headers, 1_700_000_000_000, 0.0)


def result(*paths: list[dict[str, Any]], **more: Any) -> bytes:
    return json.dumps(
        {"event_id": "e-1", "task": "product_features", "extractions": list(paths), **more}, ensure_ascii=False
    ).encode()


def test_a_result_shows_event_task_and_facts() -> None:
    """Paths are separated, their elements show type and span, a classification fact its type alone."""
    shown = line(
        record(
            result(
                [{"type": "属性", "span": "续航"}, {"type": "好评", "span": None}],
                [{"type": "属性", "span": "手感"}],
            )
        )
    )
    assert shown.split() == ["e-1", "product_features", "属性=续航", ">", "好评;", "属性=手感"]


def test_a_result_without_facts_says_so() -> None:
    """No facts is an answer."""
    assert "nothing found" in line(record(result()))


def test_warnings_are_shown() -> None:
    """What the worker warned of follows the facts."""
    assert line(record(result(warnings=["fallback used", "cut"]))).endswith("nothing found; (fallback used, cut)")


def test_a_span_cannot_write_to_the_terminal() -> None:
    """Escape sequences and line breaks of a review come out as replacement characters."""
    shown = line(record(result([{"type": "a", "span": "\x1b[2Jx\ny\x07"}])))
    assert "a=\N{REPLACEMENT CHARACTER}[2Jx\N{REPLACEMENT CHARACTER}y\N{REPLACEMENT CHARACTER}" in shown


def test_a_dead_letter_shows_its_reason_and_not_its_value() -> None:
    """Place, stage, class, task and message come from the headers; the review stays unseen."""
    source = SourceRecord("reviews.raw", 3, 41, 0, b"k", "退货太麻烦".encode(), (), 1_700_000_000_000, 0.0)
    failure = Failure("extract", "TooManyModelCalls", "over 4096", 0, attempts=2, task="ner")
    letter = DeadLetters("reviews.dead", "g", "1").of(source, failure, 1_700_000_001_000)
    shown = line(record(letter.value, letter.headers))
    for part in ("reviews.raw-3@41", "extract/TooManyModelCalls", "task ner", "over 4096", "attempts: 2"):
        assert part in shown
    assert "退货" not in shown


@pytest.mark.parametrize(
    "value",
    [b"\x00\x01avro", "赠品没给".encode(), b'{"text": "secret"}', b'{"extractions": [1]}', None, b"[" * 100_000],
)
def test_anything_else_shows_only_its_size(value: bytes | None) -> None:
    """A record that is no result is described without its value."""
    shown = line(record(value))
    assert "reviews.extracted-2@7" in shown
    assert "secret" not in shown
    assert "赠品" not in shown


def on_screen(value: bytes, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, highlight=False)
    return laid_out(record(value), console).plain.splitlines()


FACTS = [
    [{"type": "属性词", "span": "续航"}, {"type": "负向情感", "span": f"撑不到{each}天就没电了"}] for each in range(6)
]


@pytest.mark.parametrize("width", [40, 60, 89, 90, 139, 140, 200])
def test_no_line_is_wider_than_the_screen_and_nothing_is_left_out(width: int) -> None:
    """Chinese characters take two columns each; a path of facts that does not fit beside the others begins a line."""
    shown = on_screen(result(*FACTS), width)
    assert max(map(cell_len, shown)) <= width
    assert "".join("".join(shown).split()).replace(";", "") == "e-1product_features" + "".join(
        f"属性词=续航>负向情感=撑不到{each}天就没电了" for each in range(6)
    )


def test_there_is_an_order_to_the_columns() -> None:
    """What follows an event in Chinese begins in the same column as after any other, and so does what is wrapped."""
    lines = [*on_screen(result(*FACTS), 100), *on_screen(result(*FACTS, event_id="评论一号"), 100)]
    starts = {cell_len(each[: each.index("属性词")]) for each in lines}
    assert starts == {42}


def test_a_name_that_is_too_long_for_its_column_has_a_line_of_its_own() -> None:
    """It is not cut: names are there to be copied."""
    name = "0f8fad5b-d9cb-469f-a165-70867728950e"
    assert on_screen(result(event_id=name), 100) == [f"{name}  product_features", "    nothing found"]
    assert len(on_screen(result(event_id=name), 140)) == 1


def test_on_a_narrow_screen_the_facts_are_below() -> None:
    assert on_screen(result([{"type": "a", "span": "b"}]), 60) == ["e-1  product_features", "    a=b"]
