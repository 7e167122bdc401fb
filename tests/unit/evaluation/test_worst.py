"""The texts that a model does worst on."""

from __future__ import annotations

from judged_cases import case, classified, pair, path

from consumer.evaluation.worst import worst

A, B, C = pair("盖", 0, "好", "紧", 1), pair("瓶", 3, "坏", "漏", 4), pair("", 0, "好", "香", 6)


def test_most_missing_and_invented_first_then_the_order_of_the_file() -> None:
    """What is right is not shown, nor a text without mistakes."""
    cases = [case([A], [A]), case([A], [], "一"), case([A, B], [C], "三"), case([], [B], "也一")]
    found = worst(cases, 9)
    assert [(each.number, each.text) for each in found] == [(3, "三"), (2, "一"), (4, "也一")]
    assert (found[0].missing, found[0].invented, found[0].scores) == ((A, B), (C,), (0.9,))
    assert [each.number for each in worst(cases, 1)] == [3]
    assert worst(cases, 0) == []


def test_missing_paths_are_in_order_of_place() -> None:
    """Sets have none."""
    paths = tuple(path(("t", "甲", place)) for place in range(9))
    assert worst([case(reversed(paths), [])], 1)[0].missing == paths


def test_of_classification_the_surest_mistakes_come_first() -> None:
    """A text for which nothing was predicted is the last."""
    cases = [
        classified(["好"], {}, "无"),
        classified(["好"], {"坏": 0.7}, "七"),
        classified(["好"], {"坏": 0.99}, "九"),
        classified(["好"], {"好": 1.0}, "对"),
        classified(["好"], {"坏": 0.99}, "也九"),
    ]
    assert [each.text for each in worst(cases, 9)] == ["九", "也九", "七", "无"]
