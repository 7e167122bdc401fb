"""What an earlier release left in topics, read by this one. ``make chaos`` has the way back, and both in one group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from consumer.codecs.control_headers import default_event_id, is_for_another_group, only_tasks_of, too_many_headers
from consumer.codecs.outputs import result_id
from consumer.delivery.letters import Letter, LetterFilter, Markers, Selection, replayed, why_not
from consumer.delivery.start_offsets import Committed, due, start_note
from consumer.events import Header, Partition, SourceRecord
from consumer.extraction.task import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

FILES = sorted((Path(__file__).resolve().parents[2] / "data" / "releases").glob("*.json"))
"""What each release wrote, as its own code made it."""

RELEASES = [json.loads(file.read_text(encoding="utf-8")) for file in FILES]
LETTERS = [letter for release in RELEASES for letter in release["letters"]]


def headers(texts: Sequence[Sequence[str]]) -> tuple[Header, ...]:
    return tuple((name, value.encode()) for name, value in texts)


def taken(written: dict[str, Any], markers: Markers) -> Letter | None:
    """The letter as a replay takes it; None when it was replayed."""
    record = SourceRecord("reviews.dead", 2, 0, 1, b"k", b'{"text": "x"}', headers(written["headers"]), 1, 0.0)
    return LetterFilter(Selection(), markers).take(record)


@pytest.mark.parametrize("written", LETTERS)
def test_a_dead_letter_of_an_earlier_release_is_replayed_as_that_release_would(written: dict[str, Any]) -> None:
    """With the same headers, a count of its own (that one believed the record's) and the group beside them."""
    letter = taken(written, Markers())
    assert letter is not None
    assert why_not(letter, 3, "group") is None
    count = "rexstream-dlq-replay-count"
    again = dict(replayed(letter, "group").headers)
    assert again == {**dict(headers(written["replayed"])), count: b"1", "rexstream-replay-group": b"group"}


@pytest.mark.parametrize("written", LETTERS)
def test_what_an_earlier_release_has_replayed_is_not_replayed_again(written: dict[str, Any]) -> None:
    """Its markers name no group."""
    assert taken(written, Markers({written["marker"]["key"]: 5})) is None


@pytest.mark.parametrize("written", LETTERS)
def test_a_record_that_an_earlier_release_has_replayed_is_read_by_its_headers(written: dict[str, Any]) -> None:
    """Every group takes it, since it names none: that release had no such header."""
    again = headers(written["replayed"])
    assert too_many_headers(again) == ""
    assert not is_for_another_group(again, "any")
    said = dict(written["replayed"])
    assert default_event_id(again) == said["rexstream-event-id"]
    only = said.get("rexstream-only-tasks")
    assert only_tasks_of(again) == (None if only is None else frozenset(only.split(",")))


@pytest.mark.parametrize("release", RELEASES, ids=[file.stem for file in FILES])
def test_an_event_has_the_result_id_that_an_earlier_release_gave_it(release: dict[str, Any]) -> None:
    """Copies that two releases write at a rolling upgrade are known by it."""
    result = release["result"]
    task = Task(result["task"], result["kind"], result["schema"])
    assert result_id(result["event_id"], task) == result["result_id"]


@pytest.mark.parametrize("note", ["", "rexstream start 2 0badcafe"])
def test_a_group_with_offsets_of_another_release_has_begun(note: str) -> None:
    """Releases before ``kafka.start`` leave no note; of a newer one's nothing is known but that it committed."""
    first, second = Partition("raw", 0), Partition("raw", 1)
    assert due({first: Committed(3, note), second: Committed(None)}) == frozenset()
    own = start_note([first, second])
    assert due({first: Committed(3, own), second: Committed(None)}) == {second}
