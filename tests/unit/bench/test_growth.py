"""What tests/bench/growth.py goes by: lines, fair shares, and engine runs that do all of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bench.growing import engine_cost
from bench.growing.line import fitted, proportional, straight_line
from bench.growing.stage import evenly

if TYPE_CHECKING:
    from consumer.extraction.engine import Extraction
    from consumer.extraction.prompts import Encoded, PromptTokenizer
    from consumer.extraction.task import Task


def test_a_straight_line_is_found() -> None:
    found = straight_line([1, 10, 100], [5, 23, 203])
    assert found.coefficients == pytest.approx((3, 2))
    assert found.r_squared == pytest.approx(1)
    assert found.worst == pytest.approx(0)


def test_a_square_is_not_taken_for_a_line() -> None:
    """Though a line through its largest points alone would come near: each point counts by its relative error."""
    assert straight_line([1, 10, 100, 1000], [1, 100, 10_000, 1_000_000]).worst > 0.5


def test_what_is_not_proportional_shows() -> None:
    """The eighth worker does nothing; the line is about 7 % below the others' points, and 7 % above its own."""
    found = proportional([1, 2, 4, 8], [100, 200, 400, 700])
    assert 0.05 < found.worst < 0.15


def test_several_terms_are_told_apart() -> None:
    found = fitted([6, 9, 15, 34], [1, 1, 1, 1], [1, 2, 2, 5], [1, 2, 5, 13])
    assert found.coefficients == pytest.approx((3, 1, 2), abs=1e-6)


def test_a_line_needs_more_points_than_terms() -> None:
    with pytest.raises(ValueError, match="2 terms"):
        straight_line([1, 2], [1, 2])


def test_times_of_nothing_have_no_line() -> None:
    with pytest.raises(ValueError, match="cannot be fitted"):
        straight_line([1, 2, 3], [0, 1, 2])


def test_fair_shares_hold_all_partitions() -> None:
    assert evenly(16, 3) == [5, 5, 6]


def test_every_engine_run_tokenises_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine keeps the last text's tokens, which would make all runs but the first of a case look cheaper."""
    engine = engine_cost.demo_engine()
    encode, start = engine.tokenizer.encode, engine.start
    text = engine_cost.review_text(30)
    encoded: list[str] = []
    started: list[str] = []

    def encoding(_: PromptTokenizer, text: str) -> Encoded:
        encoded.append(text)
        return encode(text)

    def starting(text: str, task: Task) -> Extraction:
        started.append(text)
        return start(text, task)

    monkeypatch.setattr(type(engine.tokenizer), "encode", encoding)
    monkeypatch.setattr(engine, "start", starting)
    engine_cost.measured(engine, [(text, engine_cost.ONE_LEVEL), (text, engine_cost.ONE_LEVEL)], rounds=2)
    assert encoded.count(text) == len(started) > 4


def test_more_types_than_a_hint_holds_take_more_windows() -> None:
    engine = engine_cost.demo_engine()
    text = engine_cost.review_text(engine_cost.TEXT)
    cases = [(text, engine_cost.configured(types)) for types in (3, 200)]
    few, many = engine_cost.measured(engine, cases, rounds=1)
    assert few.windows == 1
    assert many.windows > 3
