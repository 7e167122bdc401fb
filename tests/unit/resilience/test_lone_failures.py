"""When a window is given up."""

from __future__ import annotations

import pytest

from consumer.resilience.lone_failures import POISON_ATTEMPTS, UNUSABLE_ATTEMPTS, LoneFailures


def tries_until_given_up(code: str, *, deadline_final: bool = True, at_most: int = 200) -> tuple[int, str] | None:
    suspicion = LoneFailures()
    for number in range(1, at_most + 1):
        if reason := suspicion.failed_alone(code, deadline_final=deadline_final):
            return number, reason
    return None


@pytest.mark.parametrize(
    ("code", "given_up"),
    [
        ("UNAVAILABLE", (POISON_ATTEMPTS, "Poison")),
        ("INTERNAL", (POISON_ATTEMPTS, "Poison")),
        ("DEADLINE_EXCEEDED", (POISON_ATTEMPTS, "Poison")),
        ("ANSWER", (UNUSABLE_ATTEMPTS, "UnusableAnswer")),
        ("RESOURCE_EXHAUSTED", None),
        ("CONTRACT", None),
        ("FAILED_PRECONDITION", None),
        ("NOT_FOUND", None),
    ],
)
def test_what_counts_and_how_often(code: str, given_up: tuple[int, str] | None) -> None:
    """Load and deployment are never the window's fault; the rest is, after enough tries alone."""
    assert tries_until_given_up(code) == given_up


def test_a_deadline_that_could_be_longer_does_not_count() -> None:
    """First the window gets all the time there is."""
    assert tries_until_given_up("DEADLINE_EXCEEDED", deadline_final=False) is None


def test_an_outage_and_another_code_start_the_count_anew() -> None:
    """Attempts are failures in a row, of one kind, beside a healthy server."""
    suspicion = LoneFailures()
    for code in ("UNAVAILABLE", "INTERNAL") * POISON_ATTEMPTS:
        assert suspicion.failed_alone(code, deadline_final=True) is None
    for _ in range(POISON_ATTEMPTS - 2):
        assert suspicion.failed_alone("INTERNAL", deadline_final=True) is None
    suspicion.outage()
    for _ in range(POISON_ATTEMPTS - 1):
        assert suspicion.failed_alone("INTERNAL", deadline_final=True) is None
    assert suspicion.failed_alone("INTERNAL", deadline_final=True) == "Poison"


def test_pauses_double_up_to_their_limit() -> None:
    """A window that cannot be answered is asked less and less often."""
    suspicion = LoneFailures()
    pauses = []
    for _ in range(6):
        suspicion.failed_alone("RESOURCE_EXHAUSTED", deadline_final=True)
        pauses.append(suspicion.pause(0.1, 1.0))
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
