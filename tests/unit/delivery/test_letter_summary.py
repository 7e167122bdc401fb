"""Dead letters counted by cause and hour, in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.dead_letter_size import without_value
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.delivery.letter_summary import HOUR_MS, Cause, LetterSummary
from consumer.delivery.letters import LetterFilter, Markers, Selection
from consumer.events import SourceRecord

if TYPE_CHECKING:
    from consumer.events import Stage

HOUR = 1_760_000_400_000
LETTERS = DeadLetters("dead", "group", "0.1.0")
TEXT = "拉链一拉就坏"


def letter(
    offset: int = 41,
    *,
    stage: Stage = "extract",
    reason: str = "Poison",
    task: str | None = "sentiment",
    topic: str = "reviews.raw",
    at: int = HOUR,
    bare: bool = False,
) -> SourceRecord:
    source = SourceRecord(topic, 2, offset, 1, b"k", TEXT.encode(), (), at - 5, 0.0)
    output = LETTERS.of(source, Failure(stage, reason, "no answer", at, task=task), at)
    output = (without_value(output) if bare else None) or output
    return SourceRecord("dead", 0, 0, 0, output.key, output.value, output.headers, output.timestamp_ms, 0.0)


def summary(*records: SourceRecord, most_rows: int = 100, remembered: int = 100) -> LetterSummary:
    found = LetterSummary(Selection(), Markers(), most_rows, remembered)
    for record in records:
        found.take(record)
    return found


POISON = Cause("reviews.raw", "extract", "Poison", "sentiment")


def test_letters_are_counted_by_cause_and_by_the_hour_in_which_they_failed() -> None:
    """Each topic, stage, class, task and hour has its own row; minutes do not matter."""
    found = summary(
        letter(1),
        letter(2, at=HOUR + HOUR_MS - 1),
        letter(3, at=HOUR + HOUR_MS),
        letter(4, reason="TextTooLong"),
        letter(5, stage="produce"),
        letter(6, task=None),
        letter(7, topic="other"),
    )
    assert found.rows == {
        (POISON, HOUR): 2,
        (POISON, HOUR + HOUR_MS): 1,
        (POISON._replace(reason="TextTooLong"), HOUR): 1,
        (POISON._replace(stage="produce"), HOUR): 1,
        (POISON._replace(task=None), HOUR): 1,
        (POISON._replace(topic="other"), HOUR): 1,
    }
    assert (found.total, found.others) == (7, 0)


def test_a_letter_that_does_not_say_when_it_failed_is_counted_too() -> None:
    """In a row without an hour."""
    record = letter()
    headers = tuple(header for header in record.headers if header[0] != "rexstream-dlq-failed-at")
    assert summary(replace(record, headers=headers)).rows == {(POISON, None): 1}


def test_rows_beyond_the_most_are_counted_together() -> None:
    """Rows that are there go on being counted; nothing is lost from the total."""
    found = summary(*(letter(n, at=HOUR + n * HOUR_MS) for n in range(5)), letter(5, at=HOUR), most_rows=2)
    assert found.rows == {(POISON, HOUR): 2, (POISON, HOUR + HOUR_MS): 1}
    assert (found.others, found.total) == (3, 6)


def test_what_an_event_asked_for_and_endless_names_are_no_part_of_a_row() -> None:
    """A task's name may be review text, and anyone may write a class of a megabyte."""
    ((cause, _),) = summary(letter(reason="C" * 1_000_000, task=TEXT)).rows
    assert cause == ("reviews.raw", "extract", "C" * 249, "(6 characters)")


def test_copies_close_to_each_other_are_counted_once_and_memory_stays_bounded() -> None:
    """The letters before the last ones are forgotten, and the summary says that it did."""
    found = summary(letter(0), letter(1), letter(0), letter(1), remembered=2)
    assert (found.total, found.copies, found.forgetful) == (2, 2, False)
    for offset in range(2, 100):
        found.take(letter(offset))
        found.take(letter(offset - 1))
        assert len(found._seen) + len(found._seen_before) <= 4
    assert (found.total, found.copies, found.forgetful) == (100, 100, True)
    found.take(letter(0))
    assert found.total == 101


RECORDS = st.lists(
    st.builds(
        letter,
        st.integers(0, 5),
        reason=st.sampled_from(["Poison", "InvalidJson"]),
        task=st.sampled_from([None, "sentiment"]),
        at=st.sampled_from([HOUR, HOUR + 2 * HOUR_MS]),
        bare=st.booleans(),
    )
    | st.just(SourceRecord("dead", 0, 0, 0, None, b"x", (), None, 0.0)),
    max_size=30,
)


@given(
    records=RECORDS, reasons=st.sampled_from([frozenset[str](), frozenset({"Poison"})]), since=st.none() | st.just(HOUR)
)
def test_a_summary_counts_what_a_list_lists(
    records: list[SourceRecord], reasons: frozenset[str], since: int | None
) -> None:
    """Filters, markers, copies and strangers are the same, whatever comes in which order."""
    selection = Selection(reasons=reasons, since_ms=since and since + 1)
    markers = Markers({"reviews.raw-2-1-sentiment@group": HOUR + 1, "reviews.raw-2-2@group": HOUR})
    listing, found = LetterFilter(selection, markers), LetterSummary(selection, markers)
    listed = [each for record in records if (each := listing.take(record))]
    listed += listing.rest()
    for record in records:
        found.take(record)
    assert found.total == len(listed) == sum(listing.by_class.values())
    assert [found.replayed, found.younger, found.copies, found.other_records] == [
        listing.replayed,
        listing.younger,
        listing.copies,
        listing.other_records,
    ]
