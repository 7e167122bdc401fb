"""The dead letters of records and tasks that can give no result. An event that gives all its results comes not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from consumer.delivery.dead_letters import Failure, class_name, stack_trace
from consumer.worker.defects import Defects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.delivery.dead_letters import DeadLetters
    from consumer.events import BadInput, Output, SourceRecord
    from consumer.serving.refused import WindowRefused
    from consumer.telemetry.metrics import Metrics

LETTERS = 4
"""Most dead letters that tell of one failed task each. Where more of an event's tasks fail, those that failed for the
same reason share a letter, since each letter has the whole value in it."""

_log = structlog.stdlib.get_logger(__name__)


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


class Failures:
    """Makes, counts and logs the dead letters of one worker's events."""

    def __init__(
        self, dead_letters: DeadLetters, metrics: Metrics, model: str, wall_clock: Callable[[], float]
    ) -> None:
        """``model`` is the model's name, ``wall_clock`` gives seconds since 1970."""
        self.defects = Defects(dead_letters, metrics, model, wall_clock)
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
            return self.defects.letter(record, first.defect, first.bad.stage, tasks)
        return self.letter(record, first.bad, tasks, first.refused, first.at_ms)

    def letter(
        self,
        record: SourceRecord,
        bad: BadInput,
        tasks: Sequence[str],
        refused: WindowRefused | None = None,
        at_ms: int | None = None,
    ) -> Output:
        """The dead letter of ``tasks``; of the whole event when it failed before they were known.

        ``refused`` is the cause of ``bad`` when a window could not be answered; ``at_ms`` is now unless it says so.
        """
        raised = refused or bad
        now_ms = at_ms or int(self._wall() * 1000)
        self._metrics.dead_letter(bad.stage, bad.reason)
        # A name that nobody configured may be anything, review text too.
        logged = None if bad.reason == "UnknownTask" else ",".join(tasks[:LETTERS]) or None
        more = {"tasks": len(tasks)} if len(tasks) > LETTERS else {}
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
            model=self._model if bad.stage == "extract" else None,
            model_version=refused.model_version if refused else bad.model_version,
        )
        return self._dead_letters.of(record, failure, now_ms)
