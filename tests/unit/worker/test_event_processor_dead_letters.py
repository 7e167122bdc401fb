"""What a dead letter holds about the model and the exception behind it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from consumer.codecs.outputs import Routes
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import BadInput, SourceRecord
from consumer.serving.protocol import Failure, ServingError
from consumer.serving.refused import WindowRefused
from consumer.telemetry.metrics import Metrics
from consumer.worker.event_processor import EventProcessor
from consumer.worker.task_runner import WorkBudget

if TYPE_CHECKING:
    from consumer.extraction.task import Task
    from consumer.worker.inference import Inference

NOW = 1_790_000_000.0
ROUTE = RouteConfig(input="in", format="text", tasks=("sentiment",))


def headers_of(error: Exception, letters: DeadLetters) -> dict[str, str]:
    """Headers of the dead letter of an event that fails with ``error``."""

    async def fail(*_: object, **__: object) -> Inference:
        raise error

    infer: Any = fail
    processor = EventProcessor(
        Routes([ROUTE], load_tasks()),
        infer,
        letters,
        Metrics(),
        budgets=defaultdict(lambda: WorkBudget(100_000_000)),
        model="rex",
        max_value_bytes=1000,
        latency_objective=1.0,
        wall_clock=lambda: NOW,
        clock=lambda: 0.0,
    )
    record = SourceRecord("in", 0, 7, 1, None, "鞋底软".encode(), (), 1000, 0.0)
    (output,) = asyncio.run(processor.process(record)).outputs
    return {name: (value or b"").decode(errors="replace") for name, value in output.headers}


def refused() -> WindowRefused:
    error = ServingError(Failure.TRANSIENT, "UNAVAILABLE", "connection reset")
    return WindowRefused("Poison", error, attempts=5, failing_seconds=12.5, model_version="3")


def test_a_poisoned_window_says_since_when_how_often_and_beside_which_version() -> None:
    """Its first failure lies before the moment in which it was given up."""
    found = headers_of(refused(), DeadLetters("dead", "g", "1", "spring"))
    assert found["rexstream-dlq-first-failed-at"] == "2026-09-21T14:13:07.500+00:00"
    assert found["rexstream-dlq-failed-at"] == "2026-09-21T14:13:20.000+00:00"
    assert found["rexstream-dlq-attempts"] == "5"
    assert (found["rexstream-dlq-model"], found["rexstream-dlq-model-version"]) == ("rex", "3")
    assert found["rexstream-dlq-exception"] == "consumer.serving.refused.WindowRefused"
    assert found["kafka_dlt-exception-cause-fqcn"] == "consumer.serving.protocol.ServingError"
    assert "rexstream-dlq-stack-trace" not in found


def test_a_limit_met_on_the_way_names_the_version_that_had_answered() -> None:
    """The text was bad for this model; another version may find less in it."""
    bad = BadInput("extract", "TooManyWindows", "more than limits.model_calls")
    bad.model_version = "9"
    found = headers_of(bad, DeadLetters("dead", "g", "1"))
    assert found["rexstream-dlq-model-version"] == "9"
    assert found["rexstream-dlq-exception"] == "consumer.events.BadInput"
    assert found["rexstream-dlq-first-failed-at"] == found["rexstream-dlq-failed-at"]


def test_a_stack_trace_is_there_where_it_was_asked_for() -> None:
    """It shows code, and no review."""
    found = headers_of(refused(), DeadLetters("dead", "g", "1", "connect", stack_traces=True))
    assert "in fail" in found["rexstream-dlq-stack-trace"]
    assert found["rexstream-dlq-stack-trace"] == found["__connect.errors.exception.stacktrace"]
    assert "鞋底软" not in found["rexstream-dlq-stack-trace"]


def test_a_letter_says_when_its_task_failed_and_not_when_the_event_ended() -> None:
    """Another task of the event may wait for the end of an outage."""
    now = [NOW]

    async def fail(_: str, task: Task, *__: object) -> Inference:
        if task.name == "ner":
            await asyncio.sleep(0)
            now[0] += 3600
        raise BadInput("extract", "Poison", "no")

    infer: Any = fail
    route = RouteConfig(input="in", tasks=("sentiment", "ner"))
    processor = EventProcessor(
        Routes([route], load_tasks()),
        infer,
        DeadLetters("dead", "g", "1"),
        Metrics(),
        budgets=defaultdict(lambda: WorkBudget(100_000_000)),
        model="rex",
        max_value_bytes=1000,
        latency_objective=1.0,
        wall_clock=lambda: now[0],
        clock=lambda: 0.0,
    )
    value = '{"text": "鞋底软", "tasks": ["nobodys", "sentiment", "ner"]}'
    record = SourceRecord("in", 0, 7, 1, None, value.encode(), (), 1000, 0.0)
    outputs = asyncio.run(processor.process(record)).outputs
    assert [dict(output.headers)["rexstream-dlq-failed-at"] for output in outputs] == [
        b"2026-09-21T14:13:20.000+00:00",
        b"2026-09-21T14:13:20.000+00:00",
        b"2026-09-21T15:13:20.000+00:00",
    ]
