"""Windows on their way through the dispatcher: one by one, as groups of one call, and the batch that they came from."""

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

MOST_PATIENCE = 16.0
"""With it a call has all the time there is (``consumer.batching.deadlines``), however fast the calls of others are."""


@dataclass(eq=False, slots=True)
class Entry:
    """A window that somebody waits for. ``origin`` is the event that it comes from."""

    window: Window
    pending: Pending
    future: asyncio.Future[WindowAnswer]
    origin: Hashable


@dataclass(eq=False, slots=True)
class Group:
    """Windows that are sent together. After a failure they stay by themselves, so they harm nobody else twice."""

    entries: list[Entry]
    suspicion: LoneFailures = field(default_factory=LoneFailures)
    last_error: ServingError | None = None
    first_failed_at: float | None = None
    not_before: float = 0.0
    crash: CrashEvidence = field(default_factory=CrashEvidence)
    quarantined: bool = False
    """Whether the server may have gone away because of it, so that it is only sent with no other call in flight."""
    patience: float = 1.0
    """How many times as long as others its calls may take: doubled whenever one of them ran out of time."""
    inquiry: Inquiry | None = None
    """The batch in which they were first sent together; None once they are no part of it any more."""

    @property
    def length(self) -> int:
        """Padded length in tokens."""
        return padded_length(max(entry.window.length for entry in self.entries))

    def drop_withdrawn(self) -> bool:
        """Forget the windows that nobody waits for any more; whether any is left."""
        self.entries = [entry for entry in self.entries if not entry.future.done()]
        return bool(self.entries)

    def failed(self, error: ServingError, now: float, seconds: float, *, suspect_alone: bool) -> None:
        """Its call, which lasted ``seconds``, failed; ``suspect_alone`` if no other was in flight meanwhile."""
        self.last_error = error
        if self.first_failed_at is None:
            self.first_failed_at = now
        if error.failure is Failure.TRANSIENT and error.code in BROKEN_OFF:
            self.crash.broke_off(seconds, alone=suspect_alone)
        elif suspect_alone:
            self.crash.ended_otherwise()
        if error.code == "DEADLINE_EXCEEDED":
            self.patience = min(MOST_PATIENCE, self.patience * 2)

    def halves(self) -> tuple[Group, Group]:
        """Two groups that start without suspicion: what a crowd did says nothing about one window of it."""
        middle = (len(self.entries) + 1) // 2
        return self._part(self.entries[:middle]), self._part(self.entries[middle:])

    def _part(self, entries: list[Entry]) -> Group:
        return Group(
            entries,
            last_error=self.last_error,
            first_failed_at=self.first_failed_at,
            crash=self.crash.parted(),
            patience=self.patience,
        )


class Charge(NamedTuple):
    """One window that was refused alone in its call, and what to say if it is found guilty: see WindowRefused."""

    entry: Entry
    reason: str
    error: ServingError
    attempts: int
    first_failed_at: float


@dataclass(eq=False, slots=True)
class Inquiry:
    """One batch, from its sending until each of its windows was answered, was charged, or left it."""

    parts: int = 1
    """Groups of it of which nothing is known yet."""
    answered: int = 0
    charges: list[Charge] = field(default_factory=list)
    confirms: bool = False
    """Whether its windows were charged once and the model was found healthy: those charged again are guilty."""
