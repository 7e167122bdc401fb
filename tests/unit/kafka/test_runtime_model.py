"""Ledger, release thread, poll thread and commits together, against a naive account of what may be committed."""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from runtime_simulation import PARTITIONS, Edge, Step

from consumer.delivery.commands import Drain

if TYPE_CHECKING:
    from consumer.delivery.ledger import Order
    from consumer.delivery.outcome import Partition

P, Q = PARTITIONS
KEYS: tuple[bytes | None, ...] = (None, b"a", b"b")
partitions = st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=2, unique=True)
which = st.integers(0, 63)
mostly = st.sampled_from((True, True, False))
some = st.lists(which, min_size=2, max_size=6)
Records = list[tuple[int, bytes | None]]
records = st.lists(st.tuples(st.sampled_from((0, 0, 0, 1, 5)), st.sampled_from(KEYS)), min_size=1, max_size=6)
steps = st.lists(st.tuples(st.sampled_from(("finish", "finish", "ack", "ack", "wait")), which), max_size=8)


class EdgeMachine(RuleBasedStateMachine):
    """Records, completions, acknowledgements, rebalances, outages, steps back, in any order.

    The rules only make things happen. What must be true is asserted where it would be broken: see ``Brokers.commit``,
    ``Publisher.send``, ``Client.resume``, ``Edge._on_records``.
    """

    edge: Edge

    @initialize(order=st.sampled_from(("partition", "key", "none")), cap=st.sampled_from((1, 4, 40)))
    def start(self, order: Order, cap: int) -> None:
        self.cap = cap
        self.edge = Edge(order, cap)
        self.edge.rebalance("assign")

    @rule(partition=st.sampled_from(PARTITIONS), records=records, marker=st.booleans())
    def produce(self, partition: Partition, records: Records, marker: bool) -> None:
        for gap, key in records:
            self.edge.brokers.logs[partition].append(gap, key)
        self.edge.brokers.logs[partition].end += marker
        for _ in range(3):
            self.edge.source.turn()

    @rule(chosen=some)
    def finish(self, chosen: list[int]) -> None:
        for index in chosen:
            self.edge.finish(index)

    @rule(chosen=some, released=st.booleans())
    def acknowledge(self, chosen: list[int], released: bool) -> None:
        if released:
            self.edge.release.turn()
        for index in chosen:
            self.edge.acknowledge(index)

    @rule(partition=st.sampled_from(PARTITIONS), records=records, marker=st.booleans(), chosen=some, last=st.booleans())
    def work(self, partition: Partition, records: Records, marker: bool, chosen: list[int], last: bool) -> None:
        """Records come, some of them become durable, and what is durable is committed."""
        self.produce(partition, records, marker)
        self.finish(chosen)
        self.acknowledge(chosen[1:] if last else chosen[:-1], released=True)
        self.edge.step()
        self.edge.step()

    @rule(index=which)
    def finish_again(self, index: int) -> None:
        self.edge.finish_again(index)

    @rule(release_first=st.booleans())
    def turn(self, release_first: bool) -> None:
        if release_first:
            self.edge.release.turn()
        self.edge.source.turn()

    @rule()
    def step(self) -> None:
        self.edge.step()

    @rule(
        kind=st.sampled_from(("revoke", "revoke", "lost")), chosen=partitions, meanwhile=steps, back=st.integers(0, 3)
    )
    def rebalance(self, kind: str, chosen: list[Partition], meanwhile: list[Step], back: int) -> None:
        """Most partitions come back at once, with whatever of the last assignment is still on its way."""
        self.edge.rebalance(kind, chosen, meanwhile)
        if back:
            self.assign(chosen, back - 1)

    @rule(chosen=partitions, acknowledged=some, back=st.integers(0, 3))
    def lose_in_the_middle_of_a_release(self, chosen: list[Partition], acknowledged: list[int], back: int) -> None:
        """The release thread hears of it only at its next turn, and hands out offsets until then."""
        self.acknowledge(acknowledged, released=True)
        self.edge.publisher.meanwhile = lambda: self.edge.rebalance("lost", chosen)
        self.edge.now += 1.0
        self.edge.release.turn()
        if back:
            self.assign(chosen, back - 1)
        self.edge.source.turn()

    @precondition(lambda self: len(self.edge.brokers.held) < len(PARTITIONS))
    @rule(chosen=partitions, ahead=st.integers(0, 2))
    def assign(self, chosen: list[Partition], ahead: int) -> None:
        """The owner in between may have come further."""
        for partition in chosen:
            log = self.edge.brokers.logs[partition]
            if partition not in self.edge.brokers.held and (log.committed or 0) + ahead <= log.end:
                log.committed = (log.committed or 0) + ahead
        self.edge.rebalance("assign", chosen)

    @precondition(lambda self: self.edge.brokers.held)
    @rule(data=st.data())
    def step_back(self, data: st.DataObject) -> None:
        """The position moves back, as after an unclean election: to anything that was there before."""
        partition = data.draw(st.sampled_from(sorted(self.edge.brokers.held)))
        held = self.edge.brokers.held[partition]
        held.position = data.draw(st.integers(0, held.position))

    @rule(healthy=mostly, answering=mostly, running=mostly)
    def trouble(self, healthy: bool, answering: bool, running: bool) -> None:
        """Commits fail or work again, or their answers take long; the model server is away or back."""
        self.edge.brokers.healthy = healthy
        self.edge.brokers.answering = answering
        if not running:
            self.edge.source.pause("outage")
            self.edge.reasons.add("outage")
        else:
            self.edge.reasons.discard("outage")
            self.edge.source.resume("outage")

    @invariant()
    def bounded(self) -> None:
        if hasattr(self, "edge"):
            assert 0 <= self.edge.source.in_flight[0] <= self.cap
            assert self.edge.fatal == []

    def settle(self) -> None:
        """Both counters agree with the account, and everything durable is committed, up to the end of the log."""
        edge = self.edge
        edge.brokers.tell_ends = False
        for partition in PARTITIONS:
            for _ in range(3):
                edge.brokers.logs[partition].append(0, None)
        edge.settle()
        for partition, held in edge.brokers.held.items():
            assert edge.brokers.logs[partition].committed == held.behind()
        edge.brokers.tell_ends = True
        edge.settle()
        assert edge.source.in_flight == (0, 0)
        assert edge.release._ledger.in_flight == 0
        for partition, held in edge.brokers.held.items():
            assert held.in_flight() == 0
            assert edge.brokers.logs[partition].committed == edge.brokers.logs[partition].end

    def teardown(self) -> None:
        if hasattr(self, "edge"):
            self.edge.rebalance("assign")
            self.settle()
            reply: SimpleQueue[bool] = SimpleQueue()
            self.edge.source.drain(Drain(reply))
            self.edge.step()
            assert reply.get_nowait()


TestEdge = EdgeMachine.TestCase
TestEdge.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
