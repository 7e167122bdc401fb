"""The chart's own ScaledObject, KEDA, Kafka, Prometheus and workers, all real: what is scaled, and what is not.

One group from its first worker on; each test goes on where the one before it ended. The windows of the autoscaler are
shorter than the chart's, by its values, and the model server is a stub that takes half a second for each call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml
from apache_kafka import ApacheKafka, fetch_jars
from cluster.keda import start_keda
from cluster.pod_processes import PodProcesses
from cluster.recording import Recording
from cluster.releases import Release
from cluster.traffic import PARTITIONS, Traffic
from deploy.chart import ROOT
from deploy.prometheus_server import Prometheus
from stub_server import StubServer, write_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.control_plane import ControlPlane

pytestmark = pytest.mark.timeout(600)

LAG_THRESHOLD = 200
IN_FLIGHT = 16
"""Records that a worker has in hand: with a server of known speed, that is a worker of known speed."""
CALL_SECONDS = 0.5
WAVE = 4000
"""Lag of twenty workers."""
BEHAVIOR = {
    "scaleUp": {"stabilizationWindowSeconds": 15, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 10}]},
    "scaleDown": {"stabilizationWindowSeconds": 30, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}]},
}
"""In place of 30 and 600 seconds; hours are not needed to see in which direction it goes."""
HELD_SECONDS = 60
"""Twice the longer window."""


class Group(NamedTuple):
    """All that there is of it."""

    release: Release
    traffic: Traffic
    server: StubServer
    prometheus: Prometheus
    processes: PodProcesses
    recording: Recording

    def hold(self, wanted: int) -> None:
        """Wait until the chart's trigger says whether more workers would help."""
        triggers = self.release.objects("keda.sh/v1alpha1 scaledobjects")["rexstream-worker"]["spec"]["triggers"]
        (query,) = [trigger["metadata"]["query"] for trigger in triggers if trigger["name"] == "hold"]
        self.prometheus.until(query, wanted)

    def metric(self) -> str:
        """What KEDA's formula gives, over the replicas, as the autoscaler of pods last read it."""
        (found,) = self.release.objects("autoscaling/v2 horizontalpodautoscalers").values()
        current = found["status"]["currentMetrics"][0]["external"]["current"]
        return str(current["averageValue"])


def _values(bootstrap: str, server: StubServer, bundle: Path, prometheus: Prometheus) -> str:
    """What an operator would set, and speeds and windows for a test."""
    return yaml.safe_dump(
        {
            "config": {
                "kafka": {"bootstrap_servers": bootstrap},
                "routes": [{"input": "reviews.raw", "tasks": ["sentiment"], "output": "reviews.extracted"}],
                "model": {"target": server.target, "name": "stub", "bundle": str(bundle)},
                # Set, so that workers do not measure first.
                "batching": {"cost": {"fixed_seconds": CALL_SECONDS}},
                "limits": {"in_flight_events": IN_FLIGHT},
                "delivery": {"mode": "exactly_once", "grace_seconds": 10.0},
            },
            "modelServer": {"enabled": False},
            "topics": {"partitions": PARTITIONS, "replicationFactor": 1, "minInsyncReplicas": 1},
            "autoscaling": {
                "prometheus": f"http://127.0.0.1:{prometheus.port}",
                "worker": {"lagThreshold": LAG_THRESHOLD, "behavior": BEHAVIOR},
            },
        }
    )


