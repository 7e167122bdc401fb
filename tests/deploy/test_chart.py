"""The Helm chart: what it renders is valid, secure, current, and agrees with the worker's configuration."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from deploy.chart import ALERTS, CHART, DASHBOARDS, PLAIN, PLAIN_VALUES, ROOT, VARIANTS, objects, render
from deploy.tools import KUBERNETES, SCHEMAS, tool
from google.protobuf import text_format
from house.documents import blocks
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from consumer.config.loading import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from consumer.config.loading import Loaded

LOADER = ROOT / "deploy" / "kubernetes" / "model-volume.yaml"
LOCATIONS = (
    f"{SCHEMAS}/core/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
    f"{SCHEMAS}/crds/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json",
)


def _kubeconform(manifests: str) -> subprocess.CompletedProcess[str]:
    locations = [part for location in LOCATIONS for part in ("-schema-location", location)]
    return subprocess.run(
        [tool("kubeconform"), "-strict", "-summary", "-kubernetes-version", KUBERNETES, *locations],
        input=manifests,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _pods(manifests: dict[tuple[str, str], dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for (_, name), each in manifests.items():
        if "template" in each.get("spec", {}):
            yield name, each["spec"]["template"]


def _loaded(manifests: dict[tuple[str, str], dict[str, Any]], folder: Path) -> Loaded:
    """The worker's configuration through the worker's own loader, with the variables of its container."""
    path = folder / "worker.yaml"
    path.write_text(manifests["ConfigMap", "worker"]["data"]["worker.yaml"], encoding="utf-8")
    workload = manifests.get(("Deployment", "worker")) or manifests["StatefulSet", "worker"]
    container = workload["spec"]["template"]["spec"]["containers"][0]
    return load(str(path), {each["name"]: each.get("value", "pod-0") for each in container.get("env", [])})


def test_helm_finds_nothing_to_improve() -> None:
    """`helm lint --strict`."""
    done = subprocess.run(
        [tool("helm"), "lint", "--strict", "--kube-version", KUBERNETES, str(CHART)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plain_manifests_are_what_the_chart_renders() -> None:
    """`kubectl apply` of the committed file installs what `helm install` does. `make manifests` writes it."""
    assert PLAIN.read_text(encoding="utf-8") == render(PLAIN_VALUES)


def test_manifests_fit_their_schemas(variant: str) -> None:
    """kubeconform: Kubernetes' own kinds and the CRDs, with no field that they do not know."""
    done = _kubeconform(f"{render(variant)}\n---\n{LOADER.read_text('utf-8')}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped: 0" in done.stdout


@pytest.mark.parametrize(
    ("good", "bad"), [("maxUnavailable: 1", "maxUnavailble: 1"), ("minReplicaCount: 1", "minReplicaCount: one")]
)
def test_the_schemas_refuse_what_is_wrong(good: str, bad: str) -> None:
    """A misspelt field of Kubernetes and a wrong type of KEDA."""
    assert good in render()
    assert _kubeconform(render().replace(good, bad, 1)).returncode != 0


def test_triggers_have_keys_that_keda_knows(variant: str) -> None:
    """Every key of a trigger is one of its scaler, and none that it must have is missing. The CRD checks neither."""
    scalers = {
        each["type"]: each for each in json.loads((SCHEMAS / "keda-triggers.json").read_text("utf-8"))["scalers"]
    }
    for (kind, _), each in objects(variant).items():
        for trigger in each["spec"]["triggers"] if kind == "ScaledObject" else ():
            known = {parameter["name"]: parameter for parameter in scalers[trigger["type"]]["parameters"]}
            assert set(trigger["metadata"]) <= set(known)
            wanted = {
                "kafka": {"bootstrapServers", "consumerGroup"},
                "prometheus": {"serverAddress", "query", "threshold"},
            }
            assert wanted[trigger["type"]] <= set(trigger["metadata"])
            assert all(isinstance(value, str) for value in trigger["metadata"].values())


def test_pods_pass_pod_security_restricted(variant: str) -> None:
    """What the profile asks of every pod, and beyond it: a read-only root, limited memory, no token of the API."""
    (loader,) = [each for each in yaml.safe_load_all(LOADER.read_text("utf-8")) if each["kind"] == "Pod"]
    for name, pod in [*_pods(objects(variant)), ("model-loader", loader)]:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["automountServiceAccountToken"] is False, name
        if name != "model-loader":
            assert objects(variant)["ServiceAccount", spec["serviceAccountName"].removeprefix("rexstream-")]
        allowed = {
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        }
        assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"]), name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert not any("hostPort" in port for port in container.get("ports", [])), name


def test_selectors_find_the_pods_of_their_component(variant: str) -> None:
    """Services, disruption budgets, network policies and monitors select pods that are there, of one component."""
    manifests = objects(variant)
    labels = {name: pod["metadata"]["labels"] for name, pod in _pods(manifests)}
    for (kind, name), each in manifests.items():
        spec = each.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector", {}))
        selector = selector.get("matchLabels", selector)
        if kind in {"Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Deployment", "StatefulSet"}:
            chosen = [pod for pod, has in labels.items() if selector.items() <= has.items()]
            assert [pod.partition("-")[0] for pod in chosen] == [name], (kind, name)


def test_ports_have_the_names_that_others_use(variant: str) -> None:
    """Probes, Services, policies and monitors name ports that the containers have."""
    manifests = objects(variant)
    ports = {
        name.partition("-")[0]: {port["name"] for port in pod["spec"]["containers"][0].get("ports", [])}
        for name, pod in _pods(manifests)
    }
    for (kind, name), each in manifests.items():
        named = re.findall(r"(?:targetPort|port)\W+'?([a-z]+)\b", str(each["spec"])) if "spec" in each else []
        if kind in {"Service", "PodMonitor", "NetworkPolicy", "Deployment", "StatefulSet"}:
            assert set(named) <= ports[name], (kind, name, named)


def test_workers_reach_each_others_http_port(variant: str) -> None:
    """`rexstream resume` and `status` run in one of them; a policy has to allow it on both sides."""
    spec = objects(variant)["NetworkPolicy", "worker"]["spec"]
    peer = {"podSelector": spec["podSelector"]}
    for side, key in (("ingress", "from"), ("egress", "to")):
        assert any(
            peer in rule.get(key, []) and {"port": "http", "protocol": "TCP"} in rule["ports"] for rule in spec[side]
        )


def test_the_workers_configuration_is_valid_and_needs_no_warning(variant: str, tmp_path: Path) -> None:
    """worker.yaml loads through the worker's own loader, with the variables that the pod gets."""
    assert _loaded(objects(variant), tmp_path).warnings == ()


def test_a_stopping_pod_is_given_its_grace(variant: str, tmp_path: Path) -> None:
    """Kubernetes waits longer before SIGKILL than the drain takes; a model server's pod longer than its preStop."""
    manifests = objects(variant)
    for (kind, name), each in manifests.items():
        if name in {"worker", "model"} and kind in {"Deployment", "StatefulSet"}:
            pod = each["spec"]["template"]["spec"]
            before = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            needed = _loaded(manifests, tmp_path).config.delivery.grace_seconds if name == "worker" else 0
            assert pod["terminationGracePeriodSeconds"] >= before + needed + 10


def test_monitoring_is_that_of_the_files() -> None:
    """Alerts and dashboards are the files that compose mounts; all have the labels that Prometheus selects by."""
    manifests = objects()
    assert manifests["PrometheusRule", "alerts"]["spec"] == yaml.safe_load(ALERTS.read_text("utf-8"))
    for path in DASHBOARDS:
        data = manifests["ConfigMap", f"dashboard-{path.stem}"]["data"][path.name]
        assert json.loads(data) == json.loads(path.read_text("utf-8"))
    selected = [each for (kind, _), each in manifests.items() if kind in {"PodMonitor", "PrometheusRule"}]
    assert len(selected) == 3
    assert all(each["metadata"]["labels"]["release"] == "prometheus" for each in selected)


def test_a_longer_drain_has_a_longer_grace() -> None:
    """The grace period follows delivery.grace_seconds, rounded up."""
    worker = objects("config: {delivery: {grace_seconds: 90.5}}")["Deployment", "worker"]
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 106


def test_workers_find_the_model_servers(tmp_path: Path) -> None:
    """Target, name, label and bundle: the headless Service's name, and what models.config serves."""
    manifests = objects()
    model = _loaded(manifests, tmp_path).config.model
    service = manifests["Service", "model"]
    assert model.target == f"dns:///{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert service["spec"]["clusterIP"] == "None"
    served = text_format.Parse(manifests["ConfigMap", "model"]["data"]["models.config"], ModelServerConfig())
    (config,) = served.model_config_list.config
    assert config.name == model.name
    assert model.bundle == f"{config.base_path}/{config.version_labels[model.label or '']}/bundle"
    committed = (ROOT / "deploy/tf-serving/models.config").read_text("utf-8")
    assert served == text_format.Parse(committed, ModelServerConfig())


def test_model_servers_run_as_in_compose() -> None:
    """The same flags in both."""
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text("utf-8"))["services"]["tf-serving-1"]
    (container,) = objects()["Deployment", "model"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == compose["command"]
    assert container["command"] == compose["entrypoint"]
    images = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["modelServer"]["images"]
    assert compose["image"] == f"{images['cpu']['repository']}:{images['cpu']['tag']}"


def test_a_gpu_is_asked_for_by_the_gpu_variant_alone() -> None:
    """One whole GPU a pod, or none."""

    def limits(values: str = "") -> Any:
        pod = objects(values)["Deployment", "model"]["spec"]["template"]["spec"]
        return pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu"), pod["containers"][0][
            "image"
        ].endswith("-gpu")

    assert limits() == (1, True)
    assert limits(VARIANTS["cpu"]) == (None, False)


