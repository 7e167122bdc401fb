"""Dead letters read back, and which of them are meant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.dead_letter_size import without_value
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.delivery.letters import Letter, LetterFilter, Markers, Selection, read_letter
from consumer.events import SourceRecord, Stage

if TYPE_CHECKING:
    from consumer.events import Output

NOW = 1_760_000_000_000
LETTERS = DeadLetters("dead", "group", "0.1.0", "connect")


def source(offset: int = 41, topic: str = "reviews.raw") -> SourceRecord:
    headers = (("rexstream-dlq-class", b"forged"), ("__dlq.errors.offset", b"7"), ("trace", b"\xff"))
    return SourceRecord(topic, 2, offset, 1, b"k", b"value", headers, NOW - 5, 0.0)


def stored(output: Output, offset: int = 0) -> SourceRecord:
    return SourceRecord("dead", 0, offset, 0, output.key, output.value, output.headers, output.timestamp_ms, 0.0)


def letter(
    offset: int = 41,
    *,
    stage: Stage = "extract",
    reason: str = "Poison",
    task: str | None = "sentiment",
    topic: str = "reviews.raw",
    at: int = NOW,
    place: int = 0,
) -> SourceRecord:
    failure = Failure(stage, reason, "no answer", at, task=task)
    return stored(LETTERS.of(source(offset, topic), failure, at), place)


def test_a_letter_says_what_was_written() -> None:
    """What is said last counts: behind it is nothing that the record brought."""
    record = letter()
    assert read_letter(record) == Letter(
        id="reviews.raw-2-41-sentiment",
        topic="reviews.raw",
        partition=2,
        offset=41,
        stage="extract",
        reason="Poison",
        task="sentiment",
        message="no answer",
        failed_at_ms=NOW,
        record=record,
        group="group",
    )


def test_an_event_that_failed_as_a_whole_names_no_task() -> None:
    """Nor does its id."""
    read = read_letter(letter(task=None, stage="decode"))
    assert read is not None
    assert (read.id, read.task) == ("reviews.raw-2-41", None)


@pytest.mark.parametrize(
    "lacking", ["rexstream-dlq-id", "__dlq.errors.topic", "__dlq.errors.partition", "__dlq.errors.offset"]
)
def test_a_record_without_id_or_place_is_no_letter(lacking: str) -> None:
    """It could be replayed to nowhere, or twice."""
    record = letter()
    assert read_letter(replace(record, headers=tuple(h for h in record.headers[2:] if h[0] != lacking))) is None


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in letter().headers]), st.none() | st.binary(max_size=9))))
def test_no_header_breaks_the_reading(headers: list[tuple[str, bytes | None]]) -> None:
    """Anyone may write to a topic."""
    record = letter()
    read_letter(replace(record, headers=(*record.headers, *headers)))


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), True),
        (Selection(reasons=frozenset({"Poison", "X"}), tasks=frozenset({"sentiment"})), True),
        (Selection(reasons=frozenset({"Poison"}), tasks=frozenset({"ner"})), False),
        (Selection(stages=frozenset({"decode"})), False),
        (Selection(topics=frozenset({"reviews.raw"})), True),
        (Selection(topics=frozenset({"dead"})), False),
        (Selection(ids=frozenset({"reviews.raw-2-41-sentiment"})), True),
        (Selection(ids=frozenset({"reviews.raw-2-41"})), False),
        (Selection(since_ms=NOW), True),
        (Selection(since_ms=NOW + 1), False),
        (Selection(until_ms=NOW), False),
        (Selection(since_ms=NOW, until_ms=NOW + 1), True),
    ],
)
def test_every_filter_must_name_the_letter(selection: Selection, taken: bool) -> None:
    """Time is half-open: a letter belongs to one of two adjoining stretches."""
    read = read_letter(letter())
    assert read is not None
    assert selection.takes(read) is taken


def test_a_letter_without_a_readable_time_is_in_no_stretch_of_time() -> None:
    """It is still there for whoever does not ask about time."""
    record = letter()
    read = read_letter(replace(record, headers=(*record.headers, ("rexstream-dlq-failed-at", b"yesterday"))))
    assert read is not None
    assert Selection().takes(read)
    assert not Selection(since_ms=0).takes(read)
    assert not Selection(until_ms=NOW * 2).takes(read)


def test_the_sieve_lets_each_letter_through_once_and_counts_the_rest() -> None:
    """Copies, letters that were replayed and records that are none; what was not asked for is not counted."""
    sieve = LetterFilter(
        Selection(reasons=frozenset({"Poison", "BatchFault"})), Markers({"reviews.raw-2-2-sentiment@group": NOW})
    )
    records = [
        letter(1),
        letter(1, place=1),
        letter(2),
        letter(2, place=2),
        letter(3, reason="BatchFault"),
        letter(4, reason="InvalidJson"),
        letter(1, task="ner"),
        replace(letter(5), headers=()),
    ]
    taken = [found.id for record in records if (found := sieve.take(record)) is not None]
    assert taken == ["reviews.raw-2-1-sentiment", "reviews.raw-2-3-sentiment", "reviews.raw-2-1-ner"]
    assert (sieve.copies, sieve.replayed, sieve.other_records) == (2, 1, 1)
    assert sieve.younger == 0
    assert sieve.by_class == {("extract", "Poison"): 2, ("extract", "BatchFault"): 1}


def test_a_letter_that_failed_after_its_replay_is_counted() -> None:
    """It may be another one, at a place of a topic that was made anew; a later copy of the same is not counted."""
    markers = Markers({"reviews.raw-2-1-sentiment@group": NOW, "reviews.raw-2-2-sentiment@group": NOW})
    sieve = LetterFilter(Selection(), markers)
    for record in (letter(1, at=NOW + 1), letter(2, at=NOW), letter(2, at=NOW + 1)):
        assert sieve.take(record) is None
    assert (sieve.replayed, sieve.younger, sieve.copies) == (2, 1, 1)


def test_a_copy_with_its_value_is_worth_more_than_one_without() -> None:
    """The topic's limit may have been raised between two writes of the same letter: the bare one waits for the end."""
    full = LETTERS.of(source(), Failure("extract", "Poison", "x", NOW, task="sentiment"), NOW)
    bare = without_value(full)
    assert bare is not None
    sieve = LetterFilter(Selection(), Markers())
    taken = [sieve.take(stored(output)) for output in (bare, bare, full, full, bare)]
    assert [None if each is None else each.record.value is None for each in taken] == [None, None, False, None, None]
    assert list(sieve.rest()) == []
    assert (sieve.copies, sieve.by_class.total()) == (4, 1)


