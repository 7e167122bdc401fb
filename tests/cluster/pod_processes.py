"""A real worker process for each worker pod that is running: the part of a kubelet that KWOK does not play."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cluster.processes import Process
from deploy.tools import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.releases import Release

LOOK_SECONDS = 0.5


class _Worker(NamedTuple):
    process: Process
    target: str
    """host:port of its metrics."""


class PodProcesses:
    """Starts what a pod's container would run, with the pod's arguments and its ConfigMap. A context manager.

    Only the address of its metrics is another, since all pods share this machine. A pod that is to go gets SIGTERM, and
    SIGKILL after its grace period; then it is deleted. One thread starts them all: they would die with it.
    """

    def __init__(self, release: Release, folder: Path) -> None:
        self._release = release
        self._folder = folder
        self._workers: dict[str, _Worker] = {}
        self._terminated: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pod-processes")
        self.targets = folder / "targets.json"
        """Discovery of Prometheus' (``file_sd_configs``), with the labels that the Prometheus Operator would give."""
        self.exit_codes: list[int] = []
        """Of workers that have ended."""
        self.error: BaseException | None = None

    def __enter__(self) -> PodProcesses:
        self._discover()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def count(self) -> int:
        """Processes that have started and not been asked to end."""
        return len(self._workers.keys() - self._terminated.keys())

    def until_ended(self, count: int) -> None:
        """Wait for so many workers to have ended."""
        deadline = time.monotonic() + 60
        while len(self.exit_codes) < count:
            assert time.monotonic() < deadline, self.exit_codes
            time.sleep(LOOK_SECONDS)

    def _run(self) -> None:
        try:
            while not self._stopped.wait(LOOK_SECONDS):
                self._look()
        except BaseException as error:  # the test reads it
            self.error = error
        finally:
            for worker in self._workers.values():
                worker.process.signal(signal.SIGTERM)
            for worker in self._workers.values():
                worker.process.end(30)

    def _look(self) -> None:
        pods = {
            name: pod
            for name, pod in self._release.objects("v1 pods").items()
            if pod["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "worker"
        }
        for name, pod in pods.items():
            if "deletionTimestamp" in pod["metadata"]:
                self._terminate(name, pod)
            elif name not in self._workers and pod["status"]["phase"] == "Running":
                self._workers[name] = self._start(name, pod)
                self._discover()

    def _start(self, name: str, pod: dict[str, Any]) -> _Worker:
        folder = self._folder / name
        folder.mkdir()
        (container,) = pod["spec"]["containers"]
        (mount,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "config"]
        (volume,) = [each for each in pod["spec"]["volumes"] if each["name"] == "config"]
        files = self._release.objects("v1 configmaps")[volume["configMap"]["name"]]["data"]
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        arguments = [each.replace(mount, str(folder)) for each in container["args"]]
        target = f"127.0.0.1:{free_port()}"
        environment = {"REXSTREAM_OBSERVABILITY__HTTP": target}
        process = Process(folder / "worker.log", sys.executable, "-m", "consumer", *arguments, environment=environment)
        return _Worker(process, target)

    def _terminate(self, name: str, pod: dict[str, Any]) -> None:
        worker = self._workers.get(name)
        if worker is not None and name not in self._terminated:
            self._terminated[name] = time.monotonic() + pod["spec"]["terminationGracePeriodSeconds"]
            worker.process.signal(signal.SIGTERM)
        if worker is not None and worker.process.exit_code is None:
            if time.monotonic() > self._terminated[name]:
                worker.process.signal(signal.SIGKILL)
            return
        if worker is not None:
            self.exit_codes.append(worker.process.end())
            del self._workers[name], self._terminated[name]
            self._discover()
        self._release.kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")

    def _discover(self) -> None:
        namespace = self._release.namespace
        labels = {"namespace": namespace, "job": f"{namespace}/rexstream-worker"}
        found = [
            {"targets": [worker.target], "labels": {**labels, "pod": name}} for name, worker in self._workers.items()
        ]
        unfinished = self.targets.with_suffix(".tmp")
        unfinished.write_text(json.dumps(found), encoding="utf-8")
        shutil.move(unfinished, self.targets)