def test_workers_are_scaled_by_lag_that_they_can_reduce() -> None:
    """Between one and the partitions of all inputs; the target is the lag that one worker may have."""
    scaled = objects(VARIANTS["two topics"])["ScaledObject", "worker"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 24)
    modifiers = scaled["advanced"]["scalingModifiers"]
    assert modifiers["formula"] == "hold > 0 ? workers * 1000 : lag0 + lag1"
    assert modifiers["target"] == "1000"
    kafka = [trigger for trigger in scaled["triggers"] if trigger["type"] == "kafka"]
    assert [trigger["metadata"]["topic"] for trigger in kafka] == ["reviews.raw", "shop.reviews"]
    assert {trigger["name"] for trigger in scaled["triggers"]} == {"lag0", "lag1", "hold", "workers"}
    for trigger in kafka:
        # The cap of partitions with lag is in units of it, so it must be the formula's.
        assert trigger["metadata"]["lagThreshold"] == modifiers["target"]
        assert trigger["metadata"]["limitToPartitionsWithLag"] == "true"
        assert (
            trigger["metadata"]["excludePersistentLag"] == trigger["metadata"]["scaleToZeroOnInvalidOffset"] == "false"
        )
    behaviour = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= 600
    assert "replicas" not in objects()["Deployment", "worker"]["spec"]


