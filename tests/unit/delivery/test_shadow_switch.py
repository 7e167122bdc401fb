"""Which results of a shadow are published, and how they are divided into transactions."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from consumer.codecs.result_values import read_result
from consumer.delivery.shadow_plan import PlannedRange
from consumer.delivery.shadow_switch import Step, SwitchChoice, Verdict, in_chunks, positions, said_of
from consumer.events import Partition

IN, OTHER_IN = Partition("in", 0), Partition("in", 1)
PLACE, NEXT_PLACE = Partition("out.shadow", 0), Partition("out.shadow", 1)
PLAN = {each: PlannedRange(10, 20, {}) for each in (IN, OTHER_IN)}


def result(event: str, offset: int = 10, at: int = 100, task: str = "t", partition: Partition = IN) -> bytes:
    place = {"topic": partition.topic, "partition": partition.number, "offset": offset}
    return json.dumps({"event_id": event, "task": task, "record": place, "processed_at": at}).encode()


def read(value: bytes) -> Any:
    """JSON alone."""
    return read_result(value, None)


def choice_of(*values: bytes | None, live: tuple[bytes | None, ...] = (), **settings: Any) -> SwitchChoice:
    """All under one key."""
    choice = SwitchChoice(PLAN, read, **settings)
    for offset, value in enumerate(values):
        choice.add_shadow("out", PLACE, offset, b"k", value)
    for value in live:
        choice.add_live("out", b"k", value)
    return choice


def verdicts(choice: SwitchChoice, *values: bytes | None) -> list[Verdict]:
    return [choice.verdict("out", PLACE, offset, value)[0] for offset, value in enumerate(values)]


def test_what_is_no_result_of_the_planned_records_is_passed_over() -> None:
    """Neither what others write to the topic, nor a tombstone, nor a result of a record outside the range."""
    infinite = result("a").replace(b'"partition": 0', b'"partition": 1e999')
    others = (b"", b"[]", b'{"record": 1}', None, infinite, result("a", at=2**63))
    values = (*others, result("a", 9), result("b", 20), result("c", 19))
    assert verdicts(choice_of(*values, live=values[4:]), *values) == ["other"] * 8 + ["publish"]
    assert said_of(read(result("c", 19, 5))) == ("c", "t", IN, 19, 5)


def test_the_last_result_of_an_event_and_task_is_published() -> None:
    """That of the later record, and of one record the one that was extracted later, or stands later."""
    values = (result("a", 11, 100), result("a", 10, 200), result("b"), result("b"), result("a", task="u"))
    choice = choice_of(*values)
    assert verdicts(choice, *values) == ["publish", "repeated", "repeated", "publish", "publish"]
    assert choice.repeated == 2
    assert choice.counts({}) == {("out.shadow", "publish"): 3}
    assert choice.counts({PLACE: 3}) == {("out.shadow", "publish"): 2}


def test_a_newer_live_result_stays() -> None:
    """Newer by its record; by the time of extraction where the record is the same, or of another partition."""
    values = tuple(result(event, 11, 100) for event in "abcdef")
    live = (
        result("a", 12, 50),
        result("b", 10, 300),
        result("c", 11, 101),
        result("d", 11, 100),
        result("e", 1, 101, partition=OTHER_IN),
        result("f", 99, 99, partition=OTHER_IN),
    )
    expected = ["newer", "publish", "newer", "publish", "newer", "publish"]
    assert verdicts(choice_of(*values, live=live), *values) == expected
    assert verdicts(choice_of(*values, live=live, over_newer=True), *values) == ["publish"] * 6
    assert choice_of(*values, live=live).counts({})["out.shadow", "newer"] == 3


def test_a_newer_result_of_another_task_or_topic_changes_nothing() -> None:
    """Only the same event and task in the topic that the result goes to."""
    value = result("a")
    choice = choice_of(value, live=(result("a", 15, task="u"),))
    choice.add_live("elsewhere", b"k", result("a", 15))
    assert verdicts(choice, value) == ["publish"]


def test_what_was_deleted_does_not_come_back() -> None:
    """A tombstone of the key behind it, in the shadow or in the live topic; one before it deletes nothing."""
    shadow = (result("a", 10), None, result("b", 11))
    assert verdicts(choice_of(*shadow), *shadow) == ["deleted", "other", "publish"]
    values = (result("a", 10), result("b", 11))
    live = (result("a", 10, 1), result("b", 11, 1), None, result("b", 11, 2))
    assert verdicts(choice_of(*values, live=live), *values) == ["deleted", "publish"]
    other = choice_of(*values)
    other.add_live("out", b"another key", None)
    assert verdicts(other, *values) == ["publish", "publish"]


def test_what_it_published_itself_changes_nothing() -> None:
    """It is read again, and a switch that was killed reads it, too."""
    values = (result("a", 10), None, result("b", 11), result("b", 11, 300), result("c", 12))
    live = (result("a", 10, 1), result("b", 11, 1), result("c", 15, 1))
    choice = choice_of(*values, live=live)
    before = verdicts(choice, *values)
    assert before == ["deleted", "other", "repeated", "publish", "newer"]
    for value, verdict in zip(values, before, strict=True):
        if verdict == "publish":
            choice.add_live("out", b"k", value)
    assert verdicts(choice, *values) == before


EVENTS = st.tuples(st.sampled_from("abc"), st.integers(8, 21), st.integers(0, 3))


@given(
    shadow=st.lists(st.tuples(EVENTS, st.booleans(), st.sampled_from([PLACE, NEXT_PLACE])), max_size=20),
    live=st.lists(st.tuples(EVENTS, st.booleans()), max_size=10),
)
def test_each_planned_event_comes_to_one_end(shadow: list[Any], live: list[Any]) -> None:
    """Of all its results in the shadow one is published or left out for the live topic's sake; the rest is repeated."""
    choice = SwitchChoice(PLAN, read)
    values = [None if gone else result(*event) for event, gone, _ in shadow]
    for offset, value in enumerate(values):
        choice.add_shadow("out", shadow[offset][2], offset, b"k", value)
    for event, gone in live:
        choice.add_live("out", b"k", None if gone else result(*event))
    ends: dict[str, list[Verdict]] = {}
    for offset, value in enumerate(values):
        verdict, origin = choice.verdict("out", shadow[offset][2], offset, value)
        assert (origin is None) == (verdict == "other")
        if origin is not None:
            ends.setdefault(shadow[offset][0][0], []).append(verdict)
    assert all(sum(each != "repeated" for each in found) == 1 for found in ends.values())
    assert choice.repeated == sum(len(found) - 1 for found in ends.values())
    assert choice.counts({}).total() == len(ends)


STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 2)), max_size=40)


@given(drawn=STEPS, published=st.integers(1, 5), size=st.integers(1, 60), passed=st.integers(1, 5))
def test_transactions_are_bounded_and_leave_nothing_out(
    drawn: list[tuple[bool, int, int]], published: int, size: int, passed: int
) -> None:
    """In order, each step once; offsets never go back."""
    steps = [
        Step(Partition("s", number), at + 1, "publish" if own else "newer", "out", IN, None, b"x" * length, ())
        for at, (own, length, number) in enumerate(drawn)
    ]
    chunks = list(in_chunks(steps, published, size, passed))
    assert list(chain.from_iterable(chunks)) == steps
    behind: dict[Partition, int] = {}
    for chunk in chunks:
        own = [step for step in chunk if step.verdict == "publish"]
        assert 1 <= len(own) + (not own) <= published
        assert len(own) <= 1 or sum(step.size for step in own) <= size
        assert len(chunk) - len(own) <= passed
        assert all(offset > behind.get(place, 0) for place, offset in positions(chunk).items())
        behind |= positions(chunk)
