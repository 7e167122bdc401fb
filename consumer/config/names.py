"""What a topic, a task and a network address may be called, and which topic a result goes to.

The names are checked in the configuration and in dead letters. The routes name their output topics once, at start;
``check`` and the configuration's rules ask the same functions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from consumer.extraction.task import INLINE

if TYPE_CHECKING:
    from collections.abc import Collection

    from consumer.config.route import RouteConfig

TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
"""Kafka's own rule for topics: ``.`` and ``..`` are not allowed."""

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""A task's name becomes a part of topic names and a metric label."""

ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[^\]\s]+)?)\]|(?P<host>[^:\s/\[\]]+)):(?P<port>\d{1,5})")
"""``host:port`` or ``[v6]:port``, with or without a zone; the port may still be above 65535."""

HTTP_HOST = re.compile(r"(?:\*\.)?(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
"""A name under which clients know a worker's HTTP port, without the port; ``*.`` before it for all names below."""

PLACEHOLDER = "{task}"


def marker_topic(dead_letter_topic: str) -> str:
    """The name of the topic in which a replay of dead letters notes what it has sent."""
    return f"{dead_letter_topic}.replayed"


def output_topic(template: str, task: str) -> str:
    """The topic for a task's results: ``reviews.extracted.{task}`` gives ``reviews.extracted.sentiment``.

    ``task`` must be a configured name: an event's own words never become part of a topic. Inline schemas go to the
    plain topic.
    """
    return plain_topic(template) if task == INLINE else template.replace(PLACEHOLDER, task)


def plain_topic(template: str) -> str:
    """The template without its placeholder and the separators that this leaves without a neighbour.

    ``reviews.{task}.out`` gives ``reviews.out``, ``reviews.extracted.{task}`` gives ``reviews.extracted``. Empty when
    nothing but the placeholder stands there.
    """
    if PLACEHOLDER not in template:
        return template
    joined = re.sub(r"[._-]?\{task\}", "", template)
    return joined.strip("._-") if template.startswith(PLACEHOLDER) else joined


def runnable(route: RouteConfig, known: Collection[str]) -> tuple[str, ...]:
    """The names of all tasks that an event of ``route`` can run, ``inline`` for a schema of its own among them.

    ``known``: the tasks that are loaded. A bare text, or a mapped value, may have no place to name a task or schema.
    """
    names_any = route.event_tasks == "any" and route.may_name("tasks")
    others = sorted(set(known).difference(route.tasks)) if names_any else ()
    return (*route.tasks, *others, *((INLINE,) if route.inline_schemas and route.may_name("schema") else ()))


def result_topics(route: RouteConfig, known: Collection[str]) -> dict[str, list[str]]:
    """Every topic that results of ``route`` can go to -> the tasks whose results those are."""
    topics: dict[str, list[str]] = {}
    for task in runnable(route, known):
        topics.setdefault(output_topic(route.output, task), []).append(task)
    return topics
