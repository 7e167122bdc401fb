"""``rexstream shadow``: extract a topic again, into topics beside the live ones."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli import shadow_switch
from consumer.cli.options import ConfigFailure, KafkaAccess, cluster_options, rate_option
from consumer.cli.run import share_arenas
from consumer.cli.shadow_access import input_option, shadow_group, shadow_topics
from consumer.exit_codes import EXIT_FAILED, EXIT_FENCED, EXIT_OK

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from consumer.config.tree import Config, ModelConfig
    from consumer.delivery.shadow_plan import PlannedRange
    from consumer.events import Partition
    from consumer.extraction.task import Task
    from consumer.kafka.tools.shadow_group import ShadowGroup


@click.group(name="shadow", short_help="Extract a topic again into shadow topics, beside the live workers.")
def command() -> None:
    """Extract a topic again into <output>.shadow, beside the live workers; then publish what was extracted, or drop it.

    \b
    Example:
      rexstream shadow run --config worker.yaml --input reviews.raw --from 2026-11-01T00:00:00Z --set model.version=2
      rexstream shadow diff --config worker.yaml --input reviews.raw
      rexstream shadow switch --config worker.yaml --input reviews.raw
      rexstream shadow drop --config worker.yaml --input reviews.raw
    """  # noqa: D301 - click's own mark for a block that is not wrapped


command.add_command(shadow_switch.command)


def _moment(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from consumer.config.start import start_ms

    word = "earliest" if parameter.name == "since" else "now"
    if value not in (None, word):
        try:
            if start_ms(value) is None:
                raise ValueError
        except ValueError as error:
            if str(error) in ("has no zone", "is before 1970"):
                raise click.BadParameter(f"{value} {error}; a time is such as 2026-11-01T00:00:00Z") from None
            raise click.BadParameter(f"{value!r} is neither {word} nor a time such as 2026-11-01T00:00:00Z") from None
    return value


@command.command(name="run", short_help="Extract a range of a topic again; go on where it was interrupted.")
@cluster_options
@input_option
@click.option(
    "--from", "since", metavar="TIME", required=True, callback=_moment, help="First record: a time, or earliest."
)
@click.option(
    "--until", metavar="TIME", default="now", show_default=True, callback=_moment, help="Records before this time."
)
@rate_option("Most records a second of this process. Default: as fast as --share allows.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Most of the model servers' time for this process; 1 for full calls without pauses, which live workers feel.",
)
def run(kafka: KafkaAccess, topics: tuple[str, ...], since: str, until: str, rate: float | None, share: float) -> None:
    """Extract the records of a time again, with the model and the tasks of this configuration, into <output>.shadow.

    The workers' own code runs, in the group <kafka.group_id>.shadow, in lane backfill. To spare the live workers it has
    one small model call at a time, with pauses that grow while others use the model servers. Dead letters go to
    <dead-letter topic>.shadow. Nothing is written to live topics, and the live group is not touched. The range is noted
    with the brokers when the run begins: interrupted or killed, the same command goes on and ends at the same place.
    Several processes may run it, each with a share; start the others once the first has begun. A command that asks for
    something else is refused until the shadow is dropped.

    Exit code 0 when all of the range is extracted, 1 when it stopped before, which the same command resumes, as it does
    after 4 and 5 of 'rexstream run'.

    \b
    Example:
      rexstream shadow run --config worker.yaml --input reviews.raw --from 2026-11-01T00:00:00Z --set model.version=2
      rexstream shadow run --config new-schema.yaml --input reviews.raw --from earliest --rate 50
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli.shadow_progress import ShadowWatch, committed
    from consumer.config.shadow import shadow_config
    from consumer.config.task_files import load_tasks
    from consumer.delivery.shadow_plan import Deleted, Pace, PlanUnreadable, progress
    from consumer.telemetry.logs import configure_logging
    from consumer.worker.health import worker_name

    share_arenas()
    config = kafka.config.model_copy(
        update={"kafka": kafka.config.kafka.model_copy(update={"bootstrap_servers": kafka.servers})}
    )
    try:
        config = shadow_config(config, topics, rate, share)
    except ValueError as error:
        raise click.UsageError(f"--input {error}") from None
    tasks = load_tasks(config.tasks_dirs)
    name = worker_name()
    # Before gRPC is imported: its core chooses its verbosity then.
    configure_logging(config.observability.log_level, name)

    from consumer.worker.lifecycle import Worker
    from consumer.worker.shadow_parts import ShadowParts
    from consumer.worker.start_checks import StartChecks

    checks = StartChecks(config)
    if checks.refused():
        raise ConfigFailure("\n".join(map(str, checks.refused())))
    group = shadow_group(kafka, config)
    try:
        plan = _planned(group, kafka.config, config, tasks, (since, until), named_contracts(config.model))
    except PlanUnreadable as error:
        raise click.UsageError(f"{error}; or drop the shadow: 'rexstream shadow drop'") from None
    code, deleted = EXIT_OK, Deleted(plan)
    if not progress(plan, committed(group, plan, deleted)).is_complete:
        parts = ShadowParts(plan, None if rate is None else Pace(rate), share)

        async def until_done() -> int:
            # No signal: a second one, where the run was interrupted just now, would end the worker without draining.
            end = partial(asyncio.get_running_loop().call_soon_threadsafe, parts.stopping.set)
            watch = ShadowWatch(group, plan, deleted, end)
            watch.start()
            try:
                return await Worker(config, tasks, name, checks.bundles, parts=parts).run()
            finally:
                watch.ended.set()
                watch.join()

        code = asyncio.run(until_done())
    found = progress(plan, group.committed(plan))
    shadows = shadow_topics(kafka.config, config, tasks)
    others = group.replaced(plan, shadows) or group.gone({*shadows, *(place.topic for place in plan)})
    group.close()
    said = f"{found.done} of {found.total} records are extracted again"
    if deleted.offsets:
        said += f"; up to {deleted.offsets} of them were deleted from the input before they were read"
    if others:
        said += f"; topic {others[0]!r} was deleted meanwhile, so results are missing: drop the shadow and run it again"
    elif not found.is_complete:
        said += "; the same command goes on with the rest"
    click.echo(said, err=True)
    if code == EXIT_OK and (others or not found.is_complete):
        code = EXIT_FAILED
    if code in (EXIT_FAILED, EXIT_FENCED):
        # A client that hangs in C would hold the interpreter's own way out.
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


