"""Windows on their way through the dispatcher: one by one, as groups of one call, and the batch that they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from consumer.batching.shapes import padded_length
from consumer.batching.suspicion import Suspicion

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable

    from consumer.batching.queue import Pending
    from consumer.extraction.window import Window
    from consumer.serving.protocol import ServingError
    from consumer.serving.windows import WindowAnswer


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
    suspicion: Suspicion = field(default_factory=Suspicion)
    last_error: ServingError | None = None
    first_failed_at: float | None = None
    not_before: float = 0.0
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

    def halves(self) -> tuple[Group, Group]:
        """Two groups that start without suspicion: what a crowd did says nothing about one window of it."""
        middle = (len(self.entries) + 1) // 2
        first, second = self.entries[:middle], self.entries[middle:]
        return (
            Group(first, last_error=self.last_error, first_failed_at=self.first_failed_at),
            Group(second, last_error=self.last_error, first_failed_at=self.first_failed_at),
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
