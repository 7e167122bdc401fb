"""Reviews windows that the model rejects: none is given up before its whole batch has an outcome.

The dispatcher reports each call's outcome here; that of a successful call only while ``attentive``, or if its group is
part of a batch under review.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from consumer.batching.queue import padded_length
from consumer.resilience.rejection_quorum import RejectionQuorum
from consumer.serving.dispatch.batch import BatchReview, Group, Rejection
from consumer.serving.protocol import Relief, ServingError
from consumer.serving.refused import WindowRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from consumer.resilience.backoff import Backoff
    from consumer.serving.dispatch.batch import Entry
    from consumer.serving.dispatch.calls import ModelCalls
    from consumer.serving.dispatch.outage import OutageRecovery


class RejectionReview:
    """Follows batches with rejected windows until all their windows have an outcome, and decides on them together.

    A decision also waits for the batches that were in flight when its first windows were ready: their outcomes are
    evidence too. Then a health probe is made with a canary window. If it fails, or if the quorum finds that most
    windows are rejected, the model is at fault: the windows are held and tried again once it is repaired. Otherwise
    each is sent once more, since the model may have been repaired just before the probe, and those that are rejected
    again are given up.
    """

    def __init__(
        self,
        calls: ModelCalls,
        recovery: OutageRecovery,
        backoff: Backoff,
        spawn: Callable[[Coroutine[Any, Any, None], Iterable[Entry]], None],
        send_alone: Callable[[Group], None],
    ) -> None:
        """``spawn`` runs a review beside the pump until that ends; its windows' futures raise a defect of ours.

        ``send_alone`` sends one window in a call of its own.
        """
        self._calls = calls
        self._recovery = recovery
        self._backoff = backoff
        self._spawn = spawn
        self._send_alone = send_alone
        self._clock = calls.clock
        self._quorum = RejectionQuorum()
        self._crash_quorum = RejectionQuorum()
        self.attentive = False
        """Whether ``answered`` must be called for every group, be its batch under review or not."""
        self.probing = 0
        """Decisions for which a health probe is being made now."""
        self.rejections: list[Rejection] = []
        """Windows that wait for a decision."""
        # The batches under review, the number of windows answered meanwhile, and the batches that a decision waits for.
        self._open: set[BatchReview] = set()
        self._answered = 0
        self._awaited: set[BatchReview] = set()

    def answered(self, group: Group) -> None:
        """All its windows were answered."""
        self._crash_quorum.answered(len(group.entries))
        if group.batch is not None:
            group.batch.answered += len(group.entries)
            self.leave(group)
        elif self.rejections:
            self._answered += len(group.entries)
        else:
            self._quorum.answered(len(group.entries))
        scores = self._quorum.score or self._crash_quorum.score
        self.attentive = bool(self.rejections or self.probing or scores)

    def split(self, group: Group) -> list[Group]:
        """The halves of a group that was rejected, in which to look for the windows that are."""
        self._follow(group).parts += 1
        return group.halves()

    def reject(self, group: Group, reason: str, error: ServingError, attempts: int) -> None:
        """One window was rejected alone in its call, or failed alone as often as a window may."""
        self.attentive = True
        since = self._clock() if group.first_failed_at is None else group.first_failed_at
        self._follow(group).rejections += [Rejection(entry, reason, error, attempts, since) for entry in group.entries]
        self.leave(group)

    def leave(self, group: Group) -> None:
        """End the review of this group: its outcome is known, it was withdrawn, or it failed for another reason."""
        batch, group.batch = group.batch, None
        if batch is None:
            return
        batch.parts -= 1
        if batch.parts:
            return
        if batch.confirms:
            self._quorum.answered(batch.answered)
            self._give_up(batch.rejections)
            return
        self._open.discard(batch)
        self._awaited.discard(batch)
        if batch.rejections and not self.rejections:
            for other in self._calls.in_flight:
                if other is not group:
                    self._follow(other)
            self._awaited = set(self._open)
        self.rejections += batch.rejections
        if not self.rejections:
            self._quorum.answered(batch.answered)
            return
        self._answered += batch.answered
        if not self._awaited:
            rejections, self.rejections = self.rejections, []
            answered, self._answered = self._answered, 0
            self._spawn(self._review(rejections, answered), [rejection.entry for rejection in rejections])

    def crashed(self, entry: Entry) -> bool:
        """The server crashed in an isolated call of this window; whether too many events did this to be the cause."""
        self.attentive = True
        return self._crash_quorum.model_at_fault([entry.origin], 0)

    def reset(self) -> None:
        """Start the counts anew: the model answers what it rejected before."""
        self._quorum.reset()
        self._crash_quorum.reset()

    def _follow(self, group: Group) -> BatchReview:
        """The batch of this group, which is under review from now on."""
        if group.batch is None:
            group.batch = BatchReview()
            self._open.add(group.batch)
        return group.batch

    async def _review(self, rejections: list[Rejection], answered: int) -> None:
        self.probing += 1
        busy = 0
        try:
            while rejections := _still_waiting(rejections):
                if self._recovery.fault is not None:
                    self._recovery.hold([rejection.entry for rejection in rejections])
                    return
                length = max(padded_length(rejection.entry.window.length) for rejection in rejections)
                canary = self._calls.canary(length)
                try:
                    await self._calls.probe(length, canary)
                except ServingError as error:
                    if error.relief is not Relief.FEWER_IN_FLIGHT:
                        entries = [rejection.entry for rejection in rejections]
                        self._recovery.stop(error, entries, canary, length=length)
                        return
                else:
                    self._decide(_still_waiting(rejections), answered)
                    return
                await asyncio.sleep(self._backoff.pause(busy))
                busy += 1
            self._quorum.answered(answered)
        finally:
            self.probing -= 1

    def _decide(self, rejections: list[Rejection], answered: int) -> None:
        """A health probe was answered just now."""
        self.attentive = True  # the score may rise below, and answered windows bring it down again
        entries = [rejection.entry for rejection in rejections]
        if entries and self._quorum.model_at_fault([entry.origin for entry in entries], answered):
            because = (
                f"{len(entries)} of the last {len(entries) + answered} windows were refused and too few before them "
                "answered, though a known-good one is"
            )
            self._recovery.stop(rejections[0].error, entries, because=because)
            return
        again = [rejection for rejection in rejections if rejection.reason == "BatchFault"]
        batch = BatchReview(parts=len(again), confirms=True)
        for rejection in again:
            group = Group([rejection.entry], first_failed_at=rejection.first_failed_at, batch=batch)
            group.lone_failures.attempts = rejection.attempts
            self._send_alone(group)
        self._give_up([rejection for rejection in rejections if rejection.reason != "BatchFault"])

    def _give_up(self, rejections: list[Rejection]) -> None:
        if self._recovery.fault is not None:  # what was answered before it proves nothing
            self._recovery.hold([rejection.entry for rejection in rejections])
            return
        for entry, reason, error, attempts, first_failed_at in _still_waiting(rejections):
            seconds = self._clock() - first_failed_at
            whose = self._calls.version, entry.window, entry.level, self._calls.address
            entry.future.set_exception(WindowRefused(reason, error, attempts, seconds, *whose))


def _still_waiting(rejections: list[Rejection]) -> list[Rejection]:
    return [rejection for rejection in rejections if not rejection.entry.future.done()]
