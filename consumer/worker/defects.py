"""Exceptions that nobody foresaw, raised over a record: whose they are, and the dead letter of class Defect.

The event processor tries such a record once more. A worker that ended for it would meet it again at every start.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from consumer.delivery.dead_letters import DEFECT, Failure, class_name, raised_in, stack_trace
from consumer.serving.protocol import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consumer.delivery.dead_letters import DeadLetters
    from consumer.events import Output, SourceRecord, Stage
    from consumer.telemetry.metrics import Metrics

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


class Defects:
    """Makes the dead letters of defects. Logs and letters hold no text of an exception: it may quote the record."""

    def __init__(
        self, dead_letters: DeadLetters, metrics: Metrics, model: str, wall_clock: Callable[[], float]
    ) -> None:
        """``model`` is the model's name, ``wall_clock`` gives seconds since 1970."""
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._model = model
        self._wall = wall_clock

    def tried_once(self, error: BaseException) -> None:
        """Log a first defect, which a second try may pass. Raises ``error`` when it is none."""
        if not is_defect(error):
            raise error
        _log.warning("a defect, tried once more", kind=class_name(error), raised_in=raised_in(error))

    def letter(self, record: SourceRecord, error: BaseException, stage: Stage, tasks: Sequence[str]) -> Output:
        """The dead letter of ``tasks`` (none before they were known) for ``error``, also when the usual one cannot be
        made of this record.
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
            model=self._model if stage == "extract" else None,
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
