"""The dead letters of records and tasks that can give no result. An event that gives all its results comes not here.

An exception that nobody foresaw is tried once more and then a dead letter, too, of class Defect: a worker that ended
for it would meet its record again at every start.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import structlog

from consumer.codecs.control_headers import row_numbers
from consumer.codecs.decoding import MAX_TASKS
from consumer.codecs.outputs import TASK
from consumer.delivery.dead_letters import DEFECT, Failure, class_name, raised_in, stack_trace
from consumer.events import BadInput
from consumer.serving.protocol import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.delivery.dead_letters import DeadLetters
    from consumer.events import Output, SourceRecord, Stage
    from consumer.serving.refused import WindowRefused
    from consumer.telemetry.metrics import Metrics

_SHOWN_ROWS = 60
"""Characters of row numbers that a message or a log line shows."""

LETTERS = 4
"""Most dead letters that tell of one failed task each. Where more of an event's tasks fail, those that failed for the
same reason share a letter, since each letter has the whole value in it."""

_NOT_THE_RECORDS = (
    MemoryError,
    OSError,
    ServingError,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
)
"""Errors of this process, of its disk, or of what it is connected to."""

_CLIENTS = ("cimpl", "confluent_kafka", "grpc")
"""Packages of the clients at the edges, whose errors are none of the record's either (``cimpl`` is confluent-kafka)."""

_log = structlog.stdlib.get_logger(__name__)


