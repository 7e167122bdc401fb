"""Which files of ours run for one event, from poll to commit: ``rexstream run`` under a profile hook.

The same file is both sides. As a program (``trace.py FILE run --config …``) it is the worker: between two SIGUSR2 it
notes every file of the package in which a function begins, on any thread, and writes them to FILE.
``files_of_one_event`` starts that worker on the embedded broker, lets it warm up, and traces single events.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, Producer, TopicPartition

if TYPE_CHECKING:
    from types import FrameType

EVENTS = 10
"""Events that are traced one by one. A file counts when it ran for each, so a timer that fired by chance does not."""


def files_of_one_event(root: Path) -> list[str]:
    """Files of ``root/consumer`` that run for one event, relative to it. Takes about 20 s."""
    from stub_server import StubServer
    from worker_run import Run, reviews

    broker = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "integration" / "mock_broker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert broker.stdin is not None
    assert broker.stdout is not None
    server = StubServer()
    try:
        bootstrap = broker.stdout.readline().strip()
        for topic in ("in", "out", "dead"):
            broker.stdin.write(f"topic {topic} 1\n")
            broker.stdin.flush()
            broker.stdout.readline()
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "files.json"
            # The embedded broker answers a waiting fetch only when its wait ends; the default of 0.5 s is longer than
            # the worker's timers, which then fire during every event.
            client = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "fetch.wait.max.ms": 20}
            run = Run(bootstrap, ("in", "out", "dead"), server, Path(folder), kafka={"client": client})
            run.program = [sys.executable, str(Path(__file__).resolve()), str(found)]
            run.environment["PYTHONPATH"] = str(root)
            run.start()
            offsets = Consumer({"bootstrap.servers": bootstrap, "group.id": run.group})
            producer = Producer({"bootstrap.servers": bootstrap})
            try:
                run.send(reviews(20))
                run.wait(lambda: run.lag() == 0)
                seen = [_traced(run, found, event, offsets, producer) for event in reviews(EVENTS, 20)]
            finally:
                offsets.close()
                run.kill()
    finally:
        server.stop()
        broker.stdin.close()
        broker.wait(10)
    return sorted(set.intersection(*seen))


def _traced(run: Any, found: Path, event: tuple[str, bytes], offsets: Consumer, producer: Producer) -> set[str]:
    def committed() -> int:
        return int(offsets.committed([TopicPartition(run.input, 0)], timeout=10)[0].offset)

    before = committed()
    found.unlink(missing_ok=True)
    run.process.send_signal(signal.SIGUSR2)
    time.sleep(0.02)  # the recorder is on before the event is there; no longer, or timers fire in between
    key, value = event
    producer.produce(run.input, value, key)
    producer.flush()
    while committed() == before:
        time.sleep(0.005)
    run.process.send_signal(signal.SIGUSR2)
    run.wait(found.exists)
    names = json.loads(found.read_text("utf-8"))
    return set(names)


class _Recorder:
    """Notes the files in which functions begin, while it is on."""

    def __init__(self, found: Path, package: str) -> None:
        self._found = found
        self._package = package
        self._on = False
        self._files: set[str] = set()

    def toggle(self, *_: object) -> None:
        """Handler of SIGUSR2: begin, or end and write."""
        self._on = not self._on
        if self._on:
            self._files.clear()
            return
        names = sorted(os.path.relpath(name, self._package) for name in self._files)
        temporary = self._found.with_suffix(".part")
        temporary.write_text(json.dumps(names), "utf-8")
        temporary.rename(self._found)

    def __call__(self, frame: FrameType, what: str, _argument: object) -> None:
        """The profile hook."""
        if self._on and what == "call" and frame.f_code.co_filename.startswith(self._package):
            self._files.add(frame.f_code.co_filename)


def main() -> None:
    """Be the worker."""
    found, sys.argv = Path(sys.argv[1]), ["rexstream", *sys.argv[2:]]
    import consumer
    from consumer.cli import main as rexstream

    recorder = _Recorder(found, str(Path(consumer.__file__).parent) + os.sep)
    signal.signal(signal.SIGUSR2, recorder.toggle)
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    rexstream()


if __name__ == "__main__":
    main()
