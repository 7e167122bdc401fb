"""A worker from its start to its end: prepare, consume, drain. The only module that creates and connects all the parts.

Threads: the event loop's, on which records are decoded, windows are made and models are called; the Kafka runtime's;
the HTTP server's; and one that waits for signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from confluent_kafka import KafkaException

from consumer import __version__
from consumer.batching.queue import EventShare
from consumer.codecs.outputs import Routes
from consumer.config.inputs import ByInput
from consumer.delivery.dead_letters import DeadLetters
from consumer.exit_codes import EXIT_CREDENTIALS, EXIT_FAILED, EXIT_FENCED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from consumer.kafka.clients.cluster import refuse_embedded
from consumer.kafka.clients.errors import ClientFailed, UnreadableBatch
from consumer.kafka.consume.group_start import commit_start
from consumer.kafka.runtime import KafkaRuntime
from consumer.serving.refused import State
from consumer.telemetry import stacks
from consumer.telemetry.metrics import Metrics
from consumer.worker.background import BackgroundTasks, finished_before, signals_handled
from consumer.worker.cost_measurement import measure_first
from consumer.worker.credentials import CredentialWatch
from consumer.worker.dead_letter_breaker import DeadLetterBreaker
from consumer.worker.event_processor import Intake
from consumer.worker.health import Health, open_http
from consumer.worker.model_watch import first_found, watch_model
from consumer.worker.parts import Parts, parts_of
from consumer.worker.task_runner import WorkBudget, durable
from consumer.worker.variants import Variants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from consumer.batching.policy import CallCost
    from consumer.config.tree import Config
    from consumer.events import Partition, SourceRecord
    from consumer.extraction.task import Task
    from consumer.kafka.registry.awaited import AwaitedSchemas
    from consumer.serving.bundle import Bundle
    from consumer.serving.protocol import ServingError
    from consumer.worker.config_watch import ConfigWatch
    from consumer.worker.event_processor import EventProcessor

_log = structlog.stdlib.get_logger(__name__)

STATE_REASONS = {State.OUTAGE: "outage", State.DEPLOYMENT_FAULT: "deployment_fault"}
"""Why consumption is paused while the dispatcher does not send."""


class Worker:
    """One member of the consumer group. ``run`` once."""

    def __init__(
        self,
        config: Config,
        tasks: Mapping[str, Task],
        name: str,
        bundles: Sequence[Bundle],
        watch: ConfigWatch | None = None,
        parts: Parts | None = None,
    ) -> None:
        """``bundles``: of ``config.model`` (``start_checks`` refused others). ``watch``: of the configuration file, if
        something in it may change while the worker runs. ``parts``: those of a shadow run.
        """
        self._bundles, self._watch, self._config, limits = bundles, watch, config, config.limits
        self._routes = Routes(config.routes, tasks)
        self._breaker = DeadLetterBreaker(config.delivery, self._routes.inputs)
        share = limits.work_bytes // len(self._routes.inputs)
        self._budgets = ByInput(self._routes.inputs, lambda each: WorkBudget(share, self._routes.route(each).lane))
        self._parts = parts or parts_of(config, name)
        on_durable: list[Any] = [self._breaker.durable, partial(durable, self._budgets), *self._parts.on_durable]
        self._metrics = Metrics(on_durable, input_topics=self._routes.inputs, lanes=config.lanes())
        self._parts.count_in(self._metrics.registry)
        self._credentials = CredentialWatch(config, self._metrics.certificates)
        self._health = Health(config, name, self._metrics, self._breaker)
        self._background = BackgroundTasks(self._fatal)
        self._stopping = self._parts.stopping
        self._exit, self._ends = EXIT_OK, False  # parts may set ``stopping``, too, and a first signal then is no second
        self._abandon = False
        """Whether what is in flight is left to a successor: what it needs has failed."""
        self._model_ready = asyncio.Event()
        """Set for good when the model was available for the first time."""
        self._schemas: AwaitedSchemas | None = None
        self._version: str | None = None
        """The version of the model that answered last, as far as it was logged."""

    async def run(self) -> int:
        """Consume until SIGTERM, SIGINT or a fatal error; the exit code. SIGUSR1 logs all stacks.

        Raises OSError for an HTTP address that cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        stop = partial(self._on_loop, self._signalled)
        handlers: dict[signal.Signals, Callable[[signal.Signals], None]] = {
            signal.SIGTERM: stop,
            signal.SIGINT: stop,
            signal.SIGUSR1: lambda number: stacks.dump(number.name, self._loop),
        }
        with signals_handled(handlers):
            self._variants = Variants(self._config, self._bundles, self._parts, self._metrics, self._serving_state)
            self._http = http = open_http(self._health)
            try:
                self._background.start(self._heartbeat())
                self._credentials.renew["model.tls"] = self._renew_model_tls
                self._background.start(self._credentials.run(self._end_for_credentials))
                if await finished_before(self._stopping, self._prepare()):
                    await self._consume()
            except Exception:
                _log.exception("the worker ends")
                self._exit = EXIT_FAILED
            finally:
                self._background.cancel()
                await self._variants.close()
                if http is not None:
                    http.close()
                # asyncio.run would wait for these threads, too, but without our handlers of signals.
                await self._loop.shutdown_default_executor()
        _log.info("worker ended", exit_code=self._exit)
        return self._exit

    # -- the three phases ---------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Join the group only when the model can be used: a member that cannot work would hold partitions."""
        variants = self._variants
        variants.follow(self._background.start)
        self._background.start(
            watch_model(variants.all[0].servers, self._config.model, self._health, self._model_ready)
        )
        told = partial(setattr, self._health, "unreachable")
        try:
            if self._config.delivery.mode == "exactly_once":
                await asyncio.to_thread(refuse_embedded, self._config, self._stopping.is_set, told)
            await asyncio.to_thread(commit_start, self._config, self._routes.inputs, self._stopping.is_set, told)
        except ValueError as error:
            _log.error("this cluster cannot be used", reason=str(error))
            self._end(EXIT_USAGE)
            return
        paused = {"outage": self._routes.inputs}
        await first_found(self._model_ready, lambda waits: self._metrics.paused(paused if waits else {}))
        await variants.usable()
        self._version = self._metrics.model_version
        model = self._config.model
        _log.info("model ready", target=model.target, model=model.name, version=self._version)
        if "cost" not in (batching := self._config.batching).model_fields_set:
            main = variants.main
            window = main.engine.known_good_window()
            cost = await measure_first(main.servers.clients, main.dispatcher, window, batching.max_tokens)
            if cost is not None:
                variants.costs(cost)
                self._health.call_cost = "measured", cost
        if self._config.kafka.registry.url is not None:
            self._open_registry()

    async def _consume(self) -> None:
        processor = self._event_processor()
        # One for each lane, in turns: a record does not wait for the backlog of another lane to be started.
        intakes = {lane: Intake(processor.process, self._fatal) for lane in self._config.lanes()}

        def arrived(records: list[SourceRecord]) -> None:
            for lane, intake in intakes.items():
                intake.add([record for record in records if self._budgets[record.topic].lane == lane])

        try:
            runtime = KafkaRuntime(
                self._config,
                self._routes.inputs,
                arrived if len(intakes) > 1 else next(iter(intakes.values())).add,
                partial(self._on_loop, partial(self._revoked, intakes.values())),
                processor.refused,
                partial(self._on_loop, self._fatal),
                self._metrics,
                on_hang=partial(stacks.dump, loop=self._loop),
                http_port=None if self._http is None else self._http.server_port,
            )
        except (ValueError, KafkaException) as error:
            _log.error("kafka.client has settings that cannot be", reason=str(error))
            self._end(EXIT_USAGE)
            return
        self._health.runtime = self._breaker.runtime = runtime
        self._metrics.ages(uncommitted=runtime.uncommitted_seconds, lag=runtime.lag_age)
        if (reason := STATE_REASONS.get(self._variants.state)) is not None:
            runtime.pause(reason)
        # What is there now stays: the garbage collector need not look at it for every few hundred events (6 % of CPU).
        gc.collect()
        gc.freeze()
        # Events make no cycles, and thousands in flight are 100,000 objects: looking after 20,000 took a fifth of CPU.
        gc.set_threshold(100_000)
        runtime.start()
        for intake in intakes.values():
            self._background.start(intake.run(runtime.processed))
        if self._watch is not None and (router := self._variants.router) is not None:
            self._background.start(self._watch.run(router.change))
        _log.info("consuming", topics=list(self._routes.inputs), group=self._config.kafka.group_id)
        await self._stopping.wait()
        await self._drain(runtime)

    async def _drain(self, runtime: KafkaRuntime) -> None:
        self._health.draining = True
        began, grace = time.monotonic(), 0.0 if self._abandon else self._config.delivery.grace_seconds
        drained = await asyncio.to_thread(runtime.drain, grace)
        self._health.runtime = None
        if not drained and self._exit in (EXIT_OK, EXIT_CREDENTIALS):
            self._exit = EXIT_FAILED
        await asyncio.to_thread(self._parts.close, began + grace)

    # -- its parts ------------------------------------------------------------------------------------------------

    def _event_processor(self) -> EventProcessor:
        config = self._config
        # The objective is for an event's last window; a transaction may wait for further records after that.
        waits = config.delivery.transaction_interval_ms if config.delivery.mode == "exactly_once" else 0
        objective, full = max(1, config.batching.latency_objective_ms - waits) / 1000, config.batching.max_tokens

        def share(cost: CallCost) -> EventShare:
            return EventShare(full, objective, cost.seconds(full // 512, 512))

        # Calls under way, and one that waits for them: a lone long event keeps the model server busy.
        tokens = full * (config.batching.max_in_flight + 1)
        return self._parts.event_processor(
            self._routes,
            self._variants.infer(self._budgets, tokens, share, self._metrics.window_over_share),
            DeadLetters(
                config.delivery.dead_letter_topic,
                config.kafka.group_id,
                __version__,
                config.dead_letter.headers,
                config.dead_letter.stack_trace,
            ),
            self._metrics,
            budgets=self._budgets,
            model=config.model.name,
            max_value_bytes=config.limits.value_bytes,
            latency_objective=objective,
            schemas=self._schemas,
        )

    def _open_registry(self) -> None:
        """The registry is not contacted before an event needs it: topics without Avro work without it."""
        # Not at the top: a worker without a registry should not load its client.
        from consumer.config.shipped import shipped
        from consumer.kafka.registry.awaited import AwaitedSchemas
        from consumer.kafka.registry.client import RegistryRefused
        from consumer.kafka.registry.resolver import RESULT_SCHEMA, SchemaResolver

        try:
            resolver = SchemaResolver(self._config.kafka.registry, shipped(RESULT_SCHEMA).read_text("utf-8"))
        except RegistryRefused as error:
            _log.error("kafka.registry has settings that cannot be", reason=str(error))
            self._end(EXIT_USAGE)
        else:
            self._schemas = AwaitedSchemas(resolver, self._registry_state)
            self._credentials.renew["kafka.registry"] = resolver.renew

    # -- what changes while it runs -------------------------------------------------------------------------------

    def _revoked(self, intakes: Iterable[Intake], epochs: Mapping[Partition, int]) -> None:
        for intake in intakes:
            intake.revoke(epochs)
        self._parts.revoked(epochs)
        for budget in self._budgets.of.values():
            budget.queue.revoke(epochs)

    def _serving_state(self, state: State, error: ServingError | None) -> None:
        self._health.serving = state
        if error is not None:
            _log.error("the model server cannot be used", state=state.value, code=error.code, reason=error.message)
        else:
            _log.info("the model server can be used again")
        if (runtime := self._health.runtime) is not None:
            for paused_state, reason in STATE_REASONS.items():
                (runtime.pause if state is paused_state else runtime.resume)(reason)

    def _renew_model_tls(self) -> None:
        for renewal in self._variants.renewals():
            self._background.start(renewal)

    def _registry_state(self, reasons: Mapping[str, str]) -> None:
        self._health.registry = reasons
        if (runtime := self._health.runtime) is not None:
            runtime.pause("registry", reasons)

    def _fatal(self, error: BaseException) -> None:
        _log.critical("the worker must end", reason=str(error), kind=type(error).__name__)
        self._abandon = self._abandon or not isinstance(error, UnreadableBatch)
        self._end(EXIT_FENCED if isinstance(error, ClientFailed) else EXIT_FAILED)

    def _signalled(self, number: signal.Signals) -> None:
        if self._exit == EXIT_CREDENTIALS:  # already draining, and now for good
            self._exit = EXIT_OK
        elif self._ends:
            _log.warning("second signal: ending at once; what is in flight is read again", signal=number.name)
            # A worker that failed before the signals keeps the exit code of its failure.
            os._exit(self._exit or EXIT_INTERRUPTED)
        _log.info("draining", signal=number.name, grace_seconds=self._config.delivery.grace_seconds)
        self._end(EXIT_INTERRUPTED if number == signal.SIGINT else self._exit)

    def _end(self, exit_code: int) -> None:
        self._exit, self._ends = exit_code, True
        self._stopping.set()

    def _end_for_credentials(self) -> bool:
        if self._health.runtime is None or self._stopping.is_set():
            return False  # the clients are not made yet, or end anyway
        self._end(EXIT_CREDENTIALS)
        return True

    def _on_loop(self, call: Callable[[Any], None], argument: Any) -> None:
        """Call from another thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so the worker has ended
            self._loop.call_soon_threadsafe(call, argument)

    # -- what it looks at all the time ----------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Shows /livez that the event loop runs, ends the breaker's pauses, and logs when another version answers."""
        while True:
            self._health.loop_round_at = time.monotonic()
            self._breaker.tick()
            if self._version not in (None, answers := self._metrics.model_version):
                _log.info(
                    "another version of the model answers",
                    model=self._config.model.name,
                    version=answers,
                    before=self._version,
                    contract=self._variants.main.bundle.contract,
                )
                self._version = answers
            self._health.variants = self._variants.look()
            self._health.observe(self._variants.endpoints, self._variants.windows)
            self._metrics.endpoints.show(self._health.endpoints)
            queues = [budget.queue for budget in self._budgets.of.values()]
            self._metrics.count()
            self._metrics.work(sum(each.taken for each in queues), sum(len(each.waiting) for each in queues))
            await asyncio.sleep(0.5)
