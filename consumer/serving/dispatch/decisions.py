"""Which action follows a failed call. Pure: the dispatcher passes the evidence in and carries the action out."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from consumer.serving.protocol import Failure, Relief

if TYPE_CHECKING:
    from consumer.serving.protocol import ServingError


class Action(Enum):
    """What to do with the windows of one failed call."""

    SPLIT = auto()
    """Send two halves, each in a call of its own."""
    REVIEW = auto()
    """One window was alone: the review of rejections decides whether it is given up."""
    FEWER_CALLS = auto()
    """Batch anew, later, with fewer calls in flight."""
    FEWER_TOKENS = auto()
    """Batch anew, later, with fewer tokens in a call."""
    PROBE = auto()
    """Stop sending: health probes show whether the server failed or the windows did."""
    STOP = auto()
    """Stop sending: the server crashes of any window; go on when one of these was answered."""
    RETRY = auto()
    """Send again as they are, in a call of their own."""


def decide(error: ServingError, *, alone: bool) -> Action:
    """The action after a failed call; ``alone`` if the call held one window."""
    match error.failure, error.relief:
        case Failure.BATCH_FAULT, _:
            # Halve until the rejected windows are alone. These calls do not retry an overloaded server, and their
            # number is bounded, so the retry budget does not count them.
            return Action.REVIEW if alone else Action.SPLIT
        case Failure.TRANSIENT, Relief.FEWER_IN_FLIGHT:
            # The server has no thread left. Smaller batches would be more calls; and the server is alive, so this is no
            # outage however often it happens.
            return Action.FEWER_CALLS
        case Failure.TRANSIENT, Relief.SMALLER_MEMORY | Relief.FEWER_BYTES if not alone:
            return Action.FEWER_TOKENS
    return Action.PROBE


def decide_after_probe(*, alone: bool, blameless: bool, dies_of_all: bool, given_up: str | None) -> Action:
    """The action once the server answers health probes, be it again or all the time.

    ``blameless``: nothing speaks against these windows yet; what failed was the server, the network or the deployment.
    ``dies_of_all``: it crashed in isolated calls of so many events that no window is the cause. ``given_up``: the
    reason for which the window's own record gives it up, None to try on.
    """
    if not alone:
        return Action.RETRY if blameless else Action.SPLIT
    if dies_of_all:
        return Action.STOP
    return Action.RETRY if given_up is None else Action.REVIEW
