"""What a worker costs before it does anything: seconds to import, and memory.

    python tests/bench/worker_footprint.py

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

RUNS = 5
SECONDS_LIMIT = 1.5
MEGABYTES_LIMIT = 150.0
ROOT = Path(__file__).parents[2]
WORKER = "consumer.worker.lifecycle"

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


def main() -> int:
    """Print the table; 1 when the worker is above a limit."""
    sys.path.insert(0, str(ROOT))
    parts = ("json", "numpy", "confluent_kafka", "grpc.aio", "consumer.config.tree", "consumer.serving.client")
    rows = {name: footprint((name,)) for name in (*parts, WORKER)}
    print(f"{'import':<40} {'seconds':>8} {'of limit':>9} {'MB':>8} {'of limit':>9}")
    for name, cost in rows.items():
        print(
            f"{name:<40} {cost.seconds:>8.2f} {cost.seconds / SECONDS_LIMIT:>9.0%} "
            f"{cost.megabytes:>8.1f} {cost.megabytes / MEGABYTES_LIMIT:>9.0%}"
        )
    with tempfile.TemporaryDirectory() as folder:
        running = running_worker(Path(folder))
    label = "a worker in its group, before an event"
    print(f"{label:<40} {'':>8} {'':>9} {running:>8.1f} {running / MEGABYTES_LIMIT:>9.0%}")
    print(f"{'limit':<40} {SECONDS_LIMIT:>8.2f} {'':>9} {MEGABYTES_LIMIT:>8.1f}")
    return int(rows[WORKER].seconds > SECONDS_LIMIT or max(rows[WORKER].megabytes, running) > MEGABYTES_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
