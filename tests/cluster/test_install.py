"""The chart in a real Kubernetes API server: installed, changed, rolled back, drained."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from cluster.releases import WARNING
from deploy.chart import PLAIN, VARIANTS, render

if TYPE_CHECKING:
    from cluster.control_plane import ControlPlane
    from cluster.releases import Release

pytestmark = pytest.mark.timeout(300)

INSTALLED = ("default", "cpu", "static members", "without operators")
"""The variants that differ in what runs; the API server is asked about the others without installing them."""
WORKERS = {"default": 1, "cpu": 1, "static members": 12, "without operators": 2}
"""Without KEDA's operator a Deployment that it is to scale has one replica, and so have the model servers."""


def _images(pods: list[dict[str, Any]]) -> set[str]:
    return {container["image"] for pod in pods for container in pod["spec"]["containers"]}


@pytest.mark.parametrize("variant", INSTALLED)
def test_the_chart_installs_without_a_warning(release: Release, variant: str) -> None:
    """`helm upgrade --install --wait` under Pod Security *restricted*: every pod is admitted, scheduled and ready."""
    release.install(VARIANTS[variant])
    workers, models = release.pods("worker"), release.pods("model")
    assert len(workers) == WORKERS[variant]
    assert len(models) == (3 if variant == "without operators" else 1)
    assert {pod["spec"]["nodeName"][:3] for pod in models} == {"cpu" if variant == "cpu" else "gpu"}
    assert {pod["spec"]["nodeName"] for pod in workers} <= {"cpu-1", "cpu-2"}
    (job,) = release.objects("batch/v1 jobs").values()
    assert job["status"]["succeeded"] == 1
    expected = 0 if variant == "without operators" else {"static members": 1}.get(variant, 2)
    assert len(release.objects("keda.sh/v1alpha1 scaledobjects")) == expected
    assert len(release.objects("monitoring.coreos.com/v1 podmonitors")) == (0 if variant == "without operators" else 2)


def test_static_members_have_names_that_stay(release: Release) -> None:
    """A pod of the StatefulSet that is deleted comes back under its name, which is its group.instance.id."""
    release.install(VARIANTS["static members"].replace("12", "2"))
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in release.pods("worker")}
    assert set(before) == {"rexstream-worker-0", "rexstream-worker-1"}
    assert release.kubectl("delete", "pod", "rexstream-worker-0", "--timeout=60s").returncode == 0
    ready = ("wait", "pod/rexstream-worker-0", "--for=condition=Ready", "--timeout=60s")
    deadline = time.monotonic() + 60
    while release.kubectl(*ready).returncode:  # it may not be there yet
        assert time.monotonic() < deadline
    after = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in release.pods("worker")}
    assert set(after) == set(before)
    assert after["rexstream-worker-0"] != before["rexstream-worker-0"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_api_server_takes_every_variant(release: Release, variant: str) -> None:
    """`kubectl apply --server-side --dry-run=server`: validation, defaults and admission, with not one warning."""
    manifests = render(VARIANTS[variant]).replace("namespace: rexstream", f"namespace: {release.namespace}")
    done = release.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=manifests)
    assert done.returncode == 0, done.stderr
    assert not WARNING.findall(done.stderr)


def test_the_api_server_takes_the_plain_manifests(release: Release) -> None:
    """deploy/kubernetes/rexstream.yaml as it is committed, in a namespace of this test's."""
    manifests = PLAIN.read_text("utf-8").replace("namespace: rexstream", f"namespace: {release.namespace}")
    done = release.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=manifests)
    assert done.returncode == 0, done.stderr
    assert not WARNING.findall(done.stderr)
    assert done.stdout.count("serverside-applied") == manifests.count("\nkind: ")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("minReplicaCount: 1", "minReplicas: 1"),
        ("podMetricsEndpoints:", "podMetricEndpoints:"),
        ("unhealthyPodEvictionPolicy: AlwaysAllow", "unhealthyPodEvictionPolicy: Sometimes"),
        ("app.kubernetes.io/component: worker\n  template", "app.kubernetes.io/component: none\n  template"),
    ],
)
def test_the_api_server_refuses_what_is_wrong(release: Release, good: str, bad: str) -> None:
    """So that the tests above mean something: fields that no kind has, values it does not allow."""
    manifests = render().replace("namespace: rexstream", f"namespace: {release.namespace}")
    assert good in manifests
    broken = manifests.replace(good, bad)
    assert release.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=broken).returncode != 0


