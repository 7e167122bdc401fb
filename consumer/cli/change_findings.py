"""What ``rexstream check`` says of results that a start would make otherwise: by the earlier configuration
(``--against``), and by the last results on the output topics (``--connect``).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from consumer.cli.dependencies import ANSWER_SECONDS, Finding
from consumer.cli.options import ConfigFailure
from consumer.codecs.outputs import RESULT_ID, TASK, TASK_FINGERPRINT, result_id
from consumer.config.loading import load
from consumer.config.names import result_topics
from consumer.config.problems import ConfigError
from consumer.config.task_changes import Change, changes
from consumer.extraction.task import INLINE
from consumer.kafka.clients.cluster import ClusterUnreachable, Reader, TopicUnusable
from consumer.kafka.clients.settings import metadata_settings
from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from consumer.config.loading import Loaded
    from consumer.config.tree import Config
    from consumer.extraction.task import Task

LAST_RECORDS = 10
"""Records at the end of each partition that are looked at: with several tasks on a topic, some of each as a rule."""


def changes_since(old_file: str, new_file: str | None, new: Loaded) -> list[Change]:
    """What became of each task's results since the configuration in ``old_file``, read with today's environment.

    Relative paths in it are taken as they would be if the command ran beside it: in the folder that is to ``old_file``
    what the current one is to ``new_file``. Raises ConfigFailure, which click turns into exit code 2.
    """
    here = Path.cwd()
    beside = here if new_file is None else (here / new_file).resolve().parent
    path = (here / old_file).resolve()
    folder = Path(os.path.normpath(path.parent / os.path.relpath(here.resolve(), beside)))
    try:
        with contextlib.chdir(folder):
            old = load(str(path), os.environ)
    except OSError as error:
        raise ConfigFailure(f"--against {old_file}: {folder} cannot be entered: {error.strerror}") from None
    except ConfigError as error:
        fix = f"the earlier configuration is read in {folder}; give it with its task files, as `git worktree add` does"
        raise ConfigFailure(f"--against {old_file} cannot be loaded by this release:\n{error}\n{fix}") from None
    return changes(old.config, old.tasks, new.config, new.tasks)


def change_findings(found: Iterable[Change]) -> Iterator[Finding]:
    """One for each change; a warning where subscribers of today's results have something to do."""
    for each in found:
        words = each.what if each.detail == "" else f"{each.what}: {each.detail}"
        subject = f"results of {each.task} on {each.input}"
        yield Finding(subject, "warn" if each.concerns_subscribers else "ok", words)


class _Last(NamedTuple):
    """The last result of a task on a topic."""

    timestamp: int
    place: str
    fingerprint: str
    """Empty where it does not say: of a release before this header."""
    message: Message


def last_result_findings(config: Config, tasks: Mapping[str, Task]) -> Iterator[Finding]:
    """Whether the last results on the output topics have the fingerprint that a worker would give them now.

    Reads a few records at the end of each partition, in no group. Says nothing of a task without a result there.
    """
    writers: dict[str, set[str]] = {}
    for route in config.routes:
        for topic, writing in result_topics(route, tasks).items():
            writers.setdefault(topic, set()).update(writing)
    settings = metadata_settings(config)
    servers = settings.pop("bootstrap.servers")
    try:
        with Reader(servers, client=settings, timeout=ANSWER_SECONDS, enable_partition_eof=True) as reader:
            for topic, names in writers.items():
                try:
                    last = _last_results(reader, topic)
                except TopicUnusable as error:
                    yield Finding(f"last results on {topic}", "ok", f"not known: {error}")
                    continue
                for name in sorted(names.intersection(last) - {INLINE}):
                    yield _compared(topic, tasks[name], last[name])
    except (ClusterUnreachable, KafkaException) as error:
        yield Finding("last results", "ok", f"not known: {error}")


def _compared(topic: str, task: Task, last: _Last) -> Finding:
    subject, now = f"last result of {task.name} on {topic}", task.fingerprint
    if last.fingerprint == now or (not last.fingerprint and _has_id_of(task, last.message)):
        return Finding(subject, "ok", f"has the fingerprint of today's definition, {now} ({last.place})")
    if not last.fingerprint:
        return Finding(subject, "ok", f"does not say its fingerprint ({last.place}); today's is {now}")
    what = f"has fingerprint {last.fingerprint} ({last.place}), and this configuration makes {now}"
    return Finding(
        subject, "warn", f"{what}: results of the same events get other ids; --against OLD says what changed"
    )


def _has_id_of(task: Task, message: Message) -> bool:
    """Whether a JSON result without a fingerprint has the id that ``task`` gives it."""
    try:
        value: Any = json.loads(message.value() or b"")
        return bool(dict(headers_of(message))[RESULT_ID] == result_id(value["event_id"], task).encode())
    except (ValueError, KeyError, TypeError):
        return False


def _last_results(reader: Reader, topic: str) -> dict[str, _Last]:
    """The newest result by task, among the last records of each partition."""
    ends = {partition: reader.watermarks(topic, partition) for partition in reader.partitions(topic)}
    left = {partition for partition, (first, end) in ends.items() if first < end}
    reader.consumer.assign(
        [TopicPartition(topic, partition, max(ends[partition][0], ends[partition][1] - LAST_RECORDS))
         for partition in left]
    )  # fmt: skip
    found: dict[str, _Last] = {}
    deadline = time.monotonic() + ANSWER_SECONDS
    while left and (wait := deadline - time.monotonic()) > 0:
        message = reader.consumer.poll(wait)
        if message is None:
            break
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
                continue
            raise TopicUnusable(f"topic {topic} cannot be read: {error.str()}")
        headers = dict(headers_of(message))
        if (task := (headers.get(TASK) or b"").decode(errors="replace")) and message.topic() == topic:
            place = f"partition {message.partition()}, offset {message.offset()}"
            fingerprint = (headers.get(TASK_FINGERPRINT) or b"").decode(errors="replace")
            one = _Last(message.timestamp()[1], place, fingerprint, message)
            found[task] = max(found.get(task, one), one, key=lambda each: each.timestamp)
    return found
