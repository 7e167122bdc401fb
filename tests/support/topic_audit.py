"""Was every record accounted for? Reads an input topic, its result topics and its dead-letter topic, and compares.

The unit is one Kafka record of the input topic: each task of it owes one result or one dead letter, a record that
failed before its tasks were known one dead letter, and a null value nothing.

``python -m topic_audit --help`` runs it on a cluster.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from consumer.codecs.control_headers import only_tasks_of
from consumer.config.layers import CONFIG_FILE_VARIABLE
from consumer.config.loading import load_config
from consumer.config.problems import ConfigError
from consumer.delivery.dead_letters import KIP_1191, PREFIX
from consumer.kafka.clients.cluster import Reader
from consumer.kafka.clients.settings import metadata_settings
from consumer.kafka.tools.reader import headers_of, read_to_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from confluent_kafka import Message

Place = tuple[int, int]
"""Partition and offset of an input record."""

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Audit:
    """What the topics hold, counted. ``clean`` when nothing is missing, and nothing came twice."""

    inputs: int
    """Records on the input topic."""
    null_values: int
    """Of ``inputs``: those that owe nothing."""
    answered: int
    """Records of which all that they owe is there."""
    results: dict[str, int]
    """Results per task, copies included."""
    dead_letters: dict[str, int]
    """Dead letters per ``stage/class``, copies included."""
    missing: tuple[str, ...]
    """``partition-offset task`` that has neither result nor dead letter; ``partition-offset *`` when nothing came."""
    duplicates: int
    """Outcomes (results by ``result_id`` and record, dead letters by id) beyond the first: a redelivery's copies."""
    contradictions: tuple[str, ...]
    """``partition-offset task`` with both a result and a dead letter."""
    shared_ids: int
    """Results that share their ``result_id`` with another *record*: the input holds an event id twice."""
    strangers: int
    """Results and dead letters of records that the input topic does not hold (any more)."""
    tombstones: int = 0
    """Null values on the result topics: deletes that a route forwards. They say of no record that they are its own."""
    trimmed: dict[str, int] = field(default_factory=dict)
    """``topic-partition`` -> records that it no longer holds: the embedded broker lost them, or retention passed."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing: what at-least-once promises."""
        return not self.missing and not self.trimmed

    @property
    def clean(self) -> bool:
        """Whether every record has exactly its outcomes: what exactly-once promises."""
        return self.complete and not (self.duplicates or self.contradictions or self.strangers)


@dataclass(slots=True)
class _Seen:
    inputs: dict[Place, bool] = field(default_factory=dict)
    """Place -> whether its value is null."""
    only: dict[Place, frozenset[str]] = field(default_factory=dict)
    """Place of a replayed record -> the tasks that it owes alone."""
    results: Counter[tuple[Place, str, str]] = field(default_factory=Counter)
    dead: Counter[tuple[Place, str | None]] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    elsewhere: int = 0
    tombstones: int = 0
    rows: set[Place] = field(default_factory=set)
    """Records of several rows of which some failed: others of theirs have results of the same tasks."""


def audit(
    bootstrap_servers: str,
    input_topic: str,
    output_topics: Sequence[str],
    dead_topic: str | None = None,
    *,
    tasks: Iterable[str] = (),
    client: Mapping[str, Any] | None = None,
    timeout: float = 30.0,
) -> Audit:
    """Read all topics from their beginning to their present end, read_committed, and compare.

    ``tasks`` is what every record owes, a replayed one only those that its header names; without it one outcome of any
    task is enough. A record's own choice of tasks is not looked at. Raises ClusterUnreachable when nothing comes for
    ``timeout`` seconds, and TopicUnusable.
    """

    def messages(topic: str) -> Iterable[Message]:
        return read_to_end(bootstrap_servers, topic, client=client, timeout=timeout)

    seen = _Seen()
    # Outcomes first: what is produced meanwhile has its input record read later, never the other way round.
    for topic in output_topics:
        for message in messages(topic):
            _note_result(seen, message, input_topic)
    for message in messages(dead_topic) if dead_topic else ():
        _note_dead_letter(seen, message, input_topic)
    for message in messages(input_topic):
        place = message.partition() or 0, message.offset() or 0
        seen.inputs[place] = message.value() is None
        if (only := only_tasks_of(headers_of(message))) is not None:
            seen.only[place] = only
    topics = [input_topic, *output_topics, *([dead_topic] if dead_topic else [])]
    trimmed = {
        f"{topic}-{partition}": first
        for topic in topics
        for partition, (first, _) in held_offsets(bootstrap_servers, topic, client=client, timeout=timeout).items()
        if first
    }
    return _compare(seen, tuple(tasks), trimmed)


def held_offsets(
    bootstrap_servers: str, topic: str, *, client: Mapping[str, Any] | None = None, timeout: float = 10.0
) -> dict[int, tuple[int, int]]:
    """First offset that each partition of ``topic`` still holds, and its end; raises as ``read_to_end`` does."""
    with Reader(bootstrap_servers, client=client, timeout=timeout) as reader:
        return {partition: reader.watermarks(topic, partition) for partition in reader.partitions(topic)}


