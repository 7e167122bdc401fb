"""The ledger against a model that keeps every record it ever saw and looks at all of them at every question."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer.delivery.done_note import Done, read
from consumer.delivery.ledger import Commit, Ledger, Order, Release
from consumer.events import Outcome, Output, Partition, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

P, Q = Partition("reviews", 0), Partition("reviews", 1)
PARTITIONS = (P, Q)
KEYS: tuple[bytes | None, ...] = (None, b"a", b"b")
SELDOM = st.sampled_from((False,) * 7 + (True,))  # or hardly anything would ever be in flight


def record_at(offset: int, *, partition: Partition = P, epoch: int = 1, key: bytes | None = None) -> SourceRecord:
    return SourceRecord(partition.topic, partition.number, offset, epoch, key, None, (), None, 0.0)


def outcome(text: str) -> Outcome:
    return Outcome("done", (Output("out", None, text.encode()),))


def release_of(record: SourceRecord) -> Release:
    """With an outcome of its own."""
    return Release(Partition.of(record), record, outcome(f"{record.offset}"))


@dataclass
class Seen:
    """One record of the model."""

    offset: int
    key: bytes | None
    state: Literal["open", "processed", "released", "durable"] = "open"


@dataclass
class Epoch:
    """One assignment of the model."""

    number: int
    records: list[Seen] = field(default_factory=list)
    floor: int | None = None
    end: int | None = None
    committed: int | None = None
    high: int | None = None
    """The furthest that was ever safe: safe once is safe for the rest of the epoch."""
    done: frozenset[int] = frozenset()
    """What the note of an earlier epoch named."""
    forgotten: frozenset[int] = frozenset()
    """The same, where the partition ended since."""
    told: frozenset[int] = frozenset()
    """Records behind the prefix that were durable at the last commit."""

    def safe(self) -> int | None:
        """What may be committed: found by looking at every record."""
        safe = self.floor
        for record in self.records:
            if record.state != "durable":
                return safe
            safe = record.offset + 1
        return self.end if self.end is not None and (safe is None or self.end > safe) else safe

    def behind(self) -> frozenset[int]:
        """Records that are durable behind one that is not."""
        first = next((n for n, record in enumerate(self.records) if record.state != "durable"), len(self.records))
        return frozenset(record.offset for record in self.records[first:] if record.state == "durable")

    def releasable(self, order: Order) -> list[Seen]:
        """What may be produced now, oldest first."""
        found: list[Seen] = []
        for index, record in enumerate(self.records):
            before = self.records[:index]
            if order == "key":
                before = [r for r in before if record.key is not None and r.key == record.key]
            elif order == "none":
                before = []
            if record.state == "processed" and all(r.state in ("released", "durable") or r in found for r in before):
                found.append(record)
        return found


class LedgerMachine(RuleBasedStateMachine):
    """Deliveries, completions, seeks, revocations and re-assignments in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.epochs: dict[Partition, Epoch] = {}
        self.past: list[tuple[Partition, int, int]] = []

    @initialize(order=st.sampled_from(("partition", "key", "none")))
    def choose(self, order: Order) -> None:
        self.order = order
        self.ledger = Ledger(order)
        self.assign(P, None)
        self.assign(Q, 10)

    def records(self, state: str) -> list[tuple[Partition, Epoch, Seen]]:
        return [(p, e, r) for p, e in self.epochs.items() for r in e.records if r.state == state]

    @rule(
        partition=st.sampled_from(PARTITIONS),
        position=st.none() | st.integers(0, 50),
        done=st.none() | st.tuples(st.integers(1, 4), st.integers(0, 9)),
        seldom=SELDOM,
    )
    def reassign(self, partition: Partition, position: int | None, done: tuple[int, int] | None, seldom: bool) -> None:
        """After a revocation, or a seek; with records behind the position that were done before."""
        if seldom or partition not in self.epochs:
            self.assign(partition, position, done)

    def assign(self, partition: Partition, position: int | None, done: tuple[int, int] | None = None) -> None:
        self.forget([partition])
        self.numbers += 1
        epoch = self.epochs[partition] = Epoch(self.numbers, floor=position, committed=position)
        before = None
        if position is not None and done is not None:
            first, last = position + done[0], position + sum(done)
            before = Done((first,), (last,), 3)
            epoch.done = frozenset(range(first, last + 1))
        self.ledger.assign(partition, self.numbers, position, before)

    @precondition(lambda self: self.epochs)
    @rule(
        data=st.data(),
        records=st.lists(st.tuples(st.sampled_from((0, 0, 0, 1, 7)), st.sampled_from(KEYS)), min_size=1, max_size=5),
    )
    def deliver(self, data: st.DataObject, records: list[tuple[int, bytes | None]]) -> None:
        partition = data.draw(st.sampled_from(sorted(self.epochs)))
        epoch = self.epochs[partition]
        for gap, key in records:
            start = epoch.records[-1].offset + 1 if epoch.records else epoch.floor or 0
            offset = max(start, epoch.end or 0) + gap
            while offset in epoch.done:  # it is passed over
                offset += 1
            epoch.records.append(Seen(offset, key))
            epoch.end = None
            self.ledger.deliver(record_at(offset, partition=partition, epoch=epoch.number, key=key))

    @precondition(lambda self: self.records("open"))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        partition, epoch, record = data.draw(st.sampled_from(self.records("open")))
        record.state = "processed"
        done = self.release(partition, epoch, record)
        released = self.ledger.processed(done.record, done.outcome)
        expected = epoch.releasable(self.order)
        assert released == tuple(self.release(partition, epoch, each) for each in expected)
        for waiting in expected:
            waiting.state = "released"

    @precondition(lambda self: self.records("released"))
    @rule(data=st.data())
    def durable(self, data: st.DataObject) -> None:
        partition, epoch, record = data.draw(st.sampled_from(self.records("released")))
        record.state = "durable"
        assert self.ledger.durable(self.release(partition, epoch, record))

    @precondition(lambda self: self.epochs)
    @rule(data=st.data(), beyond=st.integers(-3, 3))
    def reach_end(self, data: st.DataObject, beyond: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.epochs)))
        epoch = self.epochs[partition]
        last = epoch.records[-1].offset + 1 if epoch.records else epoch.floor or 0
        position = max(0, last + beyond, epoch.end or 0)
        if position >= last:
            epoch.end = position
        epoch.forgotten |= epoch.done
        epoch.done = frozenset()
        self.ledger.reached_end(partition, epoch.number, position)

    @precondition(lambda self: self.epochs)
    @rule(data=st.data(), seldom=SELDOM)
    def revoke(self, data: st.DataObject, seldom: bool) -> None:
        if not seldom:
            return
        partitions = data.draw(st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=2, unique=True))
        in_flight = sum(r.state != "durable" for p in partitions if p in self.epochs for r in self.epochs[p].records)
        self.forget(partitions)
        assert self.ledger.revoke(partitions) == in_flight

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def come_late(self, data: st.DataObject) -> None:
        """A completion of an epoch that is gone changes nothing."""
        stale = self.ledger.stale
        partition, epoch, offset = data.draw(st.sampled_from(self.past))
        late = record_at(offset, partition=partition, epoch=epoch)
        assert self.ledger.processed(late, outcome("late")) == ()
        assert not self.ledger.durable(release_of(late))
        assert self.ledger.stale == stale + 2
        in_flight = self.ledger.in_flight
        self.ledger.deliver(record_at(offset + 1000, partition=partition, epoch=epoch))
        assert self.ledger.in_flight == in_flight
        self.ledger.reached_end(partition, epoch, offset + 1000)

    @rule()
    def commit(self) -> None:
        """Exactly what moved, exactly as far as is safe; never backwards."""
        expected = {}
        for partition, epoch in self.epochs.items():
            behind = epoch.behind()
            moved = epoch.high is not None and (epoch.committed is None or epoch.high > epoch.committed)
            if moved or behind - epoch.told:
                epoch.committed = epoch.records[0].offset if epoch.high is None else epoch.high
                expected[partition] = (epoch.number, epoch.committed)
            epoch.told = behind
        found = self.ledger.committable(7)
        assert {partition: each[:2] for partition, each in found.items()} == expected
        for partition, each in found.items():
            epoch = self.epochs[partition]
            named = read(each.offset, each.note)
            for record in epoch.records:
                if record.offset >= each.offset:
                    assert (named is not None and record.offset in named) == (record.state == "durable")
            last = epoch.records[-1].offset if epoch.records else -1
            assert not any(
                named is not None and offset in named
                for offset in epoch.forgotten
                if offset > last and offset >= (epoch.end or 0)
            )
            if named is not None:
                assert named.written_ms == (3 if any(offset > last for offset in epoch.done) else 7)
            for offset in epoch.done:
                if offset >= each.offset:
                    assert named is not None, "what was done before still is"
                    assert offset in named
        assert self.ledger.committable() == {}

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for assigned in self.epochs.values():
            safe = [offset for offset in (assigned.high, assigned.safe()) if offset is not None]
            assigned.high = max(safe, default=None)
        for partition in PARTITIONS:
            epoch = self.epochs.get(partition)
            open_records = [r for r in epoch.records if r.state != "durable"] if epoch else []
            assert self.ledger.in_flight_of(partition) == len(open_records)
            assert self.ledger.epoch(partition) == (epoch.number if epoch else None)
        assert self.ledger.in_flight == sum(self.ledger.in_flight_of(p) for p in PARTITIONS)

    def release(self, partition: Partition, epoch: Epoch, record: Seen) -> Release:
        return release_of(record_at(record.offset, partition=partition, epoch=epoch.number, key=record.key))

    def forget(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            epoch = self.epochs.pop(partition, None)
            if epoch is not None:
                self.past += [(partition, epoch.number, record.offset) for record in epoch.records]


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(
    gaps=st.lists(st.sampled_from((1, 1, 1, 2, 9)), min_size=1, max_size=12),
    order=st.sampled_from(("partition", "key", "none")),
    data=st.data(),
)
def test_after_every_step_of_any_order_the_commit_is_the_durable_prefix(
    gaps: list[int], order: Order, data: st.DataObject
) -> None:
    """Records of one key finish in one order and become durable in another."""
    ledger = Ledger(order)
    ledger.assign(P, 1)
    offsets = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    for offset in offsets:
        ledger.deliver(record_at(offset, key=b"k"))
    releases: list[Release] = []
    for offset in data.draw(st.permutations(offsets)):
        releases += ledger.processed(record_at(offset, key=b"k"), outcome("done"))
    released = [release.record.offset for release in releases]
    assert sorted(released) == offsets
    assert order == "none" or released == offsets
    committed, commit = None, None
    durable: set[int] = set()
    for offset in data.draw(st.permutations(offsets)):
        ledger.durable(releases[released.index(offset)])
        durable.add(offset)
        prefix = [o for n, o in enumerate(offsets) if durable.issuperset(offsets[: n + 1])]
        committed = prefix[-1] + 1 if prefix else offsets[0]
        ((partition, commit),) = ledger.committable().items()
        assert (partition, *commit[:2]) == (P, 1, committed)
        named = read(committed, commit.note)
        behind = durable.difference(prefix)
        assert {offset for offset in offsets if named is not None and offset in named} == behind
    assert commit == Commit(1, offsets[-1] + 1)
    assert ledger.in_flight == 0


def test_what_was_done_before_is_named_until_it_is_passed() -> None:
    """A successor that is killed early, too, leaves its own successor no more to repeat."""
    ledger = Ledger("key")
    ledger.assign(P, 2, 10, Done((13,), (19,), 3))
    for offset in (10, 11, 12):
        ledger.deliver(record_at(offset, epoch=2))
    for offset, commit, first, last in ((11, 10, 11, 11), (10, 12, 13, 19)):
        (release,) = ledger.processed(record_at(offset, epoch=2), outcome("done"))
        assert ledger.durable(release)
        found = ledger.committable(7)[P]
        named = read(commit, found.note)
        assert found[:2] == (2, commit)
        assert named is not None
        assert (named.firsts[0], named.lasts[0], named.lasts[-1], named.written_ms) == (first, last, 19, 3)
    ledger.deliver(record_at(20, epoch=2))
    (release,) = ledger.processed(record_at(12, epoch=2), outcome("done"))
    assert ledger.durable(release)
    assert read(13, ledger.committable(7)[P].note) == Done((13,), (19,), 7)


def test_an_offset_that_goes_back_needs_a_new_epoch() -> None:
    """A position that moved back within an epoch is refused: what was committed could no longer be trusted."""
    ledger = Ledger("key")
    ledger.assign(P, 1)
    ledger.deliver(record_at(5))
    with pytest.raises(ValueError, match="Offset 5 of reviews-0 follows 5"):
        ledger.deliver(record_at(5))


def test_an_epoch_is_never_used_twice() -> None:
    """Late completions would look like current ones."""
    ledger = Ledger("key")
    ledger.assign(P, 3)
    with pytest.raises(ValueError, match="Epoch 3 of reviews-0 is not newer than 3"):
        ledger.assign(P, 3)


def test_what_was_not_released_cannot_be_durable() -> None:
    """Committing before producing is a fault that shows at once."""
    ledger = Ledger("partition")
    ledger.assign(P, 1)
    ledger.deliver(record_at(0))
    ledger.deliver(record_at(1))
    ledger.processed(record_at(1), outcome("held behind 0"))
    with pytest.raises(ValueError, match=r"Offset 1 of reviews-0 .* was not released"):
        ledger.durable(release_of(record_at(1)))


def test_a_second_completion_of_a_record_is_ignored() -> None:
    """Processed twice is published once."""
    ledger = Ledger("none")
    ledger.assign(P, 1)
    ledger.deliver(record_at(0))
    assert len(ledger.processed(record_at(0), outcome("once"))) == 1
    assert ledger.processed(record_at(0), outcome("twice")) == ()
    assert ledger.stale == 1
