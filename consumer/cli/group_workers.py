"""Where the workers of a group are asked: at the addresses that ``--http`` names, or at those of the group's members.

Brokers tell the address that a member connects from, and its ``client.id`` tells the worker's HTTP port. Where that
tells none (an owner's own id, a worker of before), the port is taken to be that of ``observability.http`` here.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.options import Unreachable
from consumer.cli.worker_answer import not_understood
from consumer.cli.worker_requests import HERE, Address, Reply, ask
from consumer.kafka.clients.cluster import ClusterUnreachable
from consumer.kafka.clients.http_port import http_port_of, is_loopback, told_by
from consumer.kafka.tools.group import GroupReader, GroupUnknown
from consumer.telemetry.http import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from consumer.cli.options import KafkaAccess
    from consumer.kafka.tools.group import Group, Member

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


@dataclass(frozen=True, slots=True)
class Target:
    """One worker, as far as it is known before it was asked."""

    shown: str
    """What it is called when it cannot be asked for its name."""
    address: Address | None
    """Where to ask; None where nothing can be."""
    why: str = ""
    """Why nothing can be, with the way out; empty otherwise."""
    member: Member | None = None
    """None for a worker that --http names."""
    guessed: bool = False
    """Whether the port is only taken to be that of ``observability.http``."""
    group: str = ""
    """The group of a member. Workers of before do not say theirs, and are taken for its own."""


def named(addresses: Iterable[str]) -> list[Target]:
    """The workers of ``--http``; a name stands for all its addresses. Raises click.UsageError."""
    found: dict[Address | str, Target] = {}
    for given in addresses:
        try:
            host, port = parse_address(given)
        except ValueError as error:
            raise click.UsageError(f"--http: {error}") from None
        if not port:
            raise click.UsageError(f"{given} stands for any free port; give --http the one that the worker's log shows")
        host = _EVERY_INTERFACE.get(host, host)
        try:
            hosts = [host] if host == HERE else _addresses(host, port)
        except (OSError, UnicodeError) as error:
            what = getattr(error, "strerror", None) or str(error)
            found[given] = Target(given, None, f"its name leads to no address ({what}); check --http")
            continue
        for each in hosts:
            address = Address(each, port)
            shown = given if len(hosts) == 1 else f"{address} of {host}"
            found.setdefault(address, Target(shown, address))
    return list(found.values())


def _addresses(host: str, port: int) -> list[str]:
    """All addresses of a name. Where some are IPv4, only those: the others are those of the same workers again."""
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    families = {family for family, *_ in found}
    family = socket.AF_INET if socket.AF_INET in families else next(iter(families))
    return list(dict.fromkeys(str(each[4][0]) for each in found if each[0] == family))


def of_members(
    group: str, members: Iterable[Member], http: str, is_here: Callable[[str], bool] | None = None
) -> list[Target]:
    """A target for each member. ``http``: ``observability.http`` of the configuration that the command goes by."""
    here = is_here or _is_here
    return [replace(_target(member, http, here(member.host)), group=group) for member in members]


def _target(member: Member, http: str, here: bool) -> Target:
    shown = member.instance or member.host or member.id
    if not member.host:  # which would stand for this machine
        return Target(shown, None, "the brokers do not tell its address: name it with --http HOST:PORT", member)
    told = told_by(member.client_id)
    port = told or http_port_of(http)
    if port is None or not port.port:
        why = (
            f"its client.id, {member.client_id!r}, tells no HTTP port: observability.http is empty there, it is no "
            "worker, or one of before; name it with --http HOST:PORT"
        )
        return Target(shown, None, why, member)
    if port.loopback and not here:
        whose = "its HTTP port is" if told else "observability.http, which it is taken to have, is"
        why = (
            f"{whose} on loopback: set observability.http to 0.0.0.0:{port.port} there, or run this command on "
            f"{member.host}"
        )
        return Target(shown, None, why, member)
    address = Address(HERE if port.loopback or is_loopback(member.host) else member.host, port.port)
    return Target(member.instance or str(Address(member.host, port.port)), address, "", member, guessed=told is None)


def _is_here(host: str) -> bool:
    """Whether an address is one of this machine: only those can be bound."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """One worker after it was asked for its ``/status``."""

    target: Target
    status: Mapping[str, Any] | None
    """What it answered; None where it was not reached."""
    why: str = ""
    """Why it was not, with the way out; empty otherwise."""

    @property
    def name(self) -> str:
        """The worker's own name, or what is known without it."""
        return str(self.status.get("worker", self.target.shown)) if self.status is not None else self.target.shown


