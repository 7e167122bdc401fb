"""Where one scenario plays: its topics, workers, model server and load, and the audit at the end."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, Any

from chaos.audit import Audit, audit
from chaos.load import Load
from chaos.model_server import ModelServer
from chaos.reviews import TASKS, TEXT_CHARS, mixture
from chaos.scenario import Failed, Report
from chaos.topics import Topics
from chaos.worker import TODAYS, Worker
from stub_server import write_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from apache_kafka import ApacheKafka
    from chaos.reviews import Review
    from chaos.scenario import Mode, Scenario

PARTITIONS = 4
RATE = 60.0
"""Events a second. Two cores carry more; the rest is for the faults, and for whatever else runs there."""

IN_FLIGHT_EVENTS = 200
COMMIT_SECONDS = 0.2
TRANSACTION_TIMEOUT_MS = 5_000
CLASSIC: Mapping[str, Any] = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
KIP_848: Mapping[str, Any] = {"group.protocol": "consumer"}

EXIT_FENCED = 4
GIVEN_UP = "brokers answer a new client"
"""What a worker says whose own client they do not answer."""

PATIENCE_SECONDS = 240.0
"""How long anything may take that must happen. It fails nothing on a slow machine, and ends what hangs."""


class Stage:
    """One scenario in one mode, on topics and in a group of its own."""

    def __init__(
        self,
        scenario: Scenario,
        mode: Mode,
        seed: int,
        folder: Path,
        kafka: ApacheKafka,
        say: Callable[[str], None],
        minutes: float = 60.0,
        report_folder: Path | None = None,
    ) -> None:
        self.mode = mode
        self.kafka = kafka
        self.folder = folder
        self.minutes = minutes
        """Length of a soak."""
        self.report_folder = report_folder
        """Where files go that outlive the run."""
        self.random = Random(f"{seed} {scenario.name} {mode}")
        self.report = Report(scenario.name, mode, scenario.fault, scenario.expected)
        self.topics = Topics(kafka.bootstrap_servers)
        self.workers: list[Worker] = []
        self.server = ModelServer(folder)
        self.audited = Audit()
        self.say = say
        self._started = time.monotonic()
        name = f"{scenario.name}-{mode}-{Random().randrange(16**6):06x}".replace("_", "-")
        self.input, self.output, self.dead, self.group = f"in.{name}", f"out.{name}", f"dead.{name}", f"group.{name}"
        self.load = Load(kafka.bootstrap_servers, self.input)
        self._bundle = write_bundle(folder / "bundle")
        self._judged = False

    # -- setting it up ------------------------------------------------------------------------------------------

    def set_up(self, *, output: bool = True, dead: bool = True, **input_settings: str) -> None:
        """Topics and the model server. ``output=False``: that topic is missing so far."""
        replicas = 3 if self.kafka.bootstrap_servers.count(",") else 1
        self.topics.create(self.input, PARTITIONS, replicas, **input_settings)
        if output:
            self.topics.create(self.output, PARTITIONS, replicas)
        if dead:
            self.topics.create(self.dead, PARTITIONS, replicas)
        self.server.start()

    def worker(
        self,
        *,
        client: Mapping[str, Any] = CLASSIC,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = TODAYS,
        wait: bool = True,
        **sections: Mapping[str, Any],
    ) -> Worker:
        """Start one more worker; with ``wait`` it is ready when this returns. ``sections`` add to its configuration."""
        config: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": self.kafka.bootstrap_servers, "group_id": self.group, "client": client},
            "model": {"target": self.server.target, "name": "stub", "bundle": str(self._bundle)},
            "delivery": {
                "mode": self.mode,
                "dead_letter_topic": self.dead,
                "commit_interval_ms": int(COMMIT_SECONDS * 1000),
                "grace_seconds": 40.0,
                **({"transaction_timeout_ms": TRANSACTION_TIMEOUT_MS} if self.mode == "exactly_once" else {}),
            },
            "limits": {"in_flight_events": IN_FLIGHT_EVENTS, "text_chars": TEXT_CHARS},
            "observability": {"http": "127.0.0.1:0"},
        }
        for name, values in sections.items():
            config.setdefault(name, {}).update(values)
        route = {"input": self.input, "tasks": list(TASKS), "output": self.output, **config.pop("route", {})}
        worker = Worker(len(self.workers), _plain({**config, "routes": [route]}), self.folder, environment, program)
        worker.made_with = {"client": client, "environment": environment, "program": program, **sections}
        self.workers.append(worker)
        worker.start()
        if wait:
            worker.wait_until_ready()
        return worker

    def begin(self, rate: float = RATE, write: Callable[[int], Review] | None = None) -> None:
        """The load starts."""
        self._started = time.monotonic()
        self.load.start(rate, write or mixture(self.random))

    # -- while it runs ------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._started

    def fault(self, words: str, *, ended: int = 0, cut_off: int = 0) -> None:
        """Note what is done now, and how much of it may come twice in at_least_once.

        ``ended`` workers lose what they have in flight: at most what is behind the committed offsets now. Workers that
        are ``cut_off`` from the brokers live on and publish what they have fetched when they are back, and whoever
        gets their partitions does so as well: at most what each may have in flight.
        """
        if self.mode == "at_least_once":
            most = IN_FLIGHT_EVENTS + int(3 * RATE * COMMIT_SECONDS)
            events = cut_off * most
            if ended:
                # What arrives between this look and the fault itself is in flight as well.
                events += min(ended * most, self.topics.lag(self.group, self.input) + int(RATE))
            self.report.duplicates_allowed += len(TASKS) * events
        line = f"{self.elapsed:.1f} s: {words}"
        self.report.faults.append(line)
        self.say(line)

    def note(self, words: str) -> None:
        """Something seen that is worth a line in the report."""
        self.report.notes.append(words)
        self.say(words)

    def check(self, holds: bool, words: str) -> None:
        """An expectation; the scenario goes on when it does not hold, and fails in the end."""
        if not holds:
            self.report.failures.append(words)
            self.say(f"NOT AS EXPECTED: {words}")

    def pause(self, least: float, most: float | None = None) -> None:
        """Let ``least`` seconds pass, or a random time up to ``most``."""
        time.sleep(least if most is None else self.random.uniform(least, most))

    def wait(self, until: Callable[[], bool], words: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Raises Failed when ``until`` stays false. Meanwhile workers are supervised."""
        deadline = time.monotonic() + seconds
        while not until():
            self._supervise()
            if time.monotonic() > deadline:
                raise Failed(f"after {seconds:.0f} s still not: {words}")
            time.sleep(0.1)

    def progress(self, events: int = 30) -> None:
        """Wait until so many more events are committed: it works, whatever was done to it."""
        before = sum(max(0, offset) for offset in self.topics.committed(self.group, self.input))
        self.wait(
            lambda: sum(max(0, offset) for offset in self.topics.committed(self.group, self.input)) >= before + events,
            f"{events} more events committed",
        )

    def _supervise(self) -> None:
        """Start another worker for one that ended by itself: a fenced one may, and one whose client lost its way."""
        for worker in list(self.workers):
            if worker.dismissed or worker.running:
                continue
            worker.dismissed = True
            said = f"worker {worker.number} ended by itself, exit code {worker.exit_code}; another takes its place"
            may = self.mode == "exactly_once" or worker.said(GIVEN_UP)
            if may and worker.exit_code == EXIT_FENCED:
                self.note(said)
            else:
                self.check(False, said)
            self.worker(wait=False, **worker.made_with)

    @property
    def running(self) -> list[Worker]:
        """Workers whose process is there."""
        return [worker for worker in self.workers if worker.running]

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self, *, exit_codes: tuple[int, ...] = (0,), tend: bool = False) -> Audit:
        """End the load, let the workers catch up, drain them, audit and judge."""
        sent = self.load.stop()
        self.say(f"{self.elapsed:.1f} s: load ends after {sent} records, waiting for lag 0")

        def caught_up() -> bool:
            if tend:
                self.server.tend()
            return self.topics.lag(self.group, self.input) == 0

        self.wait(caught_up, "lag 0")
        for worker in self.running:
            code = worker.drain()
            self.check(code in exit_codes, f"worker {worker.number} ended with exit code {code} on SIGTERM")
        self.check(self.topics.lag(self.group, self.input) == 0, "committed offsets equal the ends")
        return self.judge()

    def judge(self) -> Audit:
        """Audit as things stand, and hold it against what was promised."""
        self._judged = True
        found = self.audited = audit(self.topics, self.input, (self.output,), self.dead, self.load.sent)
        report = self.report
        report.inputs, report.results = found.inputs, found.results
        report.dead_letters = dict(sorted(found.dead_letters.items()))
        report.missing, report.duplicates = len(found.missing), found.duplicates
        for problem in found.problems():
            self.check(False, problem)
        if found.repeated_inputs:
            self.note(f"{found.repeated_inputs} records are twice in the input, by the load's producer")
        self.check(
            found.duplicates <= report.duplicates_allowed,
            f"{found.duplicates} duplicates, {report.duplicates_allowed} were in flight at the faults",
        )
        back = found.disorder if self.mode == "exactly_once" else found.disorder_of_keys
        if self.mode == "exactly_once":
            self.check(back == 0, f"{back} results lie behind later ones of their partition")
        elif back:
            self.note(f"{back} results lie behind later ones of their key")
        return found

    def close(self) -> None:
        """Nothing that this stage started is left. A scenario that ended early is counted as it stands."""
        for worker in self.workers:
            worker.kill()
        self.server.kill()
        if not self._judged:
            self.check(False, "the scenario ended before its audit")
            try:
                self.load.stop(patience=10.0)
                self.judge()
            except Exception as error:  # whatever the scenario did to the cluster
                self.note(f"and there is nothing to count: {error}")


def _plain(value: Any) -> Any:
    """Mappings as dictionaries, for YAML."""
    if hasattr(value, "items"):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