def is_defect(error: BaseException) -> bool:
    """Whether ``error`` comes from what the record holds, and from our code: not from the process or its connections.

    BaseException, since a panic in the tokenizer's Rust is no Exception. So is a cancellation that nobody asked for:
    taken for one, it would leave the record without an outcome, and its partition behind it.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return not isinstance(error, _NOT_THE_RECORDS) and type(error).__module__.partition(".")[0] not in _CLIENTS


@dataclass(frozen=True, slots=True)
class FailedTask:
    """A task of an event that can give no result, and why."""

    name: str
    at_ms: int
    """When it failed, milliseconds since 1970: other tasks of the event may take much longer."""
    bad: BadInput
    refused: WindowRefused | None = None
    """The cause of ``bad`` when a window could not be answered."""
    defect: BaseException | None = None
    """What our own code raised over it; ``bad`` then has no more than the stage and the class."""


class FailedRow(NamedTuple):
    """Tasks of one row of a record that can give no result; none when the row failed before they were known."""

    row: int
    tasks: tuple[str, ...]
    failed: FailedTask
    """The name in it does not count."""


class Failures:
    """Makes, counts and logs the dead letters of one worker's events.

    Those of defects hold no text of an exception, and neither does the log: it may quote the record.
    """

    def __init__(
        self, dead_letters: DeadLetters, metrics: Metrics, model: str, wall_clock: Callable[[], float]
    ) -> None:
        """``model`` is the model's name, ``wall_clock`` gives seconds since 1970."""
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._model = model
        self._wall = wall_clock

    def beside(self, record: SourceRecord, ended: Sequence[tuple[Output, int | None] | FailedTask]) -> Iterator[Output]:
        """The outputs of an event of which tasks failed: those that there are, and letters.

        One for each failed task, or where they are more than ``LETTERS`` one for each reason, behind all others.
        """
        many = sum(isinstance(each, FailedTask) for each in ended) > LETTERS
        groups: dict[tuple[str, str], list[FailedTask]] = {}
        for each in ended:
            if not isinstance(each, FailedTask):
                yield each[0]
            elif many:
                groups.setdefault((each.bad.stage, each.bad.reason), []).append(each)
            else:
                yield self._letter(record, (each,))
        for failed in groups.values():
            yield self._letter(record, failed)

    def _letter(self, record: SourceRecord, failed: Sequence[FailedTask]) -> Output:
        """The dead letter of tasks that failed for one reason."""
        first, tasks = failed[0], [each.name for each in failed]
        if first.defect is not None:
            return self.defect(record, first.defect, first.bad.stage, tasks, version=first.bad.model_version)
        return self.letter(record, first.bad, tasks, first.refused, first.at_ms)

    def of_rows(self, record: SourceRecord, failed: Sequence[FailedRow], rows: int) -> Iterator[Output]:
        """The dead letters of a record of several rows: one for each reason, since each has the whole value in it."""
        groups: dict[tuple[str, str], list[FailedRow]] = {}
        for each in failed:
            groups.setdefault((each.failed.bad.stage, each.failed.bad.reason), []).append(each)
        for group in groups.values():
            first = group[0].failed
            numbers = row_numbers(sorted({each.row for each in group}))
            named = dict.fromkeys(task for each in group for task in each.tasks)
            # None of them: a replay then runs all tasks of these rows.
            tasks = tuple(named) if len(named) <= MAX_TASKS and all(each.tasks for each in group) else ()
            if first.defect is not None:
                version = first.bad.model_version
                yield self.defect(record, first.defect, first.bad.stage, tasks, numbers, version)
                continue
            shown = numbers if len(numbers) <= _SHOWN_ROWS else f"{numbers[:_SHOWN_ROWS]}…"
            what = f"row {shown} of {rows}: {first.bad.message}"
            bad = BadInput(first.bad.stage, first.bad.reason, what, first.bad.model_version)
            yield self.letter(record, bad, tasks, first.refused, first.at_ms, numbers)

    def letter(
        self,
        record: SourceRecord,
        bad: BadInput,
        tasks: Sequence[str],
        refused: WindowRefused | None = None,
        at_ms: int | None = None,
        rows: str | None = None,
    ) -> Output:
        """The dead letter of ``tasks``; of the whole event when it failed before they were known.

        ``refused`` is the cause of ``bad`` when a window could not be answered; ``at_ms`` is now unless it says so;
        ``rows`` are the numbers of those that failed, of a record of several.
        """
        raised = refused or bad
        now_ms = at_ms or int(self._wall() * 1000)
        self._metrics.dead_letter(bad.stage, bad.reason)
        # A name that nobody configured may be anything, review text too.
        logged = None if bad.reason == "UnknownTask" else ",".join(tasks[:LETTERS]) or None
        more: dict[str, object] = {"tasks": len(tasks)} if len(tasks) > LETTERS else {}
        if rows is not None:
            more["row"] = rows[:_SHOWN_ROWS]
        _log.warning("dead letter", stage=bad.stage, reason=bad.reason, task=logged, **more)
        failure = Failure(
            stage=bad.stage,
            reason=bad.reason,
            message=bad.message,
            first_failed_at_ms=now_ms - round(refused.failing_seconds * 1000 if refused else 0.0),
            exception=class_name(raised),
            cause=class_name(raised.__cause__),
            stack_trace=stack_trace(raised) if self._dead_letters.stack_traces else None,
            attempts=refused.attempts if refused else 1,
            task=",".join(tasks) or None,
            task_count=len(tasks),
            model=self._model if bad.stage == "extract" or bad.model_version else None,
            model_version=refused.model_version if refused else bad.model_version,
            rows=rows,
        )
        return self._dead_letters.of(record, failure, now_ms)

    def of_refused(self, record: SourceRecord, refused: Output, why: Literal["size", "no key"]) -> Output:
        """The dead letter of a result that its topic refuses: for its size, or because it has no key."""
        try:
            task = next((value.decode() for name, value in reversed(refused.headers) if name == TASK and value), None)
            what = (
                f"the result has {len(refused.value or b'')} bytes, and {len(refused.key or b'')} in its key, more than"
                f" topic {refused.topic} takes; raise its max.message.bytes, or lower limits.result_bytes"
            )
            reason = "ResultTooLarge"
            if why == "no key":
                reason = "ResultWithoutKey"
                what = (
                    f"the record has no key, and topic {refused.topic} is compacted: it takes no result without one; "
                    "send the key, or set its cleanup.policy to delete"
                )
            rows = None
            if refused.row is not None:
                rows, what = str(refused.row), f"row {refused.row}: {what}"
            bad = BadInput("produce", reason, what, refused.model_version)
            return self.letter(record, bad, () if task is None else (task,), rows=rows)
        except BaseException as error:
            if not is_defect(error):
                raise
            return self.defect(record, error, "produce", (), version=refused.model_version)

    def tried_once(self, error: BaseException) -> None:
        """Log a first defect, which a second try may pass. Raises ``error`` when it is none."""
        if not is_defect(error):
            raise error
        _log.warning("a defect, tried once more", kind=class_name(error), raised_in=raised_in(error))

    def defect(
        self,
        record: SourceRecord,
        error: BaseException,
        stage: Stage,
        tasks: Sequence[str],
        rows: str | None = None,
        version: str | None = None,
    ) -> Output:
        """The dead letter of ``tasks`` (none before they were known) for ``error``, also when the usual one cannot be
        made of this record. ``version``: of the model that had answered.
        """
        now_ms = int(self._wall() * 1000)
        failure = Failure(
            stage=stage,
            reason=DEFECT,
            message=f"{class_name(error)} in {raised_in(error)}, twice: a defect of Rexstream, not of the record; "
            "report it with the stack trace, and replay the dead letter once it is mended",
            first_failed_at_ms=now_ms,
            exception=class_name(error),
            cause=class_name(error.__cause__),
            stack_trace=stack_trace(error, text=False),
            attempts=2,
            task=",".join(tasks) or None,
            task_count=len(tasks),
            model=self._model if stage == "extract" or version else None,
            model_version=version,
            rows=rows,
        )
        self._metrics.dead_letter(stage, DEFECT)
        _log.error(
            "a defect: the record becomes a dead letter",
            stage=stage,
            task=failure.task,
            kind=failure.exception,
            exception=failure.stack_trace,
            fix="report it with this line; replay the dead letters of class Defect once it is mended",
        )
        try:
            return self._dead_letters.of(record, failure, now_ms)
        except BaseException as second:
            if not is_defect(second):
                raise
            frames = stack_trace(second, text=False)
            _log.error("no dead letter can be made of the record's own parts", exception=frames)
            return self._dead_letters.bare(record, failure)
