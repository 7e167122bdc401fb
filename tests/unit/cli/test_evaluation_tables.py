"""Tables that fit a terminal, with Chinese names."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from judged_cases import case, classified, pair
from rich.cells import cell_len
from rich.console import Console

from consumer.cli.evaluation_tables import MOST_ROWS, report_tables, shown_path
from consumer.evaluation.report import measured
from consumer.evaluation.worst import worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumer.evaluation.paths import Case

GOOD, BAD = "正向情感(情感词)", "负向情感(情感词)"
CATEGORIES = ("书籍", "平板", "手机", "水果", "洗发水", "热水器", "蒙牛", "衣服", "计算机", "酒店")


def shown(
    cases: Sequence[Case], width: int = 80, examples: int = 5, *, whole: bool = True, temperature: float = 1
) -> str:
    report = measured(cases, "strict", notes=["so it is"])
    output = io.StringIO()
    console = Console(file=output, width=width)
    for part in report_tables(report, worst(cases, examples), temperature, width, whole=whole):
        console.print(part)
    return output.getvalue()


def ten_classes(texts: int = 120) -> list[Case]:
    """Every class; each seventh text is taken for the next one, each eleventh for none."""
    cases = []
    for number in range(texts):
        name = CATEGORIES[number % 10]
        other = CATEGORIES[(number + 1) % 10]
        predicted = {} if number % 11 == 5 else {other if number % 7 == 6 else name: 0.8}
        cases.append(classified([name], predicted, f"{name}的评论{number}"))
    return cases


def reviews() -> list[Case]:
    screen, price = pair("屏幕", 0, GOOD, "清楚", 2), pair("价格", 5, BAD, "贵", 7)
    whole = pair("", 0, GOOD, "好", 9)
    return [case([screen, price], [screen, whole], "屏幕清楚，价格贵" * 40), case([whole], [whole])] * 12


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("cases", [ten_classes(), reviews()], ids=["classes", "paths"])
def test_every_line_fits_the_width(cases: list[Case], width: int) -> None:
    """A Chinese character takes two columns; of long texts alone something is cut off."""
    lines = shown(cases, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert sum("…" in line for line in lines) == (5 if cases[0].kind == "extract" else 0)  # the five texts that are cut


@pytest.mark.parametrize(("width", "columns"), [(40, 4), (60, 6), (69, 8)])
def test_columns_that_do_not_fit_are_left_out_whole_and_named(width: int, columns: int) -> None:
    """Not cut in the middle of a number, nor without a word."""
    every = ["strict", "95", "%", "span", "prec.", "recall", "found", "gold"]
    lines = [line.split() for line in shown(reviews(), width).splitlines()]
    (head,) = (line for line in lines if line[:1] == ["strict"])
    assert head == every[:columns]
    (row,) = (line for line in lines if line[:1] == ["paths"])
    assert row == ["paths", "0.667", "0.585–0.750", "0.667", "0.667", "0.667", "36", "36"][:columns]
    output = " ".join(word for line in lines for word in line)
    named = ", ".join(every[columns:])
    assert (f"no room for {named}: 69 columns show them" in output) == (columns < 8)
    assert "no room" in output or columns == 8


def test_the_confusion_of_ten_classes_is_a_matrix_at_80_columns() -> None:
    """Columns line up under their numbers, and nothing predicted has one."""
    lines = shown(ten_classes()).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("Confusion: a row"))
    head, *rows = lines[first + 1 : first + 12]
    assert head.split() == [*map(str, range(1, 11)), "none"]
    assert [row.split()[:2] for row in rows] == [
        [str(number), name] for number, name in enumerate(sorted(CATEGORIES), 1)
    ]
    assert len({cell_len(line.rstrip()) for line in rows}) == 1
    counts = [row.split()[2:] for row in rows]
    assert all(len(row) == 11 for row in counts)
    assert counts[0] == ["9", "2", *"·" * 8, "1"]


def test_a_class_that_is_only_predicted_is_a_column_without_a_row() -> None:
    """A row of it would be empty."""
    lines = shown([classified(["书籍"], {"酒店": 0.9}), classified(["书籍"], {"书籍": 0.9})]).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("Confusion: a row"))
    assert [line.split() for line in lines[first + 1 : first + 4]] == [["1", "2"], ["1", "书籍", "1", "1"], []]


def test_where_the_matrix_does_not_fit_the_most_frequent_confusions_are_listed() -> None:
    """Three columns at any width."""
    output = shown(ten_classes(), 50)
    assert "the most frequent of" in output
    assert "a row is a class" not in output
    assert any(line.split() == ["书籍", "平板", "2"] for line in output.splitlines())


def test_paths_have_strict_and_span_side_by_side() -> None:
    """With the texts of several aspects, levels, types, calibration and notes."""
    lines = [line.split() for line in shown(reviews()).splitlines()]
    by_name = {" ".join(words[:2]): words for words in lines if words}
    assert by_name["strict 95"] == ["strict", "95", "%", "span", "prec.", "recall", "found", "gold"]
    assert [words[-2:] for words in lines if words[:1] == ["paths"]] == [["36", "36"]]
    assert by_name["2+ aspects,"][2:4] == ["12", "texts"]
    assert ["by", "last", "type"] in lines
    assert next(words for words in lines if words[:1] == [BAD])[1] == "0.000"
    assert ["Note:", "so", "it", "is."] in lines


def test_quadruples_have_a_line_and_the_share_of_right_categories() -> None:
    """Where something predicts categories."""
    pairs = reviews()[0]
    (screen,) = (path for path in pairs.gold if path in pairs.predicted)
    named = replace(pairs, gold_categories=frozenset({(screen, "外观")}), categories=frozenset({(screen, "价格")}))
    output = shown([named])
    assert [line.split()[:2] for line in output.splitlines() if line.startswith("quadruples")] == [
        ["quadruples", "0.000"]
    ]
    assert "category of right pairs: 0.000 of 1" in output
    assert "with categories" not in shown(reviews())


def test_worst_texts_show_what_is_missing_and_invented() -> None:
    """The text is cut, the score stands behind what was invented."""
    output = shown(reviews(), examples=1)
    assert "− 属性词 价格 → 负向情感(情感词) 贵 [7, 8)" in output
    assert "+ 属性词 (product) → 正向情感(情感词) 好 [9, 10)  0.90" in output
    assert output.count("屏幕清楚") == 24  # not 40: 200 characters
    assert "Worst texts" not in shown(reviews(), examples=0)


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    """A review may hold anything, and a span of it line ends."""
    output = shown([case([pair("屏\n幕", 0, GOOD, "清\x1b[2J楚", 4)], [], "屏\n幕，清\x1b[2J\x9b楚")])
    assert "属性词 屏 幕 → 正向情感(情感词) 清 [2J楚 [4, 10)" in output
    assert "屏 幕，清 [2J 楚" in output


def test_with_a_metric_of_its_own_only_examples_and_notes_are_shown() -> None:
    """Where examples were asked for beside it."""
    output = shown(reviews(), whole=False)
    assert ("Worst texts" in output, "Paths" in output, "Calibration" in output) == (True, False, False)


def test_calibration_names_the_temperature_and_the_error_after() -> None:
    """With one that was applied already, the product of both."""
    cases = [classified(["甲"], {"甲" if number % 4 else "乙": 0.99}, str(number)) for number in range(200)]
    plain = " ".join(shown(cases).split())
    assert "200 facts, mean score 0.990, right 0.750, expected calibration error 0.240; 0.0" in plain
    assert "with a temperature of 4.18 (cross-fitted)." in plain
    assert "8.37 with the 2 of --temperature" in " ".join(shown(cases, temperature=2).split())
    hopeless = [classified(["甲"], {"乙": 0.99}, str(number)) for number in range(30)]
    assert "do not tell right from wrong" in " ".join(shown(hopeless).split())
    perfect = [classified(["甲"], {"甲": 0.99}, str(number)) for number in range(30)]
    assert "temperature of 0.05 (cross-fitted), the lowest that is tried: too few" in " ".join(shown(perfect).split())
    assert "No temperature was fitted: 4 facts, and 20 are needed" in " ".join(shown(cases[:4]).split())


def test_many_classes_are_cut_and_counted() -> None:
    """Files have all."""
    cases = [classified([f"类{number}"], {f"类{number}": 0.9}, str(number)) for number in range(MOST_ROWS + 3)]
    assert "… 3 more in --report" in shown(cases)


def test_baseline_stands_beside_the_model() -> None:
    """With what it learned from."""
    output = shown(ten_classes())
    assert "n-grams" in output
    assert "5-fold cross-validation on these 120 texts" in " ".join(output.split())


def test_a_path_is_shown_with_its_words() -> None:
    """Classes have none."""
    assert shown_path(pair("屏幕", 0, GOOD, "清楚", 2)) == "属性词 屏幕 → 正向情感(情感词) 清楚 [2, 4)"
    assert shown_path(next(iter(classified(["书籍"], {}).gold))) == "书籍"
