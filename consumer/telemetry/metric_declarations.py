"""Every metric of a worker: a table by name for each kind, with help, labels and, for a histogram, buckets in its unit.
Those of single model versions are in ``version_metrics``.

The help of a metric explains what a spike means. ``Metrics`` calls ``register`` once, at its start. Label values come
from bounded sets: the configuration, this code, or, where a server or broker chooses them, the first few that were seen
(``LABEL_LIMITS``). Review text, keys and event ids are never labels.
"""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from consumer import __version__
from consumer.telemetry.histogram import Histogram

PAUSE_REASONS = (
    "backpressure",
    "output",
    "outage",
    "deployment_fault",
    "registry",
    "flood",
    "commit",
    "draining",
    "other",
)
"""Every one has a series for each input topic from the start; a reason that is none of these counts as ``other``."""

ENDPOINT_STATES = ("ok", "outage", "deployment_fault", "gone", "trial", "busy")

LABEL_LIMITS = {"topic": 200, "endpoint": 100, "version": 20, "code": 30, "class": 100}
"""How many values a label may have; later new ones become ``other``."""


COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rexstream_events_total": (
        (
            "Records processed, by what became of them. A spike of dead_letter means bad input or a flood of it; "
            "a fall to zero with lag means that the worker is paused or stuck; deleted are deletes that went on to the "
            "result topics (on_delete)."
        ),
        ("topic", "outcome"),
    ),
    "rexstream_dead_letters_total": (
        (
            "Dead letters by the stage that gave up and the reason. A spike of one reason means that a producer "
            "changed what it sends, or a task its schema; any of class Defect that a record made the worker's own code "
            "fail, which its log explains."
        ),
        ("stage", "class"),
    ),
    "rexstream_dropped_total": (
        (
            "Records that owe no output, by why: null_value; other_group, a replay for another consumer group that "
            "reads the topic; of routes with a preset delete, no_review (heartbeats, changes of a table) and "
            "text_unavailable (an update that left the text alone); delete_without_key could not be forwarded. A spike "
            "of other_group in the group that a replay was meant for means that it was made with another group's "
            "configuration; one of no_review that a producer sends what its preset does not know for a row."
        ),
        ("reason",),
    ),
    "rexstream_commits_total": (
        (
            "Commits of offsets in at_least_once by how they ended. A spike of failed means a rebalance, or a group "
            "coordinator that moves; failed alone, without committed, means duplicates after a crash: look at "
            "rexstream_uncommitted_age_seconds."
        ),
        ("end",),
    ),
    "rexstream_transactions_total": (
        (
            "Transactions of exactly_once by how they ended. A spike of aborted means rebalances, or outputs that a "
            "topic refuses (the log names it); what was aborted is produced again and no reader sees it twice."
        ),
        ("end",),
    ),
    "rexstream_retries_total": (
        (
            "Model calls repeated after a failure. A spike means a model server that restarts, is overloaded or "
            "refuses a batch."
        ),
        (),
    ),
    "rexstream_canary_fallbacks_total": (
        (
            "Times that the canary lost its events to the stable version: unavailable (no label, no version, no bundle "
            "that fits, no answer), slow (model.canary.slower), refused (no results where the stable version gives "
            "them). A spike means: look at the canary before its share grows."
        ),
        ("reason",),
    ),
    "rexstream_endpoint_calls_total": (
        (
            "Calls to each model server, health probes included, by how they ended. A spike of failed at one address "
            "means that this server is at fault (the log says of what); unequal rates of answered, that one is slower."
        ),
        ("endpoint", "end"),
    ),
    "rexstream_batch_release_total": (
        (
            "Batches by what made them leave: idle (a server had nothing to do), free (one was about to), full (as "
            "much waited as a call can hold), linger (calls are very short), retry. A spike of full means that the "
            "model is the bottleneck; of retry, that calls fail."
        ),
        ("reason",),
    ),
    "rexstream_lane_tokens_total": (
        (
            "Padded tokens sent to the model by lane (routes[].lane). While more waits than a call holds, rates are "
            "as batching.lanes divides them; a lane with less than its share had nothing more waiting. A spike of one "
            "while rexstream_lane_wait_seconds of another rises means that its weight is too high."
        ),
        ("lane",),
    ),
    "rexstream_windows_over_share_total": (
        (
            "Windows with a later deadline than their event's, since it had sent a full call (batching.max_tokens) of "
            "others: they wait behind the events that come meanwhile. A spike means events of many windows: long "
            "texts, large schemas."
        ),
        (),
    ),
    "rexstream_window_overflow_total": (
        (
            "Windows with more positive cells than the compact signature returns, repeated on the dense one. A spike "
            "means a model that finds nonsense, and calls that cost a hundred times the bytes."
        ),
        (),
    ),
}

