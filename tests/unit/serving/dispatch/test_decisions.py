"""What becomes of the windows of a failed call, as a table."""

from __future__ import annotations

import pytest

from consumer.serving.dispatch.decisions import Action, decide, decide_after_probe
from consumer.serving.protocol import Failure, Relief, ServingError

BATCH_FAULT, TRANSIENT, DEPLOYMENT = Failure.BATCH_FAULT, Failure.TRANSIENT, Failure.DEPLOYMENT


@pytest.mark.parametrize(
    ("failure", "relief", "of_several", "alone"),
    [
        (BATCH_FAULT, Relief.NONE, Action.SPLIT, Action.REVIEW),
        (TRANSIENT, Relief.FEWER_IN_FLIGHT, Action.FEWER_CALLS, Action.FEWER_CALLS),
        (TRANSIENT, Relief.SMALLER_MEMORY, Action.FEWER_TOKENS, Action.PROBE),
        (TRANSIENT, Relief.FEWER_BYTES, Action.FEWER_TOKENS, Action.PROBE),
        (TRANSIENT, Relief.NONE, Action.PROBE, Action.PROBE),
        (DEPLOYMENT, Relief.NONE, Action.PROBE, Action.PROBE),
    ],
)
def test_what_follows_a_failed_call(failure: Failure, relief: Relief, of_several: Action, alone: Action) -> None:
    """It depends on what the server said, and on whether the call held one window."""
    error = ServingError(failure, "CODE", "", relief)
    assert (decide(error, alone=False), decide(error, alone=True)) == (of_several, alone)


@pytest.mark.parametrize(
    ("alone", "blameless", "dies_of_all", "given_up", "action"),
    [
        (False, True, False, None, Action.RETRY),
        (False, False, False, None, Action.SPLIT),
        (True, True, False, None, Action.RETRY),
        (True, False, False, None, Action.RETRY),
        (True, False, False, "Poison", Action.REVIEW),
        (True, False, False, "UnusableAnswer", Action.REVIEW),
        (True, False, True, None, Action.STOP),
        (True, False, True, "Poison", Action.STOP),
    ],
)
def test_what_follows_once_a_health_probe_was_answered(
    alone: bool, blameless: bool, dies_of_all: bool, given_up: str | None, action: Action
) -> None:
    """Several windows are told apart, unless nothing speaks against them; a server that dies of all of them makes no
    window poison."""
    found = decide_after_probe(alone=alone, blameless=blameless, dies_of_all=dies_of_all, given_up=given_up)
    assert found is action