def test_a_letter_of_which_no_copy_has_its_value_comes_at_the_end() -> None:
    """Once."""
    bare = without_value(LETTERS.of(source(), Failure("extract", "Poison", "x", NOW, task="sentiment"), NOW))
    assert bare is not None
    sieve = LetterFilter(Selection(), Markers())
    assert [sieve.take(stored(bare, place)) for place in range(2)] == [None, None]
    assert sieve.by_class.total() == 0
    assert [found.record.offset for found in sieve.rest()] == [0]
    assert (sieve.copies, sieve.by_class.total()) == (1, 1)


@pytest.mark.parametrize(
    ("task", "shown", "shown_id"),
    [
        (None, None, "reviews.raw-2-41"),
        ("sentiment", "sentiment", "reviews.raw-2-41-sentiment"),
        ("鞋子很舒服", "(5 characters)", "reviews.raw-2-41-(5 characters)"),
        ("a,b", "(3 characters)", "reviews.raw-2-41-(3 characters)"),
        ("(no task)", "(no task)", "reviews.raw-2-41-(no task)"),
    ],
)
def test_a_name_that_no_task_can_have_is_not_shown(task: str | None, shown: str | None, shown_id: str) -> None:
    """It may be anything that an event asked for. What is shown still selects the letter."""
    read = read_letter(letter(task=task))
    assert read is not None
    assert (read.shown_task, read.shown_id) == (shown, shown_id)
    assert Selection(ids=frozenset({shown_id})).takes(read)
    assert Selection(ids=frozenset({read.id})).takes(read)
    assert not Selection(ids=frozenset({"reviews.raw-2-41-"})).takes(read)


@pytest.mark.parametrize(
    "text",
    ["9999-12-31T23:59:59.999999+00:00", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59Z"],
)
def test_a_time_that_no_worker_wrote_is_none(text: str) -> None:
    """Beyond what can be shown, or before 1970."""
    record = letter()
    read = read_letter(replace(record, headers=(*record.headers, ("rexstream-dlq-failed-at", text.encode()))))
    assert read is not None
    assert read.failed_at_ms is None


def test_numbers_of_thousands_of_digits_are_none() -> None:
    """Found by fuzzing: headers that Python refuses to convert are no letter of ours, or one never replayed."""
    record = letter()
    for name, outcome in (("__dlq.errors.offset", None), ("rexstream-dlq-task-count", 1)):
        found = read_letter(replace(record, headers=(*record.headers, (name, b"9" * 5000))))
        assert (found and found.task_count) == outcome


def test_two_groups_may_have_letters_with_the_same_id() -> None:
    """Both are let through, and the marker of one is none of the other; an older marker names no group."""
    other = DeadLetters("dead", "other", "0.1.0")
    theirs = stored(other.of(source(), Failure("extract", "Poison", "x", NOW, task="sentiment"), NOW), 1)
    sieve = LetterFilter(Selection(), Markers())
    taken = [sieve.take(record) for record in (letter(), theirs, letter())]
    assert [found and found.group for found in taken] == ["group", "other", None]
    sieve = LetterFilter(Selection(), Markers({"reviews.raw-2-41-sentiment@group": NOW}))
    taken = [sieve.take(record) for record in (letter(), theirs)]
    assert [found and found.group for found in taken] == [None, "other"]
    sieve = LetterFilter(Selection(), Markers({"reviews.raw-2-41-sentiment": NOW}))
    assert [sieve.take(record) for record in (letter(), theirs)] == [None, None]
