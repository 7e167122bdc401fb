"""What exactly_once costs against at_least_once: records a second, and seconds until a reader sees a result.

    python tests/bench/delivery_modes.py [--quick] [--json FILE]

The Kafka runtime alone (a record becomes a result at once, no model) on an Apache Kafka of this machine, with the
default intervals. Both modes run in turn, five times over; each pair gives one ratio, and the median ratio is reported
with the smallest and the largest. Seconds are those from the record's timestamp to a reader's hands, at a rate far
below what either mode can do; the reader is read_committed, so for exactly_once they hold the wait for the
transaction's end.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from apache_kafka import ApacheKafka, KafkaUnavailable, fetch_jars
from bench.report.section import Goal, Section
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from runtime_harness import Cluster, Worker, eventually

from consumer.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TITLE = "exactly_once against at_least_once"
PAIRS = 5
QUICK_PAIRS = 3
GOAL = 0.85
RECORDS = 20_000
PARTITIONS = 4
VALUE = b"x" * 300
RATE = 100.0
SECONDS = 10.0
MODES = ("at_least_once", "exactly_once")
INTERVAL_MS = 100


class Latency(NamedTuple):
    """Seconds."""

    median: float
    p99: float


def throughput(bootstrap: str, mode: str) -> float:
    """Records a second, from the first poll of a full topic to the commit of its end."""
    topic, output, group = _topics(bootstrap)
    cluster = Cluster(bootstrap)
    cluster.send(topic, RECORDS, PARTITIONS, value=VALUE)
    worker = _worker(bootstrap, topic, output, group, mode)
    worker.runtime.start()
    try:
        worker.wait(1)
        started = time.perf_counter()
        eventually(lambda: sum(cluster.committed(group, topic, PARTITIONS)) == RECORDS, 300)
        return RECORDS / (time.perf_counter() - started)
    finally:
        worker.runtime.drain(5.0)


def latency(bootstrap: str, mode: str) -> Latency:
    """Seconds from a record's timestamp to its result at a read_committed reader, at ``RATE`` records a second."""
    topic, output, group = _topics(bootstrap)
    worker = _worker(bootstrap, topic, output, group, mode)
    worker.runtime.start()
    seen: list[float] = []
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(bootstrap, output, seen, stop))
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    try:
        eventually(lambda: len(worker.runtime.status().assignment) == PARTITIONS, 60)
        reader.start()
        count = int(RATE * SECONDS)
        started = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, started + number / RATE - time.monotonic()))
            producer.produce(topic, b"%.6f" % time.time(), partition=number % PARTITIONS)
            producer.poll(0)
        producer.flush(30)
        eventually(lambda: len(seen) >= count, 60)
    finally:
        stop.set()
        reader.join()
        worker.runtime.drain(5.0)
    ordered = sorted(seen[len(seen) // 10 :])  # the first ones wait for joins and first transactions
    return Latency(statistics.median(ordered), ordered[int(len(ordered) * 0.99)])


def _read(bootstrap: str, topic: str, seen: list[float], stop: threading.Event) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            seen.append(time.time() - float(message.value() or b"0"))
    consumer.close()


def _worker(bootstrap: str, topic: str, output: str, group: str, mode: str) -> Worker:
    client = {"session.timeout.ms": 6000}
    return Worker(
        bootstrap, topic, output, group, client=client, mode=mode, echo=True, transaction_interval_ms=INTERVAL_MS
    )


def _topics(bootstrap: str) -> tuple[str, str, str]:
    mark = uuid.uuid4().hex[:8]
    names = (f"in-{mark}", f"out-{mark}")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        created.result(30)
    eventually(lambda: all(name in admin.list_topics(timeout=10).topics for name in names))
    return (*names, f"group-{mark}")


def _paired(what: str, pairs: int, measure: Callable[[str], float]) -> list[float]:
    """Run both modes in turn; print the medians, and the median ratio of the pairs with its range."""
    runs: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(pairs):
        for mode in MODES if number % 2 == 0 else reversed(MODES):
            runs[mode].append(measure(mode))
    ratios = sorted(once / least for least, once in zip(*(runs[mode] for mode in MODES), strict=True))
    least, once = (statistics.median(runs[mode]) for mode in MODES)
    print(
        f"{what:<44} at_least_once {least:9.3f}   exactly_once {once:9.3f}   ratio {in_words(ratios)}",
        flush=True,
    )
    return ratios


def in_words(ratios: Sequence[float]) -> str:
    """The median with the range."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def measured(bootstrap: str, *, quick: bool) -> Section:
    """On a broker that runs. Seconds to a reader are left out of a quick run: each takes a dozen."""
    pairs = QUICK_PAIRS if quick else PAIRS
    for mode in MODES:
        throughput(bootstrap, mode)  # the broker's code is compiled while it runs
    ratios = _paired("records a second", pairs, lambda mode: throughput(bootstrap, mode))
    rows: list[list[str | int | float | None]] = [["records/s", in_words(ratios)]]
    if not quick:
        found: dict[str, list[Latency]] = {mode: [] for mode in MODES}

        def median(mode: str) -> float:
            found[mode].append(latency(bootstrap, mode))
            return found[mode][-1].median

        slower = _paired(f"median seconds to a reader at {RATE:.0f}/s", pairs, median)
        slow = {mode: statistics.median(each.p99 for each in found[mode]) for mode in MODES}
        print(f"{'p99 seconds (median of the runs)':<44} " + "   ".join(f"{m} {slow[m]:9.3f}" for m in MODES))
        rows.append([f"seconds until a reader sees a result, at {RATE:.0f} a second", in_words(slower)])
    return Section(
        TITLE,
        "What transactions cost: the Kafka side alone, without a model, which hides their price in practice.",
        columns=["", "exactly_once / at_least_once, median of pairs, range"],
        rows=rows,
        goals=[Goal(f"records/s >= {GOAL}", in_words(ratios), statistics.median(ratios) >= GOAL)],
        notes=[f"{RECORDS} records a run, {pairs} pairs, Apache Kafka; readers are read_committed."],
    )


@click.command()
@click.option("--quick", is_flag=True, help="Throughput alone, fewer pairs.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report.")
def main(quick: bool, path: Path | None) -> None:
    """Start a broker and measure; say so when there is none."""
    configure_logging("error", "bench")  # on standard error: the figures stand alone on standard output
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the broker is stopped
    try:
        jars = fetch_jars()
    except KafkaUnavailable as error:
        print(f"not measured: {error}")
        section = Section(TITLE, not_measured=str(error))
    else:
        with tempfile.TemporaryDirectory() as folder:
            broker = ApacheKafka(jars, Path(folder))
            broker.start()
            try:
                section = measured(broker.bootstrap_servers, quick=quick)
            finally:
                broker.stop()
    if path is not None:
        section.write(path)


if __name__ == "__main__":
    main()
