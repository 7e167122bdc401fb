"""One delivery mode under steady load: topics, workers, traffic, and the steps that are done to them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from chaos.audit import Audit, audit
from chaos.load import Load
from chaos.scenario import Failed
from chaos.stage import EXIT_FENCED
from chaos.worker import Worker
from deploy.chart import ROOT
from rehearsal.stack import WORKER_JOB
from rehearsal.step import Promise, Span, Step
from rehearsal.traffic import avro_reviews, json_review, register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from chaos.scenario import Mode
    from rehearsal.stack import Stack

COMPOSE = ROOT / "deploy" / "compose" / "config.yaml"
PARTITIONS = 4
WORKERS = 2
AVRO_SHARE = 0.25
CALM_SECONDS = 5.0
"""What is looked at before and after each step."""

PATIENCE_SECONDS = 150.0
"""How long anything may take that must happen: a session's end (45 s) and what it held up, on a slow machine."""


def configuration(mode: Mode, *, brokers: str, registry: str, model: str, bundle: str) -> dict[str, Any]:
    """Compose's own for its workers, with these addresses, one more route, of Avro, and in another mode other names."""
    config: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    config["kafka"]["bootstrap_servers"] = brokers
    config["kafka"]["registry"]["url"] = registry
    config["model"] |= {"target": model, "bundle": bundle}
    config["observability"]["http"] = "127.0.0.1:0"
    (route,) = config["routes"]
    delivery = config["delivery"]
    if mode != delivery.get("mode", "at_least_once"):
        delivery["mode"] = mode
        for section, key in (
            (config["kafka"], "group_id"),
            (route, "input"),
            (route, "output"),
            (delivery, "dead_letter_topic"),
        ):
            section[key] += f".{mode}"
    config["routes"].append({**route, "input": f"{route['input']}.avro", "format": "avro"})
    return config


class Lag(NamedTuple):
    """Records that are not committed, of all inputs."""

    at: float
    records: int