def test_static_members_are_not_scaled(tmp_path: Path) -> None:
    """A StatefulSet has a fixed count, no ScaledObject, and each pod its own group.instance.id."""
    manifests = objects(VARIANTS["static members"])
    assert ("ScaledObject", "worker") not in manifests
    assert ("ScaledObject", "model") in manifests
    assert manifests["StatefulSet", "worker"]["spec"]["replicas"] == 12
    assert _loaded(manifests, tmp_path).config.kafka.client["group.instance.id"] == "pod-0"


def test_workers_reach_the_collector_and_have_the_variables_that_it_wants(tmp_path: Path) -> None:
    """Its port is open for them, and only where there is one; a static member keeps its own variable."""
    manifests = objects(VARIANTS["traces"])
    (container,) = manifests["StatefulSet", "worker"]["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in container["env"]] == [
        "REXSTREAM_KAFKA__CLIENT__GROUP_INSTANCE_ID",
        "OTEL_SERVICE_NAME",
    ]
    assert _loaded(manifests, tmp_path).config.observability.tracing.endpoint is not None
    opened = {"ports": [{"port": 4317, "protocol": "TCP"}]}
    assert opened in manifests["NetworkPolicy", "worker"]["spec"]["egress"]
    assert opened not in objects()["NetworkPolicy", "worker"]["spec"]["egress"]


