"""Which tasks an event runs, and where their results go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.config.topics import output_topic
from consumer.events import BadInput
from consumer.extraction.task import INLINE, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from consumer.config.tree import RouteConfig, ValueFormat
    from consumer.events import Header, ReviewEvent, SourceRecord


# Headers that tell the worker something: those that a replay of a dead letter sets.

EVENT_ID = "rexstream-event-id"
"""The default id that the event had before its replay: it is made of coordinates, which a replay changes. An id of the
event's own stays what it is: whoever replays cannot read every value, and whoever joins results knows events by it."""

ONLY_TASKS = "rexstream-only-tasks"
"""Names, joined by commas, of the tasks to run among those that the event would run."""


def event_id_of(headers: Sequence[Header]) -> str | None:
    """The event id that the headers carry, or None. Raises BadInput InvalidHeader (stage ``validate``)."""
    return _last(headers, EVENT_ID) or None


def only_tasks_of(headers: Sequence[Header]) -> frozenset[str] | None:
    """The tasks that the headers narrow the event to, or None. Raises BadInput InvalidHeader (stage ``validate``)."""
    value = _last(headers, ONLY_TASKS)
    names = [] if value is None else [name.strip() for name in value.split(",")]
    return frozenset(filter(None, names)) or None


def _last(headers: Sequence[Header], name: str) -> str | None:
    """The value of the last header of that name: the nearest hop's."""
    for key, value in reversed(headers):
        if key == name and value is not None:
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                what = f"header {name} is not UTF-8 at byte {error.start} of {len(value)}; replay the dead letter again"
                raise BadInput("validate", "InvalidHeader", what) from None
    return None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to do with an event: tasks to run, and tasks that cannot be run, each of which is a dead letter."""

    tasks: tuple[Task, ...]
    refused: tuple[tuple[str, BadInput], ...] = ()
    """``(task name as the event wrote it, why)``. The name is a stranger's: no metric label, no topic."""


class Routes:
    """The routes by input topic, with the tasks they may use."""

    def __init__(self, routes: Iterable[RouteConfig], tasks: Mapping[str, Task]) -> None:
        self._routes = {route.input: route for route in routes}
        self._tasks = dict(tasks)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The topics to subscribe to."""
        return tuple(self._routes)

    def route(self, topic: str) -> RouteConfig:
        """The route of an input topic. Raises KeyError for a topic that is none."""
        return self._routes[topic]

    def value_format(self, topic: str) -> ValueFormat:
        """How values of an input topic are written. Raises KeyError for a topic that is none."""
        return self._routes[topic].format

    def choose(self, record: SourceRecord, event: ReviewEvent) -> Chosen:
        """The tasks that an event runs.

        An event's own choice, its ``tasks`` and its ``schema``, takes the place of the route's tasks; the schema
        becomes a task named ``inline``. A replay's header then narrows the choice. Raises BadInput NoTasks (stage
        ``validate``) when nothing is left, InvalidHeader for a header that cannot be read.
        """
        names = list(event.tasks or ())
        if not names and event.schema is None:
            names = list(self._routes[record.topic].tasks)
        only = only_tasks_of(record.headers)
        tasks: list[Task] = []
        refused: list[tuple[str, BadInput]] = []
        for name in names:
            if only is not None and name not in only:
                continue
            if name in self._tasks:
                tasks.append(self._tasks[name])
            else:
                refused.append((name, self._unknown(name)))
        if event.schema is not None and (only is None or INLINE in only):
            tasks.append(Task(name=INLINE, kind=event.kind, schema=event.schema))
        if not tasks and not refused:
            what = f"topic {record.topic} has no tasks for this event and it brings none"
            if only is not None:
                what = "its header rexstream-only-tasks names none of the tasks that this event would run"
            raise BadInput("validate", "NoTasks", f"{what}; add tasks to the route, or send tasks or a schema")
        return Chosen(tuple(tasks), tuple(refused))

    def output_topic(self, input_topic: str, task: str) -> str:
        """The topic for results of ``task``, a configured name or ``inline``, on events of ``input_topic``."""
        return output_topic(self._routes[input_topic].output, task)

    def _unknown(self, name: str) -> BadInput:
        known = ", ".join(sorted(self._tasks))
        # Its length, not the name: what an event says may be review text.
        what = f"the event asks for an unknown task (a name of {len(name)} characters); known are {known}"
        return BadInput("validate", "UnknownTask", what)
