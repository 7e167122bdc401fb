"""What is sent again for a dead letter."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.control_headers import EVENT_ID, REPLAY_GROUP, control_text, only_tasks_of
from consumer.codecs.decoding import decode
from consumer.codecs.outputs import result_id
from consumer.delivery.dead_letter_size import with_key, without_key, without_timestamp, without_value
from consumer.delivery.dead_letters import DeadLetters, Failure, replay_count
from consumer.delivery.letters import (
    WHY_SKIPPED,
    Letter,
    LetterFilter,
    Markers,
    Selection,
    read_letter,
    replayed,
    why_not,
)
from consumer.events import Header, Output, SourceRecord
from consumer.extraction.task import Task

if TYPE_CHECKING:
    from consumer.delivery.dead_letters import CompatibleSet

NOW = 1_760_000_000_000
TASK = Task("sentiment", "classify", {"好": None})


def source(*headers: Header, value: bytes = b'{"text": "x"}', offset: int = 41) -> SourceRecord:
    return SourceRecord("reviews.raw", 2, offset, 1, b"k\xff", value, headers, NOW - 5, 0.0)


def dead(
    record: SourceRecord, task: str | None = "sentiment", chosen: CompatibleSet = "none", task_count: int = 1
) -> Letter:
    failure = Failure(
        "extract",
        "Poison",
        "no answer",
        NOW,
        task=task,
        task_count=task_count,
        exception="a.B",
        cause="c.D",
        stack_trace="e",
    )
    output = DeadLetters("dead", "group", "0.1.0", chosen).of(record, failure, NOW)
    letter = read_letter(SourceRecord("dead", 2, 0, 0, output.key, output.value, output.headers, NOW, 0.0))
    assert letter is not None
    return letter


def again_by_marker(letter: Letter, *counts: tuple[str, int]) -> Letter:
    """The letter as it is taken when these records are marked as replays."""
    taken = LetterFilter(Selection(), Markers({}, dict(counts))).take(letter.record)
    assert taken is not None
    return taken


def polled(output: Output, offset: int = 99) -> SourceRecord:
    return SourceRecord(output.topic, 2, offset, 1, output.key, output.value, output.headers, NOW, 0.0)


@pytest.mark.parametrize("chosen", ["none", "connect", "spring"])
def test_the_record_comes_back_with_four_headers_and_nothing_that_was_said_of_it(chosen: CompatibleSet) -> None:
    """Key, value, partition and its own headers as they were; a timestamp of its own."""
    own: tuple[Header, ...] = (("trace", b"1"), ("trace", None), ("bytes", b"\xff"))
    assert replayed(dead(source(*own), chosen=chosen), "group") == Output(
        topic="reviews.raw",
        key=b"k\xff",
        value=b'{"text": "x"}',
        headers=(
            *own,
            ("rexstream-event-id", b"reviews.raw-2-41"),
            ("rexstream-only-tasks", b"sentiment"),
            ("rexstream-dlq-replay-count", b"1"),
            ("rexstream-replay-group", b"group"),
        ),
        partition=2,
    )


@pytest.mark.parametrize("value", [b'{"text": "x"}', b'{"text": "x", "event_id": "own"}'])
def test_the_result_id_stays_the_same(value: bytes) -> None:
    """Whether the event names itself or is known by its place, through as many replays as it takes."""
    first = source(value=value)
    again = polled(replayed(dead(first), "group"))
    third = polled(replayed(dead(again), "group"), offset=120)
    ids = {result_id(decode(record, "json", 1000).event_id, TASK) for record in (first, again, third)}
    assert len(ids) == 1


def test_a_letter_that_names_no_task_runs_all_again() -> None:
    """It failed before its tasks were known, so none has a result."""
    output = replayed(dead(source(), task=None), "group")
    assert [name for name, _ in output.headers] == [
        "rexstream-event-id",
        "rexstream-dlq-replay-count",
        "rexstream-replay-group",
    ]
    assert only_tasks_of(output.headers) is None


def test_a_second_round_that_fails_before_its_tasks_are_known_stays_narrowed() -> None:
    """The siblings of the task of the first round have their results."""
    again = polled(replayed(dead(source()), "group"))
    output = replayed(dead(again, task=None), "group")
    assert only_tasks_of(output.headers) == frozenset({"sentiment"})
    assert [name for name, _ in output.headers].count("rexstream-only-tasks") == 1


def test_a_replay_that_fails_is_a_new_letter() -> None:
    """It counts one replay more, and its id is that of the record that was replayed."""
    again = dead(polled(replayed(dead(source()), "group")), chosen="spring")
    assert (again.id, again.offset) == ("reviews.raw-2-99-sentiment", 99)
    assert dict(again.record.headers)["rexstream-dlq-replay-count"] == b"1"
    again = again_by_marker(again, ("reviews.raw-2-99", 1))
    assert again.replay_count == 1
    output = replayed(again, "group")
    assert replay_count(output.headers, "group") == 2
    assert control_text(output.headers, EVENT_ID) == "reviews.raw-2-41"
    assert len(output.headers) == 4


@pytest.mark.parametrize("name", ["rexstream-event-id", "rexstream-only-tasks"])
def test_a_control_header_that_a_source_would_refuse_is_left_out(name: str) -> None:
    """Or the record would fail again for it."""
    output = replayed(dead(source((name, b"\xff")), task=None), "group")
    assert control_text(output.headers, EVENT_ID) == "reviews.raw-2-41"
    assert only_tasks_of(output.headers) is None


@pytest.mark.parametrize("task", ["a,sentiment", "x" * 65, " x", ""])
def test_a_name_that_no_task_can_have_is_not_replayed(task: str) -> None:
    """A comma would make two names of it, and run a task again that has its result."""
    assert why_not(dead(source(), task=task), 3, "group") == "impossible_task"


@pytest.mark.parametrize("task", [None, "sentiment", "inline", "A-1_b"])
def test_other_letters_can_be_sent_again(task: str | None) -> None:
    """Also those that will fail again: that is the operator's to judge."""
    assert why_not(dead(source(), task=task), 1, "group") is None


