"""What ``rexstream status`` says of a group: the workers' own answers and the brokers' put together, as one object.

Workers of other versions may leave out what this one knows, so everything of an answer is optional here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from consumer.events import Partition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.cli.group_workers import Reached
    from consumer.kafka.tools.group import Group

UNREMARKABLE: Final = frozenset({"backpressure"})
"""A pause that comes and goes under load."""


@dataclass(frozen=True, slots=True)
class VariantsRow:
    """The ways to the model of a worker that has several."""

    share: float | None
    """Of its canary, 0 to 1; None without one."""
    fallback: str
    """Why the stable version has that share, too, in a word; empty while the canary has it, and without a share."""
    stable: list[str]
    """Bundles of the stable version that are in use: several in the middle of a roll-out, none if none fits."""
    canary: list[str]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that was reached."""

    name: str
    address: str
    version: str
    state: str
    ready: bool
    reasons: list[str]
    """Why it is not ready."""
    waiting: dict[str, list[str]]
    """Why inputs are not consumed, in words."""
    paused: dict[str, list[str]]
    """Inputs that are paused, by reason."""
    partitions: list[Partition]
    lag: int | None
    """None where that of a partition is not known."""
    events_per_second: float
    p95_ms: float | None
    model: str
    """Name and version that answered last, such as ``rexuninlu:3``."""
    versions: dict[str, dict[str, Any]]
    """What each version did in the last minute, by such a name; workers of before have none."""
    canary: str
    """Why it fell back; empty while it answers its events, and where there is none."""
    variants: VariantsRow | None
    """None where it has one way to the model."""
    uptime_seconds: float
    servers: dict[str, dict[str, Any]]
    """The model servers that it uses, by address."""


@dataclass(frozen=True, slots=True)
class UnreachedRow:
    """A member, or a named worker, that was not reached."""

    name: str
    client_id: str | None
    """None for one that is named."""
    partitions: list[Partition]
    why: str


@dataclass(frozen=True, slots=True)
class TopicRow:
    partitions: int
    lag: int | None
    """Of the partitions where it is known; None where it is of none."""
    unknown: int
    """Partitions whose lag is not known."""
    unassigned: int | None
    """Partitions that no member has; None where the group was not described."""


@dataclass(frozen=True, slots=True)
class ServerRow:
    states: dict[str, int]
    """How many workers see it in which state."""
    reasons: list[str]
    in_flight: int
    """Windows in the workers' calls to it."""


@dataclass(slots=True)
class VersionRow:
    """A version of a model, in the last minute of all workers together."""

    workers: int = 0
    """Those that met it."""
    calls: int = 0
    failed_calls: int = 0
    results: int = 0
    empty_results: int = 0
    extractions: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    group: dict[str, Any]
    workers: list[WorkerRow]
    unreached: list[UnreachedRow]
    topics: dict[str, TopicRow]
    servers: dict[str, ServerRow]
    versions: dict[str, VersionRow]
    events_per_second: float
    lag: int | None
    seconds_behind: float | None
    """How long the lag takes at the rate of the last minute; None where either is not known, or nothing moves."""
    problems: list[str] = field(default_factory=list)
    """What is not as it should be, a sentence each."""

    @property
    def well(self) -> bool:
        return not self.problems


def report(
    name: str, group: Group | None, workers: Sequence[Reached], lags: Mapping[Partition, int | None], nobody: str = ""
) -> Report:
    """``lags``: as the brokers show them; of other partitions the workers' own count. ``nobody``: why none is there."""
    rows = [_row(each.name, str(each.target.address), each.status, lags) for each in workers if each.status is not None]
    unreached = [_unreached(each) for each in workers if each.status is None]
    known = dict(lags)
    for each in workers:
        for partition, lag in _assignment(each.status or {}).items():
            known.setdefault(partition, lag)
    assigned = None if group is None else {each for member in group.members for each in member.partitions}
    rate = round(sum(row.events_per_second for row in rows), 1)
    counted = [lag for lag in known.values() if lag is not None]
    total = sum(counted) if counted else None
    about = {
        "name": name,
        "state": group.state if group is not None else None,
        "protocol": group.protocol if group is not None else None,
        "members": len(group.members) if group is not None else None,
    }
    topics = _topics(known, assigned)
    servers = _servers(rows)
    found = Report(
        about,
        rows,
        unreached,
        topics,
        servers,
        _versions(rows),
        rate,
        total,
        None if total is None or not rate else round(total / rate, 1),
    )
    found.problems.extend([nobody] if nobody else _problems(found))
    return found


def _row(name: str, address: str, status: Mapping[str, Any], lags: Mapping[Partition, int | None]) -> WorkerRow:
    own = _assignment(status)
    its = [lags.get(each, lag) for each, lag in own.items()]
    model = status.get("model") or {}
    return WorkerRow(
        name=name,
        address=address,
        version=str(status.get("version", "?")),
        state=str(status.get("state", "?")),
        ready=bool(status.get("ready")),
        reasons=[str(each) for each in status.get("reasons") or ()],
        waiting=dict(status.get("waiting") or {}),
        paused={
            reason: list(topics)
            for reason, topics in (status.get("paused_topics") or dict.fromkeys(status.get("paused") or (), ())).items()
        },
        partitions=list(own),
        lag=None if None in its else sum(each for each in its if each is not None),
        events_per_second=float((status.get("rates") or {}).get("events_per_second") or 0.0),
        p95_ms=(status.get("latency_ms") or {}).get("p95"),
        model=f"{model.get('name', '?')}:{model.get('version') or '?'}",
        versions={f"{each.get('name', '?')}:{each.get('version', '?')}": each for each in model.get("versions") or ()},
        canary=_fallback(model.get("canary") or {}),
        variants=_variants(model),
        uptime_seconds=float(status.get("uptime_seconds") or 0.0),
        servers={str(each.get("address", "?")): dict(each) for each in model.get("endpoints") or ()},
    )


