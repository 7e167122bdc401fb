"""What a replay says in headers, and what a route that believes none of it is left with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from consumer.codecs.control_headers import (
    CONTROL_HEADERS,
    EVENT_ID,
    ONLY_ROWS,
    REPLAY_FORMAT,
    REPLAY_GROUP,
    is_for_another_group,
    only_rows_of,
    row_numbers,
    too_many_headers,
    without_control,
)
from consumer.events import BadInput

if TYPE_CHECKING:
    from consumer.events import Header


def test_a_replay_for_another_group_is_told_from_all_else() -> None:
    """Without the header, or with an empty one, a record is for everybody."""
    assert is_for_another_group(((REPLAY_GROUP, b"a"),), "b")
    assert not is_for_another_group(((REPLAY_GROUP, b"b"),), "b")
    assert is_for_another_group(((REPLAY_GROUP, b"\xff"),), "b")
    for headers in ((), ((REPLAY_GROUP, None),), ((REPLAY_GROUP, b""),), (("x", b"a"),)):
        assert not is_for_another_group(headers, "b")


def test_without_control_headers_the_others_stay_as_they_are() -> None:
    """In their order, and as often as they came."""
    own: tuple[Header, ...] = (("a", b"1"), ("a", None), ("rexstream-task", b"x"))
    assert without_control((*((name, b"x") for name in CONTROL_HEADERS), *own)) == own


@pytest.mark.parametrize(
    ("rows", "text"), [([1], "1"), ([1, 2, 3], "1-3"), ([3, 7, 41, 42], "3,7,41-42"), (list(range(1, 1001)), "1-1000")]
)
def test_rows_are_read_as_they_are_written(rows: list[int], text: str) -> None:
    """Neighbours are joined: a thousand rows that failed are nine characters."""
    assert row_numbers(rows) == text
    assert only_rows_of(((ONLY_ROWS, text.encode()),)) == frozenset(rows)


def test_rows_that_nobody_named_are_all() -> None:
    """Without the header, with an empty one, and with commas alone."""
    for headers in ((), ((ONLY_ROWS, b""),), ((ONLY_ROWS, b",,"),), ((ONLY_ROWS, None),)):
        assert only_rows_of(headers) is None


@pytest.mark.parametrize("value", [b"x", b"-1", b"1-x", b"1-9999999", b"1001", b"1-2-3", b"\xff", "３".encode()])
def test_rows_that_are_no_numbers(value: bytes) -> None:
    """Anyone may write the header: it is refused, and costs nothing."""
    with pytest.raises(BadInput) as caught:
        only_rows_of(((ONLY_ROWS, value),))
    assert caught.value.reason == "InvalidHeader"


@pytest.mark.parametrize("written", [b"2", b"10", b"x"])
def test_headers_of_a_newer_releases_replay_are_refused_by_name(written: bytes) -> None:
    """They may mean something else there: the record becomes a dead letter, which is replayed once all know them."""
    said = "rexstream-replay-format .* a newer release .* replay its dead letter again"
    with pytest.raises(BadInput, match=said) as caught:
        too_many_headers(((EVENT_ID, b"a"), (REPLAY_FORMAT, written)))
    assert (caught.value.stage, caught.value.reason) == ("validate", "InvalidHeader")


def test_headers_of_todays_form_need_no_format() -> None:
    """Those of every release so far have none."""
    for headers in (((EVENT_ID, b"a"),), ((EVENT_ID, b"a"), (REPLAY_FORMAT, b"1"))):
        assert too_many_headers(headers) == ""
