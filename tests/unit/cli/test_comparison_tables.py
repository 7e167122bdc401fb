"""Tables of a comparison that fit a terminal, with Chinese names."""

from __future__ import annotations

import io

import pytest
from compared_cases import extracted, voted
from judged_cases import pair, path
from rich.cells import cell_len
from rich.console import Console

from consumer.cli.comparison_tables import SHOWN_MOVES, comparison_tables
from consumer.cli.evaluation_tables import MOST_ROWS
from consumer.evaluation.agreement import Compared, furthest
from consumer.evaluation.comparison import comparison
from consumer.evaluation.paired_times import Turn

GOOD, BAD = "正向情感(情感词)", "负向情感(情感词)"
SCREEN, PRICE = pair("屏幕", 0, GOOD, "清楚", 2), pair("价格", 5, BAD, "贵", 7)
MANY = [path((f"第{number}种类别的名字", None, None)) for number in range(MOST_ROWS + 3)]


def shown(cases: list[Compared], width: int = 80, examples: int = 3) -> str:
    output = io.StringIO()
    console = Console(file=output, width=width)
    found = comparison(cases, [Turn(9, 1.0, 1.5)] * 4)
    for part in comparison_tables(found, furthest(cases, examples), width):
        console.print(part)
    return output.getvalue()


def judged() -> list[Compared]:
    return [
        *(extracted({SCREEN: 0.9}, {SCREEN: 0.8}, number=number, gold=[SCREEN]) for number in range(9)),
        extracted({SCREEN: 0.9, PRICE: 0.7}, {PRICE: 0.7}, number=10, gold=[SCREEN]),
        *(voted({"正向情感": 0.9}, {"负向情感": 0.8}, number=number, gold="正向情感") for number in range(2)),
        *(extracted({each: 0.9}, {}, number=30, task="kinds", kind="multi_classify", gold=[]) for each in MANY),
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_line_fits_the_width(width: int) -> None:
    """A Chinese character takes two columns; columns without room are named."""
    text = shown(judged(), width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert ("no room for" in text) == (width < 80)


def test_tasks_come_with_their_types_below() -> None:
    """Figures of all parts, with what changed and the texts."""
    lines = shown(judged(), 120).splitlines()
    rows = [line.split() for line in lines]
    assert ["features", "0.952", "10", "1", "0", "0.900", "10"] in [row[:2] + row[3:] for row in rows]
    assert [f"属性词/{BAD}", "1.000", "1.000–1.000", "1", "0", "0", "1.000", "1"] in rows
    assert ["sentiment", "0.000", "0.000–0.000", "0", "2", "2", "0.000", "2"] in rows
    assert ["sentiment", "正向情感", "负向情感", "2"] in rows
    assert ["features", "10", "0.880", "0.790", "0.090", "0.900", "–"] in rows
    assert ["sentiment", "1.000", "0.000", "-1.000", "-1.000", "to", "-1.000", "2"] in rows
    assert "  new / old 1.50 (1.50–1.50, median of 3 turns)" in lines
    assert any(line.startswith("  calibration of old: ") for line in lines)
    assert any("− 属性词 屏幕 → 正向情感(情感词) 清楚 [2, 4)  0.90" in line for line in lines)


def test_long_lists_are_cut_and_say_so() -> None:
    """JSON has all of them."""
    text = shown(judged(), 120)
    assert "… 3 more in --json" in text
    assert f"… {len(MANY) - SHOWN_MOVES + 1} more in --json" in text


def test_without_differences_or_gold_their_parts_are_left_out() -> None:
    """Nothing to say is not said."""
    text = shown([extracted({SCREEN: 0.9}, {SCREEN: 0.9}), voted({"a": 0.9}, {"a": 0.9})])
    for part in ("Classes that changed", "Against the gold", "calibration", "Largest differences"):
        assert part not in text
    assert "Agreement" in text


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    """Reviews hold anything."""
    case = extracted({SCREEN: 0.9}, {})
    text = shown([Compared(case.number, "a\x1b[31mb\nc", case.task, case.kind, case.old, case.new)])
    assert "\x1b" not in text
    assert "a [31mb c  [features]" in text
