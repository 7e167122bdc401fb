"""Windows on their way through the dispatcher: one by one, as the group of one call, and as the batch they came from.

Values without behaviour of their own, apart from what a failed call changes in a group. The dispatcher makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from consumer.batching.policy import padded_length
from consumer.resilience.crash_evidence import BROKEN_OFF, CrashEvidence
from consumer.resilience.lone_failures import LoneFailures
from consumer.serving.protocol import Failure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable

    from consumer.batching.policy import Pending
    from consumer.extraction.window import Window
    from consumer.serving.protocol import ServingError
    from consumer.serving.refused import WindowAnswer

MAX_TIMEOUT_FACTOR = 16.0
"""With it a call has all the time there is (``consumer.batching.policy.CallTimeout``), however fast other calls are."""


@dataclass(eq=False, slots=True)
class Entry:
    """A window that somebody waits for. ``origin`` is the event that it comes from."""

    window: Window
    pending: Pending
    future: asyncio.Future[WindowAnswer]
    origin: Hashable


@dataclass(eq=False, slots=True)
class Group:
    """Windows that are sent together. After a failure they stay by themselves, so they harm no other window twice."""

    entries: list[Entry]
    lone_failures: LoneFailures = field(default_factory=LoneFailures)
    crash: CrashEvidence = field(default_factory=CrashEvidence)
    first_failed_at: float | None = None
    not_before: float = 0.0
    """When it may be sent again, in seconds of the clock."""
    isolated: bool = False
    """Whether the server may have crashed because of it, so that it is only sent with no other call in flight."""
    timeout_factor: float = 1.0
    """How many times as long as others its calls may take: doubled whenever one of them ran out of time."""
    batch: BatchReview | None = None
    """The batch in which its windows were first sent together, if that is under review and they are still part of it"""

    @property
    def length(self) -> int:
        """Padded length in tokens."""
        return padded_length(max(entry.window.length for entry in self.entries))

    def failed(self, error: ServingError, now: float, seconds: float, *, isolated: bool) -> None:
        """Its call, which lasted ``seconds``, failed; ``isolated`` if no other was in flight meanwhile."""
        if self.first_failed_at is None:
            self.first_failed_at = now
        if error.failure is Failure.TRANSIENT and error.code in BROKEN_OFF:
            self.crash.broke_off(seconds, isolated=isolated)
        elif isolated:
            self.crash.crashes = 0
        if error.code == "DEADLINE_EXCEEDED":
            self.timeout_factor = min(MAX_TIMEOUT_FACTOR, self.timeout_factor * 2)

    def halves(self) -> list[Group]:
        """Two groups that start with a clean record: what many windows did says nothing about one of them.

        What is kept is how long the broken call of all took.
        """
        middle = (len(self.entries) + 1) // 2
        return [
            Group(
                entries,
                crash=CrashEvidence(longest=self.crash.longest),
                first_failed_at=self.first_failed_at,
                timeout_factor=self.timeout_factor,
                batch=self.batch,
            )
            for entries in (self.entries[:middle], self.entries[middle:])
        ]


class Rejection(NamedTuple):
    """One window that was rejected alone in its call, and what to say if it is given up: see WindowRefused."""

    entry: Entry
    reason: str
    error: ServingError
    attempts: int
    first_failed_at: float


@dataclass(eq=False, slots=True)
class BatchReview:
    """One batch under review, until each of its windows was answered, was rejected alone, or left it."""

    parts: int = 1
    """Groups of it whose outcome is not known yet."""
    answered: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    confirms: bool = False
    """Whether its windows were rejected once and the model was found healthy: those rejected again are given up."""
