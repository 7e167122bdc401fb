from __future__ import annotations

import math

import pytest

from consumer.delivery.ledger import Release
from consumer.delivery.transaction_queue import TransactionQueue, bytes_of
from consumer.delivery.transaction_size import TransactionSize
from consumer.events import Outcome, Output, Partition, SourceRecord

P, Q = Partition("in", 0), Partition("in", 1)


def release(offset: int, partition: Partition = P, epoch: int = 1, size: int = 100) -> Release:
    record = SourceRecord(partition.topic, partition.number, offset, epoch, None, b"", (), None, 0.0)
    return Release(partition, record, Outcome("done", (Output("out", None, b"x" * size),)))


@pytest.fixture
def queue() -> TransactionQueue:
    size = TransactionSize(10, 1000, 15.0)
    size.records = 10
    return TransactionQueue(size, 0.1)


def test_a_batch_has_its_records_and_the_offsets_behind_them(queue: TransactionQueue) -> None:
    """As much as the size allows; the rest waits."""
    for offset in range(4):
        queue.add(release(offset, size=300), 5.0)
    queue.add_ends({P: (1, 2), Q: (7, 9)}, 6.0)
    batch, offsets = queue.next_batch(0.0)
    assert [each.record.offset for each in batch] == [0, 1, 2]
    assert offsets == {P: (1, 3), Q: (7, 9)}
    assert queue.outputs == 4
    queue.committed(batch, offsets, 7.0)
    assert queue.outputs == 1
    assert queue.due_at(linger=True) == pytest.approx(5.1)


@pytest.mark.parametrize(("count", "size"), [(10, 1), (2, 500)])
def test_it_is_due_when_it_is_full(queue: TransactionQueue, count: int, size: int) -> None:
    """Of records or of bytes."""
    for offset in range(count - 1):
        queue.add(release(offset, size=size), 5.0)
    assert queue.due_at(linger=True) == pytest.approx(5.1)
    queue.add(release(count, size=size), 5.0)
    assert queue.due_at(linger=True) == -math.inf


def test_nothing_is_due_without_anything(queue: TransactionQueue) -> None:
    """Not even for those who do not want to wait."""
    assert queue.due_at(linger=False) == math.inf
    queue.add_ends({P: (1, 2)}, 5.0)
    assert queue.due_at(linger=False) == -math.inf


def test_what_went_to_another_worker_is_dropped_with_its_bytes(queue: TransactionQueue) -> None:
    """It no longer fills a transaction."""
    queue.add(release(0, size=999), 1.0)
    queue.add(release(0, Q, epoch=2, size=10), 2.0)
    queue.add_ends({P: (1, 5)}, 1.0)
    queue.keep({Q: 2})
    assert queue.due_at(linger=True) == pytest.approx(2.1)
    batch, offsets = queue.next_batch(0.0)
    assert offsets == {Q: (2, 1)}
    assert bytes_of(batch) == 10


def test_an_end_that_was_committed_is_not_added_again(queue: TransactionQueue) -> None:
    """Nor one before it."""
    queue.add(release(4), 1.0)
    batch, offsets = queue.next_batch(0.0)
    queue.committed(batch, offsets, 2.0)
    queue.add_ends({P: (1, 5)}, 3.0)
    assert queue.due_at(linger=True) == math.inf
    queue.add_ends({P: (1, 6)}, 3.0)
    assert queue.next_batch(0.0) == ([], {P: (1, 6)})


def test_a_size_is_that_of_all_that_is_sent() -> None:
    """Headers may be most of it."""
    output = Output("out", b"kk", b"vvv", (("é", b"1234"), ("n", None)), 0)
    assert bytes_of([Release(P, release(0).record, Outcome("done", (output,)))]) == 2 + 3 + (2 + 4) + 1


def test_what_is_to_be_aborted_comes_first_and_without_offsets(queue: TransactionQueue) -> None:
    """In batches that fit; a second replacement in between changes nothing of it, and what waits stays."""
    queue.add(release(5), 5.0)
    queue.abort_first([release(0, size=800), release(1, size=800)])
    assert queue.due_at(linger=True) == -math.inf
    for offset in (0, 1):
        batch, offsets = queue.next_batch(5.0)
        assert ([each.record.offset for each in batch], offsets) == ([offset], {})
        queue.abort_first([release(9)])
        queue.aborted(batch)
    batch, offsets = queue.next_batch(5.0)
    assert ([each.record.offset for each in batch], offsets) == ([5], {P: (1, 6)})
    assert queue.outputs == 1
