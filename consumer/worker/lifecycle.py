"""A worker: wires the parts together and is the only place that knows them all.

Three threads and a loop: the Kafka runtime's poll and release threads, the HTTP thread, and the event loop of ``run``,
on which records are decoded, windows are made and models are called.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException

from consumer import __version__
from consumer.batching.policy import LengthCut
from consumer.codecs.routing import Routes
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import Partition
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits, Task
from consumer.kafka.clients.cluster import refuse_embedded
from consumer.kafka.clients.errors import ClientFailed
from consumer.kafka.runtime import KafkaRuntime
from consumer.serving.bundle import load_bundle
from consumer.serving.channels import read_credentials
from consumer.serving.client import TfServingClient
from consumer.serving.dispatch.dispatcher import Dispatcher, State
from consumer.telemetry.http import HttpServer
from consumer.telemetry.metrics import Metrics
from consumer.worker.dead_letter_breaker import DeadLetterBreaker
from consumer.worker.event_processor import EventProcessor
from consumer.worker.health import Health
from consumer.worker.kafka_metrics import KafkaMetrics
from consumer.worker.task_runner import TaskRunner

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from consumer.config.tree import Config
    from consumer.events import SourceRecord
    from consumer.kafka.registry.awaited import AwaitedSchemas
    from consumer.serving.protocol import ServingError

_log = structlog.stdlib.get_logger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_FENCED, EXIT_INTERRUPTED = 0, 1, 2, 4, 130

# Why consumption is paused while the dispatcher does not send.
_PAUSE = {State.OUTAGE: "outage", State.DEPLOYMENT_FAULT: "deployment_fault"}


class Worker:
    """One member of the consumer group. ``run`` once."""

    READY_POLL_SECONDS = 5.0
    WAIT_FOR_MODEL_SECONDS = 1.0
    SAY_AGAIN_SECONDS = 30.0

    def __init__(self, config: Config, tasks: Mapping[str, Task], name: str) -> None:
        """Reads the bundle and the files of model.tls: raises ValueError when one is missing or cannot be used."""
        if config.model.bundle is None:
            raise ValueError("model.bundle is not set: name the folder <model>/<version>/bundle that the export wrote")
        bundle = load_bundle(Path(config.model.bundle))
        read_credentials(config.model.tls)  # the client reads them again, when it is too late for exit code 2
        limits = config.limits
        self._config = config
        self._routes = Routes(config.routes, tasks)
        self._engine = Engine(
            bundle.tokenizer,
            bundle.limits,
            ExtractionLimits(
                text_chars=limits.text_chars,
                types_per_level=limits.types_per_level,
                schema_depth=limits.schema_depth,
                facts=limits.facts,
                model_calls=limits.model_calls,
            ),
        )
        self._bundle = bundle
        self._metrics = Metrics()
        self._flood = DeadLetterBreaker(config.delivery)
        self._health = Health(config, name, self._metrics, self._flood)
        self._stopping = asyncio.Event()
        self._exit = EXIT_OK
        self._say_unready_at = 0.0
        self._schemas: AwaitedSchemas | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._events: dict[tuple[Partition, int], set[asyncio.Task[None]]] = {}
        # The last epoch of each partition that ended; a partition's epochs only grow.
        self._ended: dict[Partition, int] = {}

    async def run(self) -> int:
        """Consume until SIGTERM, SIGINT or a fatal error; the exit code.

        Raises OSError for an HTTP address that cannot be used.
        """
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        client = TfServingClient(self._config.model, self._bundle)
        self._dispatcher = Dispatcher(
            client,
            LengthCut(self._config.batching.max_tokens, self._config.batching.max_in_flight),
            # Any healthy model answers this, and it is answered in milliseconds.
            self._engine.start("好", Task("known-good", "classify", {"好": None, "不好": None})).windows[0],
            self._config.model.name,
            self._metrics,
            self._dispatcher_state,
        )
        http = self._open_http()
        try:
            self._in_background(self._heartbeat())
            if await self._before_stop(self._prepare(client)):
                await self._consume(client)
        except Exception:
            _log.exception("the worker ends")
            self._exit = EXIT_FAILED
        finally:
            for task in self._background:
                task.cancel()
            await client.close()
            if http is not None:
                http.close()
        _log.info("worker ended", exit_code=self._exit)
        return self._exit

    # -- the three phases ---------------------------------------------------------------------------------------

    async def _prepare(self, client: TfServingClient) -> None:
        """Join the group only when the model can be used: a member that cannot work would hold partitions."""
        if self._config.delivery.mode == "exactly_once":
            try:
                await asyncio.to_thread(refuse_embedded, self._config, self._stopping.is_set)
            except ValueError as error:
                _log.error("this cluster cannot be used", reason=str(error))
                self._exit = EXIT_USAGE
                self._stopping.set()
                return
        while not await self._ready(client):
            await asyncio.sleep(self.WAIT_FOR_MODEL_SECONDS)
        self._health.model_available = True
        self._in_background(self._dispatcher.pump())
        # One call before the first event: a model that does not fit the bundle is a fault of the deployment, and the
        # dispatcher waits it out here as it does later.
        await self._dispatcher.health_probe()
        _log.info("model ready", target=self._config.model.target, model=self._config.model.name)
        self._open_registry()

    async def _consume(self, client: TfServingClient) -> None:
        pipeline = EventProcessor(
            self._routes,
            TaskRunner(self._engine, self._dispatcher).infer,
            DeadLetters(
                self._config.delivery.dead_letter_topic,
                self._config.kafka.group_id,
                __version__,
                self._config.dead_letter.headers,
                self._config.dead_letter.stack_trace,
            ),
            self._metrics,
            model=self._config.model.name,
            max_value_bytes=self._config.limits.value_bytes,
            latency_objective=self._objective_seconds(),
            schemas=self._schemas,
        )
        intake: asyncio.Queue[SourceRecord] = asyncio.Queue()

        def on_records(records: list[SourceRecord]) -> None:
            def put() -> None:
                for record in records:
                    intake.put_nowait(record)

            self._loop.call_soon_threadsafe(put)

        try:
            runtime = KafkaRuntime(
                self._config,
                self._routes.inputs,
                on_records,
                lambda epochs: self._from_thread(self._drop, epochs),
                self._flood.noting(pipeline.too_large),
                lambda error: self._from_thread(self._fatal, error),
                KafkaMetrics(self._metrics, self._flood.ended),
            )
        except (ValueError, KafkaException) as error:
            _log.error("kafka.client has settings that cannot be", reason=str(error))
            self._exit = EXIT_USAGE
            return
        self._health.runtime = self._flood.intake = runtime
        if (reason := _PAUSE.get(self._dispatcher.state)) is not None:
            runtime.pause(reason)
        runtime.start()
        self._in_background(self._admit(intake, pipeline, runtime))
        self._in_background(self._watch_model(client))
        _log.info("consuming", topics=list(self._routes.inputs), group=self._config.kafka.group_id)
        await self._stopping.wait()
        self._health.draining = True
        grace = self._config.delivery.grace_seconds if self._exit not in (EXIT_FAILED, EXIT_FENCED) else 0.0
        drained = await asyncio.to_thread(runtime.drain, grace)
        self._health.runtime = None
        if not drained and self._exit == EXIT_OK:
            self._exit = EXIT_FAILED

    async def _admit(
        self, intake: asyncio.Queue[SourceRecord], pipeline: EventProcessor, runtime: KafkaRuntime
    ) -> None:
        """Start one task per record, and let answers in between: decoding a handful in one go would delay them."""
        while True:
            record = await intake.get()
            key = (Partition.of(record), record.epoch)
            if record.epoch <= self._ended.get(key[0], -1):
                continue
            task = asyncio.create_task(self._process(record, pipeline, runtime))
            running = self._events.setdefault(key, set())
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(0)

    async def _process(self, record: SourceRecord, pipeline: EventProcessor, runtime: KafkaRuntime) -> None:
        try:
            outcome = await pipeline.process(record)
        except Exception as error:
            _log.exception("a defect: this record has no outcome, so nothing from it on is committed")
            self._fatal(error)
            return
        runtime.processed(record, outcome)

    def _objective_seconds(self) -> float:
        """Until an event's last window is answered; a transaction may wait for company after that."""
        waits = self._config.delivery.transaction_interval_ms if self._config.delivery.mode == "exactly_once" else 0
        return max(1, self._config.batching.latency_objective_ms - waits) / 1000

    def _open_registry(self) -> None:
        """Nothing is asked before an event needs it: topics without Avro work without the registry."""
        config = self._config.kafka.registry
        if config.url is None:
            return
        # Not at the top: a worker without a registry should not load its client.
        from consumer.config.shipped import shipped
        from consumer.kafka.registry.awaited import AwaitedSchemas
        from consumer.kafka.registry.client import RegistryRefused
        from consumer.kafka.registry.resolver import RESULT_SCHEMA, SchemaResolver

        try:
            resolver = SchemaResolver(config, shipped(RESULT_SCHEMA).read_text("utf-8"))
        except RegistryRefused as error:
            _log.error("kafka.registry has settings that cannot be", reason=str(error))
            self._exit = EXIT_USAGE
            self._stopping.set()
            return
        self._schemas = AwaitedSchemas(resolver, self._registry_state)

    # -- what changes while it runs -------------------------------------------------------------------------------

    def _dispatcher_state(self, state: State, error: ServingError | None) -> None:
        self._health.serving = state
        if error is not None:
            _log.error("the model server cannot be used", state=state.value, code=error.code, reason=error.message)
        else:
            _log.info("the model server can be used again")
        runtime = self._health.runtime
        if runtime is not None:
            for paused_state, reason in _PAUSE.items():
                (runtime.pause if state is paused_state else runtime.resume)(reason)

    def _registry_state(self, reason: str | None) -> None:
        self._health.registry = reason
        if (runtime := self._health.runtime) is not None:
            if reason is None:
                runtime.resume("registry")
            else:
                runtime.pause("registry")

    def _drop(self, epochs: Mapping[Partition, int]) -> None:
        """Partitions were revoked: their unfinished events are someone else's now."""
        for partition, epoch in epochs.items():
            self._ended[partition] = max(epoch, self._ended.get(partition, -1))
        for key in epochs.items():
            for task in self._events.pop(key, set()):
                task.cancel()

    def _fatal(self, error: BaseException) -> None:
        _log.critical("the worker must end", reason=str(error), kind=type(error).__name__)
        self._exit = EXIT_FENCED if isinstance(error, ClientFailed) else EXIT_FAILED
        self._stopping.set()

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._stopping.is_set():
            _log.warning("second signal: ending at once; what is in flight is read again", signal=name)
            # A worker that has failed and is on its way out says so, whoever is impatient with it.
            os._exit(self._exit or EXIT_INTERRUPTED)
        _log.info("draining", signal=name, grace_seconds=self._config.delivery.grace_seconds)
        if number == signal.SIGINT:
            self._exit = EXIT_INTERRUPTED
        self._stopping.set()

    async def _watch_model(self, client: TfServingClient) -> None:
        while True:
            self._health.model_available = await self._ready(client)
            await asyncio.sleep(self.READY_POLL_SECONDS)

    async def _ready(self, client: TfServingClient) -> bool:
        """Ask, and say why not: at once, then again from time to time, since the reason may have become another."""
        ready = await client.ready()
        now = time.monotonic()
        if ready:
            self._say_unready_at = now
        elif now >= self._say_unready_at:
            model = self._config.model
            _log.warning("waiting for the model", target=model.target, model=model.name, reason=client.unready)
            self._say_unready_at = now + self.SAY_AGAIN_SECONDS
        return ready

    async def _heartbeat(self) -> None:
        """Shows /livez that the loop turns, and ends flood pauses."""
        while True:
            self._health.loop_turned_at = time.monotonic()
            self._flood.tick()
            self._health.windows_in_flight = self._dispatcher.waiting + self._dispatcher.in_flight
            await asyncio.sleep(0.5)

    # -- small things ---------------------------------------------------------------------------------------------

    def _open_http(self) -> HttpServer | None:
        if not self._config.observability.http:
            return None
        health = self._health
        try:
            server = HttpServer(
                self._config.observability.http,
                live=health.live,
                ready=health.ready,
                status=health.status,
                metrics=self._metrics.exposition,
                resume=self._flood.resume,
            )
        except ValueError as error:  # no host and port after all, or a host name that no resolver takes
            raise OSError(errno.EINVAL, str(error)) from None
        _log.info("http", address=f"{self._config.observability.http.rpartition(':')[0]}:{server.port}")
        return server

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside the rest; whatever ends it early ends the worker."""

        def ended(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("a background task failed", exc_info=error)
                self._fatal(error)

        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(ended)

    async def _before_stop(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether ``work`` finished before the worker was told to stop."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            task.result()
            return not self._stopping.is_set()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return False

    def _from_thread(self, call: Any, argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to tell
            self._loop.call_soon_threadsafe(call, argument)
