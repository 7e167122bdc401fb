"""Ledger, release thread, poll thread and commits together, against a naive account of what may be committed."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from runtime_simulation import PARTITIONS, Runtime, Step

from consumer.delivery.commands import Drain

if TYPE_CHECKING:
    from consumer.delivery.ledger import Order
    from consumer.events import Partition

P, Q = PARTITIONS
KEYS: tuple[bytes | None, ...] = (None, b"a", b"b")
partitions = st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=2, unique=True)
which = st.integers(0, 63)
mostly = st.sampled_from((True, True, False))
some = st.lists(which, min_size=2, max_size=6)
Records = list[tuple[int, bytes | None]]
records = st.lists(st.tuples(st.sampled_from((0, 0, 0, 1, 5)), st.sampled_from(KEYS)), min_size=1, max_size=6)
steps = st.lists(st.tuples(st.sampled_from(("process", "process", "ack", "ack", "wait")), which), max_size=8)


class RuntimeMachine(RuleBasedStateMachine):
    """Records, completions, acknowledgements, rebalances, outages, steps back, in any order.

    The rules only make things happen. What must be true is asserted where it would be broken: see ``Brokers.commit``,
    ``Publisher.send``, ``Client.resume``, ``Runtime._on_records``.
    """

    runtime: Runtime

    @initialize(order=st.sampled_from(("partition", "key", "none")), cap=st.sampled_from((1, 4, 40)))
    def start(self, order: Order, cap: int) -> None:
        self.cap = cap
        self.runtime = Runtime(order, cap)
        self.runtime.rebalance("assign")

    @rule(partition=st.sampled_from(PARTITIONS), records=records, marker=st.booleans())
    def produce(self, partition: Partition, records: Records, marker: bool) -> None:
        for gap, key in records:
            self.runtime.brokers.logs[partition].append(gap, key)
        self.runtime.brokers.logs[partition].end += marker
        for _ in range(3):
            self.runtime.source.run_once()

    @rule(chosen=some)
    def process(self, chosen: list[int]) -> None:
        for index in chosen:
            self.runtime.processed(index)

    @rule(chosen=some, released=st.booleans())
    def acknowledge(self, chosen: list[int], released: bool) -> None:
        if released:
            self.runtime.release.run_once()
        for index in chosen:
            self.runtime.acknowledge(index)

    @rule(partition=st.sampled_from(PARTITIONS), records=records, marker=st.booleans(), chosen=some, last=st.booleans())
    def work(self, partition: Partition, records: Records, marker: bool, chosen: list[int], last: bool) -> None:
        """Records come, some of them become durable, and what is durable is committed."""
        self.produce(partition, records, marker)
        self.process(chosen)
        self.acknowledge(chosen[1:] if last else chosen[:-1], released=True)
        self.runtime.step()
        self.runtime.step()

    @rule(index=which)
    def process_again(self, index: int) -> None:
        self.runtime.processed_again(index)

    @rule(release_first=st.booleans())
    def run_once(self, release_first: bool) -> None:
        if release_first:
            self.runtime.release.run_once()
        self.runtime.source.run_once()

    @rule()
    def step(self) -> None:
        self.runtime.step()

    @rule(
        kind=st.sampled_from(("revoke", "revoke", "lost")), chosen=partitions, meanwhile=steps, back=st.integers(0, 3)
    )
    def rebalance(self, kind: str, chosen: list[Partition], meanwhile: list[Step], back: int) -> None:
        """Most partitions come back at once, with whatever of the last assignment is still on its way."""
        self.runtime.rebalance(kind, chosen, meanwhile)
        if back:
            self.assign(chosen, back - 1)

    @rule(chosen=partitions, acknowledged=some, back=st.integers(0, 3))
    def lose_in_the_middle_of_a_release(self, chosen: list[Partition], acknowledged: list[int], back: int) -> None:
        """The release thread learns of it only in its next round, and hands out offsets until then."""
        self.acknowledge(acknowledged, released=True)
        self.runtime.publisher.meanwhile = lambda: self.runtime.rebalance("lost", chosen)
        self.runtime.now += 1.0
        self.runtime.release.run_once()
        if back:
            self.assign(chosen, back - 1)
        self.runtime.source.run_once()

    @precondition(lambda self: len(self.runtime.brokers.held) < len(PARTITIONS))
    @rule(chosen=partitions, ahead=st.integers(0, 2))
    def assign(self, chosen: list[Partition], ahead: int) -> None:
        """The owner in between may have come further."""
        for partition in chosen:
            log = self.runtime.brokers.logs[partition]
            if partition not in self.runtime.brokers.held and (log.committed or 0) + ahead <= log.end:
                log.committed = (log.committed or 0) + ahead
        self.runtime.rebalance("assign", chosen)

    @precondition(lambda self: self.runtime.brokers.held)
    @rule(data=st.data())
    def step_back(self, data: st.DataObject) -> None:
        """The position moves back, as after an unclean election: to anything that was there before."""
        partition = data.draw(st.sampled_from(sorted(self.runtime.brokers.held)))
        held = self.runtime.brokers.held[partition]
        held.position = data.draw(st.integers(0, held.position))

    @rule(healthy=mostly, answering=mostly, running=mostly)
    def trouble(self, healthy: bool, answering: bool, running: bool) -> None:
        """Commits fail or work again, or their answers take long; the model server is away or back."""
        self.runtime.brokers.healthy = healthy
        self.runtime.brokers.answering = answering
        if not running:
            self.runtime.source.pause("outage")
            self.runtime.reasons.add("outage")
        else:
            self.runtime.reasons.discard("outage")
            self.runtime.source.resume("outage")

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "runtime"):
            assert 0 <= self.runtime.source.in_flight.events <= self.cap
            assert self.runtime.fatal == []

    def check_the_end(self) -> None:
        """Both counters agree with the account, and everything durable is committed, up to the end of the log."""
        runtime = self.runtime
        runtime.brokers.tell_ends = False
        for partition in PARTITIONS:
            for _ in range(3):
                runtime.brokers.logs[partition].append(0, None)
        runtime.run_until_idle()
        for partition, held in runtime.brokers.held.items():
            assert runtime.brokers.logs[partition].committed == held.behind()
        runtime.brokers.tell_ends = True
        runtime.run_until_idle()
        assert (runtime.source.in_flight.events, runtime.source.in_flight.bytes) == (0, 0)
        assert runtime.release._ledger.in_flight == 0
        for partition, held in runtime.brokers.held.items():
            assert held.in_flight() == 0
            assert runtime.brokers.logs[partition].committed == runtime.brokers.logs[partition].end

    def teardown(self) -> None:
        if hasattr(self, "runtime"):
            self.runtime.rebalance("assign")
            self.check_the_end()
            reply: SimpleQueue[bool] = SimpleQueue()
            self.runtime.source.drain(Drain(reply))
            self.runtime.step()
            assert reply.get_nowait()


TestRuntime = RuntimeMachine.TestCase
TestRuntime.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
