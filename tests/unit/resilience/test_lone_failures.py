"""When a window is given up."""

from __future__ import annotations

import pytest

from consumer.resilience.lone_failures import POISON_ATTEMPTS, UNUSABLE_ATTEMPTS, LoneFailures


def tries_until_given_up(code: str, *, deadline_final: bool = True, at_most: int = 200) -> tuple[int, str] | None:
    failures = LoneFailures()
    for number in range(1, at_most + 1):
        if reason := failures.failed_alone(code, deadline_final=deadline_final):
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
    failures = LoneFailures()
    for code in ("UNAVAILABLE", "INTERNAL") * POISON_ATTEMPTS:
        assert failures.failed_alone(code, deadline_final=True) is None
    for _ in range(POISON_ATTEMPTS - 2):
        assert failures.failed_alone("INTERNAL", deadline_final=True) is None
    failures.outage()
    for _ in range(POISON_ATTEMPTS - 1):
        assert failures.failed_alone("INTERNAL", deadline_final=True) is None
    assert failures.failed_alone("INTERNAL", deadline_final=True) == "Poison"


def test_every_try_alone_counts_for_the_pause() -> None:
    """A window that cannot be answered is asked less and less often, also when its failures make no poison."""
    failures = LoneFailures()
    for _ in range(6):
        failures.failed_alone("RESOURCE_EXHAUSTED", deadline_final=True)
    assert (failures.tries, failures.attempts) == (6, 0)
    failures.outage()
    assert failures.tries == 0
