"""Records as lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from consumer.cli.record_lines import readable_line, record_json
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
    line = readable_line(
        record(
            result(
                [{"type": "属性", "span": "续航"}, {"type": "好评", "span": None}],
                [{"type": "属性", "span": "手感"}],
            )
        )
    )
    assert line.split() == ["e-1", "product_features", "属性=续航", ">", "好评;", "属性=手感"]


def test_a_result_without_facts_says_so() -> None:
    """No facts is an answer."""
    assert "nothing found" in readable_line(record(result()))


def test_warnings_are_shown() -> None:
    """What the worker warned of follows the facts."""
    assert "fallback used" in readable_line(record(result(warnings=["fallback used"])))


def test_a_span_cannot_write_to_the_terminal() -> None:
    """Escape sequences and line breaks of a review come out as replacement characters."""
    line = readable_line(record(result([{"type": "a", "span": "\x1b[2Jx\ny\x07"}])))
    assert "a=\N{REPLACEMENT CHARACTER}[2Jx\N{REPLACEMENT CHARACTER}y\N{REPLACEMENT CHARACTER}" in line


def test_a_dead_letter_shows_its_reason_and_not_its_value() -> None:
    """Place, stage, class, task and message come from the headers; the review stays unseen."""
    source = SourceRecord("reviews.raw", 3, 41, 0, b"k", "退货太麻烦".encode(), (), 1_700_000_000_000, 0.0)
    failure = Failure("extract", "TooManyModelCalls", "over 4096", 0, attempts=2, task="ner")
    letter = DeadLetters("reviews.dead", "g", "1").of(source, failure, 1_700_000_001_000)
    line = readable_line(record(letter.value, letter.headers))
    for part in ("reviews.raw-3@41", "extract/TooManyModelCalls", "task ner", "over 4096", "attempts: 2"):
        assert part in line
    assert "退货" not in line


@pytest.mark.parametrize(
    "value",
    [b"\x00\x01avro", "赠品没给".encode(), b'{"text": "secret"}', b'{"extractions": [1]}', None, b"[" * 100_000],
)
def test_anything_else_shows_only_its_size(value: bytes | None) -> None:
    """A record that is no result is described without its value."""
    line = readable_line(record(value))
    assert "reviews.extracted-2@7" in line
    assert "secret" not in line
    assert "赠品" not in line


def test_json_of_a_result_is_its_own() -> None:
    """The value as it is, on one line whatever its line breaks."""
    value = result([{"type": "a", "span": "b", "score": 0.1234}])
    assert record_json(record(value)) == value.decode()
    pretty = json.dumps(json.loads(value), indent=2).encode()
    assert json.loads(record_json(record(pretty))) == json.loads(value)
    assert "\n" not in record_json(record(pretty))


def test_json_of_other_records_loses_nothing() -> None:
    """Headers stay a list, null and bytes that are not UTF-8 included."""
    line = json.loads(record_json(record(b"\xff", (("h", b"1"), ("h", None), ("h", b"\xfe")), "键".encode())))
    assert line == {
        "topic": "reviews.extracted",
        "partition": 2,
        "offset": 7,
        "timestamp": 1_700_000_000_000,
        "key": "键",
        "headers": [["h", "1"], ["h", None], ["h", {"base64": "/g=="}]],
        "value_base64": "/w==",
    }
