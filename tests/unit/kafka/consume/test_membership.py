from __future__ import annotations

import sys
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.consume.membership import AGAIN_SECONDS, PLACE_SECONDS, Membership


def fatal(code: int) -> KafkaError:
    """As librdkafka tells a consumer's: with the words of the cause, without its code."""
    return KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(code).str()}: heartbeat")


class Member:
    def __init__(self) -> None:
        self.epoch = 0
        self.reachable = True

    def consumer_group_metadata(self) -> Any:
        return b"CGMDv2:" + self.epoch.to_bytes(4, sys.byteorder)

    def list_topics(self, *, timeout: float) -> None:  # noqa: ARG002
        if not self.reachable:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


class Bench:
    def __init__(self, join_seconds: float | None = 60.0) -> None:
        self.now = 1000.0
        self.member: Any = Member()
        self.membership = Membership("worker-1", join_seconds, lambda: self.now)


def test_a_place_that_is_still_taken_is_tried_again_with_pauses() -> None:
    """The worker before crashed; its session has to run out first."""
    bench = Bench()
    assert bench.membership.again_at is None
    bench.membership.refused(fatal(KafkaError.UNRELEASED_INSTANCE_ID))
    assert bench.membership.again_at == bench.now + AGAIN_SECONDS


def test_a_place_that_stays_taken_ends_the_worker_with_the_way_out() -> None:
    """No session lasts this long: another worker runs under the same id."""
    bench = Bench()
    for _ in range(int(PLACE_SECONDS)):
        bench.membership.refused(fatal(KafkaError.UNRELEASED_INSTANCE_ID))
        assert bench.membership.again_at == bench.now + AGAIN_SECONDS
        bench.now += AGAIN_SECONDS
    with pytest.raises(ClientFailed, match=r"worker-1 is taken by another worker.*an id of its own"):
        bench.membership.refused(fatal(KafkaError.UNRELEASED_INSTANCE_ID))


def test_every_refusal_after_a_membership_has_its_own_time() -> None:
    """What was refused an hour ago was a restart of its own."""
    bench = Bench()
    bench.membership.refused(fatal(KafkaError.UNRELEASED_INSTANCE_ID))
    bench.membership.entered()
    bench.now += 3600.0
    bench.membership.refused(fatal(KafkaError.UNRELEASED_INSTANCE_ID))
    assert not bench.membership.joined
    assert bench.membership.again_at is not None


def test_waiting_for_a_place_is_not_taken_for_a_broker_without_kip_848() -> None:
    """The broker did answer."""
    bench = Bench(join_seconds=2.0)
    for _ in range(20):
        bench.membership.refused(fatal(KafkaError.UNRELEASED_INSTANCE_ID))
        bench.now += AGAIN_SECONDS
        bench.membership.look(bench.member)


def test_a_fenced_static_member_ends_and_says_who_took_its_place() -> None:
    """Going on would be two workers under one name, taking the place from each other for ever."""
    with pytest.raises(
        ClientFailed, match=r"Another worker joined with group\.instance\.id worker-1.*FENCED_INSTANCE_ID"
    ):
        Bench().membership.refused(fatal(KafkaError.FENCED_INSTANCE_ID))


def test_a_broker_that_refuses_kip_848_is_named_at_once() -> None:
    """Kafka 4 with group.version 0 answers, other than older ones."""
    with pytest.raises(RuntimeError, match="KIP-848"):
        Bench().membership.refused(fatal(KafkaError.UNSUPPORTED_VERSION))


def test_a_broker_that_never_answers_a_kip_848_join_is_named() -> None:
    """One that cannot be reached at all is waited for."""
    bench = Bench(join_seconds=5.0)
    bench.member.reachable = False
    bench.membership.look(bench.member)
    bench.now += 5.0
    bench.membership.look(bench.member)
    bench.member.reachable = True
    bench.membership.look(bench.member)
    bench.now += 5.0
    with pytest.raises(RuntimeError, match="KIP-848"):
        bench.membership.look(bench.member)


def test_a_classic_group_is_waited_for_without_end() -> None:
    """Its brokers always answer, but a join may have to wait for other members."""
    bench = Bench(join_seconds=None)
    bench.now += 1e6
    bench.membership.look(bench.member)
    assert not bench.membership.joined
    bench.member.epoch = 3
    bench.membership.look(bench.member)
    assert bench.membership.joined


def test_any_other_fatal_error_ends_the_worker() -> None:
    """The client is of no use any more, whatever the reason."""
    with pytest.raises(ClientFailed, match="Group authorization failed"):
        Bench().membership.refused(fatal(KafkaError.GROUP_AUTHORIZATION_FAILED))
