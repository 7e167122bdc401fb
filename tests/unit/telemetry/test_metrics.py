from __future__ import annotations

import re
import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from consumer import __version__
from consumer.codecs.outputs import ModelUsed
from consumer.events import Partition
from consumer.telemetry.metrics import Metrics

CONTRACT = {
    "events_total": {"topic", "outcome"},
    "event_latency_seconds": {"point"},
    "stage_seconds": {"stage"},
    "batch_rows": set(),
    "batch_tokens": set(),
    "padding_ratio": set(),
    "model_call_seconds": {"model", "version", "code"},
    "model_results_total": {"model", "version", "task"},
    "model_results_empty_total": {"model", "version", "task"},
    "model_extractions_total": {"model", "version", "task"},
    "model_results_warned_total": {"model", "version", "task"},
    "model_restarts_total": {"model", "version", "task"},
    "windows_per_event": set(),
    "in_flight_windows": set(),
    "work_bytes": set(),
    "work_waiting": set(),
    "consumer_lag": {"topic", "partition"},
    "paused": {"reason", "topic"},
    "breaker_state": {"endpoint"},
    "canary_share": set(),
    "canary_fallback": set(),
    "canary_fallbacks_total": {"reason"},
    "endpoint_state": {"endpoint", "state"},
    "endpoint_in_flight": {"endpoint"},
    "endpoint_slowness": {"endpoint"},
    "endpoint_calls_total": {"endpoint", "end"},
    "dead_letters_total": {"stage", "class"},
    "retries_total": set(),
    "batch_release_total": {"reason"},
    "build_info": {"version", "python"},
    "window_overflow_total": set(),
    "lane_tokens_total": {"lane"},
    "lane_wait_seconds": {"lane"},
    "windows_over_share_total": set(),
    "transactions_total": {"end"},
    "certificate_expiry_days": {"setting"},
    "commits_total": {"end"},
    "uncommitted_age_seconds": set(),
    "consumer_lag_age_seconds": set(),
}


def used() -> Metrics:
    """Metrics to which everything has happened once."""
    metrics = Metrics()
    metrics.event_processed("reviews.raw", "done", 3)
    metrics.event_latency("durable", 0.2)
    metrics.stage("decode", 0.001)
    metrics.batch_sent(rows=4, useful_tokens=300, padded_tokens=400, reason="linger")
    metrics.lane_sent("live", 400, 0.03)
    metrics.window_over_share()
    metrics.model_called("rexuninlu", "3", "OK", 0.02)
    metrics.result_made(ModelUsed("rexuninlu", "3", "compact"), "aspects", 2, warned=True, restarts=1)
    metrics.model_retried()
    metrics.windows_overflowed(1)
    metrics.in_flight_windows(12)
    metrics.work(4000, 3)
    metrics.lag({Partition("reviews.raw", 0): 7})
    metrics.transaction("committed", 0.1, 3)
    metrics.certificates({"model.tls.ca_file": 12.5})
    metrics.committed(4)
    metrics.commit_failed("REBALANCE_IN_PROGRESS")
    metrics.ages(uncommitted=lambda: 31.0, lag=lambda: 9.0)
    metrics.paused({"outage": {"reviews.raw"}})
    metrics.endpoints.show([("m:1", "ok", 5, 3, 1, 0, "", 1.0)])
    metrics.breaker("open", "m:1")
    metrics.canary_share(0.05)
    metrics.canary_fallback("slow")
    metrics.dead_letter("validate", "TextTooLong")
    return metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_exposition_has_every_metric_of_the_contract_with_its_labels() -> None:
    """Dashboards and alerts find each name with exactly the labels that they select by."""
    body, content_type = used().exposition()
    assert content_type.startswith("text/plain")
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for one in family.samples:
            name = family.name + "_total" if family.type == "counter" else family.name
            labels.setdefault(name, set()).update(one.labels.keys() - {"le"})
    ours = {name.removeprefix("rexstream_"): found for name, found in labels.items() if name.startswith("rexstream_")}
    assert ours == CONTRACT
    assert "process_resident_memory_bytes" in labels


def test_ages_are_asked_for_at_every_scrape() -> None:
    """A thread that hangs cannot say that it does."""
    metrics, now = Metrics(), [1.0]
    metrics.ages(uncommitted=lambda: now[0], lag=lambda: now[0] + 1)
    for now[0] in (2.0, 900.0):
        assert sample(metrics, "rexstream_uncommitted_age_seconds") == now[0]
        assert sample(metrics, "rexstream_consumer_lag_age_seconds") == now[0] + 1


