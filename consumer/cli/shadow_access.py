"""What the commands of ``rexstream shadow`` share: the option ``--input``, the run's group, its plan and its topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from consumer.cli import suggestions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.cli.options import KafkaAccess
    from consumer.config.tree import Config
    from consumer.delivery.letter_summary import LetterSummary
    from consumer.delivery.shadow_plan import PlannedRange
    from consumer.events import Partition
    from consumer.extraction.task import Task
    from consumer.kafka.tools.shadow_group import ShadowGroup

input_option = click.option(
    "--input",
    "topics",
    metavar="TOPIC",
    multiple=True,
    required=True,
    shell_complete=suggestions.topics,
    help="Input topic to extract again; may be given many times.",
)


class Shadow(NamedTuple):
    """A run that has begun."""

    group: ShadowGroup
    plan: Mapping[Partition, PlannedRange]
    topics: Mapping[str, str]
    """Topics of the shadow's results, each with the live one."""
    dead_letter_topic: str
    """That of the shadow."""


def shadow_group(kafka: KafkaAccess, config: Config) -> ShadowGroup:
    """The group of a run of ``config``. Raises click.UsageError for the embedded broker."""
    from consumer.kafka.clients.cluster import is_embedded
    from consumer.kafka.tools.shadow_group import ShadowGroup

    if is_embedded(kafka.servers, client=kafka.client, timeout=kafka.timeout):
        raise click.UsageError(
            f"{kafka.servers} is the embedded broker, which neither looks up times nor shows members: a shadow run "
            "needs Apache Kafka. To try it on this machine, 'make kafka PORT=9192' in a checkout starts one (with Java "
            "and Maven); then --bootstrap-servers 127.0.0.1:9192 here and with 'rexstream send', and "
            "docs/runbooks/shadow.md has the rest"
        )
    return ShadowGroup(kafka.servers, config.kafka.group_id, kafka.client, kafka.timeout)


def shadow_topics(live: Config, config: Config, tasks: Mapping[str, Task]) -> dict[str, str]:
    """Every topic that a run writes to, with the one that it shadows."""
    from consumer.config.inputs import Inputs
    from consumer.config.names import output_topic, runnable

    by_input = {route.input: route for route in live.routes}
    inputs = Inputs(by_input)
    found = {config.delivery.dead_letter_topic: live.delivery.dead_letter_topic}
    for route in config.routes:
        original = by_input[inputs.find(route.input) or ""]
        for task in runnable(route, tasks):
            found[output_topic(route.output, task)] = output_topic(original.output, task)
    return found


def begun(kafka: KafkaAccess, topics: tuple[str, ...]) -> Shadow:
    """The run of these input topics. Raises click.UsageError where none has begun."""
    from consumer.config.shadow import shadow_config
    from consumer.config.task_files import load_tasks
    from consumer.delivery.shadow_plan import PlanUnreadable

    try:
        config = shadow_config(kafka.config, topics, None)
    except ValueError as error:
        raise click.UsageError(f"--input {error}") from None
    group = shadow_group(kafka, config)
    try:
        plan = group.plan(topics)
    except PlanUnreadable as error:
        raise click.UsageError(str(error)) from None
    if not plan:
        raise click.UsageError(f"group {group.group!r} has begun no run of these topics: 'rexstream shadow run'")
    written = shadow_topics(kafka.config, config, load_tasks(config.tasks_dirs))
    del written[config.delivery.dead_letter_topic]
    return Shadow(group, plan, written, config.delivery.dead_letter_topic)


def dead_letters(kafka: KafkaAccess, shadow: Shadow) -> LetterSummary:
    """Those of the run, counted."""
    from consumer.cli.dead_letter_topic import DeadLetterTopic
    from consumer.delivery.letters import Selection

    inputs = frozenset(place.topic for place in shadow.plan)
    return DeadLetterTopic(kafka, shadow.dead_letter_topic).summary(Selection(topics=inputs))
