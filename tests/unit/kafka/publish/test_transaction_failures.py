"""What follows each kind of error at each step; ``test_exactly_once`` shows that it comes to a good end."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from consumer.delivery.transaction_queue import BLOCKED_FAILURES
from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.clients.observer import KafkaObserver
from consumer.kafka.publish.transaction import WITHOUT_TRANSACTION, Refused, Step
from consumer.kafka.publish.transaction_failures import Retries, action_after, check_commit

FENCED = KafkaError(KafkaError._FENCED, "fenced", fatal=True)
OLD_EPOCH = KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "epoch", txn_requires_abort=True)
GAP = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "gap", fatal=True)
BROKEN = KafkaError(KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT, "format", fatal=True)
ENDED = KafkaError(KafkaError.INVALID_TXN_STATE, "expired", txn_requires_abort=True)
UNMAPPED = KafkaError(KafkaError.INVALID_PRODUCER_ID_MAPPING, "expired", txn_requires_abort=True)
ABORTABLE = KafkaError(KafkaError.ILLEGAL_GENERATION, "rebalance", txn_requires_abort=True)
RETRIABLE = KafkaError(KafkaError._TIMED_OUT, "slow", retriable=True)
OTHER = KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "denied")
EVERY = list(Step)


@pytest.mark.parametrize("step", EVERY)
@pytest.mark.parametrize("error", [FENCED, OLD_EPOCH, ENDED, UNMAPPED, GAP])
def test_a_producer_whose_transaction_the_brokers_ended_or_lost_is_replaced_where_nothing_is_committed(
    error: KafkaError, step: Step
) -> None:
    """Without a transaction of its own it cannot be explained; at a commit its successor sees what was committed."""
    if step in (*WITHOUT_TRANSACTION, Step.COMMIT):
        with pytest.raises(ClientFailed, match=f"of no use any more: {error.name()}"):
            action_after(error, step)
    else:
        assert action_after(error, step) == "replace"


@pytest.mark.parametrize("step", EVERY)
def test_a_producer_that_failed_for_good_otherwise_is_replaced_only_where_an_abort_failed(step: Step) -> None:
    """Then the brokers have nothing of it to abort."""
    if step is Step.ABORT:
        assert action_after(BROKEN, step) == "replace"
    else:
        with pytest.raises(ClientFailed, match="of no use any more: UNSUPPORTED_FOR_MESSAGE_FORMAT"):
            action_after(BROKEN, step)


@pytest.mark.parametrize("step", EVERY)
def test_what_an_abort_mends_is_aborted_where_a_transaction_is_open(step: Step) -> None:
    """Without one, and in the abort itself, there is nothing to do but to try again."""
    expected = "retry" if step in (*WITHOUT_TRANSACTION, Step.ABORT) else "abort"
    assert action_after(ABORTABLE, step) == expected


@pytest.mark.parametrize("step", EVERY)
def test_what_can_be_tried_again_is(step: Step) -> None:
    """At the same step; any other error ends the worker."""
    assert action_after(RETRIABLE, step) == "retry"
    with pytest.raises(ClientFailed, match="A transaction failed: TRANSACTIONAL_ID_AUTHORIZATION_FAILED"):
        action_after(OTHER, step)


@pytest.mark.parametrize("error", [ABORTABLE, OTHER])
def test_a_commit_goes_on_or_its_outcome_is_unknown(error: KafkaError) -> None:
    """Unless the producer is of no use: then nothing was committed."""
    check_commit(KafkaException(RETRIABLE))
    with pytest.raises(ClientFailed, match="outcome of a commit is unknown"):
        check_commit(KafkaException(error))
    with pytest.raises(KafkaException, match="_FENCED"):
        check_commit(KafkaException(FENCED))


def test_pauses_double_up_to_five_seconds_and_a_rebalance_is_no_warning() -> None:
    """Blocked, and an error in the log, is what fails often in a row."""
    observer = create_autospec(KafkaObserver, instance=True)
    retries = Retries(observer, lambda: 10.0)
    pauses = []
    with capture_logs() as lines:
        for error in [ABORTABLE, *[OTHER] * 7]:
            retries.wait(Refused("out", error))
            pauses.append(round(retries.not_before - 10.0, 3))
            assert bool(retries.blocked) == (retries.failures >= BLOCKED_FAILURES)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert [line["log_level"] for line in lines] == ["info", "warning", "warning", *["error"] * 5]
    assert (lines[0]["cause"], lines[0]["code"], lines[0]["reason"]) == ("out", "ILLEGAL_GENERATION", "rebalance")
    assert retries.blocked == ("out",)