class Act:
    """Ended by ``close`` whatever happened. ``steps`` grows."""

    def __init__(self, stack: Stack, mode: Mode, rate: float, folder: Path, say: Callable[[str], None]) -> None:
        """``rate``: reviews a second, of all inputs together. Nothing runs yet."""
        self.stack = stack
        self.mode = mode
        self.rate = rate
        self.steps: list[Step] = []
        self.notes: list[str] = []
        self.lags: list[Lag] = []
        self.audits: dict[str, Audit] = {}
        self.workers: list[Worker] = []
        self.span = Span(0, 0)
        self._folder = folder
        self._say = say
        self._usual = 0
        self._scraped: set[int] = set()
        self._ended_by_itself: list[str] = []
        self._config = configuration(
            mode,
            brokers=stack.kafka.bootstrap_servers,
            registry=stack.registry.url,
            model=f"127.0.0.1:{stack.balancer.port}",
            bundle=str(stack.bundle),
        )
        route, avro_route = self._config["routes"]
        self.json_topic, self.avro_topic = route["input"], avro_route["input"]
        self._output, self._dead = route["output"], self._config["delivery"]["dead_letter_topic"]
        self.group = self._config["kafka"]["group_id"]
        bootstrap = stack.kafka.bootstrap_servers
        self.loads = {topic: Load(bootstrap, topic) for topic in (self.json_topic, self.avro_topic)}

    def begin(self) -> None:
        """Topics, schemas, workers, traffic; then it is calm."""
        for topic in (self.json_topic, self.avro_topic, self._output, self._dead):
            self.stack.topics.create(topic, PARTITIONS)
        self.schema, self.newer_schema = register(self.stack.registry.url, self.avro_topic)
        for _ in range(WORKERS):
            self.worker()
        for worker in self.workers:
            worker.wait_until_ready()
        self.wait(lambda: self.assigned == 2 * PARTITIONS, "the workers have all partitions")
        self._scrape()
        self.stack.prometheus.until("count(rexstream_build_info)", WORKERS, PATIENCE_SECONDS)
        self.loads[self.json_topic].start(self.rate * (1 - AVRO_SHARE), json_review)
        self.loads[self.avro_topic].start(self.rate * AVRO_SHARE, avro_reviews(self.schema))
        self.wait(lambda: self._lag() > 0, "traffic")
        self._calm()  # first calls, first commits
        self.span = Span(time.time(), 0)
        seen = self._calm()
        self._usual = max(int(2 * self.rate), *(3 * lag.records // 2 for lag in self.lags if lag.at >= seen.began))
        self._say(f"{self.rate:.0f} reviews a second; usually up to {self._usual} are not committed")

    # -- steps --------------------------------------------------------------------------------------------------

    @contextmanager
    def step(
        self, name: str, what: str, must: tuple[str, ...] = (), may: Mapping[str, str] | None = None
    ) -> Iterator[Step]:
        """What is done inside happens under load; it ends when the lag is what it usually is, and after calm."""
        step = Step(name, what, frozenset(must), may or {})
        self.steps.append(step)
        now = time.time()
        step.before = Span(now - CALM_SECONDS, now)
        self._say(f"{len(self.steps)}. {name}: {what}")
        try:
            yield step
            self.wait(self._is_usual, f"no more than the usual {self._usual} records are not committed")
            step.to_recover = time.time() - now
        except (Failed, RuntimeError) as failed:
            self.promise(False, str(failed))
            raise Failed(str(failed)) from failed
        finally:
            step.during = Span(now, time.time())
        step.after = self._calm()
        self.promise(not self._ended_by_itself, "no worker ended by itself" + "".join(self._ended_by_itself))
        self._ended_by_itself.clear()
        kept = "kept" if all(promise.holds for promise in step.promises) else "BROKEN"
        self._say(f"   as usual again after {step.to_recover:.0f} s; promises {kept}")

    def did(self, words: str) -> None:
        """A line in the step's log."""
        step = self.steps[-1]
        line = f"{time.time() - step.before.ended:5.1f} s  {words}"
        step.log.append(line)
        self._say(f"   {line}")

    def promise(self, holds: bool, words: str) -> None:
        """Something that must hold in this step; it goes on when it does not."""
        self.steps[-1].promises.append(Promise(holds, words))
        if not holds:
            self._say(f"   BROKEN: {words}")

    def sent(self) -> dict[str, int]:
        """How many records each input has been sent."""
        return {topic: len(load.sent) for topic, load in self.loads.items()}

    def pause(self, seconds: float) -> None:
        """Let time pass, and look at the lag."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._lag()
            self._supervise()
            time.sleep(min(0.5, left))

    def wait(self, until: Callable[[], bool], words: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Raises Failed when ``until`` stays false."""
        deadline = time.monotonic() + seconds
        while not until():
            self._supervise()
            if self.lags and time.time() - self.lags[-1].at > 1:
                self._lag()
            if time.monotonic() > deadline:
                raise Failed(f"after {seconds:.0f} s still not: {words}")
            time.sleep(0.3)

    # -- workers ------------------------------------------------------------------------------------------------

    def worker(self) -> Worker:
        """One more, which starts now."""
        worker = Worker(len(self.workers) + 1, self._config, self._folder)
        self.workers.append(worker)
        worker.start()
        return worker

    @property
    def running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.running]

    @property
    def assigned(self) -> int:
        """Partitions that some worker says it has."""
        return sum(worker.assignment for worker in self.running)

    def _scrape(self) -> None:
        """Prometheus scrapes the workers that run, once they listen."""
        found = {}
        for worker in self.running:
            for line in worker.lines():
                if line.get("event") == "http":
                    found[worker.number] = line["address"]
        if found.keys() != self._scraped:
            self._scraped = set(found)
            self.stack.targets(WORKER_JOB, found.values())

    def _supervise(self) -> None:
        """As compose's ``restart: unless-stopped``. A worker that was fenced ends by design."""
        for worker in list(self.workers):
            if worker.dismissed or worker.running:
                continue
            worker.dismissed = True
            said = f"worker {worker.number} ended by itself with exit code {worker.exit_code}"
            if self.mode == "exactly_once" and worker.exit_code == EXIT_FENCED:
                self.notes.append(said)
            else:
                self._ended_by_itself.append(f": {said}")
            self._say(f"   {said}; it is started again")
            self.worker()
        if {worker.number for worker in self.running} != self._scraped:
            self._scrape()

    # -- the lag ------------------------------------------------------------------------------------------------

    def _lag(self) -> int:
        records = sum(self.stack.topics.lag(self.group, topic) for topic in self.loads)
        self.lags.append(Lag(time.time(), records))
        return records

    def _is_usual(self) -> bool:
        return self._lag() <= self._usual and self._lag() <= self._usual

    def _calm(self) -> Span:
        began = time.time()
        self.pause(CALM_SECONDS)
        return Span(began, time.time())

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """No more traffic; the workers do what is left and end; then the audit."""
        for load in self.loads.values():
            load.stop()
        sent = sum(self.sent().values())
        step = Step("the end", f"after {sent} reviews: no traffic, all is committed, SIGTERM, audit")
        self.steps.append(step)
        self._say(f"{len(self.steps)}. the end: {step.what}")
        now = time.time()
        try:
            self.wait(lambda: self._lag() == 0, "lag 0")
        except Failed as failed:
            self.promise(False, str(failed))
        step.during = Span(now, time.time())
        self.span = Span(self.span.began, time.time())
        for worker in self.running:
            code = worker.drain()
            self.promise(code == 0, f"worker {worker.number} ended with exit code {code} on SIGTERM")
        self._judge()

    def _judge(self) -> None:
        """Every record against what it owes, by the chaos suite's audit."""
        for topic, load in self.loads.items():
            beside = self.loads.keys() - {topic}
            found = audit(self.stack.topics, topic, (self._output,), self._dead, load.sent, beside)
            self.audits[topic] = found
            for problem in found.problems():
                self.promise(False, f"{topic}: {problem}")
            self.promise(not found.missing, f"{topic}: nothing is missing of {found.inputs} records")
            if self.mode == "exactly_once":
                self.promise(found.duplicates == 0, f"{topic}: {found.duplicates} duplicates")
                self.promise(found.disorder == 0, f"{topic}: {found.disorder} results behind later ones of a partition")
        for step in self.steps:
            step.promises += [judge(self.audits) for judge in step.of_audit]

    def close(self) -> None:
        """Nothing of it runs any more; the rest of the stack goes on."""
        if not self.span.ended:
            self.span = Span(self.span.began, time.time())
        for worker in self.workers:
            worker.kill()
        self.stack.targets(WORKER_JOB, ())
        for load in self.loads.values():
            try:
                load.stop(patience=5.0)
            except RuntimeError as left:
                self.notes.append(str(left))