def _note_result(seen: _Seen, message: Message, input_topic: str) -> None:
    if message.value() is None:
        seen.tombstones += 1
        return
    result = json.loads(message.value() or b"{}")
    record = result.get("record") or {}
    if record.get("topic") != input_topic:
        seen.elsewhere += 1
        return
    place = record["partition"], record["offset"]
    seen.results[place, result["task"], result["result_id"]] += 1
    seen.tasks[result["task"]] += 1


def _note_dead_letter(seen: _Seen, message: Message, input_topic: str) -> None:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in headers_of(message)}
    if headers.get(KIP_1191 + "topic") != input_topic:
        seen.elsewhere += 1
        return
    place = int(headers[KIP_1191 + "partition"]), int(headers[KIP_1191 + "offset"])
    seen.dead[place, headers.get(PREFIX + "task")] += 1
    if PREFIX + "rows" in headers:
        seen.rows.add(place)
    seen.reasons[f"{headers.get(PREFIX + 'stage')}/{headers.get(PREFIX + 'class')}"] += 1


def _compare(seen: _Seen, tasks: tuple[str, ...], trimmed: dict[str, int]) -> Audit:
    answered_tasks: dict[Place, set[str]] = defaultdict(set)
    dead_tasks: dict[Place, set[str | None]] = defaultdict(set)
    records_of_id: dict[str, set[Place]] = defaultdict(set)
    for place, task, result_id in seen.results:
        answered_tasks[place].add(task)
        records_of_id[result_id].add(place)
    for place, dead_task in seen.dead:
        dead_tasks[place].add(dead_task)
    missing: list[str] = []
    answered = 0
    for place, null in sorted(seen.inputs.items()):
        if null:
            continue
        there = answered_tasks[place] | dead_tasks[place]
        due = [task for task in tasks if task in seen.only.get(place, tasks)]
        owed = [] if None in there else [task for task in due if task not in there]
        if not there:
            owed = due or ["*"]
        missing += [f"{place[0]}-{place[1]} {task}" for task in owed]
        answered += not owed
    outcomes = [place for place, _, _ in seen.results.elements()] + [place for place, _ in seen.dead.elements()]
    return Audit(
        inputs=len(seen.inputs),
        null_values=sum(seen.inputs.values()),
        answered=answered,
        results=dict(sorted(seen.tasks.items())),
        dead_letters=dict(sorted(seen.reasons.items())),
        missing=tuple(missing),
        duplicates=sum(count - 1 for count in (*seen.results.values(), *seen.dead.values())),
        contradictions=tuple(
            f"{place[0]}-{place[1]} {task or '*'}"
            for place, dead in sorted(dead_tasks.items())
            for task in sorted(dead, key=str)
            if place not in seen.rows
            if task in answered_tasks[place] or (task is None and answered_tasks[place])
        ),
        shared_ids=sum(len(places) - 1 for places in records_of_id.values()),
        strangers=seen.elsewhere + sum(place not in seen.inputs for place in outcomes),
        tombstones=seen.tombstones,
        trimmed=trimmed,
    )


@click.command()
@click.option("--bootstrap-servers", "-b", help="Kafka to use; default: kafka.bootstrap_servers.")
@click.option(
    "--config",
    "-c",
    "config_file",
    envvar=CONFIG_FILE_VARIABLE,
    help="YAML file that says how to connect, as a worker's does.",
)
@click.option("--input", "input_topic", default="reviews.raw", show_default=True)
@click.option("--output", "output_topics", multiple=True, default=("reviews.extracted",), show_default=True)
@click.option("--dead", "dead_topic", default="reviews.dead", show_default=True)
@click.option("--task", "tasks", multiple=True, help="A task that every record owes; may be given many times.")
@click.option("--exactly", is_flag=True, help="Fail on duplicates too.")
@click.option("--json", "as_json", is_flag=True)
def command(
    bootstrap_servers: str | None,
    config_file: str | None,
    input_topic: str,
    output_topics: tuple[str, ...],
    dead_topic: str,
    tasks: tuple[str, ...],
    exactly: bool,
    as_json: bool,
) -> None:
    """Count what became of every record of a topic. Exit code 1 when something is missing."""
    try:
        client = metadata_settings(load_config(config_file, os.environ))
    except (ConfigError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    servers = bootstrap_servers or client["bootstrap.servers"]
    found = audit(servers, input_topic, output_topics, dead_topic, tasks=tasks, client=client)
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False))
    else:
        for name, value in asdict(found).items():
            shown = f"{len(value)}: {', '.join(value[:_SHOWN])}" if isinstance(value, tuple) and value else value or 0
            click.echo(f"{name:<15} {shown}")
        click.echo(f"{'verdict':<15} {'clean' if found.clean else 'complete' if found.complete else 'INCOMPLETE'}")
    raise SystemExit(0 if (found.clean if exactly else found.complete) else 1)


if __name__ == "__main__":
    command()