def reached(targets: Sequence[Target], replies: Mapping[Address, Reply]) -> list[Reached]:
    """What became of each target. One answer counts for one: members with the same address are not told apart by it.

    That happens where addresses are translated between the members and the brokers.
    """
    sharing: dict[Address, list[Target]] = {}
    for target in targets:
        if target.address is not None:
            sharing.setdefault(target.address, []).append(target)
    replies = {address: _understood(replies[address]) for address in sharing}
    whose = {address: _whose(its, replies[address]) for address, its in sharing.items()}
    found = []
    for target in targets:
        if target.address is None:
            found.append(Reached(target, None, target.why))
            continue
        reply = replies[target.address]
        status = reply.content
        if status is not None and target.group and (other := status.get("group") or target.group) != target.group:
            # Only a port that was guessed, or an address that is translated, leads there.
            why = f"{target.address}: what answers is a worker of group {other!r}; name its own with --http HOST:PORT"
            found.append(Reached(target, None, why))
        elif status is not None and whose[target.address] is target:
            found.append(Reached(target, status))
        elif status is not None:
            why = (
                f"another member has its address, {target.address}, and answers there: addresses are translated on "
                "the way to the brokers, or kafka.client sets client.id, which tells no port; name it with --http"
            )
            found.append(Reached(target, None, why))
        else:
            found.append(Reached(target, None, _why(target, reply)))
    return found


def _understood(reply: Reply) -> Reply:
    """The reply, with the content of a worker's ``/status`` that this version reads, or why it has none."""
    if reply.content is None:
        return reply
    if reply.content.get("service") != "rexstream":
        return Reply(None, "what answers is no worker")
    if part := not_understood(reply.content):
        return Reply(
            None, f"its answer has another form than this version reads, at {part}: is it a worker of another one?"
        )
    return reply


def _whose(targets: Sequence[Target], reply: Reply) -> Target:
    """The one of the targets at an address that has most of the partitions which the answer names."""
    listed = (reply.content or {}).get("assignment") or ()
    own = {(each["topic"], each["partition"]) for each in listed}
    return max(targets, key=lambda each: len(own.intersection(each.member.partitions)) if each.member else 0)


def _why(target: Target, reply: Reply) -> str:
    at = "" if str(target.address) == target.shown else f"{target.address}: "
    if target.guessed and target.member is not None:
        return (
            f"{at}{reply.error}. Its client.id, {target.member.client_id!r}, tells no "
            "HTTP port, so that of observability.http was tried: it is no worker, or name it with --http HOST:PORT"
        )
    if reply.answered:
        return f"{at}{reply.error}"
    if target.member is None:
        return f"{at}{reply.error}; check --http and that the worker runs"
    return f"{at}{reply.error}; check that it runs and that this machine reaches that port, or name it with --http"


@dataclass(frozen=True, slots=True)
class Workers:
    """Whom a command asks."""

    targets: list[Target]
    group: Group | None
    """As Kafka describes it; None where that was not asked, or does not tell."""


def workers_of(kafka: KafkaAccess, addresses: Sequence[str], reader: GroupReader | None) -> Workers:
    """The workers of ``addresses``; without any, those of the group, which ``reader`` describes.

    Raises Unreachable where the members cannot be known, click.UsageError for addresses that lead nowhere.
    """
    if reader is None:
        return Workers(named(addresses), None)
    config = kafka.config
    try:
        group = reader.describe()
    except GroupUnknown as error:
        raise Unreachable(str(error)) from None
    except ClusterUnreachable as error:
        raise Unreachable(f"{error}. Workers that --http HOST:PORT names are asked without Kafka") from None
    if group is not None:
        return Workers(of_members(group.name, group.members, config.observability.http), group)
    http = config.observability.http
    if (port := http_port_of(http)) is None or not port.port:
        raise click.UsageError(
            "the embedded broker lists no members of a group, and observability.http names no port; name each worker "
            "with --http HOST:PORT"
        )
    click.echo(f"the embedded broker lists no members of a group: only the worker at {http} is asked", err=True)
    return Workers(named([http]), None)


@contextlib.contextmanager
def group_reader(kafka: KafkaAccess, addresses: Sequence[str]) -> Iterator[GroupReader | None]:
    """What asks Kafka about the group; None where the workers are named."""
    if addresses:
        yield None
        return
    with contextlib.closing(
        GroupReader(kafka.servers, kafka.config.kafka.group_id, kafka.client, kafka.timeout)
    ) as reader:
        yield reader


def without_members(group: Group) -> str:
    """Why there is no worker to ask, and what to look at."""
    if group.state == "DEAD":
        return f"there is no group {group.name!r}: check kafka.group_id, or no worker has joined it yet"
    return f"group {group.name!r} has no members: no worker runs, or none has joined ({group.state.lower()})"


def look(targets: Sequence[Target], deadline: float) -> list[Reached]:
    """Ask all for their ``/status``."""
    addresses = [each.address for each in targets if each.address is not None]
    return reached(targets, ask(addresses, "GET", "/status", deadline))
