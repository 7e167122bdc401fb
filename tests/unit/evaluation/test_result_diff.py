"""What changed between two sets of results."""

from __future__ import annotations

import tracemalloc
from typing import Any

from consumer.evaluation.result_diff import Change, ResultDiff, crossed


def result(event: str, *spans: str, task: str = "t", schema: str = "1") -> dict[str, Any]:
    paths = [[{"type": "x", "span": span, "start": 0, "end": 1, "score": 0.5}] for span in spans]
    return {"result_id": f"{event}-{task}-{schema}", "event_id": event, "task": task, "extractions": paths}


def test_each_event_is_the_same_or_changed_or_one_side_s() -> None:
    """The last result of an event counts, and a score is no change."""
    diff = ResultDiff(examples=1)
    for each in (result("a", "old"), result("a", "p"), result("b", "p", "q"), result("c", "p"), result("d", "p")):
        diff.add("old", each)
    for each in (result("a", "p"), result("b", "r"), result("c", "q", schema="2"), result("e")):
        diff.add("new", each)
    (found,) = diff.tasks().values()
    assert (found.same, found.changed, found.only_old, found.only_new, found.same_id) == (1, 2, 1, 1, 2)
    assert (found.old_paths, found.new_paths, found.both) == (4, 3, 1)
    assert found.agreement == 2 / 7
    assert found.examples == [Change("b", 2, 1)]
    assert found.share_changed == 0.8


def test_a_bound_is_of_each_task() -> None:
    """Nothing is crossed without one, nor by what equals it."""
    diff = ResultDiff()
    for side in ("old", "new"):
        diff.add(side, result("a", "p"))
        diff.add(side, result("b", side, task="u"))
    found = diff.tasks()
    assert list(crossed(found, None)) == list(crossed(found, 1.0)) == []
    (sentence,) = crossed(found, 0.05)
    assert "task u" in sentence
    assert found["u"].examples == []


def test_what_moved_is_told_by_type() -> None:
    """That of a path's last fact; the types of inline tasks are anybody's words, and are not told."""
    diff = ResultDiff()
    old, new = result("a", "p", "q"), result("a", "q", "r", "s")
    new["extractions"][1].append({"type": "y", "span": "t", "start": 0, "end": 1, "score": 0.5})
    for task in ("t", "inline"):
        diff.add("old", old | {"task": task})
        diff.add("new", new | {"task": task})
    found = diff.tasks()
    assert found["t"].types == {"x": [1, 1], "y": [0, 1]}
    assert found["inline"].types == {}


def test_a_result_takes_some_300_bytes() -> None:
    """A million of each side fit into a gigabyte."""
    diff, count = ResultDiff(), 2000
    tracemalloc.start()
    try:
        for number in range(count):
            diff.add("new", result(f"event-{number:030}", *(f"{number} {path}" for path in range(5))))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / count < 400
