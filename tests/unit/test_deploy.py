"""The container files agree with each other and with the configuration that they carry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from google.protobuf import text_format, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from consumer.config.loading import Loaded, load
from consumer.serving.descriptors import message_class

if TYPE_CHECKING:
    from consumer.config.tree import Config

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose"
TF_SERVING = ROOT / "deploy" / "tf-serving"
CHART_FILES = ROOT / "deploy" / "helm" / "rexstream" / "files"
MODEL_SERVERS = ("tf-serving-1", "tf-serving-2", "tf-serving-3")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return services


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(str(COMPOSE / "config.yaml"), {})


@pytest.fixture(scope="module")
def served() -> Any:
    text = (TF_SERVING / "models.config").read_text(encoding="utf-8")
    config = text_format.Parse(text, message_class("tensorflow.serving.ModelServerConfig")())
    (model,) = config.model_config_list.config
    return model


def _dockerfile() -> list[list[str]]:
    """Instructions as words, comments dropped, continuation lines joined."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def _mounts(service: dict[str, Any]) -> dict[str, str]:
    """Container path -> path beside compose.yaml, of the bind mounts."""
    mounts = (volume.split(":") for volume in service["volumes"])
    return {parts[1]: parts[0] for parts in mounts if parts[0].startswith(".")}


def test_the_workers_configuration_is_valid_and_needs_no_warning(loaded: Loaded) -> None:
    """The file loads through the worker's own loader."""
    assert loaded.warnings == ()


def test_images_are_pinned(services: dict[str, Any]) -> None:
    """Every image names a version, so the same file starts the same software next year."""
    images = [service["image"] for service in services.values() if "image" in service]
    (base,) = [words[1][5:] for words in _dockerfile() if words[0] == "ARG" and words[1].startswith("BASE=")]
    assert {words[1] for words in _dockerfile() if words[0] == "FROM"} == {"${BASE}"}
    assert images
    for image in [*images, base]:
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", image), image


def test_the_brokers_release_is_the_one_that_the_tests_run(services: dict[str, Any]) -> None:
    """What guarantees were proved on is what is deployed, in compose and by the chart."""
    tested = re.findall(
        r"<artifactId>kafka_2.13</artifactId>\s*<version>([\d.]+)</version>",
        (ROOT / "tests/kafka/pom.xml").read_text("utf-8"),
    )
    assert services["kafka"]["image"] == services["topics"]["image"] == f"apache/kafka:{tested[0]}"
    values = yaml.safe_load((CHART_FILES.parent / "values.yaml").read_text("utf-8"))
    assert values["topics"]["image"]["tag"] == tested[0]


def test_no_container_has_more_than_it_needs(services: dict[str, Any]) -> None:
    """No rights, no new ones, limited memory and, but for the broker, a root file system that nothing can change."""
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service.get("read_only") is (None if name == "kafka" else True), name
        assert set(service.get("depends_on", {})) <= set(services), name


def test_the_worker_finds_kafka_at_an_advertised_address(services: dict[str, Any], loaded: Loaded) -> None:
    """The bootstrap address is one that the broker listens on and names to its clients inside the network."""
    environment = services["kafka"]["environment"]
    host, port = loaded.config.kafka.bootstrap_servers.split(":")
    assert host in services
    advertised = dict(item.split("://") for item in environment["KAFKA_ADVERTISED_LISTENERS"].split(","))
    listening = dict(item.split("://") for item in environment["KAFKA_LISTENERS"].split(","))
    names = [name for name, address in advertised.items() if address == f"{host}:{port}"]
    assert [listening[name] for name in names] == [f":{port}"]
    assert services["topics"]["environment"]["BOOTSTRAP"] == loaded.config.kafka.bootstrap_servers


