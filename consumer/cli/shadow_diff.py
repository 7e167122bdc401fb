"""``rexstream shadow diff``: reading both sides' topics, and printing what changed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from consumer.cli.record_lines import printable
from consumer.cli.result_schemas import ResultSchemas
from consumer.evaluation.result_diff import ResultDiff
from consumer.events import BadInput, Partition
from consumer.kafka.tools.reader import read_to_end

_TYPES_SHOWN = 10

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.cli.options import KafkaAccess
    from consumer.delivery.letter_summary import LetterSummary
    from consumer.delivery.shadow_plan import PlannedRange, Progress
    from consumer.evaluation.result_diff import TaskDiff


def read_diff(
    kafka: KafkaAccess, topics: Mapping[str, str], plan: Mapping[Partition, PlannedRange], examples: int
) -> dict[str, TaskDiff]:
    """Compare the results of the planned records; ``topics``: shadow topics, each with the live one.

    Says of each topic how many records could not be read.
    """
    found = ResultDiff(examples)
    read = ResultSchemas(kafka.config.kafka.registry).read
    for shadow, live in topics.items():
        for topic, is_new in ((live, False), (shadow, True)):
            unreadable, first = 0, ""
            for message in read_to_end(kafka.servers, topic, client=kafka.client, timeout=kafka.timeout):
                try:
                    result = read(message.value() or b"")
                    place = result["record"]
                    planned = plan.get(Partition(place["topic"], place["partition"]))
                    if planned is not None and planned.start <= place["offset"] < planned.end:
                        found.add("new" if is_new else "old", result)
                except BadInput as bad:
                    unreadable, first = unreadable + 1, first or bad.message
                except (KeyError, TypeError):
                    continue  # no result: others may write to the topic, too, and a delete has no value
            if unreadable:
                click.echo(f"{unreadable} records of {topic} cannot be read: {first}", err=True)
    return found.tasks()


def say_unfinished(so_far: Progress) -> None:
    """Say of a run that is not at its end what its results are compared with."""
    if not so_far.is_complete:
        rest = "the rest counts as only live"
        click.echo(f"the run is not done: {so_far.done} of {so_far.total} records are extracted; {rest}", err=True)


def say(found: Mapping[str, TaskDiff], letters: LetterSummary, beyond: Sequence[str], as_json: bool) -> None:
    """Print it, with the shadow's dead letters: a JSON object, or lines."""
    failed = Counter[tuple[str, str, str]]()
    for (cause, _), number in letters.rows.items():
        failed[cause.task or "", cause.stage, cause.reason] += number
    if as_json:
        tasks = {
            name: {**asdict(each), "agreement": round(each.agreement, 6), "share_changed": round(each.share_changed, 6)}
            | {"examples": [change._asdict() for change in each.examples]}
            for name, each in found.items()
        }
        named = [
            {"task": task or None, "stage": stage, "class": reason, "count": number}
            for (task, stage, reason), number in failed.items()
        ]
        said = {"tasks": tasks, "dead_letters": {"total": letters.total, "causes": named}, "crossed": list(beyond)}
        click.echo(json.dumps(said, ensure_ascii=False))
        return
    for name, each in found.items():
        click.echo(
            f"{name}: {each.same} same, {each.changed} changed, {each.only_old} only live, {each.only_new} only in the "
            f"shadow; agreement {each.agreement:.3f}; {each.same_id} with the same result_id"
        )
        for kind, (only_old, only_new) in sorted(each.types.items(), key=lambda item: -sum(item[1]))[:_TYPES_SHOWN]:
            click.echo(f"  {printable(kind)}: {only_old} facts only live, {only_new} only in the shadow")
        for change in each.examples:
            click.echo(f"  {printable(change.event_id)}  -{change.only_old} +{change.only_new}")
    if not found:
        click.echo("neither side has a result of the range")
    if letters.total:
        click.echo(f"{letters.total} dead letters in the shadow, which have no result there")
    for (task, stage, reason), number in failed.most_common():
        click.echo(printable(f"  {number} {stage}/{reason}{f' task {task}' if task else ''}"))
    for sentence in beyond:
        click.echo(f"bound crossed: {sentence}", err=True)
