"""The release thread: sole owner of the ledger and of the producer. It carries each record through four states.

- *processed*: its outcome is known; it came through the queue of commands, as everything does, in order.
- *released*: the ledger lets its outputs go, in the configured order, and the publisher has them.
- *durable*: the brokers acknowledged every output (exactly_once: in a committed transaction).
- *committable*: so is every record before it. The offset goes to the poll thread, or into the next transaction.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import structlog

from consumer.delivery.commands import (
    Assigned,
    Command,
    Delivered,
    Drain,
    EndReached,
    Lost,
    Revoke,
    Rewound,
    Stop,
)
from consumer.kafka.clients.errors import as_client_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consumer.delivery.ledger import Commit, Ledger
    from consumer.events import Outcome, Partition, SourceRecord
    from consumer.kafka.clients.observer import KafkaObserver
    from consumer.kafka.consume.poll_thread import PollThread
    from consumer.kafka.publish.at_least_once import AtLeastOncePublisher
    from consumer.kafka.publish.exactly_once import TransactionalPublisher

_log = structlog.stdlib.get_logger(__name__)

IDLE_SECONDS = 0.1
"""Longest sleep when nothing is awaited: the watchdog must still see that the loop runs."""

CLOSING_SECONDS = 0.005
"""Longest sleep while a revocation or a drain waits for what is in flight."""

NO_OUTCOME_SECONDS = 10.0
"""A drain awaits no outcomes any more after none came for so long while all that is processed waits for outputs that
take nothing: what is not processed then waits for the memory that these hold."""

GATHER_SECONDS = 0.005
"""Wait of the first record that is durable after a commit: those of one call to the model are within milliseconds."""

COMMANDS_A_ROUND = 1000
"""Most commands handled before delivery reports are served again, so that neither starves the other."""


class ReleaseThread:
    """Runs until ``Stop``. ``publisher`` and ``ledger`` are its own from its start on."""

    def __init__(
        self,
        ledger: Ledger,
        commands: SimpleQueue[Command],
        publisher: AtLeastOncePublisher | TransactionalPublisher,
        poll_thread: PollThread,
        observer: KafkaObserver,
        on_fatal: Callable[[BaseException], None],
        commit_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """What is durable is handed out to be committed soon, but ``commit_seconds`` after the last time; all of it
        when a revocation or a drain ends.
        """
        self._ledger = ledger
        self._commands = commands
        self._publisher = publisher
        self._poll_thread = poll_thread
        self._observer = observer
        self._on_fatal = on_fatal
        self._commit_seconds = commit_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._revocations: list[Revoke] = []
        self._drains: list[Drain] = []
        self._stop: Stop | None = None
        self._commit_at = clock() + commit_seconds
        """Monotonic seconds before which nothing is handed out."""
        self._waits = False
        """Whether something waits for that."""
        self._stale = 0
        self._outcome_at = clock()
        """Monotonic seconds of the latest outcome, or of the start of the drain."""
        self.blocked: Mapping[str, frozenset[str] | None] = {}
        """Output topics that take nothing now, each with the input topics whose outputs wait for it; None: all."""
        self.last_round = clock()
        """Monotonic seconds of the start of the latest round of the loop."""
        self.thread = threading.Thread(target=self._run, name="rexstream-release", daemon=True)

    def processed(self, record: SourceRecord, outcome: Outcome) -> None:
        """Hand back what ``record`` turned into. From any thread, in any order, once a record."""
        self._commands.put((record, outcome))

    def _run(self) -> None:
        try:
            while self._stop is None:
                self.run_once()
            if left := self._publisher.flush(self._stop.flush_seconds):
                _log.warning(
                    "outputs were not acknowledged; their input is not committed and is read again", outputs=left
                )
        except BaseException as error:  # whatever ends this thread must end the worker
            self._on_fatal(as_client_failure(error))
            # Until Stop, which the round that failed may have taken: the poll thread must not wait for a thread that
            # failed before it leaves the group.
            for revoke in self._revocations:
                revoke.reply.put({})
            while self._stop is None:
                command = self._commands.get()
                if isinstance(command, Revoke):
                    command.reply.put({})
                elif isinstance(command, Stop):
                    self._stop = command

    def run_once(self) -> None:
        """One round: commands, outputs, reports, offsets."""
        self.last_round = self._clock()
        self._take_commands()
        self._publish(linger=not self._revocations and not self._drains)
        self._answer_revocations()
        now = self._clock()
        if now >= self._commit_at:
            self._waits = False
            if commits := self._committable():
                self._commit_at = now + self._commit_seconds
                self._commit(commits)
        if self._drains and (not self._ledger.in_flight or self._nothing_more()):
            self._commit(self._committable())
            self._publish(linger=False)  # the publisher may commit these offsets by itself
            for drain in self._drains:
                drain.reply.put(not self._ledger.in_flight)
            self._drains.clear()
        self._report_changes()

    def _take_commands(self) -> None:
        longest = CLOSING_SECONDS if self._revocations or self._drains else IDLE_SECONDS
        timeout = min(longest, self._publisher.idle_seconds)
        get, processed, send = self._commands.get, self._ledger.processed, self._publisher.send
        if self._waits:
            timeout = max(0.0, min(timeout, self._commit_at - self.last_round))
        try:
            command = get(timeout=timeout) if timeout > 0 else get(block=False)
        except Empty:
            return
        for more in range(min(self._commands.qsize(), COMMANDS_A_ROUND), -1, -1):
            if isinstance(command, tuple):  # nearly always
                for release in processed(*command):
                    send(release)
                self._outcome_at = self.last_round
            else:
                self._handle(command)
            if more:
                command = get()

    def _handle(self, command: Command) -> None:
        match command:
            case Delivered(records):
                for record in records:
                    self._ledger.deliver(record)
            case EndReached(partition, epoch, position):
                self._ledger.reached_end(partition, epoch, position)
            case Assigned(partition, epoch, position, done):
                self._ledger.assign(partition, epoch, position, done)
            case Rewound(partition, epoch, offset, reply):
                reply.put(self._ledger.rewind(partition, epoch, offset))
            case Revoke():
                self._revocations.append(command)
            case Lost(epochs):
                self._ledger.revoke(self._current(epochs))
            case Drain():
                self._drains.append(command)
                self._outcome_at = self.last_round
                self._publisher.try_again()
            case Stop():
                self._stop = command

    def _publish(self, *, linger: bool) -> None:
        durable = self._publisher.run_once(linger=linger)
        for release in durable:
            if self._ledger.durable(release):
                self._observer.durable(release.record, release.outcome)
        if durable:
            now = self._clock()
            if not self._waits:
                self._waits = True
                self._commit_at = max(self._commit_at, now + GATHER_SECONDS)
            self._poll_thread.no_longer_in_flight([release.record for release in durable], now)

    def _answer_revocations(self) -> None:
        for revoke in list(self._revocations):
            partitions = self._current(revoke.epochs)
            awaited = [partition for partition in partitions if partition in revoke.awaited]
            if self._clock() < revoke.deadline and any(map(self._ledger.in_flight_of, awaited)):
                continue
            moved = self._committable()
            last = self._publisher.commit({each: moved.pop(each) for each in partitions if each in moved})
            self._commit(moved)
            if abandoned := self._ledger.revoke(partitions):
                _log.warning(
                    "records in flight of revoked partitions are left to their new owner",
                    records=abandoned,
                    assignments=sorted(map(str, partitions)),
                )
            revoke.reply.put(dict(last))
            self._revocations.remove(revoke)  # only now: where this round fails, it must still be answered

    def _current(self, epochs: Mapping[Partition, int]) -> list[Partition]:
        """Those of ``epochs`` that are still the partition's latest."""
        return [partition for partition, epoch in epochs.items() if self._ledger.epoch(partition) == epoch]

    def _committable(self) -> dict[Partition, Commit]:
        return self._ledger.committable(int(self._wall_clock() * 1000))

    def _commit(self, commits: Mapping[Partition, Commit]) -> None:
        if left := self._publisher.commit(commits):
            self._poll_thread.commit(left)

    def _report_changes(self) -> None:
        blocked = self._publisher.blocked
        if blocked != self.blocked:
            self._pause_inputs_of(blocked)
            self.blocked = blocked
        if self._ledger.stale != self._stale:
            self._observer.stale(self._ledger.stale - self._stale)
            self._stale = self._ledger.stale

    def _pause_inputs_of(self, blocked: Mapping[str, frozenset[str] | None]) -> None:
        """Whatever feeds an output that takes nothing is not consumed; the other input topics go on."""
        if blocked.keys() != self.blocked.keys():
            if blocked:
                _log.warning(
                    "outputs that take nothing, and the input topics that wait for them", waiting=_shown(blocked)
                )
            else:
                _log.info("every output is taken again")
        inputs: set[str] = set()
        for waiting in blocked.values():
            if waiting is None:
                self._poll_thread.pause("output")
                return
            inputs |= waiting
        self._poll_thread.pause("output", inputs)

    def _nothing_more(self) -> bool:
        """Whether all that is in flight waits for outputs that take nothing: none of it becomes durable soon."""
        # While no output waits, whoever gives no outcomes waits for the model.
        silent = bool(self._publisher.blocked) and self.last_round - self._outcome_at >= NO_OUTCOME_SECONDS
        return self._publisher.stuck and (silent or not self._ledger.awaits_outcomes)


def _shown(blocked: Mapping[str, frozenset[str] | None]) -> dict[str, list[str] | str]:
    return {output: "all" if inputs is None else sorted(inputs) for output, inputs in blocked.items()}
