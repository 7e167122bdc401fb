"""Where the workers of a group are asked, and which of them answered."""

from __future__ import annotations

import math
import socket
from typing import Any

import click
import pytest

from consumer.cli.group_report import report
from consumer.cli.group_workers import Target, named, of_members, reached
from consumer.cli.worker_requests import Address, Reply
from consumer.events import Partition
from consumer.kafka.tools.group import Member

HERE = {"10.0.0.1": True}


def member(client_id: str, host: str = "10.0.0.2", *partitions: int, instance: str | None = None) -> Member:
    return Member(f"{client_id}-{host}", client_id, host, instance, tuple(Partition("in", each) for each in partitions))


def targets(*members: Member, http: str = "127.0.0.1:9464") -> list[Target]:
    return of_members("reviews", members, http, lambda host: HERE.get(host, False))


def status(*partitions: int, worker: str = "w") -> Reply:
    assignment = [{"topic": "in", "partition": each} for each in partitions]
    return Reply({"service": "rexstream", "worker": worker, "assignment": assignment})


def test_a_told_port_is_asked_where_the_member_connects_from() -> None:
    """Several workers on one host differ by their ports; the configuration here does not matter."""
    found = targets(member("rexstream-http-9464"), member("rexstream-http-9465"), http="")
    assert [each.address for each in found] == [Address("10.0.0.2", 9464), Address("10.0.0.2", 9465)]
    (ipv6,) = targets(member("rexstream-http-80", "fd00::7"))
    assert str(ipv6.address) == ipv6.shown == "[fd00::7]:80"


def test_a_port_on_loopback_is_asked_on_the_same_machine_only() -> None:
    """Elsewhere it is named, with the key to set."""
    near, far = targets(member("rexstream-loopback-9470", "10.0.0.1"), member("rexstream-loopback-9470", "10.0.0.2"))
    assert near.address == Address("localhost", 9470)
    assert far.address is None
    assert "set observability.http to 0.0.0.0:9470 there, or run this command on 10.0.0.2" in far.why


def test_without_a_told_port_the_configured_one_is_tried() -> None:
    """An owner's own client.id, or a worker of before: it has the same configuration, mostly."""
    (found,) = targets(member("reviews"), http="0.0.0.0:9999")
    assert (found.address, found.guessed) == (Address("10.0.0.2", 9999), True)
    (near,) = targets(member("reviews", "10.0.0.1"))
    assert near.address == Address("localhost", 9464)
    for http, words in (
        ("127.0.0.1:9464", "is on loopback"),
        ("", "tells no HTTP port"),
        ("0.0.0.0:0", "no HTTP port"),
    ):
        (lost,) = targets(member("reviews"), http=http)
        assert lost.address is None
        assert words in lost.why


def test_a_static_member_goes_by_its_own_name() -> None:
    (found,) = targets(member("rexstream-loopback-1", instance="worker-0"))
    assert found.shown == "worker-0"


def test_what_answers_at_the_port_may_be_no_worker() -> None:
    """It is named by its client.id, and told that the port was a guess."""
    (found,) = targets(member("orders-service"), http="0.0.0.0:9464")
    for reply in (Reply({"service": "orders"}), Reply(None, "Connection refused", answered=False)):
        (lost,) = reached([found], {Address("10.0.0.2", 9464): reply})
        assert lost.status is None
        assert "'orders-service'" in lost.why
        assert "it is no worker, or name it with --http" in lost.why


@pytest.mark.parametrize(
    ("content", "at"),
    [
        ({"assignment": ["in-0"]}, "assignment.0"),
        ({"assignment": [{"topic": "in", "partition": "0"}]}, "assignment.0.partition"),
        ({"assignment": [{"topic": "in", "partition": 0, "lag": 10**400}]}, "assignment.0.lag"),
        ({"rates": {"events_per_second": math.nan}}, "rates.events_per_second"),
        ({"model": "m"}, "model"),
        ({"model": {"endpoints": [{"state": []}]}}, "model.endpoints.0.state"),
        ({"waiting": ["in"]}, "waiting"),
    ],
)
def test_an_answer_of_another_form_costs_no_other_worker_its_report(content: dict[str, Any], at: str) -> None:
    """Any member of the group may answer anything."""
    odd, good = targets(member("rexstream-http-1"), member("rexstream-http-2"))
    odd_reply = Reply({"service": "rexstream", **content})
    found = reached([odd, good], {Address("10.0.0.2", 1): odd_reply, Address("10.0.0.2", 2): status(0)})
    told = report("g", None, found, {})
    assert [row.name for row in told.workers] == ["w"]
    assert f"another form than this version reads, at {at}: " in told.unreached[0].why


def test_what_another_version_leaves_out_is_no_fault() -> None:
    (one,) = targets(member("rexstream-http-1"))
    for content in ({}, {"model": None, "assignment": None, "paused": ["flood"], "new": [1]}):
        (found,) = reached([one], {Address("10.0.0.2", 1): Reply({"service": "rexstream", **content})})
        assert report("g", None, [found], {}).workers


def test_a_worker_of_another_group_is_not_taken_for_a_member() -> None:
    """Two groups on one host, with a client.id of the owner's: the guessed port is the other's."""
    (one,) = targets(member("mine"), http="0.0.0.0:9464")
    for group, reached_there in (("reviews", True), (None, True), ("orders", False)):
        (found,) = reached([one], {Address("10.0.0.2", 9464): Reply({"service": "rexstream", "group": group})})
        assert (found.status is not None) is reached_there
        assert ("is a worker of group 'orders'" in found.why) is not reached_there


def test_a_member_whose_address_is_not_told_is_not_looked_for_here() -> None:
    """An empty host would stand for this machine."""
    (found,) = targets(member("rexstream-http-9464", ""))
    assert found.address is None
    assert "do not tell its address" in found.why


def test_of_members_behind_one_address_only_the_one_that_answers_counts() -> None:
    """Translated addresses: the answer's partitions say whose it is, and the other is not called reached."""
    shared = targets(member("rexstream-http-9464", "10.0.0.2", 0, 1), member("rexstream-http-9464", "10.0.0.2", 2, 3))
    first, second = reached(shared, {Address("10.0.0.2", 9464): status(2, 3)})
    assert second.name == "w"
    assert first.status is None
    assert "another member has its address" in first.why
    assert "--http" in first.why


def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A headless Service: each once, IPv6 only where there is no IPv4 of the same workers."""

    def look_up(*_: object) -> list[Any]:
        tcp, four, six = socket.SOCK_STREAM, socket.AF_INET, socket.AF_INET6
        found = [(six, tcp, 6, "", ("fd00::1", 9464, 0, 0))]
        return found + [(four, tcp, 6, "", (each, 9464)) for each in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    found = named(["workers.example:9464", "10.0.0.2:9464"])
    assert [each.address for each in found] == [Address("10.0.0.1", 9464), Address("10.0.0.2", 9464)]
    assert found[0].shown == "10.0.0.1:9464 of workers.example"


def test_a_name_that_leads_nowhere_is_a_worker_that_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are asked all the same."""

    def look_up(host: str, *_: object) -> list[Any]:
        if host == "gone.example":
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 1))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    gone, other = named(["gone.example:1", "10.0.0.2:1"])
    assert gone.address is None
    assert "Name or service not known" in gone.why
    assert other.address == Address("10.0.0.2", 1)


@pytest.mark.parametrize(("address", "words"), [("worker-2", "is not host:port"), ("worker-2:0", "any free port")])
def test_an_address_that_is_none_is_bad_usage(address: str, words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        named([address])