TRACING_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rexstream_trace_spans_total": (
        (
            "Spans by what became of them, where observability.tracing is on: exported, failed (the collector did not "
            "take them), queue_full (they came faster than it takes them), abandoned (at the end of the worker). A "
            "spike of failed means a collector that is away; events are not held up by it."
        ),
        ("end",),
    ),
}
"""Of workers with ``observability.tracing`` only, whose export of spans registers them."""

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rexstream_in_flight_windows": (
        (
            "Windows waiting for the model or in a call. A spike means that input arrives faster than the model "
            "answers; limits.in_flight_* bound the records behind them."
        ),
        (),
    ),
    "rexstream_work_bytes": (
        (
            "Memory that events under extraction, and results until they are durable, account for. A spike means long "
            "texts, large schemas or results, or a slow output; at three quarters of limits.work_bytes new events wait."
        ),
        (),
    ),
    "rexstream_work_waiting": (
        (
            "Events, and parts of such, that wait for others to give memory back. A spike comes with large events; for "
            "long it means that the model, an output, or one slow record that others are ordered behind, holds them up."
        ),
        (),
    ),
    "rexstream_consumer_lag": (
        (
            "Records between the committed offset and the end of the partition, queried on a timer, also while "
            "paused. A spike means more input than work done: add workers, or look at paused. A number is kept for a "
            "minute when it cannot be queried, and then its series is gone: see rexstream_consumer_lag_age_seconds. "
            "Of a pattern: the sum over its topics, by partition number."
        ),
        ("topic", "partition"),
    ),
    "rexstream_consumer_lag_age_seconds": (
        (
            "Seconds since the lag of the assigned partitions was queried, of the oldest; about 10 at most in health. "
            "Anything above 60 means that a broker or the group's coordinator does not answer, and that series are "
            "missing from rexstream_consumer_lag: do not scale by a sum that lacks them."
        ),
        (),
    ),
    "rexstream_pattern_topics": (
        (
            "Topics that a pattern among the inputs (its label) matches, of those that this client may describe, asked "
            "for every 30 s. 0 can only mean that it reads nothing; fewer mean that topics were deleted or a right "
            "was withdrawn: both end their consumption without an error."
        ),
        ("topic",),
    ),
    "rexstream_uncommitted_age_seconds": (
        (
            "Seconds for which the oldest offset that may be committed could not be; 0 when nothing waits. Anything "
            "above a few seconds means that commits fail (the log names the error), and that a crash repeats what "
            "became durable meanwhile; at delivery.commit_pause_seconds consumption pauses."
        ),
        (),
    ),
    "rexstream_paused": (
        (
            "1 while consumption of this input topic is paused for this reason; others go on. backpressure comes and "
            "goes under load; output means a topic that takes no result or dead letter (the log names it), and needs "
            "the topic, its ACL or the broker mended; outage and deployment_fault need the model server mended, "
            "registry the schema registry; flood waits for an operator or a timer, commit for a coordinator that "
            "takes the group's offsets, draining ends with the process."
        ),
        ("reason", "topic"),
    ),
    "rexstream_breaker_state": (
        (
            "Circuit breaker of each model server: 0 closed, 1 half open, 2 open. Anything above 0 means that calls "
            "fail for reasons that retrying may cure; nothing is dead-lettered meanwhile."
        ),
        ("endpoint",),
    ),
    "rexstream_canary_share": (
        (
            "Share of the events that the canary answers by configuration (model.canary.share), 0 to 1; 0 without one. "
            "Two values in a fleet mean that workers have not read the changed file yet."
        ),
        (),
    ),
    "rexstream_canary_fallback": (
        (
            "1 while the stable version answers the canary's share of the events, too. A spike means that the canary "
            "is at fault: rexstream_canary_fallbacks_total has the reason, the log the figures."
        ),
        (),
    ),
    "rexstream_endpoint_state": (
        (
            "1 for the state that a model server is in. outage and deployment_fault at one address mean that the "
            "others do its work, at all that consumption is paused; gone, that its name no longer has this address, "
            "and it holds windows yet; trial, that it has not answered yet; busy, that a call failed and no health "
            "probe was answered since, so that it gets nothing for now."
        ),
        ("endpoint", "state"),
    ),
    "rexstream_endpoint_in_flight": (
        (
            "Windows in calls to a model server. A spike at one address means that this server is slower than others, "
            "or hangs; always 0 at one means that it cannot be used."
        ),
        ("endpoint",),
    ),
    "rexstream_endpoint_slowness": (
        (
            "How many times as long as expected (batching.cost) the calls of a model server take now. A spike at one "
            "address means that this server is slower than others, so it gets smaller calls; at all, other clients "
            "or long queues. 1 before its first call."
        ),
        ("endpoint",),
    ),
    "rexstream_certificate_expiry_days": (
        (
            "Days until the first of the certificates expires that are in use from the file of this setting; below 0 "
            "when it has. Fewer than 14 mean that whatever renews it does not, or that the file still holds the old."
        ),
        ("setting",),
    ),
    "rexstream_build_info": (
        "Always 1; its labels name the build. Two values in a fleet mean that a roll-out is under way, or stuck.",
        ("version", "python"),
    ),
}