@pytest.fixture(scope="module")
def group(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """One worker of a group that is new to a topic whose 4,000 records have expired."""
    folder = tmp_path_factory.mktemp("scaling")
    start_keda(cluster)
    kafka = ApacheKafka(fetch_jars(), folder)
    kafka.start()
    traffic = Traffic(kafka.bootstrap_servers)
    traffic.send(WAVE)
    traffic.expire()
    server = StubServer(threads=32)
    server.before = lambda *_: time.sleep(CALL_SECONDS)
    release = Release(cluster, cluster.processes)
    release.prepare()
    processes = PodProcesses(release, folder)
    prometheus = Prometheus(
        folder, {"file_sd_configs": [{"files": [str(processes.targets)], "refresh_interval": "1s"}]}
    )

    def sample() -> tuple[int, int, int, int]:
        deployments = release.objects("apps/v1 deployments")
        wanted = deployments["rexstream-worker"]["spec"]["replicas"] if deployments else 0
        return traffic.lag(), wanted, processes.count, traffic.committed()

    try:
        with processes, Recording(sample) as recording:
            release.install(_values(kafka.bootstrap_servers, server, write_bundle(folder / "bundle"), prometheus))
            recording.until(lambda now: now.running == 1, 60)
            yield Group(release, traffic, server, prometheus, processes, recording)
            recording.save(ROOT / "build" / "cluster")
            release.cluster.helm("uninstall", "rexstream", f"--namespace={release.namespace}")
        assert processes.error is None, processes.error
    finally:
        prometheus.close()
        server.stop()
        traffic.close()
        kafka.kill()


def test_a_new_group_on_an_old_topic_stays_small(group: Group) -> None:
    """Records that have expired are no lag: not before the group has an offset, and not after it."""
    group.recording.mark("new group, expired records")
    group.traffic.send(2 * PARTITIONS)
    group.recording.until(lambda now: now.lag == 0 and now.committed > WAVE, 60)
    assert group.traffic.without_offset() == 0
    group.recording.watch(HELD_SECONDS)
    assert {now.wanted for now in group.recording.samples if now.wanted} == {1}
    assert group.metric() == "0"


def test_lag_adds_workers_up_to_the_partitions(group: Group) -> None:
    """Lag of twenty workers makes four, since a partition has one reader."""
    group.recording.mark(f"{WAVE} records")
    group.traffic.send(WAVE)
    group.recording.until(lambda now: now.running == PARTITIONS, 180)
    assert max(now.wanted for now in group.recording.samples) == PARTITIONS


def test_a_drained_topic_takes_workers_away(group: Group) -> None:
    """One after the other, each of which ends in order; the last one stays."""
    drained = group.recording.until(lambda now: now.lag == 0, 300)
    group.recording.until(lambda now: now.running == 1 and now.wanted == 1, 180)
    assert max(now.wanted for now in group.recording.samples if now.seconds > drained.seconds) <= PARTITIONS
    group.processes.until_ended(PARTITIONS - 1)
    assert group.processes.exit_codes == [0] * (PARTITIONS - 1)


def test_an_outage_of_the_model_servers_adds_no_workers(group: Group) -> None:
    """Lag of twenty workers, and one that waits for the model server: more would wait, too. Afterwards they come.

    Nor when the worker is another one, which has never been in the group.
    """
    group.server.stop()
    group.recording.mark("model server away")
    group.traffic.send(WAVE)
    group.recording.until(lambda now: now.lag >= WAVE, 30)
    group.hold(1)
    held = group.recording.watch(HELD_SECONDS / 2)
    assert {now.wanted for now in held} == {1}
    (pod,) = group.release.pods("worker")
    group.recording.mark("the worker's pod deleted")
    assert group.release.kubectl("delete", "pod", pod["metadata"]["name"]).returncode == 0
    assert {now.wanted for now in group.recording.watch(HELD_SECONDS)} == {1}
    group.server.start()
    group.recording.mark("model server back")
    group.recording.until(lambda now: now.running == PARTITIONS, 180)


def test_an_outage_of_the_model_servers_takes_no_workers_away(group: Group) -> None:
    """Lag of two or three workers, and four that wait for the model server: they are needed when it is back."""
    group.recording.until(lambda now: now.lag < 2 * LAG_THRESHOLD, 300)
    group.server.stop()
    group.recording.mark("model server away")
    group.hold(1)
    held = group.recording.watch(HELD_SECONDS)
    assert 0 < max(now.lag for now in held) <= 3 * LAG_THRESHOLD
    assert {now.wanted for now in held} == {PARTITIONS}
    group.server.start()
    group.recording.mark("model server back")
    group.recording.until(lambda now: now.lag == 0, 120)
    group.recording.until(lambda now: now.running == 1 and now.wanted == 1, 180)


def test_lag_reaches_zero_behind_transaction_markers(group: Group) -> None:
    """A transaction ends with a marker in each partition, which no consumer sees; an aborted one's records neither."""
    group.recording.mark("transactions, one aborted")
    group.traffic.send_in_transactions(10 * PARTITIONS)
    group.recording.until(lambda now: now.lag > 0, 30)
    group.recording.until(lambda now: now.lag == 0, 90)
    deadline = time.monotonic() + 60
    while group.metric() != "0":
        assert time.monotonic() < deadline, group.metric()
        time.sleep(1)
