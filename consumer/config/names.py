"""What a topic, a task and a network address may be called, and which topic a result goes to.

The names are checked in the configuration and in dead letters. The routes name their output topics once, at start;
``check`` and the configuration's rules ask the same functions.
"""

from __future__ import annotations

import re

from consumer.extraction.task import INLINE

TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
"""Kafka's own rule for topics: ``.`` and ``..`` are not allowed."""

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""A task's name becomes a part of topic names and a metric label."""

ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[^\]\s]+)?)\]|(?P<host>[^:\s/\[\]]+)):(?P<port>\d{1,5})")
"""``host:port`` or ``[v6]:port``, with or without a zone; the port may still be above 65535."""

HTTP_HOST = re.compile(r"(?:\*\.)?(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
"""A name under which clients know a worker's HTTP port, without the port; ``*.`` before it for all names below."""

PLACEHOLDER = "{task}"


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
