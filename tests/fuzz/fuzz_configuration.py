"""Targets: configuration and task files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from fuzzing import CANARY, Target, a_text, damaged, require

import consumer.config.loading
from consumer.config.loading import load
from consumer.config.problems import ConfigError
from consumer.config.shipped import shipped
from consumer.config.task_files import load_tasks, read_task_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from random import Random

    from consumer.extraction.task import Task

_FOLDER = tempfile.TemporaryDirectory(prefix="rexstream-fuzz-")
_FILE = Path(_FOLDER.name) / "input.yaml"

_YAML = (
    b"!!int ''", b"!!float ''", b"!!bool maybe", b"!!timestamp x", b"!!binary '*'", b"!!null x", b"!!set {a, b}",
    b"!!omap [a]", b"!!python/object:os.system x", b"!!str ", b"!!map ", b"!!seq ", b"&a ", b"*a", b"<<: ",
    b"<<: *a", b"? ", b"[", b"{", b"- ", b": ", b"|", b">", b"%YAML 9.9\n", b"---\n", b"...\n", b"\t", b"\x00",
    b"\xff", b"\xef\xbb\xbf", b"2024-99-99", b"0x", b"1_000", b"1:60:60", b".nan", b".inf", b"~", b"yes", b"'",
    b'"', b'"\\ud800"', b"[" * 400, b"{a: " * 400, b"? [a, b]\n: c\n", b"? !!str [a]\n: c\n", b"0o7", b"9" * 5000,
    b"=", b"!!value =", b"!<!> x", b"! x", b"- - - ", b"\n", b"  ", b"#",
)  # fmt: skip

_CONFIG = f"""\
kafka:
  bootstrap_servers: broker:9092
  group_id: rexstream
  client: {{sasl.username: rexstream, sasl.password: "{CANARY}", security.protocol: SASL_SSL, fetch.min.bytes: 1}}
  registry: {{url: "http://user:{CANARY}@registry:8081"}}
routes:
  - {{input: reviews.raw, tasks: [sentiment, product_features], output: "reviews.{{task}}", output_format: avro}}
  - input: reviews.text
    format: text
    tasks: [category]
model: {{target: "127.0.0.1:8500", name: rexuninlu, version: 3, tls: {{ca_file: ca.pem, server_name: model}}}}
batching: {{latency_objective_ms: 500, max_tokens: 8192}}
delivery: {{mode: at_least_once, dead_letter_topic: reviews.dead, grace_seconds: 12.5}}
limits: {{text_chars: 1000, in_flight_bytes: 2000000}}
observability: {{http: "127.0.0.1:0", log_level: debug}}
""".encode()
_KEYS = (
    "kafka.client.sasl.password", "kafka.client.ssl.key.password", "kafka.bootstrap_servers", "kafka.client",
    "routes", "routes.0.tasks", "routes.1.input", "routes.9999.input", "model.version", "model.tls",
    "model.tls.ca_file", "delivery.order", "limits.facts", "limits", "observability.http", "nonsense", "kafka..x",
    "", "0", "a.0.b",
)  # fmt: skip
_VALUES = (
    "", "null", "1", "-1", "1e999", ".nan", "[a, b]", "[", "{a: 1}", "{a", "text", "*a", "!!int ''", "x:99999",
    "reviews.dead", "{task}", "{0}", "{", "9" * 5000, "[" * 400, "\x00", "\ud800",
)  # fmt: skip


def a_configuration(random: Random) -> tuple[bytes, dict[str, str], list[str]]:
    """A file, the environment and the flags."""
    environment: dict[str, str] = {}
    flags: list[str] = []
    for _ in range(random.choice((0, 0, 1, 2))):
        key, value = random.choice(_KEYS), random.choice(_VALUES)
        if random.random() < 0.2:
            value = CANARY if "password" in key else a_text(random, 3).replace(CANARY, "")
        if random.random() < 0.5:
            environment["REXSTREAM_" + key.upper().replace(".", "__")] = value
        else:
            flags.append(f"{key}={value}" if random.random() < 0.95 else value)
    lines = _CONFIG.splitlines(keepends=True)
    body = b"".join(line for line in lines if random.random() < 0.93)
    return damaged(random, body, _YAML, body), environment, flags


_KNOWN = load_tasks()


def _tasks_once(folders: Iterable[str | Path] = ()) -> Mapping[str, Task]:
    """The shipped tasks, read once: their files are a target of their own."""
    return load_tasks(folders) if tuple(folders) else _KNOWN


def check_configuration(given: tuple[bytes, dict[str, str], list[str]]) -> str:
    body, environment, flags = given
    _FILE.write_bytes(body)
    with patch.object(consumer.config.loading, "load_tasks", _tasks_once):
        try:
            load(str(_FILE), environment, flags)
        except ConfigError as error:
            # Damage may have made a secret a part of a key or of another value, and those are shown.
            whole = all(line in _CONFIG.splitlines() for line in body.splitlines() if CANARY.encode() in line)
            return _check_problems(error, f"{error}" if whole else "")
    return "loaded"


def _check_problems(error: ConfigError, shown: str) -> str:
    require(error.problems, "no problem is named")
    require(CANARY not in shown, f"a secret is shown: {shown}")
    for problem in error.problems:
        require(problem.what and problem.fix, "a problem without a way out")
    return "problems"


def a_task_file(random: Random) -> bytes:
    body = random.choice(_TASK_FILES)
    return damaged(random, body, _YAML, random.choice(_TASK_FILES))


_TASK_FILES = [path.read_bytes() for path in sorted(shipped("schemas/tasks").glob("*.yaml"))]


def check_task_file(body: bytes) -> str:
    _FILE.write_bytes(body)
    try:
        task = read_task_file(_FILE)
    except ConfigError as error:
        return _check_problems(error, str(error))
    require(task.schema and task.name, "a task without a name or a schema")
    require(len(task.fingerprint) == 16, "a fingerprint")
    return "task"


TARGETS = (
    Target("configuration", 20, a_configuration, check_configuration),
    Target("task-files", 20, a_task_file, check_task_file),
)
