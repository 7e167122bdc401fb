"""What a worker costs before it does anything: seconds to import, and memory.

    python tests/bench/worker_footprint.py [--quick] [--json FILE]

Each row is a fresh interpreter that imports what is named and everything before it was not. Time is the median of five
runs, the interpreter's own start left out; memory is the resident set after the imports, the largest of the runs. The
last row is a worker process that has its model and its group and waits for the first event.
Exit code 1 when a worker is above a limit.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import click
from bench.report.section import Goal, Section

RUNS = 5
SECONDS_LIMIT = 1.5
MEGABYTES_LIMIT = 150.0
ROOT = Path(__file__).parents[2]
WORKER = "consumer.worker.lifecycle"
LOGS = "consumer.telemetry.logs"
"""What ``rexstream run`` imports before the worker."""

PROBE = """
import json, resource, sys, time
started = time.perf_counter()
for name in sys.argv[1:]:
    __import__(name)
seconds = time.perf_counter() - started
try:
    pages = int(open("/proc/self/statm").read().split()[1])
    resident = pages * resource.getpagesize()
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resident = peak if sys.platform == "darwin" else peak * 1024
print(json.dumps([seconds, resident, "tensorflow" in sys.modules]))
"""


class Footprint(NamedTuple):
    """Median import time in seconds, largest resident set in MB (10^6 bytes)."""

    seconds: float
    megabytes: float


def footprint(modules: tuple[str, ...]) -> Footprint:
    """Import modules in fresh interpreters. Raises RuntimeError when TensorFlow comes with them."""
    seconds, megabytes = [], []
    for _ in range(RUNS):
        probe = [sys.executable, "-c", PROBE, *modules]
        answer = subprocess.run(probe, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        took, resident, tensorflow = json.loads(answer)
        if tensorflow:
            raise RuntimeError(f"importing {', '.join(modules)} imports TensorFlow")
        seconds.append(took)
        megabytes.append(resident / 1e6)
    return Footprint(statistics.median(seconds), max(megabytes))


def running_worker(folder: Path) -> float:
    """Resident set in MB of a ``rexstream run`` that has joined its group and has not seen an event."""
    sys.path.insert(0, str(ROOT / "tests/support"))
    from stub_server import StubServer
    from worker_run import Run

    address = folder / "broker.address"
    topics = ("in", "out", "dead")
    command = [sys.executable, "-m", "consumer", "broker", "--port", "0", "--address-file", str(address)]
    command += [argument for topic in topics for argument in ("--topic", f"{topic}:1")]
    broker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = StubServer()
    try:
        while not address.exists() or not address.read_text().strip():
            time.sleep(0.05)
        worker = Run(address.read_text().strip(), topics, server, folder)
        worker.start()
        try:
            worker.wait(lambda: worker.get("/readyz")[0] == 200)
            line = next(x for x in worker.get("/metrics")[1].splitlines() if x.startswith("process_resident_memory"))
            return float(line.split()[1]) / 1e6
        finally:
            worker.kill()
    finally:
        server.stop()
        broker.terminate()
        broker.wait()


def _share(of_limit: float) -> str:
    return f"{of_limit:.0%}"


def _memory(megabytes: float) -> tuple[float, str]:
    return round(megabytes, 1), _share(megabytes / MEGABYTES_LIMIT)


@click.command()
@click.option("--quick", is_flag=True, help="The worker's own modules alone.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the section of the report; exit code 0.")
def main(quick: bool, path: Path | None) -> None:
    """Print the table; exit code 1 when the worker is above a limit."""
    sys.path.insert(0, str(ROOT))
    parts = ("json", "numpy", "confluent_kafka", "grpc.aio", "consumer.config.tree", "consumer.serving.client")
    found = {name: footprint((name,)) for name in (() if quick else parts)}
    found[WORKER] = footprint((LOGS, WORKER))
    with tempfile.TemporaryDirectory() as folder:
        running = running_worker(Path(folder))
    largest = max(found[WORKER].megabytes, running)
    rows: list[list[str | int | float | None]] = [
        [name, round(cost.seconds, 2), _share(cost.seconds / SECONDS_LIMIT), *_memory(cost.megabytes)]
        for name, cost in found.items()
    ]
    rows.append(["a worker in its group", None, None, *_memory(running)])
    seconds = found[WORKER].seconds
    section = Section(
        "What a worker costs before it does anything",
        "Starting a worker takes a moment and little memory, and no TensorFlow.",
        columns=["import", "seconds", "of the limit", "MB", "of the limit"],
        rows=rows,
        goals=[
            Goal(f"imports in {SECONDS_LIMIT} s", f"{seconds:.2f} s", seconds <= SECONDS_LIMIT),
            Goal(f"memory of {MEGABYTES_LIMIT:.0f} MB", f"{largest:.0f} MB", largest <= MEGABYTES_LIMIT),
        ],
        notes=["Limits are those of the project; seconds are this machine's."],
    )
    print(f"{'import':<40}" + "".join(f"{column:>14}" for column in section.columns[1:]))
    for row in rows:
        print(f"{row[0]!s:<40}" + "".join(f"{'' if cell is None else cell:>14}" for cell in row[1:]))
    if path is not None:
        section.write(path)
    elif not all(goal.met for goal in section.goals):
        sys.exit(1)


if __name__ == "__main__":
    main()