def test_the_port_for_the_host_is_the_one_that_kafka_advertises_to_it(services: dict[str, Any]) -> None:
    """A client on the host is sent back to an address that it can reach."""
    (published,) = services["kafka"]["ports"]
    _, host_port, container_port = published.split(":")
    environment = services["kafka"]["environment"]
    assert f"HOST://localhost:{host_port}" in environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"HOST://:{container_port}" in environment["KAFKA_LISTENERS"].split(",")


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    """Kafka, the model server and the worker have no password here, so their ports bind to loopback."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_worker_and_the_servers_agree_on_the_model(services: dict[str, Any], loaded: Loaded, served: Any) -> None:
    """Name, label, address and folder: what the worker asks for is what the servers have."""
    model = loaded.config.model
    host, port = model.target.split(":")
    assert host == "balancer"
    balanced = re.findall(
        r"server (\S+):8500", (COMPOSE / _mounts(services[host])["/etc/nginx/rexstream.conf"]).read_text()
    )
    assert tuple(balanced) == MODEL_SERVERS
    assert services[host]["ports"][0].endswith(f":{port}")
    assert set(services["tf-serving-gpu"]["networks"]["default"]["aliases"]) == set(MODEL_SERVERS)
    assert served.name == model.name
    assert model.bundle is not None
    bundle = Path(model.bundle)
    assert (bundle.parents[1], bundle.name) == (Path(served.base_path), "bundle")
    assert served.version_labels[model.label or ""] == int(bundle.parent.name)
    assert {_mounts(services[name])["/models"] for name in (*MODEL_SERVERS, "tf-serving-gpu", "worker")} == {"./models"}


def test_the_newest_three_versions_stay_loaded(served: Any) -> None:
    """A label can go back to the version before, which is still there."""
    assert served.model_version_policy.latest.num_versions == 3
    assert set(served.version_labels) == {"stable", "canary"}


@pytest.mark.parametrize("name", [*MODEL_SERVERS, "tf-serving-gpu"])
def test_tf_serving_gets_the_files_that_its_flags_name(services: dict[str, Any], name: str) -> None:
    """Both configuration files are mounted where the flags say, and exist."""
    mounts = _mounts(services[name])
    named = [flag.split("=")[1] for flag in services[name]["command"] if "_config_file=" in flag]
    assert len(named) == 2
    for path in named:
        assert (COMPOSE / mounts[path]).is_file()


def test_the_servers_own_batching_is_off(services: dict[str, Any]) -> None:
    """The server's queue would let one client's bad row fail another client's batch."""
    assert not [flag for name in MODEL_SERVERS for flag in services[name]["command"] if "batching" in flag]


def _message(name: str, **fields: tuple[int, str]) -> Any:
    """The class of a message of TensorFlow Serving's that the official Python package leaves out.

    ``fields``: number and type of each; a type with a dot is another message.
    """
    file = FileDescriptorProto(name=f"{name}.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type="TYPE_BOOL", label="LABEL_OPTIONAL")
    prometheus.field.add(name="path", number=2, type="TYPE_STRING", label="LABEL_OPTIONAL")
    message = file.message_type.add(name=name)
    for field, (number, kind) in fields.items():
        message.field.add(name=field, number=number, type="TYPE_MESSAGE", label="LABEL_OPTIONAL", type_name=kind)
    pool = DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))


def test_monitoring_config_turns_the_metrics_on() -> None:
    """The file parses as the server's message, and names an absolute path."""
    message = _message("MonitoringConfig", prometheus_config=(1, ".tensorflow.serving.PrometheusConfig"))
    config = text_format.Parse((CHART_FILES / "monitoring.config").read_text(encoding="utf-8"), message())
    assert config.prometheus_config.enable
    assert config.prometheus_config.path.startswith("/")


def test_batching_config_is_what_owners_of_such_servers_start_from() -> None:
    """The file parses as the server's message. No server here uses it."""
    number = ".google.protobuf.Int64Value"
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    message = _message("BatchingParameters", **{name: (tag, number) for tag, name in enumerate(names, 1)})
    config = text_format.Parse((TF_SERVING / "batching.config").read_text(encoding="utf-8"), message())
    assert (config.max_batch_size.value, config.batch_timeout_micros.value) == (32, 5000)


