"""Workers that are killed one after another: nothing is lost, and what a commit's note names is not repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_simulation import PARTITIONS, Runtime, deliver, runtime_with, successor

from consumer.delivery.done_note import read
from consumer.kafka.consume import poll_thread

if TYPE_CHECKING:
    from consumer.delivery.ledger import Order
    from consumer.events import Partition

P, Q = PARTITIONS
some = st.lists(st.integers(0, 63), max_size=8)
works = st.tuples(
    st.sampled_from(PARTITIONS),
    st.lists(st.tuples(st.sampled_from((0, 0, 0, 1, 5)), st.sampled_from((None, b"a", b"b"))), max_size=6),
    some,
    some,
    st.booleans(),
)
lives = st.lists(st.tuples(st.lists(works, max_size=6), st.booleans()), min_size=1, max_size=4)


def named(runtime: Runtime, partition: Partition) -> set[int]:
    """Records of a partition that its last commit says are done: those before it, and those in its note."""
    log = runtime.brokers.logs[partition]
    done = None if log.committed is None else read(log.committed, log.note)
    return {
        offset for offset, _ in log.records if offset < (log.committed or 0) or (done is not None and offset in done)
    }


@settings(max_examples=150, deadline=None)
@given(order=st.sampled_from(("partition", "key", "none")), cap=st.sampled_from((4, 40)), lives=lives)
def test_whoever_is_killed_whenever_nothing_is_lost_and_nothing_named_is_repeated(
    order: Order,
    cap: int,
    lives: list[tuple[list[tuple[Partition, list[tuple[int, bytes | None]], list[int], list[int], bool]], bool]],
) -> None:
    """Records become durable in any order; a process ends after any step, with or without the last commit. Leaders
    change, and the log remains.
    """
    runtime = Runtime(order, cap)
    runtime.rebalance("assign")
    before: dict[Partition, set[int]] = {partition: set() for partition in PARTITIONS}
    for life, quiet in lives:
        for partition, records, processed, acknowledged, commits in life:
            for gap, key in records:
                log = runtime.brokers.logs[partition]
                log.leader_epoch += gap % 2
                log.append(gap, key)
            for _ in range(3):
                runtime.source.run_once()
            for index in processed:
                runtime.processed(index)
            runtime.release.run_once()
            for index in acknowledged:
                runtime.acknowledge(index)
            if commits:
                runtime.step()
        if quiet:
            for _ in range(3):
                runtime.step()
        earlier, before = before, {partition: named(runtime, partition) for partition in PARTITIONS}
        for partition in PARTITIONS:
            assert earlier[partition] <= before[partition], "what one life names the next one does not take back"
        if quiet:
            for partition in PARTITIONS:
                assert before[partition] >= runtime.brokers.held[partition].durable, "all that it has done is named"
        runtime = successor(runtime)
        for _ in range(3):
            runtime.step()
        for record in runtime.unprocessed:
            assert record.offset not in before[PARTITIONS[record.partition]], f"{record.offset} is done"
    runtime.run_until_idle()
    for partition in PARTITIONS:
        log = runtime.brokers.logs[partition]
        assert log.acknowledged == {offset for offset, _ in log.records}, "every record is done"
        assert (log.committed or 0) == log.end


def killed_with(durable: set[int], records: int = 8, committed: int = 0, leader_epoch: int = -1) -> Runtime:
    """A worker that had so many records of P in flight, and these of them done and noted."""
    runtime = runtime_with(0)
    runtime.brokers.logs[P].leader_epoch = leader_epoch
    deliver(runtime, records)
    for offset in sorted(durable):
        index = next(n for n, record in enumerate(runtime.unprocessed) if record.offset == offset)
        runtime.processed(index)
        runtime.release.run_once()
        runtime.acknowledge(0)
    for _ in range(3):
        runtime.step()
    assert runtime.brokers.logs[P].committed == committed
    return runtime


def offsets(runtime: Runtime) -> list[int]:
    return [record.offset for record in runtime.unprocessed]


def test_a_rebalance_hands_over_what_is_done_as_well() -> None:
    """The next owner begins at the same offset, without it."""
    runtime = killed_with({2, 3, 7})
    runtime.unprocessed.clear()
    runtime.rebalance("revoke", [P])
    runtime.rebalance("assign", [P])
    runtime.step()
    assert offsets(runtime) == [0, 1, 4, 5, 6]


def test_a_commit_of_another_tool_clears_the_note() -> None:
    """kafka-consumer-groups --reset-offsets: all from there on is done again, also at the same offset."""
    runtime = killed_with({2, 3, 7})
    runtime.brokers.logs[P].note = ""
    assert offsets(advanced(runtime)) == list(range(8))


def test_a_note_that_cannot_be_asked_for_is_none() -> None:
    """Brokers that do not answer in time: repeated, not lost, and nothing ends."""
    runtime = killed_with({2, 3, 7})
    runtime.brokers.tells_committed = False
    assert offsets(advanced(runtime)) == list(range(8))


def test_a_topic_that_was_made_anew_is_read_whole() -> None:
    """Its first record lies before the committed offset, so the note is of another log."""
    runtime = runtime_with(8)
    for index in (0, 0, 2, 3):
        runtime.processed(index)
        runtime.release.run_once()
        runtime.acknowledge(0)
    for _ in range(3):
        runtime.step()
    assert runtime.brokers.logs[P].committed == 2
    runtime.brokers.logs[P].records.clear()
    runtime.brokers.logs[P].end = 0
    after = successor(runtime)
    after.brokers.held[P].position = 0  # what the client does with an offset that is out of range
    deliver(after, 8)
    assert offsets(after) == list(range(8))


def test_a_topic_that_was_made_anew_and_is_empty_takes_its_offset_back() -> None:
    """Or it would be read from the old offset on, once it has grown beyond that while no worker ran."""
    runtime = killed_with({0, 2, 3, 7}, committed=1)
    log = runtime.brokers.logs[P]
    log.records.clear()
    log.end = 0
    log.acknowledged.clear()
    after = successor(runtime)
    after.brokers.held[P].position = 0  # what the client does with an offset that is out of range
    for _ in range(3):
        after.step()
    assert (log.committed, log.note) == (0, "")
    for _ in range(9):
        log.append(0, None)
    assert offsets(advanced(after)) == list(range(9))


def test_a_log_that_lost_its_end_is_read_from_there() -> None:
    """It ends before records that the note names: what comes to their offsets is not done."""
    runtime = killed_with({5, 6, 7})
    log = runtime.brokers.logs[P]
    del log.records[4:]
    log.end = 4
    after = advanced(runtime)
    deliver(after, 4)
    assert offsets(after) == list(range(8))


def test_a_log_that_lost_its_end_and_got_another_is_read_from_there() -> None:
    """Its records have a newer leader epoch than the commit, be their times old or none."""
    runtime = killed_with({5, 6, 7}, leader_epoch=3)
    log = runtime.brokers.logs[P]
    assert log.committed_leader_epoch == 3
    del log.records[4:]
    log.end = 4
    log.leader_epoch = 4
    for _ in range(9):
        log.append(0, None)
    after = advanced(runtime)
    for _ in range(3):
        after.step()
    assert offsets(after) == [*range(4), *range(13)], "what was in flight starts again, with all that follows"
    assert (log.committed, log.note) == (0, "")


def test_a_new_leader_of_a_whole_log_repeats_nothing() -> None:
    """What comes after the note has a newer leader epoch, and what it names has not, or is compacted away."""
    runtime = killed_with({5, 6, 7}, leader_epoch=3)
    log = runtime.brokers.logs[P]
    del log.records[7]
    log.leader_epoch = 4
    log.append(0, None)
    assert offsets(advanced(runtime)) == [0, 1, 2, 3, 4, 8]


@pytest.mark.parametrize("first", [1, -1])
def test_a_note_that_is_handed_on_half_way_repeats_nothing(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaders changed within what it names: who dies before passing all of it has read older epochs than are named.

    The first commit has none where an older release made it, or brokers that give none.
    """
    runtime = runtime_with(0)
    log = runtime.brokers.logs[P]
    for leader_epoch in (1, 1, 1, 2, 2, 2):
        log.leader_epoch = leader_epoch
        deliver(runtime, 1)
    for _ in range(5):
        runtime.processed(1)
        runtime.release.run_once()
        runtime.acknowledge(0)
    for _ in range(3):
        runtime.step()
    assert (log.committed, log.committed_leader_epoch) == (0, 2)
    if first < 0:
        log.committed_leader_epoch = -1
    monkeypatch.setattr(poll_thread, "HANDOFF_RECORDS", 2)
    half_way = successor(runtime)
    while not half_way.unprocessed:
        half_way.source.run_once()
    half_way.processed(0)
    half_way.release.run_once()
    half_way.acknowledge(0)
    half_way.release.run_once()
    half_way.now += 1.0
    half_way.release.run_once()
    half_way.source.committer.send(half_way.source._consumer, half_way.source.epochs)
    assert log.committed == 1
    assert log.note
    after = advanced(half_way)
    assert offsets(after) == []


def advanced(killed: Runtime) -> Runtime:
    """Its successor, after a few rounds."""
    runtime = successor(killed)
    for _ in range(3):
        runtime.step()
    return runtime
