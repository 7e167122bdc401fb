"""The note of what is done behind a commit: it names exactly that, or less where there is no room."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.done_note import MOST_CHARACTERS, Done, note, read
from consumer.delivery.start_offsets import Committed, due, start_note
from consumer.events import Partition

NOW = 1_800_000_000_000
gaps = st.lists(st.sampled_from((1, 1, 1, 2, 3, 200, 70_000)), max_size=60)


def offsets(base: int, steps: list[int]) -> list[int]:
    return [base + sum(steps[: n + 1]) - 1 for n in range(len(steps))]


@given(
    base=st.integers(0, 2**62),
    steps=gaps,
    tail=st.integers(0, 300),
    runs=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), max_size=5),
)
def test_a_note_names_all_that_is_not_in_flight_and_what_was_named_before(
    base: int, steps: list[int], tail: int, runs: list[tuple[int, int]]
) -> None:
    """Before the end what is in flight decides; from there on the earlier note."""
    in_flight = offsets(base, steps)
    end = (in_flight[-1] + 1 if in_flight else base) + tail
    earlier: set[int] = set()
    before, at = None, base
    firsts, lasts = [], []
    for waits, done in runs:
        firsts.append(at + waits)
        at += waits + done
        lasts.append(at - 1)
        earlier.update(range(firsts[-1], at))
    if runs:
        before = Done(tuple(firsts), tuple(lasts), NOW - 5)
        assert before.count == len(earlier)
    text = note(base, in_flight, end, before, NOW)
    assert text.isascii()
    named = read(base, text)
    waiting = set(in_flight)
    looked_at = {o + d for o in (base, end, *waiting, *firsts, *lasts) for d in (-1, 0, 1)}
    for offset in sorted(looked_at):
        expected = offset >= base and (offset not in waiting if offset < end else offset in earlier)
        assert (named is not None and offset in named) == expected, offset
    if named is not None:
        assert named.written_ms == (NOW if before is None else NOW - 5), "what was named before is no newer now"


def test_nothing_is_said_where_nothing_is_done_behind_the_commit() -> None:
    """As with commits of releases that know no notes."""
    assert note(5, [5, 6, 7], 8, None, NOW) == ""
    assert note(8, [], 8, None, NOW) == ""
    assert note(8, [], 8, Done((2,), (7,), NOW), NOW) == ""


def test_a_note_that_would_be_too_long_names_less() -> None:
    """Brokers refuse a longer one, and its commit with it; what is cut off is only repeated."""
    chance = Random(1)
    in_flight = offsets(10, [chance.randint(1, 2**40) for _ in range(1500)])
    text = note(10, in_flight, in_flight[-1] + 1, None, NOW)
    assert len(text) <= MOST_CHARACTERS
    named = read(10, text)
    assert named is not None
    assert not any(offset in named for offset in in_flight)
    cut = named.lasts[-1]
    assert all(offset + 1 in named for offset, later in pairwise(in_flight) if offset < later - 1 <= cut)
    assert len(named.firsts) > 100, "as much as there is room for"


def test_two_thousand_records_in_flight_of_one_partition_have_room() -> None:
    """As many as a worker takes, every other one done: the worst of what is likely."""
    in_flight = list(range(0, 4000, 2))
    named = read(0, note(0, in_flight, 4000, None, NOW))
    assert named is not None
    assert named.count == 2000


def test_what_is_written_can_be_read_however_much_is_in_flight() -> None:
    """Runs that are all alike take next to no room, and a reader unpacks so many bytes and no more."""
    named = read(0, note(0, range(0, 100_000, 2), 100_000, None, NOW))
    assert named is not None
    assert 25_000 < named.count < 50_000


TEXT = note(7, [7, 9, 12], 20, None, NOW)
NAME, FORMAT, BASE, WRITTEN, RUNS = TEXT.split(":")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NULL",
        start_note([Partition("in", 0)]),
        '{"format": 1, "start": 3}',
        TEXT.replace(":1:", ":2:", 1),
        ":".join((NAME, FORMAT, "8", WRITTEN, RUNS)),
        ":".join((NAME, FORMAT, BASE, "now", RUNS)),
        ":".join((NAME, FORMAT, BASE, "9" * 5000, RUNS)),
        ":".join((NAME, FORMAT, BASE, WRITTEN)),
        ":".join((NAME, FORMAT, BASE, WRITTEN, "")),
        ":".join((NAME, FORMAT, BASE, WRITTEN, "AAAA")),
        ":".join((NAME, FORMAT, BASE, WRITTEN, RUNS, "")),
        TEXT[:-4],
        TEXT + "é",
    ],
)
def test_any_other_text_names_nothing(text: str) -> None:
    """That of a start, of other tools, of a newer release, of another offset, or a damaged one."""
    assert read(7, TEXT) is not None
    assert read(7, text) is None


@given(st.text(max_size=40))
def test_no_text_makes_a_worker_fail(runs: str) -> None:
    """Whoever may commit for a group may write anything."""
    found = read(7, f"{NAME}:{FORMAT}:{BASE}:{WRITTEN}:{runs}")
    assert found is None or found.firsts


def test_a_record_that_is_newer_than_the_note_is_not_named() -> None:
    """Its log lost its end, or is another: what came to the same offsets is not done."""
    named = Done((5,), (9,), NOW)
    assert named.names(5, NOW)
    assert named.names(5, None)
    assert not named.names(5, NOW + 1)
    assert not named.names(4, NOW)
    assert not named.names(10, NOW)


def test_a_group_with_notes_has_begun() -> None:
    """kafka.start looks at the same text: only its own means that a start is to be finished."""
    first, second = Partition("in", 0), Partition("in", 1)
    assert due({first: Committed(7, start_note((first, second))), second: Committed(None)}) == {second}
    assert due({first: Committed(7, TEXT), second: Committed(None)}) == frozenset()