@command.command(name="drop", short_help="Delete the shadow topics and the shadow group.")
@cluster_options
@input_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(kafka: KafkaAccess, topics: tuple[str, ...], yes: bool) -> None:
    """Delete the shadow's result topics, its dead-letter topic, its group and its plan. Live topics are not touched.

    Refused while the shadow's group has members.

    \b
    Example:
      rexstream shadow drop --config worker.yaml --input reviews.raw
      rexstream shadow drop --config worker.yaml --input reviews.raw --yes
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.config.shadow import shadow_config
    from consumer.config.task_files import load_tasks

    try:
        config = shadow_config(kafka.config, topics)
    except ValueError as error:
        raise click.UsageError(f"--input {error}") from None
    doomed = sorted(shadow_topics(kafka.config, config, load_tasks(config.tasks_dirs)))
    group = shadow_group(kafka, config)
    if members := group.members():
        raise click.ClickException(f"group {group.group!r} has {members} members: stop the shadow run first")
    if others := group.other_topics(topics):
        raise click.UsageError(f"the run of group {group.group!r} also reads {', '.join(others)}: give --input for all")
    if not yes:
        click.confirm(f"Delete {', '.join(doomed)} and group {group.group} at {kafka.servers}?", abort=True, err=True)
    click.echo("\n".join(f"deleted {gone}" for gone in group.drop(doomed)) or "there was nothing to delete")
    group.close()


@command.command(name="diff", short_help="Compare the shadow's results with the live ones.")
@cluster_options
@input_option
@click.option("--examples", type=click.IntRange(min=0), default=5, show_default=True, help="Events shown of each task.")
@click.option("--max-changed", type=click.FloatRange(0, 1), metavar="SHARE", help="Exit code 1 above this share: 0.05")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def diff(kafka: KafkaAccess, topics: tuple[str, ...], examples: int, max_changed: float | None, as_json: bool) -> None:
    """Compare the shadow's results with the live ones of the same records: no review text, only counts and event ids.

    Results are paired by event and task; same_id says how many pairs have the same result_id, which all have unless the
    schema is another. JSON and Avro results are read, and compared with each other.

    \b
    Example:
      rexstream shadow diff --config worker.yaml --input reviews.raw --max-changed 0.05
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli.shadow_access import begun, dead_letters
    from consumer.cli.shadow_diff import read_diff, say, say_unfinished
    from consumer.delivery.shadow_plan import progress
    from consumer.evaluation.result_diff import crossed

    shadow = begun(kafka, topics)
    say_unfinished(progress(shadow.plan, shadow.group.committed(shadow.plan)))
    if held := shadow.group.held_back(shadow.topics):
        click.echo(f"{held[0]} has an open transaction: results behind it are not seen until it ends", err=True)
    for other in shadow.group.replaced(shadow.plan, shadow.topics):
        click.echo(f"topic {other!r} was deleted and created again since the run began: results are missing", err=True)
    shadow.group.close()
    found = read_diff(kafka, shadow.topics, shadow.plan, examples)
    beyond = list(crossed(found, max_changed))
    say(found, dead_letters(kafka, shadow), beyond, as_json)
    sys.exit(EXIT_FAILED if beyond or not found else EXIT_OK)