HISTOGRAMS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    "rexstream_event_latency_seconds": (
        (
            "Broker timestamp to extracted, and to durable. A spike means a backlog (look at consumer_lag), a slow "
            "model (model_call_seconds) or, on durable alone, a slow broker."
        ),
        ("point",),
        # Milliseconds while all is well, minutes while a backlog drains.
        (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0),
    ),
    "rexstream_stage_seconds": (
        "Time spent in one stage of an event or of a batch. A spike names the stage to look at.",
        ("stage",),
        (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0),
    ),
    "rexstream_lane_wait_seconds": (
        (
            "Time from a window's arrival until a call has it, by lane, of the window that waited longest among the "
            "lane's in each call. A spike in one lane alone means that others use their shares: look at "
            "batching.lanes; in all, that the model is the bottleneck."
        ),
        ("lane",),
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0),
    ),
    "rexstream_batch_rows": (
        (
            "Windows in a batch. A spike means catching up; always 1 under load means reviews of unlike "
            "lengths, or a small batching.max_tokens."
        ),
        (),
        (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    ),
    "rexstream_batch_tokens": (
        (
            "Tokens of a batch, padding included. A spike means long reviews or catching up; it precedes the model "
            "server's memory."
        ),
        (),
        (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144),
    ),
    "rexstream_padding_ratio": (
        (
            "Share of a batch's tokens that is padding, 0 to 1. A spike means that windows of unlike lengths are sent "
            "together: work that the model does for nothing."
        ),
        (),
        (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
    ),
    "rexstream_windows_per_event": (
        (
            "Model rows that one event needed, over all its tasks and levels. A spike means longer reviews, larger "
            "schemas or a model that finds too many parents."
        ),
        (),
        (1, 2, 3, 4, 6, 8, 16, 32, 64, 128, 512, 4096, 8192),
    ),
}


def register(registry: CollectorRegistry) -> tuple[dict[str, Counter], dict[str, Gauge], dict[str, Histogram]]:
    """Put every metric, and the process's own, into ``registry``; the metrics by name. What never changes is set."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, that nobody reads
    ProcessCollector(registry=registry)
    counters = {name: Counter(name, text, labels, registry=registry) for name, (text, labels) in COUNTERS.items()}
    gauges = {name: Gauge(name, text, labels, registry=registry) for name, (text, labels) in GAUGES.items()}
    histograms = {name: Histogram(name, *declared) for name, declared in HISTOGRAMS.items()}
    for histogram in histograms.values():
        registry.register(histogram)
    gauges["rexstream_build_info"].labels(__version__, platform.python_version()).set(1)
    return counters, gauges, histograms