def test_commits_are_counted_by_how_they_ended() -> None:
    """Only failed ones, and none that worked, is an alert."""
    assert sample(used(), "rexstream_commits_total", end="committed") == 1
    assert sample(used(), "rexstream_commits_total", end="failed") == 1


def test_every_metric_says_what_a_spike_means() -> None:
    """Each help line is a sentence about a spike, or about what a value other than the usual one means."""
    body, _ = used().exposition()
    for family in text_string_to_metric_families(body.decode()):
        if family.name.startswith("rexstream_"):
            assert re.search(r"spike|Anything above|mean that|while consumption", family.documentation), family.name
            assert family.documentation.endswith("."), family.name


def test_openmetrics_is_served_to_who_asks_for_it() -> None:
    """A Prometheus that prefers OpenMetrics gets a text that its parser takes."""
    body, content_type = used().exposition("application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "rexstream_events" in {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]


def test_what_happened_is_what_is_counted() -> None:
    """Each method moves its own metric."""
    metrics = used()
    assert sample(metrics, "rexstream_events_total", topic="reviews.raw", outcome="done") == 1
    assert sample(metrics, "rexstream_event_latency_seconds_sum", point="durable") == pytest.approx(0.2)
    assert sample(metrics, "rexstream_stage_seconds_count", stage="decode") == 1
    assert sample(metrics, "rexstream_batch_rows_sum") == 4
    assert sample(metrics, "rexstream_batch_tokens_sum") == 400
    assert sample(metrics, "rexstream_lane_tokens_total", lane="live") == 400
    assert sample(metrics, "rexstream_lane_wait_seconds_sum", lane="live") == pytest.approx(0.03)
    assert sample(metrics, "rexstream_windows_over_share_total") == 1
    assert sample(metrics, "rexstream_padding_ratio_sum") == pytest.approx(0.25)
    assert sample(metrics, "rexstream_model_call_seconds_count", model="rexuninlu", version="3", code="OK") == 1
    assert sample(metrics, "rexstream_windows_per_event_sum") == 3
    assert sample(metrics, "rexstream_in_flight_windows") == 12
    assert sample(metrics, "rexstream_work_bytes") == 4000
    assert sample(metrics, "rexstream_work_waiting") == 3
    assert sample(metrics, "rexstream_breaker_state", endpoint="m:1") == 2
    assert sample(metrics, "rexstream_dead_letters_total", stage="validate", **{"class": "TextTooLong"}) == 1
    assert sample(metrics, "rexstream_retries_total") == 1
    assert sample(metrics, "rexstream_batch_release_total", reason="linger") == 1
    assert sample(metrics, "rexstream_window_overflow_total") == 1
    assert metrics.registry.get_sample_value("rexstream_build_info", _labels_of_build(metrics)) == 1


def _labels_of_build(metrics: Metrics) -> dict[str, str]:
    (family,) = (f for f in metrics.registry.collect() if f.name == "rexstream_build_info")
    assert family.samples[0].labels["version"] == __version__
    return dict(family.samples[0].labels)


def test_a_partition_that_is_no_longer_assigned_loses_its_lag() -> None:
    """After a rebalance no worker goes on reporting the lag of what another one owns."""
    metrics = Metrics()
    metrics.lag({Partition("a", 0): 5, Partition("a", 1): 6})
    metrics.lag({Partition("a", 1): 4})
    assert sample(metrics, "rexstream_consumer_lag", topic="a", partition="0") is None
    assert sample(metrics, "rexstream_consumer_lag", topic="a", partition="1") == 4
    metrics.lag({})
    assert sample(metrics, "rexstream_consumer_lag", topic="a", partition="1") is None


def test_pause_reasons_are_all_present_from_the_start_and_end_with_the_pause() -> None:
    """An alert on any reason sees 0 before, 1 during and 0 after, of each input topic by itself."""
    metrics = Metrics(input_topics=("in", "more"))
    assert sample(metrics, "rexstream_paused", reason="flood", topic="in") == 0
    metrics.paused({"flood": {"in"}, "backpressure": {"in", "more"}})
    assert sample(metrics, "rexstream_paused", reason="flood", topic="in") == 1
    assert sample(metrics, "rexstream_paused", reason="flood", topic="more") == 0
    assert sample(metrics, "rexstream_paused", reason="backpressure", topic="more") == 1
    metrics.paused({"a reason that nobody listed": {"in"}})
    assert sample(metrics, "rexstream_paused", reason="flood", topic="in") == 0
    assert sample(metrics, "rexstream_paused", reason="other", topic="in") == 1
    metrics.paused({})
    assert sample(metrics, "rexstream_paused", reason="other", topic="in") == 0


@pytest.mark.parametrize("kind", ["topic", "version", "dead letter"])
def test_label_values_that_others_choose_cannot_grow_without_end(kind: str) -> None:
    """Ten thousand different names make a bounded number of series; the surplus is counted as other."""
    metrics = Metrics()
    empty = len(list(_series(metrics)))
    for step in range(10_000):
        name = f"n{step}"
        if kind == "topic":
            metrics.event_processed(name, "done")
        elif kind == "version":
            metrics.model_called("m", name, "OK", 0.1)
        else:
            metrics.dead_letter("decode", name)
    series = list(_series(metrics))
    assert len(series) - empty < 2_500
    assert any("other" in labels.values() for _, labels in series)
    assert len(metrics.recent()["dead_letters"]) <= 101


def _series(metrics: Metrics) -> list[tuple[str, dict[str, str]]]:
    return [(one.name, dict(one.labels)) for family in metrics.registry.collect() for one in family.samples]


def test_a_timestamp_in_the_future_is_no_negative_latency() -> None:
    """A producer's wrong clock does not pull the sum below zero."""
    metrics = Metrics()
    metrics.event_latency("durable", -30.0)
    assert sample(metrics, "rexstream_event_latency_seconds_sum", point="durable") == 0


def test_two_workers_in_one_process_do_not_share_a_registry() -> None:
    """Each Metrics counts for itself."""
    one, other = Metrics(), Metrics()
    one.model_retried()
    assert sample(other, "rexstream_retries_total") == 0


def test_recent_activity_summarises_the_last_minute_and_the_totals() -> None:
    """The status page sees rates, quantiles in milliseconds, padding and counts by outcome and reason."""
    now = 50.0
    metrics = Metrics(clock=lambda: now)
    now += 10
    for _ in range(30):
        metrics.event_processed("t", "done")
        metrics.event_latency("extracted", 9.0)
        metrics.event_latency("durable", 0.25)
    metrics.event_processed("t", "dead_letter")
    for reason in ("InvalidJson", "EmptyText", "InvalidJson"):
        metrics.dead_letter("decode", reason)
    metrics.batch_sent(8, 600, 800, "full")
    recent = metrics.recent()
    assert recent["rates"] == {"events_per_second": 3.1, "windows_per_second": 0.8}
    assert recent["latency_ms"]["p50"] == pytest.approx(250, rel=0.021)
    assert recent["batches"] == {"rows_p50": 8, "tokens_p50": pytest.approx(800, rel=0.021), "padding_ratio": 0.25}
    assert recent["totals"] == {"done": 30, "dead_letter": 1}
    assert list(recent["dead_letters"].items()) == [("EmptyText", 1), ("InvalidJson", 2)]
    now += 120
    later = metrics.recent()
    assert later["rates"] == {"events_per_second": 0, "windows_per_second": 0}
    assert later["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert later["batches"] == {"rows_p50": None, "tokens_p50": None, "padding_ratio": None}
    assert later["totals"] == {"done": 30, "dead_letter": 1}


def test_threads_may_count_while_the_exposition_is_read() -> None:
    """No increment is lost and no scrape fails when poll, loop and release threads write at once."""
    metrics = Metrics()

    def work() -> None:
        for step in range(300):
            metrics.event_processed("t", "done")
            metrics.lag({Partition("t", step % 5): step})
            metrics.dead_letter("decode", "InvalidJson")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        metrics.exposition()
        metrics.recent()
    for thread in threads:
        thread.join()
    assert sample(metrics, "rexstream_events_total", topic="t", outcome="done") == 1200
    assert metrics.recent()["totals"] == {"done": 1200}


def test_topics_of_a_pattern_have_its_label() -> None:
    """Thousands of topics are one series; their lags are summed, so that a sum over all is right."""
    pattern = r"^shop\..*$"
    metrics = Metrics(input_topics=(pattern, "in"))
    for topic in ("shop.a", "shop.b", "in"):
        metrics.event_processed(topic, "done")
    assert sample(metrics, "rexstream_events_total", topic=pattern, outcome="done") == 2
    assert sample(metrics, "rexstream_events_total", topic="shop.a", outcome="done") is None
    metrics.lag(
        {Partition("shop.a", 0): 5, Partition("shop.b", 0): 6, Partition("shop.b", 1): 1, Partition("in", 0): 2}
    )
    assert sample(metrics, "rexstream_consumer_lag", topic=pattern, partition="0") == 11
    assert sample(metrics, "rexstream_consumer_lag", topic="in", partition="0") == 2
    metrics.matched({pattern: 2})
    assert sample(metrics, "rexstream_pattern_topics", topic=pattern) == 2