def test_only_a_change_of_the_canarys_share_is_no_roll_out() -> None:
    """The pods' annotation stays, and the file in the ConfigMap has the new share."""

    def rendered(label: str, share: float) -> tuple[str, str]:
        canary = f"{{label: {label}, share: {share}}}"
        found = objects(f"config: {{model: {{label: stable, canary: {canary}}}}}")
        pod = found["Deployment", "worker"]["spec"]["template"]["metadata"]["annotations"]["rexstream/config"]
        return pod, found["ConfigMap", "worker"]["data"]["worker.yaml"]

    (before, _), (after, file) = rendered("canary", 0.05), rendered("canary", 0.5)
    assert before == after
    assert yaml.safe_load(file)["model"]["canary"] == {"label": "canary", "share": 0.5}
    assert rendered("other", 0.5)[0] != before


def test_the_job_creates_every_topic_of_the_configuration() -> None:
    """Inputs, outputs with and without a task, dead letters; another list is another Job."""
    manifests = objects(VARIANTS["two topics"].replace("ner", "ner, sentiment"))
    lines = manifests["ConfigMap", "topics"]["data"]["topics.txt"].split("\n")
    assert [line for line in lines if line] == [
        "input reviews.raw",
        "output reviews.extracted",
        "input shop.reviews",
        "output shop.facts",
        "output shop.facts.ner",
        "output shop.facts.sentiment",
        "dead reviews.dead",
    ]
    names = [{name for kind, name in each if kind == "Job"} for each in (manifests, objects())]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("worker: {knd: StatefulSet}", "knd"),
        ("worker: {kind: DaemonSet}", "kind"),
        ("worker: {image: {digest: latest}}", "digest"),
        ("models: {volume: {hostPath: {path: /models}}}", "volume"),
        ("config: {observability: {http: '127.0.0.1:1'}}", "http"),
        ("config: {observability: {tracing: {endpoint: 'http://collector'}}}", "endpoint"),
        ("worker: {env: [{value: reviews}]}", "name"),
        ("config: {routes: [{input: ^shop, tasks: [ner]}]}", "name the topics that ^shop matches"),
    ],
)
def test_values_that_cannot_work_are_refused(values: str, complaint: str) -> None:
    """Helm ends with the key that is wrong."""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render(values)
    assert complaint in refused.value.stderr


def test_what_the_page_for_operators_shows_is_taken() -> None:
    """Values by Helm, first those that everyone sets, then with a login, which is what the object names."""
    shown = [block.text for block in blocks(ROOT / "deploy" / "README.md") if block.language == "yaml"]
    values = [text for text in shown if "apiVersion" not in text]
    others = [text for text in shown if "apiVersion" in text]
    assert (len(values), len(others)) == (2, 1)
    (authentication,) = map(yaml.safe_load, others)
    for text in values:
        done = _kubeconform(render(text))
        assert done.returncode == 0, done.stdout + done.stderr
    assert authentication["metadata"]["name"] == yaml.safe_load(values[1])["autoscaling"]["worker"]["authentication"]


def test_pages_for_operators_name_objects_that_are_there() -> None:
    """Each `rexstream-…` of a kubectl command in a runbook, a document or the notes is rendered."""
    rendered = {(kind.lower(), f"rexstream-{name}") for kind, name in objects()}
    pages = [*(ROOT / "deploy" / "runbooks").glob("*.md"), ROOT / "deploy" / "README.md"]
    found = 0
    for page in pages:
        for kind, name in re.findall(
            r"\b(deploy|podmonitor|scaledobject|svc)[/ ](rexstream-[a-z]+)", page.read_text("utf-8")
        ):
            kind = {"deploy": "deployment", "svc": "service"}.get(kind, kind)
            assert (kind, name) in rendered, f"{page.name}: {kind} {name}"
            found += 1
    assert found > 20
