"""What a worker counts and measures: for Prometheus, and as a summary of the last minute for ``/status``.

One method for each thing that happens. The event processor, the dispatcher and the Kafka runtime call them:
``Metrics`` is their ``DispatchObserver`` and ``KafkaObserver``. ``metric_declarations`` lists the metrics.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Literal

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from consumer.batching.queue import LANE
from consumer.config.inputs import InputOf
from consumer.telemetry.endpoint_metrics import EndpointMetrics
from consumer.telemetry.last_minute import LastMinute
from consumer.telemetry.metric_declarations import LABEL_LIMITS, PAUSE_REASONS, register
from consumer.telemetry.status import RecentActivity, milliseconds, quantile
from consumer.telemetry.version_metrics import OTHER, VersionMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from consumer.batching.policy import ReleaseReason
    from consumer.codecs.outputs import ModelUsed
    from consumer.events import Outcome, Partition, SourceRecord, Stage
    from consumer.resilience.canary import FallbackReason
    from consumer.telemetry.endpoint_metrics import Breaker

EventOutcome = Literal["done", "partial", "dead_letter", "dropped", "deleted"]
"""One record: every task gave a result; some did; none did; nothing to do (null value, another group's replay); a
delete that went on to the result topics."""
DropReason = Literal["null_value", "other_group", "delete", "delete_without_key", "no_review", "text_unavailable"]

_log = structlog.stdlib.get_logger(__name__)


class Metrics:
    """The metrics of one worker, in a registry of their own. Every method may be called from any thread.

    ``on_durable`` are called with every record whose outputs are durable, before it is measured: the dead-letter
    breaker and the budget of memory count them there. ``clock`` (seconds, monotonic) dates what ``recent()`` sums up.
    """

    def __init__(
        self,
        on_durable: Collection[Callable[[SourceRecord, Outcome], None]] = (),
        clock: Callable[[], float] = time.monotonic,
        input_topics: Collection[str] = (),
        lanes: Collection[str] = (LANE,),
    ) -> None:
        """``input_topics``, ``lanes``: all; each has its series from the start. A label ``topic`` is the input's."""
        self._input_of = InputOf(input_topics)
        self.registry = CollectorRegistry()
        self._counters, self._gauges, self._histograms = register(self.registry)
        self.endpoints = EndpointMetrics(self._counters, self._gauges)
        self.versions = VersionMetrics(clock)
        self.registry.register(self.versions)
        self._counter = cache(lambda name, *labels: self._counters[name].labels(*labels))  # labels() is slow
        self._histogram = cache(lambda name, *labels: self._histograms[name].labels(*labels))
        self._events = cache(lambda *of: self._counter("rexstream_events_total", self._capped("topic", of[0]), of[1]))
        for lane in lanes:
            self.lane_sent(lane, 0)
        self._on_durable = on_durable
        self.model_version: str | None = None
        """The version that answered last; None before the first answer."""
        self._last_minute = LastMinute(clock)
        self._lock = threading.Lock()
        self._label_values: dict[str, set[str]] = {label: set() for label in LABEL_LIMITS}
        self._lag_labels: set[tuple[str, str]] = set()
        self._paused_labels = {
            (reason, self._capped("topic", each)) for reason in PAUSE_REASONS for each in input_topics
        }
        self._show_paused(set())
        self._dead_letters_total: dict[str, int] = {}

    # Called by the event processor.

    def event_processed(self, topic: str, outcome: EventOutcome, windows: int | None = None) -> None:
        """A record of the input ``topic`` has its outcome, after ``windows`` model rows for all tasks together."""
        if windows is not None:
            self._histogram("rexstream_windows_per_event").observe(windows)
        self._events(self._input_of[topic], outcome).inc()

    def event_dropped(self, reason: DropReason) -> None:
        """A record has no output on purpose."""
        self._counters["rexstream_dropped_total"].labels(reason).inc()

    def event_latency(self, point: Literal["extracted", "durable"], seconds: float) -> None:
        """Seconds from the record's broker timestamp to ``point``; a timestamp in the future counts as 0."""
        seconds = max(seconds, 0.0)
        self._histogram("rexstream_event_latency_seconds", point).observe(seconds)
        if point == "durable":
            self._last_minute.durable(seconds)

    def stage(self, stage: Literal["decode", "queue", "model", "hold"], seconds: float) -> None:
        """Seconds that an event or a batch spent in ``stage``."""
        self._histogram("rexstream_stage_seconds", stage).observe(seconds)

    def dead_letter(self, stage: Stage, reason: str) -> None:
        """A dead letter was made; ``reason`` is a slug of this code (``InvalidJson``), never a message."""
        kept = self._capped("class", reason)
        self._counters["rexstream_dead_letters_total"].labels(stage, kept).inc()
        with self._lock:
            # Moved to the end: the dictionary is ordered by the latest count.
            self._dead_letters_total[kept] = self._dead_letters_total.pop(kept, 0) + 1

    def result_made(self, model: ModelUsed, task: str, extractions: int, *, warned: bool, restarts: int) -> None:
        """A task has its result of so many ``extractions``, after so many restarts since the version changed."""
        if model.version:  # else every type was skipped, and no model asked
            self.versions.made((model.name, model.version, task, extractions, warned, restarts))

    # Called by the dispatcher.

    def batch_sent(self, rows: int, useful_tokens: int, padded_tokens: int, reason: ReleaseReason) -> None:
        """A batch of ``rows`` windows leaves; ``padded_tokens`` = rows x padded length, ``reason`` is why."""
        self._histogram("rexstream_batch_rows").observe(rows)
        self._histogram("rexstream_batch_tokens").observe(padded_tokens)
        self._histogram("rexstream_padding_ratio").observe(1 - useful_tokens / padded_tokens)
        self._counter("rexstream_batch_release_total", reason).inc()
        self._last_minute.sent((rows, useful_tokens, padded_tokens))

    def lane_sent(self, lane: str, padded_tokens: int, waited: float | None = None) -> None:
        """So many tokens of a batch are of ``lane``; the oldest of its windows in it waited so long (seconds)."""
        self._counter("rexstream_lane_tokens_total", lane).inc(padded_tokens)
        wait = self._histogram("rexstream_lane_wait_seconds", lane)
        if waited is not None:
            wait.observe(waited)

    def window_over_share(self) -> None:
        """A window is sent with a later deadline than its event's, which has had its share."""
        self._counters["rexstream_windows_over_share_total"].inc()

    def model_called(self, model: str, version: str, code: str, seconds: float) -> None:
        """A call ended with gRPC status ``code`` (or ``CONTRACT``, ``ANSWER``). ``version`` of one that failed is that
        which this server answered with last; empty when it never did.
        """
        if code == "OK":
            self.model_version = version
        self.versions.called((model, version, code, seconds))

    def model_retried(self) -> None:
        """A failed call is repeated."""
        self._counters["rexstream_retries_total"].inc()

    def windows_overflowed(self, windows: int) -> None:
        """So many windows of a batch were repeated on the dense signature."""
        self._counters["rexstream_window_overflow_total"].inc(windows)

    def in_flight_windows(self, windows: int) -> None:
        """Windows that wait or are in a call now."""
        self._gauges["rexstream_in_flight_windows"].set(windows)

    def work(self, size: int, waiting: int) -> None:
        """Bytes of the budget of memory that are taken now, and how many wait for some."""
        self._gauges["rexstream_work_bytes"].set(size)
        self._gauges["rexstream_work_waiting"].set(waiting)

    def canary_share(self, share: float) -> None:
        """The share of the events that is the canary's by configuration, 0 to 1."""
        self._gauges["rexstream_canary_share"].set(share)

    def canary_fallback(self, reason: FallbackReason | None) -> None:
        """From now on all events go to the stable version, for this reason; None: no longer."""
        self._gauges["rexstream_canary_fallback"].set(reason is not None)
        if reason is not None:
            self._counters["rexstream_canary_fallbacks_total"].labels(reason).inc()

    def breaker(self, state: Breaker, endpoint: str) -> None:
        """The state of one model server's circuit breaker now."""
        self.endpoints.breaker(state, endpoint)

    # Called by the Kafka runtime.

    def durable(self, record: SourceRecord, outcome: Outcome) -> None:
        """Every output of ``record`` is acknowledged by the brokers."""
        for call in self._on_durable:
            call(record, outcome)
        if record.timestamp_ms is not None:
            self.event_latency("durable", time.time() - record.timestamp_ms / 1000)

    def stale(self, completions: int) -> None:
        """Outcomes of partitions that were revoked came too late: normal in a rebalance, and only there."""
        _log.info("late completions of revoked partitions ignored", completions=completions)

    def stalled(self, seconds: float) -> None:
        """Intake waited at the in-flight bounds: short waits are the normal form of backpressure."""
        self.stage("hold", seconds)

    def paused(self, reasons: Mapping[str, Collection[str]]) -> None:
        """All the reasons for which consumption is paused now, with their topics. Every change is logged."""
        self._show_paused(
            {
                (reason if reason in PAUSE_REASONS else OTHER, self._capped("topic", topic))
                for reason, topics in reasons.items()
                for topic in topics
            }
        )
        if not reasons:
            _log.info("consumption resumed")
            return
        topics = {reason: sorted(reasons[reason]) for reason in sorted(reasons)}
        _log.info("consumption paused", reasons=list(topics), topics=topics)

    def _show_paused(self, now: set[tuple[str, str]]) -> None:
        self._paused_labels |= now
        for labels in self._paused_labels:
            self._gauges["rexstream_paused"].labels(*labels).set(labels in now)

    def rebalanced(self, kind: Literal["assigned", "revoked", "lost", "rewound"], partitions: int) -> None:
        """So many partitions came or went; the runtime itself logs which."""
        _log.info("rebalance", kind=kind, partitions=partitions)

    def committed(self, partitions: int) -> None:
        """The offsets of so many partitions were committed; too often for a log line above debug."""
        self._counters["rexstream_commits_total"].labels("committed").inc()
        _log.debug("offsets committed", partitions=partitions)

    def commit_failed(self, code: str) -> None:
        """A commit failed; the runtime logs it, and tries it again."""
        self._counters["rexstream_commits_total"].labels("failed").inc()
        _log.debug("commit failed", code=code)

    def ages(self, *, uncommitted: Callable[[], float], lag: Callable[[], float]) -> None:
        """Functions that return seconds, for how long offsets could not be committed, and since lag was queried.

        They are called at every scrape, so that an age also grows while the thread hangs that would write it.
        """
        self._gauges["rexstream_uncommitted_age_seconds"].set_function(uncommitted)
        self._gauges["rexstream_consumer_lag_age_seconds"].set_function(lag)

    def produce_refused(self, topic: str, code: str) -> None:
        """A broker refused an output; the runtime holds it and produces it again."""
        _log.warning("output refused", topic=topic, code=code)

    def transaction(self, how: Literal["committed", "aborted"], seconds: float, records: int) -> None:
        """A transaction of ``records`` input records ended after ``seconds``; too common for a log line above debug."""
        self._counters["rexstream_transactions_total"].labels(how).inc()
        _log.debug("transaction", how=how, seconds=round(seconds, 3), records=records)

    def client_error(self, client: str, code: str) -> None:
        """A Kafka client reported an error; it reconnects by itself, and its own log lines have the details."""
        _log.debug("kafka client error", client=client, code=code)

    def lag(self, lags: Mapping[Partition, int]) -> None:
        """Lag in records of every partition assigned now; partitions that are not named lose their series."""
        gauge = self._gauges["rexstream_consumer_lag"]
        now: Counter[tuple[str, str]] = Counter()  # summed: topics of a pattern have one label
        for (topic, number), lag in lags.items():
            now[self._capped("topic", self._input_of[topic]), str(number)] += lag
        for gone in self._lag_labels - now.keys():
            gauge.remove(*gone)
        for labels, lag in now.items():
            gauge.labels(*labels).set(lag)
        self._lag_labels = set(now)

    def matched(self, topics: Mapping[str, int]) -> None:
        """How many topics each pattern among the inputs matches now."""
        for pattern, count in topics.items():
            self._gauges["rexstream_pattern_topics"].labels(self._capped("topic", pattern)).set(count)

    # Called by the credential watch.

    def certificates(self, days_left: Mapping[str, float]) -> None:
        """Days until the certificates of each setting expire."""
        for setting, days in days_left.items():
            self._gauges["rexstream_certificate_expiry_days"].labels(setting).set(days)

    def count(self) -> None:
        """Count what was observed since the last time. To be called about every second."""
        for histogram in self._histograms.values():
            histogram.count()
        self.versions.count()
        self._last_minute.count(sum(self._totals().values()))

    # Reading.

    def recent(self) -> RecentActivity:
        """The last minute, and totals since the start, for ``/status``."""
        self.count()
        minute, seconds = self._last_minute.summed()
        p50, p95, p99 = (quantile(minute, "latency", share) for share in (0.5, 0.95, 0.99))
        rows, tokens = quantile(minute, "rows", 0.5), quantile(minute, "tokens", 0.5)
        sent = minute["sent_tokens"]
        events, windows = (round(minute[name] / seconds, 2) for name in ("events", "windows"))
        with self._lock:
            dead_letters = dict(self._dead_letters_total)
        return RecentActivity(
            rates={"events_per_second": events, "windows_per_second": windows},
            latency_ms={"p50": milliseconds(p50), "p95": milliseconds(p95), "p99": milliseconds(p99)},
            batches={
                "rows_p50": None if rows is None else round(rows),
                "tokens_p50": None if tokens is None else round(tokens),
                "padding_ratio": round(1 - minute["useful_tokens"] / sent, 4) if sent else None,
            },
            totals=self._totals(),
            dead_letters=dead_letters,
        )

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics as text and their content type; OpenMetrics when the ``Accept`` header asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _totals(self) -> dict[str, int]:
        """Processed records by outcome."""
        totals: Counter[str] = Counter()
        for each in next(iter(self._counters["rexstream_events_total"].collect())).samples:
            totals[each.labels["outcome"]] += int(each.value)
        return dict(totals)

    def _capped(self, label: str, value: str) -> str:
        """``value``, or ``other`` when the label already has as many values as ``LABEL_LIMITS`` allows."""
        seen = self._label_values[label]
        with self._lock:
            if value not in seen and len(seen) >= LABEL_LIMITS[label]:
                return OTHER
            seen.add(value)
        return value
