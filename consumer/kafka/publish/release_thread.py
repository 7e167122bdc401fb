"""The release thread: sole owner of the ledger and of the producer.

Everything it knows arrives through one queue, in order. What the ledger releases goes to the publisher; what that
reports durable goes back to the ledger. What the ledger says is committable goes to the poll thread, unless the
publisher commits by itself: ``AtLeastOncePublisher`` leaves that to it, ``TransactionalPublisher`` does not.
"""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Protocol

from consumer.delivery.commands import (
    Assigned,
    Command,
    Delivered,
    Drain,
    EndReached,
    Lost,
    Processed,
    Revoke,
    Stop,
)
from consumer.delivery.ledger import Ledger, Release
from consumer.events import Partition
from consumer.kafka.clients.errors import as_client_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from consumer.delivery.ledger import Order
    from consumer.events import Outcome, SourceRecord
    from consumer.kafka.clients.observer import KafkaObserver

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.1
"""Longest sleep when nothing is awaited; a sleeping thread must still show that it turns."""

CLOSING_SECONDS = 0.005
"""Longest sleep while a revocation or a drain waits for what is in flight."""

COMMANDS_A_TURN = 1000
"""Commands handled before reports are served again, so that a flood of one does not starve the other."""


class Publisher(Protocol):
    """Makes released outcomes durable."""

    @property
    def idle_seconds(self) -> float:
        """How long ``run_once`` has nothing to do unless more is sent."""

    @property
    def blocked(self) -> tuple[str, ...]:
        """What takes no output now: topics."""

    def send(self, release: Release[Processed]) -> None:
        """Accept one released outcome."""

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> Mapping[Partition, tuple[int, int]]:
        """(epoch, offset) of each partition that may be committed; returns those that the consumer has to commit."""

    def flush_soon(self) -> None:
        """Someone waits for all that was sent: leave out waits that only save work."""

    def run_once(self) -> list[Release[Processed]]:
        """Do what can be done now, in about a second at most; returns what became durable."""

    def flush(self, seconds: float) -> int:
        """Wait for what is under way; returns how many outputs are not acknowledged."""


class PollSide(Protocol):
    """What the release thread tells the poll thread. All of it may be called from any thread."""

    def commit(self, offsets: Mapping[Partition, tuple[int, int]]) -> None:
        """Commit these (epoch, offset) when possible."""

    def no_longer_in_flight(self, records: list[tuple[Partition, int, int]], seconds: Iterable[float] = ()) -> None:
        """Records (partition, epoch, bytes) no longer count as in flight; they were for ``seconds`` each."""

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
        publisher: Callable[[Callable[[Release[Processed]], bool]], Publisher],
        poll_side: PollSide,
        observer: KafkaObserver,
        on_fatal: Callable[[BaseException], None],
        commit_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger: Ledger[Processed] = Ledger(order)
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
        self.last_round = clock()
        """Monotonic seconds at which the loop last came round."""
        self.thread = threading.Thread(target=self._run, name="rexstream-release", daemon=True)

    @property
    def blocked(self) -> tuple[str, ...]:
        """Output topics that take nothing now."""
        return self._blocked

    def processed(self, record: SourceRecord, outcome: Outcome) -> None:
        """Hand back what ``record`` turned into. From any thread, in any order, once a record."""
        self._commands.put(Processed(record, outcome))

    def _run(self) -> None:
        try:
            while self._stop is None:
                self.run_once()
            left = self._publisher.flush(self._stop.flush_seconds)
            if left:
                logger.warning("%d outputs were not acknowledged; their input is not committed and is read again", left)
        except BaseException as error:  # whatever ends this thread must end the worker
            self._on_fatal(as_client_failure(error))
            self._answer_with_nothing()

    def _answer_with_nothing(self) -> None:
        """Until ``Stop``: the poll thread must not wait for a thread that failed before it leaves the group."""
        for revoke in self._revocations:
            revoke.reply.put({})
        while not isinstance(command := self._commands.get(), Stop):
            if isinstance(command, Revoke):
                command.reply.put({})

    def run_once(self) -> None:
        """One round: commands, outputs, reports, offsets."""
        self.last_round = self._clock()
        self._take_commands()
        if self._revocations or self._drains:
            self._publisher.flush_soon()
        self._mark_durable(self._publisher.run_once())
        self._answer_revocations()
        self._hand_out_offsets()
        self._answer_drains()
        self._tell()

    def _stands(self, release: Release[Processed]) -> bool:
        return self._ledger.epoch(release.partition) == release.epoch

    def _take_commands(self) -> None:
        longest = CLOSING_SECONDS if self._revocations or self._drains else IDLE_SECONDS
        timeout = min(longest, self._publisher.idle_seconds)
        try:
            self._obey(self._commands.get(timeout=timeout) if timeout > 0 else self._commands.get_nowait())
            for _ in range(COMMANDS_A_TURN):
                self._obey(self._commands.get_nowait())
        except Empty:
            return

    def _obey(self, command: Command) -> None:
        match command:
            case Processed(record, _):
                for release in self._ledger.processed(Partition.of(record), record.epoch, record.offset, command):
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

    def _mark_durable(self, durable: list[Release[Processed]]) -> None:
        for release in durable:
            if self._stands(release):
                self._observer.durable(release.outcome.record, release.outcome.outcome)
            self._ledger.durable(release.partition, release.epoch, release.offset)
        if durable:
            now = self._clock()
            self._poll_side.no_longer_in_flight(
                [(r.partition, r.epoch, r.outcome.record.size) for r in durable],
                [now - r.outcome.record.fetched_at for r in durable],
            )

    def _answer_revocations(self) -> None:
        for revoke in list(self._revocations):
            partitions = self._standing(revoke.epochs)
            if self._clock() < revoke.deadline and any(self._ledger.in_flight_of(p) for p in partitions):
                continue
            self._revocations.remove(revoke)
            moved = self._ledger.committable()
            last = self._for_the_consumer({p: moved.pop(p) for p in partitions if p in moved})
            self._commit(moved)
            abandoned = self._ledger.revoke(partitions)
            if abandoned:
                logger.warning("%d records in flight of revoked partitions are left to their new owner", abandoned)
            revoke.reply.put({partition: offset for partition, (_, offset) in last.items()})

    def _hand_out_offsets(self) -> None:
        now = self._clock()
        if now >= self._commit_at:
            self._commit_at = now + self._commit_seconds
            self._commit(self._ledger.committable())

    def _answer_drains(self) -> None:
        if self._drains and not self._ledger.in_flight:
            self._commit(self._ledger.committable())
            self._publisher.flush_soon()
            self._mark_durable(self._publisher.run_once())  # offsets that it commits by itself
            for drain in self._drains:
                drain.reply.put(True)
            self._drains.clear()

    def _commit(self, offsets: Mapping[Partition, int]) -> None:
        if left := self._for_the_consumer(offsets):
            self._poll_side.commit(left)

    def _for_the_consumer(self, offsets: Mapping[Partition, int]) -> Mapping[Partition, tuple[int, int]]:
        epochs = {partition: self._ledger.epoch(partition) for partition in offsets}
        return self._publisher.commit({p: (epoch, offsets[p]) for p, epoch in epochs.items() if epoch is not None})

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
