"""Whether scores mean what they say, and the temperature that makes them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from judged_cases import case, classified, pair

from consumer.evaluation.calibration import (
    LEAST_FACTS,
    MOST_T,
    bins,
    calibration,
    expected_calibration_error,
    fitted_temperature,
    scaled,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from consumer.evaluation.paths import Case


def overconfident(temperature: float, facts: int = 6000, seed: int = 5) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores that are right as often as those of a model with its logits divided by ``temperature`` say."""
    rng = np.random.default_rng(seed)
    logits = rng.uniform(0.2, 2.5, facts)
    right = rng.random(facts) < 1 / (1 + np.exp(-logits))
    return 1 / (1 + np.exp(-logits * temperature)), right


def cases_of(scores: NDArray[Any], right: NDArray[Any]) -> list[Case]:
    """A text for each fact."""
    return [
        classified(["甲"], {"甲" if good else "乙": float(score)}, text=f"第{number}条")
        for number, (score, good) in enumerate(zip(scores, right, strict=True))
    ]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_scores_is_found(temperature: float) -> None:
    """Within what 6,000 facts can tell."""
    assert fitted_temperature(*overconfident(temperature)) == pytest.approx(temperature, rel=0.06)


def test_the_temperature_minimises_the_negative_log_likelihood() -> None:
    """No other one near it does better."""
    scores, right = overconfident(2.0, 300)
    best = fitted_temperature(scores, right)

    def likelihood(temperature: float) -> float:
        cooled = scaled(scores, temperature)
        return -float(np.log(np.where(right, cooled, 1 - cooled)).sum())

    assert all(likelihood(best) < likelihood(best * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_a_temperature_mends_overconfident_scores_on_texts_that_it_was_not_fitted_on() -> None:
    """Cross-fitted: the error falls to what chance leaves of it."""
    found = calibration(cases_of(*overconfident(3.0)))
    assert found is not None
    assert found.ece > 0.12
    assert found.ece_after is not None
    assert found.ece_after < 0.02
    assert found.temperature == pytest.approx(3.0, rel=0.06)


def test_the_error_after_is_measured_on_the_half_that_was_not_fitted() -> None:
    """Texts of one half are all right and those of the other all wrong: each half's temperature misleads the other.

    Fitted on all of them together, scores of a half would be right for half of the facts.
    """
    scores = np.full(400, 0.95)
    right = np.array([_half(f"第{number}条") for number in range(400)])
    found = calibration(cases_of(scores, right))
    assert found is not None
    assert found.share_right == pytest.approx(0.5, abs=0.1)
    assert found.temperature == pytest.approx(MOST_T, rel=0.01)
    assert found.ece_after is not None
    assert found.ece_after > 0.6


def _half(text: str) -> bool:
    return bool(hashlib.sha256(text.encode()).digest()[0] & 1)


def test_scores_of_exactly_one_break_nothing() -> None:
    """Rounded to 4 decimals they are common; their logit would be infinite."""
    scores, right = np.ones(100), np.arange(100) % 10 > 0
    temperature = fitted_temperature(scores, right)
    assert scaled(scores, temperature)[0] == pytest.approx(0.9, abs=1e-6)
    assert np.isfinite(scaled(np.array([0.0, 1.0]), 0.05)).all()


def test_scores_that_say_nothing_get_the_highest_temperature() -> None:
    """Most facts are wrong: no temperature makes a score of 0.5 of that."""
    assert fitted_temperature(np.full(50, 0.9), np.zeros(50, bool)) == pytest.approx(MOST_T, rel=1e-6)


def test_the_expected_calibration_error_weighs_bins_by_their_facts() -> None:
    """Three facts of 0.98 with two right, one of 0.6 that is wrong: 3/4 |2/3 - 0.98| + 1/4 |0 - 0.6|."""
    table = bins(np.array([0.98, 0.98, 0.98, 0.6]), np.array([True, True, False, False]))
    assert expected_calibration_error(table) == pytest.approx(0.75 * (0.98 - 2 / 3) + 0.25 * 0.6)
    assert expected_calibration_error([]) == 0.0


def test_bins_are_ten_from_a_half_to_one_and_one_below() -> None:
    """An edge belongs to the lower bin; 0 and 1 have one."""
    table = bins(np.array([0.0, 0.3, 0.5, 0.51, 0.55, 1.0]), np.ones(6, bool))
    assert len(table) == 11
    assert {(each.low, each.high): each.facts for each in table if each.facts} == {
        (0.0, 0.5): 3,
        (0.5, 0.55): 2,
        (0.95, 1.0): 1,
    }


def test_every_fact_of_a_path_is_judged_once_by_its_own_score() -> None:
    """Two opinions below one aspect are three facts. The aspect is right, one opinion is not."""
    right, wrong = pair("屏幕", 0, "好", "清楚", 2), pair("屏幕", 0, "坏", "暗", 5)
    found = calibration([case([right], {right: (0.8, 0.6), wrong: (0.8, 0.7)})])
    assert found is not None
    assert [found.facts, found.mean_score, found.share_right] == pytest.approx([3, (0.8 + 0.6 + 0.7) / 3, 2 / 3])


def test_an_opinion_below_an_aspect_that_is_not_there_is_wrong() -> None:
    """However right its own words are."""
    gold, predicted = pair("屏幕", 0, "好", "清楚", 2), pair("价格", 8, "好", "清楚", 2)
    found = calibration([case([gold], [predicted])])
    assert found is not None
    assert found.share_right == 0.0


def test_few_facts_have_no_temperature_and_none_no_calibration() -> None:
    """It would be noise."""
    scores, right = overconfident(2.0, LEAST_FACTS - 1)
    few = calibration(cases_of(scores, right))
    assert few is not None
    assert (few.facts, few.temperature, few.ece_after) == (LEAST_FACTS - 1, None, None)
    assert calibration([classified(["甲"], {})]) is None
