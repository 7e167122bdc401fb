"""``rexstream resume``: end the pauses of a group's workers after too many dead letters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from consumer.cli import suggestions
from consumer.cli.options import KafkaAccess, Unreachable, group_options
from consumer.cli.record_lines import json_line, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from consumer.cli.group_workers import Reached, Target
    from consumer.cli.worker_requests import Reply


@click.command(name="resume", short_help="End the workers' pauses after too many dead letters.")
@group_options
@click.option(
    "--topic",
    shell_complete=suggestions.topics,
    help="Resume this input topic only; default: every one that is paused.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines: each worker's answer, or why there is none.")
def command(kafka: KafkaAccess, addresses: tuple[str, ...], topic: str | None, as_json: bool) -> None:
    """Let the workers go on before their time with input topics that they paused for a flood of dead letters.

    Each begins with a trial of a few records: dead letters again pause it again, good ones let consumption go on in
    full. Each worker pauses for itself, so all members of the consumer group are told, at the addresses that Kafka
    shows for them (it needs Describe on the group, which Read includes).

    Exit code 0 when every worker was reached, whether or not there was something to resume; 1 when some were not, or
    refused, each named with the reason, or the group has no members; 3 when nothing answers, Kafka or any worker.

    \b
    Example:
      rexstream resume --config worker.yaml
      rexstream resume --config worker.yaml --topic reviews.raw
      rexstream resume --http worker-2:9464 --http worker-3:9464 --json
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli.group_workers import group_reader, without_members, workers_of
    from consumer.cli.progress import waiting_for

    with group_reader(kafka, addresses) as reader, waiting_for("the workers"):
        workers = workers_of(kafka, addresses, reader)
        if workers.group is not None and not workers.targets:
            raise click.ClickException(f"nothing to resume: {without_members(workers.group)}")
        told = tell(workers.targets, topic, kafka.timeout)
    for each in told:
        if as_json:
            click.echo(json_line(each.as_json()))
        elif each.answer is not None:
            message = printable(each.answer["message"])
            click.echo(message if len(told) == 1 else f"{each.name}  {message}")
    _judge(told, each_named=not as_json)


class _Told:
    """One worker that was told, or was not reached."""

    def __init__(self, worker: Reached, reply: Reply | None) -> None:
        self.name = printable(worker.name)
        self.address = str(worker.target.address or worker.target.shown)
        self.answer: Mapping[str, Any] | None = None
        self.why = printable(worker.why)
        self.answered = reply is not None and reply.answered
        if reply is None:
            return
        content = reply.content or {}
        if isinstance(content.get("resumed"), list) and isinstance(content.get("message"), str):
            self.answer = content
        else:
            known = reply.error if reply.content is None else ""
            self.why = printable(known) or "what answers is no worker that knows /resume"
            if not reply.answered and worker.target.member is None:
                self.why += "; check --http and that it runs"

    def as_json(self) -> dict[str, Any]:
        own = {"worker": self.name, "address": self.address}
        return {**own, **self.answer} if self.answer is not None else {**own, "unreached": self.why}


def tell(targets: Sequence[Target], topic: str | None, seconds: float) -> list[_Told]:
    """Post to all that are named, and to the members that are seen to be workers."""
    from consumer.cli.group_workers import Reached, look
    from consumer.cli.worker_requests import ask

    began = time.monotonic()
    # Half of the time, so that one that hangs leaves some for the others' second request.
    asked = look([each for each in targets if each.member is not None], began + seconds / 2)
    asked += [Reached(each, None, each.why) for each in targets if each.member is None]
    to_tell = {each: each.target.address for each in asked if not each.why and each.target.address is not None}
    path = "/resume" if topic is None else f"/resume?{urlencode({'topic': topic})}"
    replies = ask(to_tell.values(), "POST", path, began + seconds)
    return [_Told(each, replies[to_tell[each]] if each in to_tell else None) for each in asked]


def _judge(told: Sequence[_Told], *, each_named: bool) -> None:
    """Raise what makes the exit code, unless all was well."""
    left = [each for each in told if each.answer is None]
    if not left:
        return
    if len(told) == 1:
        raise (click.ClickException if left[0].answered else Unreachable)(f"{left[0].name}: {left[0].why}")
    if each_named:
        for each in left:
            click.echo(f"{click.style('not reached', fg='red')}  {each.name}: {each.why}", err=True)
    what = f"{len(left)} of {len(told)} workers were not resumed: {', '.join(each.name for each in left)}"
    if any(each.answered or each.answer is not None for each in told):
        raise click.ClickException(what)
    raise Unreachable(f"{what}; nothing answers")
