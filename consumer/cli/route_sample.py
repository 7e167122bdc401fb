"""``rexstream extract --route``: records of a sample go through a route of the configuration, without Kafka.

The worker's own event processor makes of each what it would publish. Only the model is asked otherwise, one task after
the other, or not at all; and results are JSON, whatever the route's ``output_format``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

from consumer import __version__
from consumer.cli.model_source import ModelSource, opened, quiet_end
from consumer.cli.options import Unreachable
from consumer.codecs.control_headers import last_value
from consumer.codecs.decoding import parse_json
from consumer.codecs.outputs import ModelUsed, Routes
from consumer.delivery.dead_letters import KIP_1191, PREFIX, DeadLetters
from consumer.events import BadInput, SourceRecord
from consumer.extraction.task import Extracted, Fact
from consumer.local.line_stream import reading
from consumer.local.review_files import STDIN, InputForm, open_reviews
from consumer.telemetry.metrics import Metrics
from consumer.worker.event_processor import EventProcessor
from consumer.worker.inference import Inference
from consumer.worker.task_runner import WorkBudget, durable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from consumer.config.loading import Loaded
    from consumer.config.route import RouteConfig
    from consumer.events import Header, Output, Work
    from consumer.extraction.engine import Engine
    from consumer.extraction.task import ExtractionLimits, Task
    from consumer.kafka.registry.awaited import AwaitedSchemas
    from consumer.offline import Driver

    Infer = Callable[[str, Task, Work], Awaitable[Inference]]
    Lines = Iterator[tuple[int, SourceRecord | str]]
    """Records with the numbers of their lines, or what is wrong with a line. Iterating raises InputError."""

RAW: Final = InputForm("text")
"""Lines as they are."""
RECORD_KEYS: Final = ("value", "value_base64", "payload")
"""Keys of a line that describes a record, as ``rexstream tail --json`` and ``kcat -J`` do: one of them is there."""


def route_of(found: Loaded, topic: str) -> RouteConfig:
    """The route that reads a topic. Raises click.UsageError."""
    routes = Routes(found.config.routes, found.tasks)
    try:
        return routes.route(topic)
    except KeyError:
        inputs = ", ".join(routes.inputs)
        raise click.UsageError(f"no route reads topic {topic}; the routes read {inputs} (is --config right?)") from None


def has_lines(route: RouteConfig) -> bool:
    """Whether values are such that a file may hold one a line. Of UTF-16 a line end is more than a byte."""
    return route.format != "avro" and route.compression is None and "\n".encode(route.encoding or "utf-8") == b"\n"


def infer_with(engine: Engine, driver: Driver) -> Infer:
    """Asks the model for one task of one text."""

    async def infer(text: str, task: Task, _: Work) -> Inference:
        (done,) = await driver.run([partial(engine.start, text, task)])
        if done.extraction is None:
            raise done.failure or RuntimeError("an extraction without result and failure")
        model = done.model or ModelUsed("", "", "")  # every type was skipped: no model was called
        return Inference(done.extraction.result(), model, 0.0, done.model_seconds, 0, 0)

    return infer


def infer_nothing(limits: ExtractionLimits) -> Infer:
    """Stands for the model where none is asked: the text is all that is found, for ``outputs`` to print."""

    async def infer(text: str, _: Task, __: Work) -> Inference:
        if len(text) > limits.text_chars:
            raise limits.text_too_long(text)
        found = Extracted(((Fact("text", text, 0, len(text), 1.0),),), (), 0)
        return Inference(found, ModelUsed("", "", ""), 0.0, 0.0, 0, 0)

    return infer


def print_route(
    found: Loaded,
    topic: str,
    model_source: ModelSource,
    path: str,
    options: Mapping[str, bool],
    write: BinaryIO,
) -> bool:
    """Write what a worker would publish for each record of a sample, and return whether no dead letter was among it.

    ``options`` are described, whole and no_model. Raises click.UsageError, Unreachable, InputError.
    """
    config = found.config
    route = route_of(found, topic)
    if options["described"]:
        lines = _described_records(path, topic)
    elif options["whole"] or not has_lines(route):
        lines = _whole_record(path, topic)
    else:
        lines = _records(path, topic, may_be_indented=route.format == "json")
    clean = True
    infer = infer_nothing(config.limits.of_extraction())
    with quiet_end(), ExitStack() as stack:
        if options["no_model"]:
            runner = stack.enter_context(asyncio.Runner())
        else:
            source = model_source.or_configured(config.model)
            session = stack.enter_context(opened(source, config.limits.of_extraction()))
            runner = session.runner
            infer = infer_with(session.engine, session.driver)
        sample = RouteSample(found, topic, route, infer, with_model=not options["no_model"])
        for number, record in lines:
            if isinstance(record, str):
                printed = [{"error": {"line": number, "class": "InvalidRecord", "stage": "decode", "message": record}}]
            else:
                printed = runner.run(sample.process(record, number))
            for each in printed:
                clean = clean and "error" not in each
                write.write(json.dumps(each, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            write.flush()
    return clean


def _whole_record(path: str, topic: str) -> Lines:
    with reading():
        value = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    yield 1, _record(topic, 1, value)


def _records(path: str, topic: str, *, may_be_indented: bool) -> Lines:
    """A line is a value; JSON that begins with a bracket alone in its line goes on to the end."""
    with open_reviews(path, RAW) as reviews:
        rows = iter(reviews)
        for row in rows:
            value = row.content
            if may_be_indented and value.strip() in (b"{", b"["):
                value = b"\n".join((value, *(each.content for each in rows)))
            yield row.number, _record(topic, row.number, value)


def _described_records(path: str, topic: str) -> Lines:
    with open_reviews(path, RAW) as reviews:
        for row in reviews:
            yield row.number, _described(row.content, row.number, topic)


def _record(topic: str, number: int, value: bytes | None) -> SourceRecord:
    return SourceRecord(topic, 0, number, 0, None, value, (), int(time.time() * 1000), time.monotonic())


def _described(content: bytes, number: int, topic: str) -> SourceRecord | str:
    """A record from the JSON that describes it."""
    wanted = "is no record as 'rexstream tail --json' or 'kcat -J' print them"
    try:
        fields = parse_json(content.decode(errors="replace"))
        if not isinstance(fields, dict) or not any(name in fields for name in RECORD_KEYS):
            return f"{wanted}: an object with {', '.join(RECORD_KEYS[:2])} or {RECORD_KEYS[2]}"
        partition, offset = fields.get("partition", 0), fields.get("offset", number)
        timestamp = fields.get("timestamp", fields.get("ts"))
        if not all(isinstance(each, int) for each in (partition, offset, timestamp or 0)):
            return f"{wanted}: partition, offset and timestamp are whole numbers"
        value = _bytes(fields, "value") if "payload" not in fields else _bytes(fields, "payload")
        headers = tuple(_headers(fields.get("headers") or ()))
        return SourceRecord(
            topic, partition, offset, 0, _bytes(fields, "key"), value, headers, timestamp, time.monotonic()
        )
    except (BadInput, ValueError, TypeError) as error:
        return f"{wanted}: {error}"


def _bytes(fields: Mapping[str, Any], name: str) -> bytes | None:
    """A key or value: text, base64 under the name with ``_base64``, or JSON that was not made text."""
    encoded = fields.get(f"{name}_base64")
    return _as_bytes(fields.get(name) if encoded is None else {"base64": encoded})


def _as_bytes(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, dict) and set(value) == {"base64"}:
        return base64.b64decode(value["base64"], validate=True)
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode(errors="replace")


def _headers(described: Sequence[Any] | Mapping[str, Any]) -> Iterator[Header]:
    """Headers as pairs, as ``kcat`` lists them (name, value, name, value, …), or by name."""
    items = list(described.items()) if isinstance(described, dict) else list(described)
    if items and isinstance(items[0], str):
        items = list(zip(items[::2], items[1::2], strict=True))
    for name, value in items:
        yield str(name), _as_bytes(value)


class RouteSample:
    """Processes records as a worker with this configuration would."""

    def __init__(self, found: Loaded, topic: str, route: RouteConfig, infer: Infer, *, with_model: bool) -> None:
        """Raises click.UsageError for a registry with settings that cannot be."""
        config = found.config
        self._with_model = with_model
        self._config = config
        self._metrics = Metrics(input_topics=(topic,))
        self._budgets = {topic: WorkBudget(config.limits.work_bytes)}
        self._unreachable = ""
        self._registry_away = asyncio.Event()
        delivery = config.delivery
        self._processor = EventProcessor(
            # Avro results would need their schema in the registry, which a sample must not put there.
            Routes([route.model_copy(update={"output_format": "json"})], found.tasks),
            infer,
            DeadLetters(delivery.dead_letter_topic, config.kafka.group_id, __version__),
            self._metrics,
            budgets=self._budgets,
            model=config.model.name,
            max_value_bytes=config.limits.value_bytes,
            latency_objective=config.batching.latency_objective_ms / 1000,
            schemas=self._schemas(),
        )

    async def process(self, record: SourceRecord, number: int) -> list[dict[str, Any]]:
        """What is printed for the record of this line. Raises Unreachable when its schema cannot be fetched."""
        before = self._dropped()
        processed = asyncio.ensure_future(self._processor.process(record))
        away = asyncio.ensure_future(self._registry_away.wait())
        await asyncio.wait((processed, away), return_when=asyncio.FIRST_COMPLETED)
        away.cancel()
        if not processed.done():
            processed.cancel()
            raise Unreachable(f"the schema registry {self._config.kafka.registry.url}: {self._unreachable}")
        outcome = processed.result()
        durable(self._budgets, record, outcome)
        if outcome.outputs:
            return [self._printed(number, output) for output in outcome.outputs]
        reasons = [reason for reason, count in self._dropped().items() if count > before.get(reason, 0)]
        return [{"dropped": {"line": number, "reason": ", ".join(reasons)}}]

    def _printed(self, number: int, output: Output) -> dict[str, Any]:
        kind = last_value(output.headers, f"{PREFIX}class")
        if kind is not None:
            said = {
                "line": number,
                "class": kind.decode(),
                "stage": (last_value(output.headers, f"{PREFIX}stage") or b"").decode(),
                "message": (last_value(output.headers, f"{KIP_1191}message") or b"").decode(),
            }
            task = last_value(output.headers, f"{PREFIX}task")
            return {"error": said if task is None else {**said, "task": task.decode()}}
        if output.value is None:
            key = None if output.key is None else output.key.decode(errors="replace")
            return {"tombstone": {"line": number, "topic": output.topic, "key": key}}
        result: dict[str, Any] = json.loads(output.value)
        if self._with_model:
            return result
        text = result.pop("extractions")[0][0]["span"]
        for name in ("result_id", "model", "timing", "processed_at"):
            del result[name]
        return {"event_id": result.pop("event_id"), "text": text, **result}

    def _dropped(self) -> dict[str, float]:
        """Records without an output so far, by reason."""
        families = (each for each in self._metrics.registry.collect() if each.name == "rexstream_dropped")
        samples = (sample for family in families for sample in family.samples if sample.name.endswith("_total"))
        return {sample.labels["reason"]: sample.value for sample in samples}

    def _schemas(self) -> AwaitedSchemas | None:
        if self._config.kafka.registry.url is None:
            return None
        from consumer.config.shipped import shipped
        from consumer.kafka.registry.awaited import AwaitedSchemas
        from consumer.kafka.registry.client import RegistryRefused
        from consumer.kafka.registry.resolver import RESULT_SCHEMA, SchemaResolver

        try:
            resolver = SchemaResolver(self._config.kafka.registry, shipped(RESULT_SCHEMA).read_text("utf-8"))
        except RegistryRefused as error:
            raise click.UsageError(f"kafka.registry has settings that cannot be: {error}") from None
        return AwaitedSchemas(resolver, self._registry_state)

    def _registry_state(self, waiting: Mapping[str, str]) -> None:
        if waiting:
            self._unreachable = next(iter(waiting.values()))
            self._registry_away.set()
