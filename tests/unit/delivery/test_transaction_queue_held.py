"""Outcomes of an input topic whose outputs are refused wait by themselves; nobody else waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.ledger import Release
from consumer.delivery.transaction_queue import BLOCKED_FAILURES, FREED_RECORDS, TransactionQueue
from consumer.delivery.transaction_size import TransactionSize
from consumer.events import Outcome, Output, Partition, SourceRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

A, B = Partition("a", 0), Partition("b", 0)


def release(partition: Partition, offset: int, output: str = "out") -> Release:
    record = SourceRecord(partition.topic, partition.number, offset, 1, None, b"", (), None, 0.0)
    return Release(partition, record, Outcome("done", (Output(output, None, b"x"),)))


def queue(records: int = 16_000) -> TransactionQueue:
    return TransactionQueue(TransactionSize(records, 1 << 30, 15.0), 0.1)


def offsets(batch: Sequence[Release]) -> list[tuple[str, int]]:
    return [(each.partition.topic, each.record.offset) for each in batch]


def commit(made: TransactionQueue, now: float) -> list[tuple[str, int]]:
    """The next transaction, committed."""
    batch, positions = made.next_batch(now)
    made.committed(batch, positions, now)
    return offsets(batch)


def test_what_is_held_is_left_out_and_tried_by_itself_after_a_pause() -> None:
    """In steps that double, so that the first outcome that cannot leave is found; in turn with the others."""
    made = queue()
    for offset in range(4):
        made.add(release(A, offset), 0.0)
        made.add(release(B, offset), 0.0)
    held = made.hold("a", "out-a", 0.0)
    made.add(release(A, 4), 0.0)
    assert commit(made, 0.0) == [("b", offset) for offset in range(4)]
    assert made.due_at(linger=True) == held.not_before > 0
    made.add(release(B, 4), 0.0)
    assert commit(made, 1.0) == [("a", 0)]
    assert commit(made, 1.0) == [("b", 4)]
    assert commit(made, 1.0) == [("a", 1), ("a", 2)]
    assert commit(made, 1.0) == [("a", 3), ("a", 4)]
    assert made.blocked == {}
    assert made.outputs == 0
    made.add(release(A, 5), 1.0)
    made.add(release(B, 5), 1.0)
    assert commit(made, 1.0) == [("a", 5), ("b", 5)]


def test_pauses_grow_with_failures_and_end_with_a_success() -> None:
    """From the fourth failure on the input topic is one that waits for what refused it."""
    made = queue()
    made.add(release(A, 0), 0.0)
    made.add(release(A, 1), 0.0)
    pauses = [round(made.hold("a", "out-a", 10.0).not_before - 10.0, 3) for _ in range(BLOCKED_FAILURES)]
    assert pauses == [0.1, 0.2, 0.4, 0.8]
    assert made.blocked == {"out-a": {"a"}}
    assert commit(made, 20.0) == [("a", 0)]
    assert made.blocked == {}
    assert round(made.hold("a", "out-a", 30.0).not_before - 30.0, 3) == 0.1


def test_a_drain_knows_when_all_that_is_left_was_refused_again() -> None:
    """After one more try of each held topic, which does not wait for its turn."""
    made = queue()
    made.add(release(A, 0), 0.0)
    made.add(release(B, 0), 0.0)
    for _ in range(BLOCKED_FAILURES):
        made.hold("a", "out-a", 0.0)
    stuck = [made.stuck]
    assert commit(made, 0.0) == [("b", 0)]
    stuck.append(made.stuck)
    made.try_again()
    stuck.append(made.stuck)
    assert offsets(made.next_batch(0.0)[0]) == [("a", 0)]
    made.hold("a", "out-a", 0.0)
    stuck.append(made.stuck)
    assert stuck == [False, True, False, True]


def test_a_held_topic_that_went_to_another_worker_is_forgotten() -> None:
    """Nothing of it is left to be tried, so nothing could end its wait."""
    made = queue()
    made.add(release(A, 0), 0.0)
    for _ in range(BLOCKED_FAILURES):
        made.hold("a", "out-a", 0.0)
    made.keep({B: 1})
    assert made.blocked == {}
    assert made.stuck
    assert made.due_at(linger=False) > 1e9


def test_a_try_that_was_too_large_is_made_smaller_without_a_failure() -> None:
    """Its size was refused, not its outcomes."""
    made = queue()
    for offset in range(8):
        made.add(release(A, offset), 0.0)
    made.hold("a", "out-a", 0.0)
    assert [len(commit(made, 1.0)) for _ in range(2)] == [1, 2]
    assert len(made.next_batch(1.0)[0]) == 4
    made.too_many()
    assert len(made.next_batch(1.0)[0]) == 2


@given(
    st.lists(st.tuples(st.sampled_from((A, B, Partition("a", 1))), st.booleans()), max_size=60),
    st.integers(1, 40),
    st.integers(0, 30),
)
def test_whatever_is_refused_the_rest_leaves_in_order_and_nothing_is_lost(
    records: list[tuple[Partition, bool]], most: int, mended_after: int
) -> None:
    """A topic refuses the outputs that some records have, known by their transaction alone, and is mended later."""
    made = queue(most * 16)
    refused_before: set[tuple[Partition, int]] = set()
    for offset, (partition, refused) in enumerate(records):
        made.add(release(partition, offset, "closed" if refused else "out"), 0.0)
        if refused:
            refused_before.add((partition, offset))
    left: list[tuple[Partition, int]] = []
    for round_ in range(2000):
        now = round_ * 6.0
        batch, positions = made.next_batch(now)
        if not batch:
            break
        assert {each.partition for each in batch} == set(positions)
        if round_ < mended_after and any(each.outcome.outputs[0].topic == "closed" for each in batch):
            for topic in {each.partition.topic for each in batch}:
                made.hold(topic, "closed", now)
            continue
        made.committed(batch, positions, now)
        left += [(each.partition, each.record.offset) for each in batch]
    assert sorted(left) == sorted((partition, offset) for offset, (partition, _) in enumerate(records))
    for partition in {partition for partition, _ in left}:
        own = [offset for of, offset in left if of == partition]
        assert own == sorted(own)
    assert made.outputs == 0


def test_a_topic_that_is_mended_goes_with_the_others_again() -> None:
    """After tries of growing size that all went well."""
    made = queue(FREED_RECORDS * 64)
    for offset in range(4 * FREED_RECORDS):
        made.add(release(A, offset), 0.0)
    made.hold("a", "out-a", 0.0)
    found: list[tuple[str, int]] = []
    while made.trying is not None or not found:
        found += commit(made, 1.0)
    made.add(release(B, 0), 1.0)
    while batch := commit(made, 1.0):
        found += batch
    assert found == [*(("a", offset) for offset in range(4 * FREED_RECORDS)), ("b", 0)]
