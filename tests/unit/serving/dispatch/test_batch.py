"""What a failed call changes in a group of windows."""

from __future__ import annotations

import pytest

from consumer.resilience.crash_evidence import CrashEvidence
from consumer.serving.dispatch.batch import Group
from consumer.serving.protocol import Failure, ServingError


@pytest.mark.parametrize("error", ["DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CONTRACT"])
def test_another_failure_in_its_isolated_call_starts_the_count_of_crashes_anew(error: str) -> None:
    """In a row means that; in a call that was not isolated it says nothing."""
    failure = Failure.DEPLOYMENT if error == "CONTRACT" else Failure.TRANSIENT
    for isolated, left in ((False, 3), (True, 0)):
        group = Group([], crash=CrashEvidence(crashes=3))
        group.failed(ServingError(failure, error, ""), 10.0, 1.0, isolated=isolated)
        assert group.crash.crashes == left
