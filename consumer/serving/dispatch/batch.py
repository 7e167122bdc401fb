"""Windows in the dispatcher: a single one, the group that is sent in one call, and the batch that groups came from.

Values without behaviour of their own, apart from what a failed call changes in a group. The dispatcher makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from consumer.batching.queue import Pending, padded_length
from consumer.resilience.crash_evidence import BROKEN_OFF, CrashEvidence
from consumer.resilience.lone_failures import LoneFailures
from consumer.serving.protocol import Failure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

    from consumer.extraction.window import Window
    from consumer.serving.protocol import ServingError
    from consumer.serving.refused import WindowAnswer

MAX_TIMEOUT_FACTOR = 16.0
"""With this factor a call gets the longest timeout of ``consumer.batching.policy.CallTimeout``, however fast others
are."""


@dataclass(eq=False, slots=True)
class Entry(Pending):
    """A window that somebody waits for. ``origin`` is the event that it comes from."""

    # Again, without their defaults: the fields below have none.
    lane: str
    over_share: bool
    version: str
    window: Window
    future: asyncio.Future[WindowAnswer]
    origin: Hashable
    on_overflow: Callable[[WindowAnswer], None] | None = None
    """Is called with an answer of more cells than the compact signature returns, before ``future`` has it."""


@dataclass(eq=False, slots=True)
class Group:
    """Windows sent together. After a failure no others join them, so they harm no other window twice."""

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
    broke_at: frozenset[str] = frozenset()
    """Addresses of the endpoints that its calls in a row broke off at: it may have ended these servers."""
    broke_off_at: float = 0.0
    """When the last of them broke off, in seconds of the clock."""
    batch: BatchReview | None = None
    """The batch in which its windows were first sent together, if that is under review and they are still part of it"""

    @property
    def length(self) -> int:
        """Padded length in tokens."""
        return padded_length(max(entry.window.length for entry in self.entries))

    @property
    def suspected(self) -> bool:
        """Whether it may have ended a server, so that no other one may meet it before that one is back."""
        return self.isolated or bool(self.broke_at)

    def still_waiting(self) -> bool:
        """Whether somebody waits for one of its windows."""
        return any(not entry.future.done() for entry in self.entries)

    def failed(self, error: ServingError, now: float, seconds: float, address: str = "", *, isolated: bool) -> None:
        """Its call there, which lasted ``seconds``, failed; ``isolated`` if no other was in flight meanwhile."""
        if self.first_failed_at is None:
            self.first_failed_at = now
        if error.failure is Failure.TRANSIENT and error.code in BROKEN_OFF:
            self.crash.broke_off(seconds, isolated=isolated)
            self.broke_at |= {address}
            self.broke_off_at = now
        else:
            self.crash.broken = 0
            self.broke_at = frozenset()
            if isolated:
                self.crash.crashes = 0
        if error.code == "DEADLINE_EXCEEDED":
            self.timeout_factor = min(MAX_TIMEOUT_FACTOR, self.timeout_factor * 2)

    def halves(self) -> list[Group]:
        """Two groups that start with empty records: what many windows did is no evidence about one of them.

        Only what tells how careful to be is kept: how long the broken call lasted, and how many broke off.
        """
        middle = (len(self.entries) + 1) // 2
        return [self.anew(self.entries[:middle]), self.anew(self.entries[middle:])]

    def anew(self, entries: list[Entry]) -> Group:
        """These windows of it, with an empty record: as its halves have, or the whole of it at another endpoint."""
        return Group(
            entries,
            crash=CrashEvidence(longest=self.crash.longest, broken=self.crash.broken),
            first_failed_at=self.first_failed_at,
            timeout_factor=self.timeout_factor,
            broke_at=self.broke_at,
            broke_off_at=self.broke_off_at,
            batch=self.batch,
        )


class Rejection(NamedTuple):
    """One window that was rejected alone in its call, with the fields of the WindowRefused if it is given up."""

    entry: Entry
    reason: str
    error: ServingError
    attempts: int
    first_failed_at: float


@dataclass(eq=False, slots=True)
class BatchReview:
    """One batch under review, until each of its windows was answered, was rejected alone, or left it."""

    parts: int = 1
    """Groups of the batch whose outcome is not known yet."""
    answered: int = 0
    rejections: list[Rejection] = field(default_factory=list)
    confirms: bool = False
    """Whether its windows were rejected once and the model was found healthy: those rejected again are given up."""
