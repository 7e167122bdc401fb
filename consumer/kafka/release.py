"""The release thread: sole owner of the ledger and of the producer.

Everything it knows arrives through one queue, in order. What the ledger releases goes to the outbox; what the outbox
reports durable goes back to the ledger; what the ledger says is committable goes to the poll thread. A transactional
release takes the outbox's place: it would produce a released prefix and send its offsets in one transaction.
"""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from consumer.delivery.ledger import Ledger, Release
from consumer.delivery.partition import Partition
from consumer.kafka.commands import (
    Assigned,
    Command,
    Delivered,
    Drain,
    EndReached,
    Finished,
    Lost,
    Revoke,
    Stop,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.ledger import Order
    from consumer.kafka.observer import EdgeObserver

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
"""Longest sleep when nothing is awaited; a sleeping thread must still show that it turns."""

REPORT_SECONDS = 0.005
"""Wait for delivery reports while some are due: bounds how long a command lies in the queue meanwhile."""

COMMANDS_A_TURN = 1000
"""Commands handled before reports are served again, so that a flood of one does not starve the other."""


class Publisher(Protocol):
    """Makes released outcomes durable. See ``Outbox`` for the at-least-once one."""

    @property
    def busy(self) -> bool:
        """Whether reports are awaited."""

    @property
    def blocked(self) -> tuple[str, ...]:
        """Topics that take no output now."""

    def send(self, release: Release[Finished]) -> None:
        """Accept one released outcome."""

    def turn(self, timeout: float) -> list[Release[Finished]]:
        """Work for up to ``timeout`` seconds; returns what became durable."""

    def flush(self, seconds: float) -> int:
        """Wait for what is under way; returns how many outputs are not acknowledged."""


class PollSide(Protocol):
    """What the release thread tells the poll thread. All of it may be called from any thread."""

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> None:
        """Commit these (epoch, offset) when possible."""

    def finished(self, records: list[tuple[Partition, int, int]]) -> None:
        """Records (partition, epoch, bytes) no longer count as in flight."""

    def pause(self, reason: str) -> None:
        """Stop consuming."""

    def resume(self, reason: str) -> None:
        """Consume again, unless another reason stands."""


class ReleaseThread:
    """Runs until ``Stop``. ``publisher(stands)`` builds the publisher; ``stands(release)``: is it still ours?"""

    def __init__(
        self,
        order: Order,
        commands: SimpleQueue[Command],
        publisher: Callable[[Callable[[Release[Finished]], bool]], Publisher],
        poll_side: PollSide,
        observer: EdgeObserver,
        on_fatal: Callable[[BaseException], None],
        commit_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger: Ledger[Finished] = Ledger(order)
        self._commands = commands
        self._publisher = publisher(self._stands)
        self._poll_side = poll_side
        self._observer = observer
        self._on_fatal = on_fatal
        self._commit_seconds = commit_seconds
        self._clock = clock
        self._revocations: list[Revoke] = []
        self._drains: list[Drain] = []
        self._stop: Stop | None = None
        self._commit_at = clock() + commit_seconds
        self._blocked: tuple[str, ...] = ()
        self._stale = 0
        self.turned_at = clock()
        """Monotonic seconds at which the loop last came round."""
        self.thread = threading.Thread(target=self._run, name="rexstream-release", daemon=True)

    @property
    def blocked(self) -> tuple[str, ...]:
        """Output topics that take nothing now."""
        return self._blocked

    def _run(self) -> None:
        try:
            while self._stop is None:
                self.turn()
            left = self._publisher.flush(self._stop.flush_seconds)
            if left:
                logger.warning("%d outputs were not acknowledged; their input is not committed and is read again", left)
        except BaseException as error:  # whatever ends this thread must end the worker
            self._on_fatal(error)

    def turn(self) -> None:
        """One round: commands, outputs, reports, offsets."""
        self.turned_at = self._clock()
        self._take_commands()
        self._settle(self._publisher.turn(REPORT_SECONDS if self._publisher.busy else 0.0))
        self._answer_revocations()
        self._hand_out_offsets()
        self._answer_drains()
        self._tell()

    def _stands(self, release: Release[Finished]) -> bool:
        return self._ledger.epoch(release.partition) == release.epoch

    def _take_commands(self) -> None:
        timeout = REPORT_SECONDS if self._revocations or self._drains else IDLE_SECONDS
        try:
            self._obey(self._commands.get_nowait() if self._publisher.busy else self._commands.get(timeout=timeout))
            for _ in range(COMMANDS_A_TURN):
                self._obey(self._commands.get_nowait())
        except Empty:
            return

    def _obey(self, command: Command) -> None:
        match command:
            case Finished(record, _):
                for release in self._ledger.finish(Partition.of(record), record.epoch, record.offset, command):
                    self._publisher.send(release)
            case Delivered(records):
                for record in records:
                    self._ledger.deliver(Partition.of(record), record.epoch, record.offset, record.key)
            case EndReached(partition, epoch, position):
                self._ledger.reached_end(partition, epoch, position)
            case Assigned(partition, epoch, position):
                self._ledger.assign(partition, epoch, position)
            case Revoke():
                self._revocations.append(command)
            case Lost(epochs):
                self._ledger.revoke(self._standing(epochs))
            case Drain():
                self._drains.append(command)
            case Stop():
                self._stop = command

    def _settle(self, durable: list[Release[Finished]]) -> None:
        for release in durable:
            if self._stands(release):
                self._observer.durable(release.outcome.record, release.outcome.outcome)
            self._ledger.durable(release.partition, release.epoch, release.offset)
        if durable:
            self._poll_side.finished([(r.partition, r.epoch, r.outcome.record.size) for r in durable])

    def _answer_revocations(self) -> None:
        for revoke in list(self._revocations):
            partitions = self._standing(revoke.epochs)
            if self._clock() < revoke.deadline and any(self._ledger.in_flight_of(p) for p in partitions):
                continue
            self._revocations.remove(revoke)
            moved = self._ledger.committable()
            last = {partition: moved.pop(partition) for partition in partitions if partition in moved}
            self._commit(moved)
            abandoned = self._ledger.revoke(partitions)
            if abandoned:
                logger.warning("%d records in flight of revoked partitions are left to their new owner", abandoned)
            revoke.reply.put(last)

    def _hand_out_offsets(self) -> None:
        now = self._clock()
        if now >= self._commit_at:
            self._commit_at = now + self._commit_seconds
            self._commit(self._ledger.committable())

    def _answer_drains(self) -> None:
        if self._drains and not self._ledger.in_flight:
            self._commit(self._ledger.committable())
            for drain in self._drains:
                drain.reply.put(True)
            self._drains.clear()

    def _commit(self, offsets: Mapping[Partition, int]) -> None:
        epochs = {partition: self._ledger.epoch(partition) for partition in offsets}
        told = {p: (epoch, offsets[p]) for p, epoch in epochs.items() if epoch is not None}
        if told:
            self._poll_side.commit(told)

    def _standing(self, epochs: Mapping[Partition, int]) -> list[Partition]:
        return [partition for partition, epoch in epochs.items() if self._ledger.epoch(partition) == epoch]

    def _tell(self) -> None:
        blocked = self._publisher.blocked
        if bool(blocked) != bool(self._blocked):
            if blocked:
                self._poll_side.pause("output")
            else:
                self._poll_side.resume("output")
        self._blocked = blocked
        if self._ledger.stale != self._stale:
            self._observer.stale(self._ledger.stale - self._stale)
            self._stale = self._ledger.stale
