"""A summary of dead letters as it is printed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from consumer.cli.letter_tables import MOST_CAUSES, MOST_HOURS, summary_json, summary_tables
from consumer.delivery.letter_summary import HOUR_MS, Cause, LetterSummary
from consumer.delivery.letters import Markers, Selection

HOUR = 1_760_000_400_000
POISON = Cause("reviews.raw", "extract", "Poison", "sentiment")


def summary(*rows: tuple[Cause, int | None, int], others: int = 0) -> LetterSummary:
    found = LetterSummary(Selection(), Markers(), others=others)
    for cause, hour, count in rows:
        found.rows[cause, hour] = count
    return found


def shown(found: LetterSummary, width: int = 120) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=width, highlight=False)
    for part in summary_tables("dead", found, width):
        console.print(part)
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_causes_come_with_their_first_and_last_hour_and_hours_in_their_order() -> None:
    """The most common cause first."""
    bad = Cause("reviews.raw", "decode", "InvalidJson", None)
    lines = shown(summary((POISON, HOUR, 1), (bad, HOUR + HOUR_MS, 1_200), (bad, HOUR - HOUR_MS, 300), (bad, None, 4)))
    assert lines == [
        "1,505 dead letters in dead",
        "",
        "By cause",
        "letters  stage/class         task       topic        first (UTC)       last (UTC)",
        "  1,504  decode/InvalidJson  -          reviews.raw  2025-10-09 08:00  2025-10-09 10:00",
        "      1  extract/Poison      sentiment  reviews.raw  2025-10-09 09:00  2025-10-09 09:00",
        "",
        "By hour",
        "letters  failed (UTC)",
        "    300  2025-10-09 08:00  " + 10 * "━",
        "      1  2025-10-09 09:00",
        "  1,200  2025-10-09 10:00  " + 40 * "━",
        "      4  unknown",
    ]


@pytest.mark.parametrize("width", [30, 44, 60, 80, 100, 120, 160])
def test_tables_fit_the_terminal_and_no_name_is_cut(width: int) -> None:
    """Where there is no room for them, hours of causes go first, then the columns of names."""
    cause = Cause("shop.reviews.eu-central-1.production", "validate", "UnsupportedSchemaVersion", "product_features")
    lines = shown(summary((cause, HOUR, 123_456)), width)
    assert max(map(len, lines)) <= width
    assert sum("123,456" in line for line in lines) == 3
    letters = "".join("".join(lines).split())
    if width < 60 or width > 120:  # between them names stand side by side, each folded in its column
        assert f"{cause.stage}/{cause.reason}{cause.task}{cause.topic}" in letters
    assert ("first" in "".join(lines), "last" in "".join(lines)) == (width >= 120, width >= 100)


def test_what_has_no_row_of_its_own_is_in_a_row_that_says_so() -> None:
    """Rarer causes, earlier hours, and rows beyond those that were counted."""
    causes = [(POISON._replace(reason=f"Class{n}"), HOUR + n * HOUR_MS, 100 - n) for n in range(MOST_CAUSES + 2)]
    lines = shown(summary(*causes, others=7), 160)
    few = 100 - MOST_CAUSES
    assert f"{few + few - 1 + 7:>7}  others" in lines
    assert f"others: {few + few - 1} letters of rarer causes (2), which --json has." in lines
    earlier = MOST_CAUSES + 2 - MOST_HOURS
    assert f"{sum(100 - n for n in range(earlier)):>7}  earlier" in lines
    assert f"earlier: hours ({earlier}) that --json has." in lines
    assert "      7  others" in lines
    beyond = "others: 7 letters in rows beyond the first 10,000, counted together; narrow it with --since, --topic or"
    assert sum(beyond in line for line in lines) == 2


def test_names_do_nothing_to_a_terminal() -> None:
    """Neither brackets, which rich reads as colours, nor escape sequences."""
    text = "\n".join(shown(summary((Cause("[red]x[/]", "decode", "\x1b[31mBad", None), HOUR, 1))))
    assert "[red]x[/]" in text
    assert "\x1b" not in text


def test_a_summary_says_that_copies_may_have_been_counted() -> None:
    """Only where it has forgotten letters."""
    found = summary((POISON, HOUR, 1))
    assert "Copies" not in "".join(shown(found))
    found._seen_before.add(1)
    assert "Copies of a letter that are more than 250,000 letters apart count as several." in shown(found)


def test_a_machine_gets_every_row() -> None:
    """Times in ISO 8601, and no hour where it is not known."""
    found = summary((POISON, None, 1), (POISON, HOUR, 2), others=3)
    named = {"topic": "reviews.raw", "stage": "extract", "class": "Poison", "task": "sentiment"}
    assert summary_json("dead", found) == {
        "topic": "dead",
        "dead_letters": 6,
        "replayed_before": 0,
        "copies": 0,
        "other_records": 0,
        "rows": [
            {**named, "hour": "2025-10-09T09:00Z", "dead_letters": 2},
            {**named, "hour": None, "dead_letters": 1},
        ],
        "others": 3,
    }