def _fallback(canary: Mapping[str, Any]) -> str:
    """Why the canary's events are the stable version's; empty where they are not, and without a share."""
    lost = canary.get("fallback") and canary.get("share")
    return f"{canary['fallback']}: {canary.get('detail')}" if lost else ""


def _variants(model: Mapping[str, Any]) -> VariantsRow | None:
    if not (found := model.get("variants")):
        return None
    canary, in_use = model.get("canary") or {}, defaultdict(list)
    for each in found:
        if each.get("usable"):
            in_use[str(each.get("variant"))].append(str(each.get("bundle", "?")).partition(" (")[0])
    return VariantsRow(
        share=canary.get("share"),
        fallback=str(canary.get("fallback") or "") if canary.get("share") else "",
        stable=in_use["stable"],
        canary=in_use["canary"],
    )


def _assignment(status: Mapping[str, Any]) -> dict[Partition, int | None]:
    return {Partition(each["topic"], each["partition"]): each.get("lag") for each in status.get("assignment") or ()}


def _unreached(worker: Reached) -> UnreachedRow:
    member = worker.target.member
    if member is None:
        return UnreachedRow(worker.name, None, [], worker.why)
    return UnreachedRow(worker.name, member.client_id, list(member.partitions), worker.why)


def _topics(lags: Mapping[Partition, int | None], assigned: set[Partition] | None) -> dict[str, TopicRow]:
    by_topic: dict[str, dict[Partition, int | None]] = defaultdict(dict)
    for partition, lag in sorted(lags.items()):
        by_topic[partition.topic][partition] = lag
    found = {}
    for topic, its in by_topic.items():
        known = [lag for lag in its.values() if lag is not None]
        unassigned = None if assigned is None else len(its.keys() - assigned)
        found[topic] = TopicRow(len(its), sum(known) if known else None, len(its) - len(known), unassigned)
    return found


def _servers(rows: Sequence[WorkerRow]) -> dict[str, ServerRow]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        for address, server in row.servers.items():
            found[address].append(server)
    return {
        address: ServerRow(
            dict(Counter(str(each.get("state", "?")) for each in its)),
            list(dict.fromkeys(str(each["reason"]) for each in its if each.get("reason"))),
            sum(int(each.get("in_flight") or 0) for each in its),
        )
        for address, its in sorted(found.items())
    }


def _versions(rows: Sequence[WorkerRow]) -> dict[str, VersionRow]:
    found: dict[str, VersionRow] = {}
    for row in rows:
        for model, its in row.versions.items():
            version = found.setdefault(model, VersionRow())
            version.workers += 1
            version.calls += int(its.get("calls") or 0)
            version.failed_calls += int(its.get("failed_calls") or 0)
            version.results += int(its.get("results") or 0)
            version.empty_results += int(its.get("empty_results") or 0)
            version.extractions += int(its.get("extractions") or 0)
    return dict(sorted(found.items()))


def _problems(found: Report) -> list[str]:
    problems = [f"{each.name}{_having(each.partitions)} was not reached: {each.why}" for each in found.unreached]
    for row in found.workers:
        problems += [f"{row.name} is not ready: {'; '.join(row.reasons) or row.state}"] if not row.ready else []
        paused = {reason: topics for reason, topics in row.paused.items() if reason not in UNREMARKABLE}
        told = {topic: "; ".join(reasons) for topic, reasons in row.waiting.items()}
        for reason, topics in paused.items():
            for topic in [each for each in topics if each not in told]:
                told[topic] = f"paused: {reason}"
            if not topics:
                told.setdefault("everything", f"paused: {reason}")
        if row.ready:
            problems += [f"{row.name} does not consume {topic}: {why}" for topic, why in told.items()]
    for address, server in found.servers.items():
        bad = {state: count for state, count in server.states.items() if state not in ("ok", "gone")}
        if bad:
            seen = ", ".join(f"{state} for {count} of {len(found.workers)} workers" for state, count in bad.items())
            problems.append(": ".join(filter(None, (f"model server {address}", seen, "; ".join(server.reasons)))))
    for why, count in Counter(row.canary for row in found.workers if row.canary).items():
        problems.append(f"the canary fell back at {count} of {len(found.workers)} workers: {why}")
    for topic, each in found.topics.items():
        if each.unassigned:
            problems.append(f"{topic}: no member has {each.unassigned} of its {each.partitions} partitions")
        if each.unknown:
            problems.append(f"{topic}: the lag of {each.unknown} of its {each.partitions} partitions is not known")
    # A worker that met all of them within a minute gives each its share: which one answered it last means nothing.
    models, versions = ({row.model for row in found.workers}, {row.version for row in found.workers})
    together = any(models <= row.versions.keys() for row in found.workers)
    problems += [f"several models answer: {', '.join(sorted(models))}"] if len(models) > 1 and not together else []
    problems += [f"workers of several versions: {', '.join(sorted(versions))}"] if len(versions) > 1 else []
    return problems


def _having(partitions: Sequence[Partition]) -> str:
    """The first of them, since a member without a name of its own is known by these."""
    if not partitions:
        return ""
    more = f" and {len(partitions) - 1} more" if len(partitions) > 1 else ""
    return f" (with {partitions[0]}{more})"
