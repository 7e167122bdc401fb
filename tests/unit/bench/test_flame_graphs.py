"""What the flame graphs' table says of canned stacks."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench.flame.samples import LIBRDKAFKA, OTHER, PARTS, REST, by_part, part_of, shares
from bench.flame_graphs import FIRST, REQUIREMENTS, Found, NotMeasured, Profiler, Size, measured, section
from bench.peers.stage import FailedError
from bench.report.section import parsed

LOOP = "<module> (consumer/__main__.py:5);run (asyncio/runners.py:190);_run_once (asyncio/base_events.py:1922)"


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        (LOOP, "asyncio"),
        (f"{LOOP};process (consumer/worker/event_processor.py:90)", "worker"),
        (f"{LOOP};decode (consumer/codecs/decoding.py:12);loads (json/__init__.py:346)", "JSON"),
        (
            f"{LOOP};pad (consumer/serving/tensors.py);concatenate (numpy/_core/multiarray.py:1)",
            "serving (tensors, client)",
        ),
        (f"{LOOP};submit (consumer/serving/dispatch/dispatcher.py:40)", "batching"),
        (f"{LOOP};spans (consumer/extraction/spans.py:9);<listcomp> (consumer/extraction/spans.py:11)", "extraction"),
        # Of the landed revision, whose files have other names.
        (f"{LOOP};process (consumer/pipeline.py:40)", "worker"),
        (f"{LOOP};submit (consumer/serving/dispatcher.py:40)", "batching"),
        (
            "_bootstrap (threading.py:1002);run (consumer/kafka/source.py:80);poll (confluent_kafka/src.py:1)",
            "Kafka client",
        ),
        ("_bootstrap (threading.py:1002);wait (threading.py:331)", OTHER),
        ("a name (of a thread)", OTHER),
    ],
)
def test_a_sample_is_of_the_innermost_part_that_is_named(stack: str, part: str) -> None:
    """The standard library's and numpy's functions are of whoever calls them."""
    assert part_of(stack) == part


def test_every_package_of_an_events_way_is_a_part() -> None:
    """A package that is renamed would be counted as the worker's."""
    packages = {path.parent.name for path in Path(__file__).parents[3].glob("consumer/*/__init__.py")}
    named = {
        prefix.split("/")[1] for prefixes in PARTS.values() for prefix in prefixes if prefix.startswith("consumer/")
    }
    assert packages - named == {"cli", "config", "evaluation", "local", "model", "worker"}


def test_what_a_thread_takes_is_divided_by_its_own_samples() -> None:
    """One that waits most of the time counts for what it takes, however often it was seen; without samples, by name."""
    lines = [
        "thread (7): MainThread;a (consumer/codecs/x.py:1) 3",
        "thread (7): MainThread;a (consumer/codecs/x.py:1);b (consumer/codecs/y.py:2) 3",
        "thread (7): MainThread;c (other.py:1) 2",
        "thread (8): release;d (consumer/kafka/x.py:1) 90",
        "",
    ]
    found = shares(lines)
    assert found == {7: {"codecs": 0.75, OTHER: 0.25}, 8: {"Kafka client": 1.0}}
    cpu = {
        7: ("python", 80.0),
        8: ("python", 4.0),
        9: ("rdk:broker1", 5.0),
        10: ("rdk:main", 1.0),
        11: ("event_eng (x)", 2.0),
    }
    assert by_part(cpu, found) == {"codecs": 60.0, OTHER: 20.0, "Kafka client": 4.0, LIBRDKAFKA: 6.0, REST: 2.0}
    with pytest.raises(ValueError, match="no sample"):
        shares([""])


def test_the_table_has_both_sides_of_every_part_and_their_sum() -> None:
    """Also a part that only one of them has."""
    pairs = [
        (Found({"codecs": 300.0, "JSON": 100.0}, 900.0), Found({"codecs": 100.0, "telemetry": 100.0}, 2000.0)),
        (Found({"codecs": 500.0, "JSON": 100.0}, 800.0), Found({"codecs": 100.0, "telemetry": 100.0}, 2000.0)),
    ]
    found = section(pairs, ["[before](flame-graph-before.svg)"])
    assert found.rows == [
        ["codecs", 400.0, "80%", 100.0, "50%"],
        ["JSON", 100.0, "20%", 0.0, "0%"],
        ["telemetry", 0.0, "0%", 100.0, "50%"],
        ["all", 500.0, "", 200.0, ""],
    ]
    assert "2.50 (2.00 to 3.00)" in found.notes[0]
    assert "2 runs of each in turn; 850 and 2000 events/s" in found.notes[1]
    assert "flame-graph-before.svg" in found.notes[-1]


def test_the_profiler_is_pinned() -> None:
    assert re.fullmatch(r"py-spy==[\d.]+\n", REQUIREMENTS.read_text())


def test_the_section_keeps_the_contract(tmp_path: Path) -> None:
    found = section([(Found({"codecs": 3.0}, 9.0), Found({"codecs": 1.0}, 20.0))], [])
    found.write(tmp_path / "section.json")
    assert parsed((tmp_path / "section.json").read_text("utf-8")).rows


def test_a_machine_that_lets_no_process_look_into_another_is_named_with_the_profilers_words(tmp_path: Path) -> None:
    """As in a container without ptrace."""
    program = tmp_path / "py-spy"
    program.write_text("#!/bin/sh\necho 'Error: Permission Denied' >&2\necho 'Try running again' >&2\nexit 1\n")
    program.chmod(0o755)
    profiler = Profiler.__new__(Profiler)
    profiler._program = str(program)
    with pytest.raises(NotMeasured, match="the worker: Error: Permission Denied / Try running again"):
        profiler.record(1, 1, "raw", tmp_path / "out.txt")


def test_a_worker_that_has_stopped_is_named_with_its_last_words(tmp_path: Path) -> None:
    """As one that waits for something after its first results: there is nothing to divide by."""
    process = SimpleNamespace(pid=os.getpid(), require_running=lambda: None, last_words=lambda: "paused (output)")
    stage: Any = SimpleNamespace(
        instant="server",
        topics=lambda _: SimpleNamespace(output="out"),
        reader=lambda: nullcontext("reader"),
        running=lambda *_: nullcontext(process),
        written=lambda *_: FIRST,
    )
    profiler = Profiler.__new__(Profiler)
    with pytest.raises(FailedError, match=r"no result in 0 s, behind the first 500: paused \(output\)"):
        measured(stage, profiler, "in", ("worker",), Size(1, 1000, 0.0, 1, 1), tmp_path / "x.svg")
