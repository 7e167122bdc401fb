"""Every metric of a worker, each with a sentence on what a spike means. Callers see methods, never label names.

Label values come from bounded sets: the configuration, this code, or, where a server or broker chooses them, the first
few that were seen (``other`` after that). Review text, keys and event ids are never labels.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from consumer import __version__
from consumer.telemetry.labels import OTHER, FirstSeen, Tally
from consumer.telemetry.status import RecentActivity
from consumer.telemetry.window import RollingQuantiles, RollingSum

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from consumer.events import Stage as DeadLetterStage

EventOutcome = Literal["done", "partial", "dead_letter", "dropped"]
"""One record: every task gave a result; some did; none did; nothing to do (a null value)."""
LatencyPoint = Literal["extracted", "durable"]
Stage = Literal["decode", "queue", "model", "hold"]
PauseReason = Literal["backpressure", "output", "outage", "deployment_fault", "registry", "flood", "draining", "other"]
Breaker = Literal["closed", "half_open", "open"]

_PAUSE_REASONS: tuple[PauseReason, ...] = get_args(PauseReason)
_BREAKER_VALUE: dict[Breaker, int] = {"closed": 0, "half_open": 1, "open": 2}

# Milliseconds while all is well, minutes while a backlog drains.
_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_STAGE = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_CALL = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144)
_RATIO = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
_WINDOWS = (1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 512, 4096)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, that nobody reads


class Metrics:
    """The metrics of one worker, in a registry of their own. Every method may be called from any thread.

    ``clock`` (seconds, monotonic) dates what ``recent()`` summarises.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._events = Counter(
            "rexstream_events_total",
            "Records finished, by what became of them. A spike of dead_letter means bad input or a flood of it; "
            "a fall to zero with lag means that the worker is paused or stuck.",
            ["topic", "outcome"],
            registry=registry,
        )
        self._event_latency = Histogram(
            "rexstream_event_latency_seconds",
            "Broker timestamp to extracted, and to durable. A spike means a backlog (look at consumer_lag), a slow "
            "model (model_call_seconds) or, on durable alone, a slow broker.",
            ["point"],
            buckets=_LATENCY,
            registry=registry,
        )
        self._stage = Histogram(
            "rexstream_stage_seconds",
            "Time spent in one stage of an event or of a batch. A spike names the stage to look at.",
            ["stage"],
            buckets=_STAGE,
            registry=registry,
        )
        self._batch_rows = Histogram(
            "rexstream_batch_rows",
            "Windows in a batch. A spike means catching up; always 1 under load means that the latency objective "
            "leaves no time to batch.",
            buckets=_ROWS,
            registry=registry,
        )
        self._batch_tokens = Histogram(
            "rexstream_batch_tokens",
            "Tokens of a batch, padding included. A spike means long reviews or catching up; it precedes the model "
            "server's memory.",
            buckets=_TOKENS,
            registry=registry,
        )
        self._padding = Histogram(
            "rexstream_padding_ratio",
            "Share of a batch's tokens that is padding, 0 to 1. A spike means that windows of unlike lengths are sent "
            "together: work that the model does for nothing.",
            buckets=_RATIO,
            registry=registry,
        )
        self._model_call = Histogram(
            "rexstream_model_call_seconds",
            "Round trip of a model call by the version that answered and the gRPC status. A spike of OK means a busy "
            "model server; of any other code, the fault that the code names.",
            ["model", "version", "code"],
            buckets=_CALL,
            registry=registry,
        )
        self._windows_per_event = Histogram(
            "rexstream_windows_per_event",
            "Model rows that one event needed, over all its tasks and levels. A spike means longer reviews, larger "
            "schemas or a model that finds too many parents.",
            buckets=_WINDOWS,
            registry=registry,
        )
        self._in_flight_windows = Gauge(
            "rexstream_in_flight_windows",
            "Windows waiting for the model or in a call. A spike means that input arrives faster than the model "
            "answers; the cap on it pauses consumption.",
            registry=registry,
        )
        self._lag = Gauge(
            "rexstream_consumer_lag",
            "Records between the committed offset and the end of the partition, queried on a timer, also while "
            "paused. A spike means more input than work done: add workers, or look at paused.",
            ["topic", "partition"],
            registry=registry,
        )
        self._paused = Gauge(
            "rexstream_paused",
            "1 while consumption is paused for this reason. backpressure comes and goes under load; output means a "
            "topic that takes no result or dead letter (the log names it), and needs the topic, its ACL or the broker "
            "mended; outage and deployment_fault need the model server mended, registry the schema registry; flood "
            "waits for an operator or a timer, draining ends with the process.",
            ["reason"],
            registry=registry,
        )
        self._breaker = Gauge(
            "rexstream_breaker_state",
            "Circuit breaker of the model server: 0 closed, 1 half open, 2 open. Anything above 0 means that calls "
            "fail for reasons that retrying may cure; nothing is dead-lettered meanwhile.",
            registry=registry,
        )
        self._dead_letters = Counter(
            "rexstream_dead_letters_total",
            "Dead letters by the stage that gave up and the reason. A spike of one reason means that a producer "
            "changed what it sends, or a task its schema.",
            ["stage", "class"],
            registry=registry,
        )
        self._transactions = Counter(
            "rexstream_transactions_total",
            "Transactions of exactly_once by how they ended. A spike of aborted means rebalances, or outputs that a "
            "topic refuses (the log names it); what was aborted is produced again and no reader sees it twice.",
            ["end"],
            registry=registry,
        )
        self._retries = Counter(
            "rexstream_retries_total",
            "Model calls repeated after a failure. A spike means a model server that restarts, is overloaded or "
            "refuses a batch.",
            registry=registry,
        )
        self._releases = Counter(
            "rexstream_batch_release_total",
            "Batches by what made them leave. A spike of deadline means too little traffic to fill batches in time; "
            "of full, that the model is the bottleneck.",
            ["reason"],
            registry=registry,
        )
        self._overflows = Counter(
            "rexstream_window_overflow_total",
            "Windows with more positive cells than the compact signature returns, repeated on the dense one. A spike "
            "means a model that finds nonsense, and calls that cost a hundred times the bytes.",
            registry=registry,
        )
        build = Gauge(
            "rexstream_build_info",
            "Always 1; its labels name the build. Two values in a fleet mean that a roll-out is under way, or stuck.",
            ["version", "python"],
            registry=registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        for reason in _PAUSE_REASONS:
            self._paused.labels(reason).set(0)

        self.model_version: str | None = None
        """The version that answered last; None before the first answer."""
        self._lag_labels: set[tuple[str, str]] = set()
        self._topics = FirstSeen(200)
        self._models = FirstSeen(20)
        self._versions = FirstSeen(100)
        self._codes = FirstSeen(30)
        self._reasons = FirstSeen(100)
        self._release_reasons = FirstSeen(20)

        self._latency_window = RollingQuantiles(clock=clock)
        self._rows_window = RollingQuantiles(clock=clock)
        self._tokens_window = RollingQuantiles(clock=clock)
        self._event_rate = RollingSum(clock=clock)
        self._window_rate = RollingSum(clock=clock)
        self._useful_tokens = RollingSum(clock=clock)
        self._sent_tokens = RollingSum(clock=clock)
        self._totals = Tally()
        self._dead_letter_totals = Tally()

    def event_finished(self, topic: str, outcome: EventOutcome) -> None:
        """A record of the input ``topic`` has left the ledger."""
        self._events.labels(self._topics.keep(topic), outcome).inc()
        self._event_rate.add(1)
        self._totals.add(outcome)

    def event_latency(self, point: LatencyPoint, seconds: float) -> None:
        """Seconds from the record's broker timestamp to ``point``; a timestamp in the future counts as 0."""
        self._event_latency.labels(point).observe(max(seconds, 0.0))
        if point == "durable":
            self._latency_window.add(max(seconds, 0.0))

    def stage(self, stage: Stage, seconds: float) -> None:
        """Seconds that an event or a batch spent in ``stage``."""
        self._stage.labels(stage).observe(seconds)

    def event_windows(self, windows: int) -> None:
        """Model rows that a finished event needed, all tasks together."""
        self._windows_per_event.observe(windows)

    def batch_sent(self, rows: int, useful_tokens: int, padded_tokens: int, reason: str) -> None:
        """A batch of ``rows`` windows leaves; ``padded_tokens`` = rows x padded length, ``reason`` from the batcher."""
        self._batch_rows.observe(rows)
        self._batch_tokens.observe(padded_tokens)
        self._padding.observe(1 - useful_tokens / padded_tokens)
        self._releases.labels(self._release_reasons.keep(reason)).inc()
        self._rows_window.add(rows)
        self._tokens_window.add(padded_tokens)
        self._window_rate.add(rows)
        self._useful_tokens.add(useful_tokens)
        self._sent_tokens.add(padded_tokens)

    def model_called(self, model: str, version: str, code: str, seconds: float) -> None:
        """A call ended with gRPC status ``code`` (or ``CONTRACT``, ``ANSWER``); no answer, empty ``version``."""
        if code == "OK":
            self.model_version = version
        self._model_call.labels(self._models.keep(model), self._versions.keep(version), self._codes.keep(code)).observe(
            seconds
        )

    def transaction(self, end: Literal["committed", "aborted"]) -> None:
        """A transaction ended."""
        self._transactions.labels(end).inc()

    def model_retried(self) -> None:
        """A failed call is repeated."""
        self._retries.inc()

    def windows_overflowed(self, windows: int) -> None:
        """So many windows of a batch were repeated on the dense signature."""
        self._overflows.inc(windows)

    def in_flight_windows(self, windows: int) -> None:
        """Windows that wait or are in a call now."""
        self._in_flight_windows.set(windows)

    def consumer_lag(self, lags: Mapping[tuple[str, int], int]) -> None:
        """Lag in records of every partition assigned now; partitions that are not named lose their series."""
        now = {(self._topics.keep(topic), str(partition)): lag for (topic, partition), lag in lags.items()}
        for gone in self._lag_labels - now.keys():
            self._lag.remove(*gone)
        for labels, lag in now.items():
            self._lag.labels(*labels).set(lag)
        self._lag_labels = set(now)

    def paused(self, reasons: Collection[str]) -> None:
        """All the reasons for which consumption is paused now; none when it is not. See ``PauseReason``."""
        now = {reason if reason in _PAUSE_REASONS else OTHER for reason in reasons}
        for reason in _PAUSE_REASONS:
            self._paused.labels(reason).set(reason in now)

    def breaker(self, state: Breaker) -> None:
        """The breaker's state now."""
        self._breaker.set(_BREAKER_VALUE[state])

    def dead_letter(self, stage: DeadLetterStage, reason: str) -> None:
        """A dead letter was made; ``reason`` is a slug of this code (``InvalidJson``), never a message."""
        kept = self._reasons.keep(reason)
        self._dead_letters.labels(stage, kept).inc()
        self._dead_letter_totals.add(kept)

    def recent(self) -> RecentActivity:
        """The last minute, and totals since the start, for ``/status``."""
        sent = self._sent_tokens.total
        p50, p95, p99 = (
            None if s is None else round(s * 1000, 1) for s in self._latency_window.quantiles(0.5, 0.95, 0.99)
        )
        (rows,) = self._rows_window.quantiles(0.5)
        (tokens,) = self._tokens_window.quantiles(0.5)
        return RecentActivity(
            rates={
                "events_per_second": round(self._event_rate.per_second, 2),
                "windows_per_second": round(self._window_rate.per_second, 2),
            },
            latency_ms={"p50": p50, "p95": p95, "p99": p99},
            batches={
                "rows_p50": None if rows is None else round(rows),
                "tokens_p50": None if tokens is None else round(tokens),
                "padding_ratio": round(1 - self._useful_tokens.total / sent, 4) if sent else None,
            },
            totals=self._totals.counts(),
            dead_letters=self._dead_letter_totals.counts(),
        )

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics as text and their content type; OpenMetrics when the ``Accept`` header asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
