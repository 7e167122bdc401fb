"""What compose has around its workers, as processes on this machine: Kafka, registry, balancer, servers, Prometheus."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import yaml
from apicurio import Apicurio, fetch_apicurio
from chaos.clusters import Clusters
from chaos.model_server import ModelServer
from chaos.scenario import Kafka
from chaos.scenarios.brokers import DEFAULT_CLEANUP
from chaos.topics import Topics
from deploy.balancer import Nginx
from deploy.chart import ALERTS, ROOT
from deploy.prometheus_server import Prometheus
from rehearsal.rules import hurried
from stub_server import write_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"
SERVERS = 3
WORKER_JOB, SERVER_JOB = "rexstream-worker", "tf-serving"


class Stack:
    """A context manager: nothing runs after it. Everything is started by the thread that enters it."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._say = say
        self._exits = ExitStack()

    def __enter__(self) -> Stack:
        """Raises KafkaUnavailable, RegistryAbsent or FileNotFoundError for what cannot be had here."""
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def _start(self) -> None:
        self.kafka = self._exits.enter_context(Clusters(self.folder)).get(Kafka(settings=DEFAULT_CLEANUP))
        self.topics = Topics(self.kafka.bootstrap_servers)
        self._say(f"Apache Kafka {self.kafka.version}")
        self.registry = Apicurio(fetch_apicurio(), self._place("registry"))
        self.registry.start()
        self._exits.callback(self.registry.kill)
        self._say(f"Apicurio Registry {self.registry.version}")
        self.servers = [ModelServer(self._place(f"model-server-{number}")) for number in range(1, SERVERS + 1)]
        for server in self.servers:
            self._exits.callback(server.kill)
            server.start()
        self.bundle = write_bundle(self.folder / "bundle")
        self.balancer = Nginx(self._place("balancer"), self.servers)
        self._exits.callback(self.balancer.close)
        self._say(f"{SERVERS} model servers behind nginx")
        self.prometheus = Prometheus(self._place("prometheus"), configuration=self._scraping())
        self._exits.callback(self.prometheus.close)
        self.targets(SERVER_JOB, (f"127.0.0.1:{server.metrics_port}" for server in self.servers))
        self.targets(WORKER_JOB, ())
        self.prometheus.until(f'sum(up{{job="{SERVER_JOB}"}})', SERVERS)
        self._say("Prometheus, with the shipped configuration and alerts")

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def targets(self, job: str, addresses: Iterable[str]) -> None:
        """What Prometheus finds under this job from now on, as it would ask DNS."""
        file = self._discovered(job)
        new = file.with_suffix(".new")
        new.write_text(json.dumps([{"targets": list(addresses)}]))
        new.rename(file)

    def _scraping(self) -> dict[str, Any]:
        """The shipped configuration, but for where targets are found and for seconds, which a rehearsal counts in."""
        shipped: dict[str, Any] = yaml.safe_load(PROMETHEUS.read_text("utf-8"))
        fast = self.folder / "alerts-fast.yaml"
        fast.write_text(hurried(ALERTS.read_text("utf-8")), encoding="utf-8")
        shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        shipped["rule_files"] = [str(ALERTS), str(fast)]
        for job in shipped["scrape_configs"]:
            del job["dns_sd_configs"]
            job["file_sd_configs"] = [{"files": [str(self._discovered(job["job_name"]))], "refresh_interval": "1s"}]
        return shipped

    def _discovered(self, job: str) -> Path:
        return self.folder / f"{job}.json"

    def _place(self, name: str) -> Path:
        place = self.folder / name
        place.mkdir()
        return place