def _asked_of_kafka(folder: Path, **environment: str) -> list[str]:
    """Command lines of topics.sh, as compose runs it, with tools of Kafka's that only take notes."""
    if shutil.which("sh") is None:
        pytest.skip("needs a POSIX shell on the PATH to run topics.sh")
    for name in ("kafka-topics.sh", "kafka-acls.sh"):
        tool = folder / name
        tool.write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >> "$NOTES"\n', encoding="utf-8")
        tool.chmod(0o755)
    notes = folder / "notes"
    service = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))["services"]["topics"]
    script, listed = (str(COMPOSE / _mounts(service)[path]) for path in service["entrypoint"][1:])
    environment = {**service["environment"], "BOOTSTRAP": "kafka:1", "NOTES": str(notes), **environment}
    environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", script, listed], env=environment, check=True, timeout=60)
    return notes.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Topic -> its partitions and settings, as topics.sh asks for them."""
    topics = {}
    for line in _asked_of_kafka(tmp_path_factory.mktemp("bin")):
        assert line.startswith("kafka-topics.sh --bootstrap-server kafka:1 --create --if-not-exists")
        found = dict(re.findall(r"--config (\S+?)=(\S+)", line))
        found["partitions"] = re.findall(r"--partitions (\d+)", line)[0]
        topics[re.findall(r"--topic (\S+)", line)[0]] = found
    return topics


def test_a_principal_gets_the_rights_of_a_worker_and_no_others(tmp_path: Path) -> None:
    """Those of docs/operations.md; the tools log in with COMMAND_CONFIG, and a name may have spaces."""
    asked = _asked_of_kafka(tmp_path, PRINCIPAL="User:CN=a worker", GROUP="g", COMMAND_CONFIG="/admin.properties")
    assert all(" --bootstrap-server kafka:1 --command-config /admin.properties " in line for line in asked)
    rights = [line.split(" --allow-principal ")[1] for line in asked if line.startswith("kafka-acls.sh")]
    assert [right.removeprefix("User:CN=a worker --operation ") for right in rights] == [
        "Read --topic reviews.raw",
        "Write --topic reviews.extracted",
        "Write --topic reviews.dead",
        "Read --group g",
        "Write --transactional-id g- --resource-pattern-type prefixed",
    ]


def test_the_topics_are_those_of_the_configuration(created: dict[str, dict[str, str]], loaded: Loaded) -> None:
    """Nothing that the worker reads or writes is missing, nothing else is created; partition counts are equal."""
    routes = loaded.config.routes
    wanted = {topic for route in routes for topic in (route.input, route.output)}
    assert set(created) == wanted | {loaded.config.delivery.dead_letter_topic}
    assert len({settings["partitions"] for settings in created.values()}) == 1


def test_dead_letters_stay_thirty_days_and_fit(created: dict[str, dict[str, str]], loaded: Loaded) -> None:
    """The largest input value, with its dead-letter headers, passes the topic's limit and the producer's."""
    dead = created[loaded.config.delivery.dead_letter_topic]
    assert int(dead["retention.ms"]) == 30 * 24 * 3600 * 1000
    headers = 64 * 1024
    limit = min(int(dead["max.message.bytes"]), loaded.config.kafka.client["message.max.bytes"])
    assert limit >= loaded.config.limits.value_bytes + headers
    assert int(created[loaded.config.routes[0].input]["max.message.bytes"]) >= loaded.config.limits.value_bytes


def most_memory(config: Config, model_servers: int = 1) -> float:
    """MiB of a worker's process, by the formula of docs/operations.md, with the fifth that it asks for on top."""
    limits, batching = config.limits, config.batching
    held = limits.in_flight_bytes + limits.work_bytes + (64 + 32 * len(config.routes)) * limits.value_bytes
    answers = 3 * 1024 * batching.max_tokens * batching.max_in_flight * model_servers
    return 1.2 * (256 + (held + answers) / 2**20)


def test_a_worker_has_the_memory_that_it_may_need(services: dict[str, Any], loaded: Loaded, tmp_path: Path) -> None:
    """In compose, and by the chart with as many model servers as there may be, each a place for calls of its own."""
    assert int(services["worker"]["mem_limit"].removesuffix("m")) >= most_memory(loaded.config)
    values = yaml.safe_load((CHART_FILES.parent / "values.yaml").read_text("utf-8"))
    written = tmp_path / "worker.yaml"
    written.write_text(yaml.safe_dump(values["config"]), encoding="utf-8")
    given = values["worker"]["resources"]["limits"]["memory"]
    assert given.endswith("Gi")
    servers = values["autoscaling"]["modelServer"]["maxReplicas"]
    assert int(given.removesuffix("Gi")) * 1024 >= most_memory(load(str(written), {}).config, servers)


def test_a_stopping_worker_is_given_its_grace(services: dict[str, Any], loaded: Loaded) -> None:
    """Docker waits longer before SIGKILL than the worker may take to drain."""
    seconds = float(services["worker"]["stop_grace_period"].removesuffix("s"))
    assert seconds >= loaded.config.delivery.grace_seconds + 5


def test_the_image_runs_the_worker_on_the_mounted_configuration(services: dict[str, Any], loaded: Loaded) -> None:
    """The command's configuration file is the mounted one, and its port the one that is exposed and published."""
    instructions = {words[0]: words[1:] for words in _dockerfile()}
    arguments = yaml.safe_load(" ".join(instructions["CMD"]))
    assert yaml.safe_load(" ".join(instructions["ENTRYPOINT"])) == ["rexstream"]
    assert arguments[:2] == ["run", "--config"]
    assert (COMPOSE / _mounts(services["worker"])[arguments[2]]).is_file()
    host, port = loaded.config.observability.http.split(":")
    assert (host, instructions["EXPOSE"]) == ("0.0.0.0", [port])
    assert f"C('127.0.0.1', {port}, " in " ".join(instructions["HEALTHCHECK"])
    assert services["worker"]["ports"][0].endswith(f":{port}")
    assert (COMPOSE / services["worker"]["build"]).resolve() == ROOT


def test_the_image_is_not_root_and_has_no_tensorflow() -> None:
    """The last stage has a numeric user besides 0, and nothing installs the model extra."""
    instructions = _dockerfile()
    last = max(index for index, words in enumerate(instructions) if words[0] == "FROM")
    (user,) = [words[1] for words in instructions[last:] if words[0] == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert not re.search(r"tensorflow|\[model", " ".join(" ".join(words) for words in instructions), re.IGNORECASE)


def test_everything_that_the_image_copies_exists_and_reaches_the_build() -> None:
    """Each source is in the tree and let through .dockerignore, which lets nothing else through."""
    copied = {
        source
        for words in _dockerfile()
        if words[0] == "COPY" and not words[1].startswith("--from")
        for source in words[1:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in rules
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