def test_a_pod_that_is_not_restricted_is_warned_of(release: Release) -> None:
    """So that the absence of warnings means something: the API server says whose pods it would refuse."""
    manifests = render().replace("namespace: rexstream", f"namespace: {release.namespace}")
    loose = manifests.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true")
    done = release.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=loose)
    assert done.returncode == 0
    assert len(WARNING.findall(done.stderr)) == 3, done.stderr  # worker, model, topics
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        release.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "one"},
                "spec": {"containers": [{"name": "one", "image": "one"}]},
            },
            namespace=release.namespace,
        )


def test_upgrade_and_rollback(release: Release) -> None:
    """Another image and configuration, other topics and another kind of workload; and all the way back."""
    release.install()
    before, jobs = _images(release.pods("worker")), set(release.objects("batch/v1 jobs"))
    release.install("{worker: {image: {tag: 0.2.0}}, topics: {partitions: 24}}")
    release.roll_out("deployment/rexstream-worker")
    assert _images(release.pods("worker")) == {"registry.example/rexstream:0.2.0"}
    (job,) = release.objects("batch/v1 jobs")
    assert job not in jobs, "a Job cannot be changed: other topics are another Job"
    scaled = release.objects("keda.sh/v1alpha1 scaledobjects")["rexstream-worker"]
    assert scaled["spec"]["maxReplicaCount"] == 24
    release.rollback()
    release.roll_out("deployment/rexstream-worker")
    assert _images(release.pods("worker")) == before
    assert set(release.objects("batch/v1 jobs")) == jobs
    release.install("worker: {kind: StatefulSet, replicas: 2}")
    assert set(release.objects("apps/v1 deployments")) == {"rexstream-model"}
    assert len(release.pods("worker")) == 2
    release.rollback()
    assert set(release.objects("apps/v1 deployments")) == {"rexstream-model", "rexstream-worker"}


def test_a_changed_configuration_is_a_rollout(release: Release) -> None:
    """The worker reads its configuration at the start, so that new pods must come; the model servers stay."""
    release.install()
    workers, models = ({pod["metadata"]["uid"] for pod in release.pods(each)} for each in ("worker", "model"))
    release.install("config: {limits: {in_flight_events: 1000}}")
    release.roll_out("deployment/rexstream-worker")
    assert not workers & {pod["metadata"]["uid"] for pod in release.pods("worker")}
    assert models == {pod["metadata"]["uid"] for pod in release.pods("model")}


@pytest.mark.parametrize("component", ["worker", "model"])
def test_nodes_are_drained_one_pod_at_a_time(release: Release, cluster: ControlPlane, component: str) -> None:
    """`kubectl drain`: one pod may go; the next may not before another is ready in its place."""
    release.install("{autoscaling: {enabled: false}, modelServer: {accelerator: cpu, replicas: 2}}")
    nodes = [pod["spec"]["nodeName"] for pod in release.pods(component)]
    assert sorted(nodes) == ["cpu-1", "cpu-2"], "spread over the nodes"
    selector = f"app.kubernetes.io/component={component},app.kubernetes.io/instance=rexstream"
    drain = ("drain", f"--pod-selector={selector}", "--delete-emptydir-data", "--timeout=5s")
    try:
        # No node is left for a pod that is evicted.
        assert cluster.kubectl("cordon", *nodes).returncode == 0
        first = cluster.kubectl(*drain, "cpu-1")
        assert first.returncode == 0, first.stderr
        second = cluster.kubectl(*drain, "cpu-2")
        assert second.returncode != 0
        assert "would violate the pod's disruption budget" in second.stderr
        assert [pod["spec"].get("nodeName") for pod in release.pods(component)].count("cpu-2") == 1
        assert cluster.kubectl("uncordon", "cpu-1").returncode == 0
        assert release.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s").returncode == 0
        third = cluster.kubectl(*(each.replace("=5s", "=60s") for each in drain), "cpu-2")
        assert third.returncode == 0, third.stderr
    finally:
        cluster.kubectl("uncordon", *nodes)


def test_uninstall_leaves_the_volume(release: Release) -> None:
    """Models are no part of the release; everything else goes."""
    release.install()
    release.cluster.helm("uninstall", "rexstream", f"--namespace={release.namespace}", "--wait", "--timeout=2m")
    assert set(release.objects("v1 persistentvolumeclaims")) == {"rexstream-models"}
    for kind in ("v1 configmaps", "v1 services", "v1 serviceaccounts", "apps/v1 deployments", "batch/v1 jobs"):
        assert not [name for name in release.objects(kind) if name.startswith("rexstream")], kind