def named_contracts(model: ModelConfig) -> set[int]:
    """Those of the bundles that the configuration names, wherever they lie; ``StartChecks`` has read these.

    Without what an asterisk finds: a folder that came, or went, while a run was stopped is no other run.
    """
    from consumer.serving.bundle import patterns, recorded_contract

    named = {model.bundle or "", *model.bundles}
    found = (recorded_contract(Path(folder)) for folder in named.difference(patterns(named)))
    return {contract for contract in found if contract is not None}


def asked_for(
    config: Config, tasks: Mapping[str, Task], times: tuple[str, str], contracts: Collection[int]
) -> dict[str, str]:
    """What a run is asked for, as checksums; ``contracts`` as ``named_contracts``."""
    from consumer.config.names import runnable
    from consumer.delivery.shadow_plan import checksums

    model = config.model
    used = {name for route in config.routes for name in runnable(route, tasks) if name in tasks}
    return checksums(
        {
            "times": times,
            "routes": [route.model_dump(mode="json") for route in config.routes],
            "model": [model.target, model.name, model.version, model.label, sorted(contracts)],
            "tasks": {name: tasks[name].fingerprint for name in used},
        }
    )


def _planned(
    group: ShadowGroup,
    live: Config,
    config: Config,
    tasks: Mapping[str, Task],
    times: tuple[str, str],
    contracts: Collection[int],
) -> dict[Partition, PlannedRange]:
    """The plan of the run that goes on, or of the one that begins with this. Raises PlanUnreadable."""
    from consumer.config.start import start_ms
    from consumer.delivery.shadow_plan import PlannedRange, differences, marks

    asked = asked_for(config, tasks, times, contracts)
    topics = [route.input for route in config.routes]
    shadows = shadow_topics(live, config, tasks)
    if plan := group.plan(topics):
        if others := differences(plan, asked):
            raise click.UsageError(
                f"group {group.group!r} has begun a run with other {' and '.join(others)}: repeat its own command to "
                "go on with it, or delete it with 'rexstream shadow drop'"
            )
        refused = group.going_on_refused(plan, shadows)
    else:
        refused = group.beginning_refused(topics, shadows)
    if refused:
        raise click.UsageError(f"{refused}; delete the shadow with 'rexstream shadow drop', and begin again")
    if not plan:
        since, until = (None if each in ("earliest", "now") else start_ms(each) for each in times)
        if (until or 0) > time.time() * 1000:
            raise click.UsageError(
                f"--until {times[1]} has not come yet, and a run ends where the input ends when it begins: leave "
                "--until out, or begin then"
            )
        if (since or 0) >= (until or time.time() * 1000):
            raise click.UsageError(f"--from {times[0]} is not before --until {times[1]}: there is nothing to extract")
        partitions = group.partitions(topics)
        starts = group.positions(partitions, since, end=False)
        ends = group.positions(partitions, until, end=True)
        plan = {
            each: PlannedRange(starts.get(each, 0), max(starts.get(each, 0), ends.get(each, 0)), asked)
            for each in partitions
        }
        group.ensure_topics(shadows)
        noted = marks(group.ids({*topics, *shadows}, all_of_them=True))
        plan = group.begin({place: each._replace(topics=noted) for place, each in plan.items()})
        if others := differences(plan, asked):
            raise click.UsageError(f"another process began a run with other {' and '.join(others)} at the same time")
    group.keep(plan)
    return plan
