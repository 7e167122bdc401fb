"""What becomes of windows that the model refuses: nobody is refused before the whole batch is known and was judged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from consumer.batching.policy import padded_length
from consumer.resilience.rejection_quorum import RejectionQuorum
from consumer.serving.dispatch.batch import Charge, Group, Inquiry
from consumer.serving.protocol import Failure, Relief, ServingError
from consumer.serving.refused import WindowRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from consumer.resilience.backoff import Backoff
    from consumer.serving.dispatch.batch import Entry
    from consumer.serving.dispatch.calls import ModelCalls
    from consumer.serving.dispatch.outage import OutageRecovery


class RejectionReview:
    """Follows every batch, holds its guilty windows until all its windows are known, and judges them together.

    A verdict also waits for the batches that were in flight when the first of its windows were ready for it: they are
    evidence that is on its way. Then the model is asked, in one call, for the known-good window and for a real one that
    it answered before. If it refuses, or if the jury finds that most windows are guilty, the model is at fault: the
    windows are held and tried again once it is mended. Otherwise each is asked for once more, since the model may have
    been mended just before that, and those that are refused again are given up.
    """

    def __init__(
        self,
        calls: ModelCalls,
        recovery: OutageRecovery,
        backoff: Backoff,
        spawn: Callable[[Coroutine[Any, Any, None], Iterable[Entry]], None],
        send_alone: Callable[[Group], None],
        clock: Callable[[], float],
    ) -> None:
        """``spawn`` runs a verdict beside the pump and ends it with the pump; its windows are told of a defect.

        ``send_alone`` sends one window in a call of its own.
        """
        self._calls = calls
        self._recovery = recovery
        self._backoff = backoff
        self._spawn = spawn
        self._send_alone = send_alone
        self._clock = clock
        self._jury = RejectionQuorum()
        self._crashes = RejectionQuorum()
        self.judging = 0
        """Verdicts for which the model is being asked now."""
        self._open: set[Inquiry] = set()
        self._accused: list[Charge] = []
        # What is known beside the accused, and the batches that are still to be heard.
        self._answered = 0
        self._awaited: set[Inquiry] = set()

    @property
    def held(self) -> int:
        """Windows that wait for a verdict."""
        return len(self._accused)

    def sent(self, group: Group) -> None:
        """A group leaves; unless it is a part of a batch that is followed already, it is a batch of its own."""
        if group.inquiry is None:
            group.inquiry = Inquiry()
            self._open.add(group.inquiry)

    def answered(self, group: Group) -> None:
        """All its windows were answered."""
        self._crashes.answered(len(group.entries))
        if group.inquiry is not None:
            group.inquiry.answered += len(group.entries)
        self.left(group)

    def split(self, group: Group) -> tuple[Group, Group]:
        """The halves of a group that was refused, in which to look for the guilty."""
        halves = group.halves()
        for half in halves:
            half.inquiry = group.inquiry
        if group.inquiry is not None:
            group.inquiry.parts += 1
        return halves

    def charge(self, group: Group, reason: str, error: ServingError, attempts: int) -> None:
        """One window was refused, alone in its call; or alone it failed as often as a window may."""
        self.sent(group)
        since = self._clock() if group.first_failed_at is None else group.first_failed_at
        if group.inquiry is not None:
            group.inquiry.charges += [Charge(entry, reason, error, attempts, since) for entry in group.entries]
        self.left(group)

    def left(self, group: Group) -> None:
        """Nothing more is to be learnt from it: it is known, was withdrawn, or failed for another reason."""
        inquiry, group.inquiry = group.inquiry, None
        if inquiry is None:
            return
        inquiry.parts -= 1
        if inquiry.parts:
            return
        if inquiry.confirms:
            self._jury.answered(inquiry.answered)
            self._refuse(inquiry.charges)
            return
        self._open.discard(inquiry)
        self._awaited.discard(inquiry)
        if inquiry.charges and not self._accused:
            self._awaited = set(self._open)
        self._accused += inquiry.charges
        if not self._accused:
            self._jury.answered(inquiry.answered)
            return
        self._answered += inquiry.answered
        if not self._awaited:
            accused, self._accused = self._accused, []
            answered, self._answered = self._answered, 0
            self._spawn(self._judge(accused, answered), [charge.entry for charge in accused])

    def mended(self) -> None:
        """The model answers what it refused: nothing that it did before counts."""
        self._jury.acquit()
        self._crashes.acquit()

    def crashed(self, entry: Entry) -> bool:
        """The server went away while it had this window alone; whether it does so of too many events to be theirs."""
        return self._crashes.blames_model([entry.origin], 0)

    async def _judge(self, accused: list[Charge], answered: int) -> None:
        self.judging += 1
        try:
            await self._examine(accused, answered)
        finally:
            self.judging -= 1

    async def _examine(self, accused: list[Charge], answered: int) -> None:
        busy = 0
        while True:
            charges = _still_waiting(accused)
            if not charges:
                self._jury.answered(answered)
                return
            if self._recovery.fault is not None:
                self._recovery.hold([charge.entry for charge in charges])
                return
            length = max(padded_length(charge.entry.window.length) for charge in charges)
            canary = self._calls.canary(length)
            try:
                await self._calls.probe(length, canary)
            except ServingError as error:
                if error.relief is not Relief.FEWER_IN_FLIGHT:
                    self._recovery.fault_found(error, [charge.entry for charge in charges], canary)
                    return
            else:
                break
            await asyncio.sleep(self._backoff.pause(busy))
            busy += 1
        self._verdict(_still_waiting(charges), answered)

    def _verdict(self, charges: list[Charge], answered: int) -> None:
        """The known-good window was answered just now."""
        if charges and self._jury.blames_model([charge.entry.origin for charge in charges], answered):
            self._recovery.fault_proved(_most(charges, answered), [charge.entry for charge in charges])
        else:
            self._confirm(charges)

    def _confirm(self, charges: list[Charge]) -> None:
        """Ask once more for what was refused once: the model may have been mended between that and the probe."""
        proved = [charge for charge in charges if charge.reason != "BatchFault"]
        again = [charge for charge in charges if charge.reason == "BatchFault"]
        if again:
            inquiry = Inquiry(parts=len(again), confirms=True)
            for charge in again:
                group = Group([charge.entry], first_failed_at=charge.first_failed_at, inquiry=inquiry)
                group.suspicion.attempts = charge.attempts
                self._send_alone(group)
        self._refuse(proved)

    def _refuse(self, guilty: list[Charge]) -> None:
        if self._recovery.fault is not None:  # what was answered before it proves nothing
            self._recovery.hold([charge.entry for charge in guilty])
            return
        for charge in _still_waiting(guilty):
            seconds = self._clock() - charge.first_failed_at
            refused = WindowRefused(charge.reason, charge.error, charge.attempts, seconds, self._calls.version)
            charge.entry.future.set_exception(refused)


def _still_waiting(charges: list[Charge]) -> list[Charge]:
    return [charge for charge in charges if not charge.entry.future.done()]


def _most(guilty: list[Charge], answered: int) -> ServingError:
    error = guilty[0].error
    what = (
        f"{len(guilty)} of the last {len(guilty) + answered} windows were refused and too few before them answered,"
        f" though a known-good one is: {error.message}; nothing is dead-lettered, and some are asked again until one"
        " is answered"
    )
    return ServingError(Failure.DEPLOYMENT, error.code, what)


def dies_of_all(error: ServingError, windows: int) -> ServingError:
    """What to say of a server that ``crashed`` blames."""
    what = (
        f"the model server went away in the calls of {windows} windows, one by one, and answered no other window in"
        f" between, though the known-good one: {error.message}; nothing is dead-lettered, and some are asked again"
        " until one is answered"
    )
    return ServingError(Failure.DEPLOYMENT, error.code, what)
