"""What a topic, a task and a network address may be called: checked in the configuration and in dead letters."""

from __future__ import annotations

import re

TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
"""Kafka's own rule for topics: ``.`` and ``..`` are none."""

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""A task's name becomes a part of topic names and a metric label."""

ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\s/\[\]]+)):(?P<port>\d{1,5})")
"""``host:port`` or ``[v6]:port``; the port may still be above 65535."""