def test_a_letter_without_its_value_cannot_be_sent_again() -> None:
    """There is nothing to send."""
    record = dead(source()).record
    bare = without_value(Output("dead", record.key, record.value, record.headers))
    assert bare is not None
    letter = read_letter(replace(record, value=bare.value, headers=bare.headers))
    assert letter is not None
    assert why_not(letter, 3, "group") == "value_omitted"


@pytest.mark.parametrize(("count", "why"), [(0, None), (2, None), (3, "replayed_too_often"), (9, "replayed_too_often")])
def test_a_record_is_replayed_only_so_often(count: int, why: str | None) -> None:
    """What fails each time costs a model call each time."""
    letter = again_by_marker(dead(source()), *([("reviews.raw-2-41", count)] if count else []))
    assert why_not(letter, 3, "group") == why


@pytest.mark.parametrize("count", [b"999999", b"3", b"-1"])
@pytest.mark.parametrize("complete", [False, True])
def test_a_count_that_no_replay_wrote_is_not_believed(count: bytes, complete: bool) -> None:
    """Anyone may write headers, a whole set of them: the record can still be replayed, and is counted from there."""
    forged: tuple[Header, ...] = (("rexstream-dlq-replay-count", count),)
    if complete:
        forged += (("rexstream-event-id", b"e"), ("rexstream-only-tasks", b"sentiment"), (REPLAY_GROUP, b"group"))
    letter = again_by_marker(dead(source(*forged)), ("elsewhere-0-1", 9))
    assert why_not(letter, 3, "group") is None
    assert replay_count(replayed(letter, "group").headers, "group") == 1


def test_an_event_id_that_a_worker_would_refuse_is_not_sent_again() -> None:
    """The record's place takes the place of one that somebody made too long."""
    output = replayed(dead(source(("rexstream-event-id", b"i" * 513)), task=None), "group")
    assert control_text(output.headers, EVENT_ID) == "reviews.raw-2-41"


def test_letters_of_another_group_are_left_to_it() -> None:
    """Its workers alone lack what failed."""
    assert why_not(dead(source()), 3, "another") == "other_group"
    assert dict(replayed(dead(source()), "renamed").headers)[REPLAY_GROUP] == b"renamed"


def test_letters_of_a_newer_release_are_left_to_it() -> None:
    """What their headers mean is not known here. Those of every release so far say no format, which is 1."""
    letter = dead(source())
    written = replace(letter.record, headers=(*letter.record.headers, ("rexstream-dlq-format", b"2")))
    newer = read_letter(written)
    assert newer is not None
    assert why_not(newer, 3, "group") == "newer_format"
    assert "newer release" in WHY_SKIPPED["newer_format"]
    own = read_letter(replace(written, headers=(*written.headers[:-1], ("rexstream-dlq-format", b"1"))))
    assert own is not None
    assert why_not(own, 3, "group") is None


def test_what_a_letter_got_for_its_topic_alone_is_not_sent_again() -> None:
    """A key where the record had none; a new timestamp. That key is the same for copies, and stays when sizes count."""
    letter = DeadLetters("dead", "group", "0.1.0").of(
        replace(source(), key=None), Failure("decode", "A", "b", NOW), NOW
    )
    assert letter.timestamp_ms == NOW - 5
    changed = without_timestamp(with_key(letter))
    assert changed.key is not None
    assert changed.key == with_key(letter).key
    assert without_key(changed) is None
    assert changed.timestamp_ms is None
    assert dict(changed.headers)["rexstream-original-timestamp"] == str(NOW - 5).encode()
    found = read_letter(SourceRecord("dead", 2, 0, 0, changed.key, changed.value, changed.headers, NOW, 0.0))
    assert found is not None
    again = replayed(found, "group")
    assert (again.key, again.value) == (None, source().value)
    assert not any("key-added" in name for name, _ in again.headers)


def test_a_letter_of_several_tasks_runs_them_all_again() -> None:
    """Its header says how many names there are; a name that holds a comma is still one name."""
    letter = dead(source(), task="ner,inline,event", task_count=3)
    assert letter.tasks == ("ner", "inline", "event")
    assert why_not(letter, 3, "group") is None
    assert only_tasks_of(replayed(letter, "group").headers) == frozenset({"ner", "inline", "event"})
    assert Selection(tasks=frozenset({"event"})).takes(letter)
    for count in (1, 2, 4):
        assert why_not(dead(source(), task="ner,inline,event", task_count=count), 3, "group") == "impossible_task"


@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), st.none() | st.binary(max_size=8))),
    st.sampled_from(["none", "connect", "spring"]),
)
def test_own_headers_survive_a_round(headers: list[Header], chosen: CompatibleSet) -> None:
    """Names repeat, values may be null or anything."""
    assert replayed(dead(source(*headers), chosen=chosen), "group").headers[:-4] == tuple(headers)


def test_an_inline_schema_comes_back_in_the_value() -> None:
    """The header narrows the event to it."""
    value = json.dumps({"text": "x", "schema": {"a": None}, "tasks": ["ner"]}).encode()
    output = replayed(dead(source(value=value), task="inline"), "group")
    assert only_tasks_of(output.headers) == frozenset({"inline"})
    assert decode(polled(output), "json", 1000).schema == {"a": None}
