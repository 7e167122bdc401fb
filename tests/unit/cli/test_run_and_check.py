"""``run`` and ``check`` refuse the same configurations with the same exit code, before either connects to anything.

What the configuration's own rules refuse is compared in tests/unit/config, with every configuration that they refuse
there. Here are the files, librdkafka's settings and the HTTP port, which those rules do not look at.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest
from certificates import Authority
from click.testing import CliRunner
from stub_model import TOKENIZER_JSON
from stub_server import write_bundle

from consumer.cli import cli
from consumer.extraction.prompts import PromptLimits, contract_hash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

SASL = ("kafka.security.protocol=sasl_ssl", "kafka.security.mechanism=PLAIN", "kafka.security.username=u")
REGISTRY = ("kafka.registry.url=https://registry:8081",)
CASES: dict[str, tuple[str, list[str]]] = {
    "no bundle": ("model.bundle", ["model.bundle=null"]),
    "a bundle that is not there": ("model.bundle", ["model.bundle={tmp}/none"]),
    "an empty bundle": ("model.bundle", ["model.bundle={tmp}/empty"]),
    "a bundle of another format": ("model.bundle", ["model.bundle={tmp}/old"]),
    "a bundle that is no JSON": ("model.bundle", ["model.bundle={tmp}/damaged"]),
    "a bundle of limits that leave no text": ("model.bundle", ["model.bundle={tmp}/limits"]),
    "a bundle whose tokenizer was changed": ("model.bundle", ["model.bundle={tmp}/changed"]),
    "a missing password": ("kafka.security", [*SASL, "kafka.security.password_file={tmp}/none"]),
    "an empty password": ("kafka.security", [*SASL, "kafka.security.password_file={tmp}/nothing"]),
    "an authority that is no certificate": (
        "kafka.security",
        ["kafka.security.protocol=ssl", "kafka.security.ca_file={tmp}/text"],
    ),
    "no such setting of librdkafka": ("kafka.client", ["kafka.client.sasl.pasword=x"]),
    "a value that librdkafka refuses": ("kafka.client", ["kafka.client.fetch.wait.max.ms=-5"]),
    "a setting for exactly_once alone": (
        "kafka.client",
        ["delivery.mode=exactly_once", "delivery.transaction_timeout_ms=3000000000"],
    ),
    "a callback that is text": ("kafka.client", ["kafka.client.stats_cb=print"]),
    "an authority of the model that is not there": ("model.tls", ["model.tls.ca_file={tmp}/none"]),
    "a key of the model that is text": (
        "model.tls",
        ["model.tls.certificate_file={tmp}/ca.pem", "model.tls.key_file={tmp}/text"],
    ),
    "a missing password of the registry": (
        "kafka.registry",
        [*REGISTRY, "kafka.registry.username=u", "kafka.registry.password_file={tmp}/none"],
    ),
    "an authority of the registry that is text": ("kafka.registry", [*REGISTRY, "kafka.registry.ca_file={tmp}/text"]),
    "an address that is not of this machine": ("observability.http", ["observability.http=203.0.113.1:9464"]),
    "a name that nobody resolves": ("observability.http", ["observability.http=rexstream.invalid:9464"]),
    "a port that another program has": ("observability.http", ["observability.http={taken}"]),
    "no folder with tasks": ("tasks_dirs", ["tasks_dirs=[{tmp}/none]"]),
}
"""What is wrong -> the key or section that has to be named, and the settings. ``{tmp}`` is a folder, ``{taken}`` an
address."""


@pytest.fixture
def taken() -> Iterator[str]:
    """The address of a port that something else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that are good for nothing, and a good bundle in the environment."""
    for name in [name for name in os.environ if name.startswith("REXSTREAM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REXSTREAM_MODEL__BUNDLE", str(write_bundle(tmp_path / "bundle")))
    monkeypatch.setenv("REXSTREAM_OBSERVABILITY__HTTP", "127.0.0.1:0")
    for name in ("empty", "old", "damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "old" / "bundle.json").write_text('{"format": 0}')
    (tmp_path / "damaged" / "bundle.json").write_text('{"format": 1')
    changed = write_bundle(tmp_path / "changed")
    (changed / "tokenizer.json").write_text((changed / "tokenizer.json").read_text() + " ")
    limits = replace(PromptLimits(), stride_len=PromptLimits().max_len)
    settings_file = write_bundle(tmp_path / "limits") / "bundle.json"
    settings = json.loads(settings_file.read_text())
    contract = contract_hash(TOKENIZER_JSON, limits, settings["cells_per_window"])
    settings_file.write_text(json.dumps({**settings, "limits": asdict(limits), "contract": contract}))
    (tmp_path / "nothing").write_text("")
    (tmp_path / "text").write_text("not PEM")
    (tmp_path / "ca.pem").write_bytes(Authority("authority").pem)
    return tmp_path


def invoke(command: str, settings: list[str]) -> Result:
    return CliRunner().invoke(cli, [command, *(part for setting in settings for part in ("--set", setting))])


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("case", CASES)
def test_what_run_refuses_check_refuses(case: str, folder: Path, taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 2 both, and both name the key; nothing was started."""
    monkeypatch.setattr("consumer.worker.lifecycle.Worker.run", lambda _: pytest.fail("a worker was started"))
    monkeypatch.setattr("consumer.worker.start_checks._STATUS_SECONDS", 0.1, raising=False)
    key, settings = CASES[case]
    settings = [setting.format(tmp=folder, taken=taken) for setting in settings]
    for command in ("run", "check"):
        result = invoke(command, settings)
        assert result.exit_code == 2, (command, result.output, result.exception)
        assert key in result.output


TRACED = ["observability.tracing.endpoint=http://127.0.0.1:4317"]


@pytest.mark.usefixtures("logging_as_before", "folder")
@pytest.mark.parametrize("command", ["run", "check"])
def test_traces_without_the_extra_or_with_a_variable_that_cannot_be_are_refused(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key and the way out; OpenTelemetry's own switch turns them off."""
    monkeypatch.setattr("consumer.worker.lifecycle.Worker.run", lambda _: pytest.fail("a worker was started"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    result = invoke(command, TRACED)
    assert (result.exit_code, "observability.tracing" in result.output, "'soon'" in result.output) == (2, True, True)
    monkeypatch.delitem(sys.modules, "consumer.telemetry.span_export")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    result = invoke(command, TRACED)
    assert (result.exit_code, "observability.tracing.endpoint" in result.output) == (2, True)
    assert "pip install 'rexstream[otel]'" in " ".join(result.output.split())
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    if command == "check":
        assert "tracing" not in invoke(command, TRACED).output


def test_a_port_that_a_worker_has_is_no_fault_of_its_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked beside a running worker; only a second one could not start, and ``run`` says so."""
    from consumer.telemetry.http import HttpServer

    assert folder
    server = HttpServer(
        "127.0.0.1:0",
        live=lambda: (True, {}),
        ready=lambda: (True, {}),
        status=lambda: {"service": "rexstream"},
        metrics=lambda _: (b"", "text/plain"),
        resume=lambda _: {},
    )
    try:
        monkeypatch.setenv("REXSTREAM_OBSERVABILITY__HTTP", f"127.0.0.1:{server.server_port}")
        result = CliRunner().invoke(cli, ["check", "--json"])
        assert result.exit_code == 0
        rows = {row["subject"]: row for row in json.loads(result.stdout)["findings"]}
        assert rows["observability.http"]["status"] == "warn"
        assert "a worker has it" in rows["observability.http"]["detail"]
    finally:
        server.close()


ARENAS = """
import ctypes, os, tempfile, threading
from consumer.cli.run import share_arenas
share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(6)
def take():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(6)]
[each.start() for each in threads]
[each.join() for each in threads]
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fopen(file.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(open(file.name).read().count("<heap nr"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(
    ("given", "arenas"),
    [
        ({}, {2}),
        ({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}, {2}),
        ({"MALLOC_ARENA_MAX": "4"}, {3, 4}),
        ({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7:glibc.malloc.arena_max=4"}, {3, 4}),
    ],
)
def test_threads_share_their_memory_unless_the_operator_says_otherwise(given: dict[str, str], arenas: set[int]) -> None:
    """Each would have an arena of its own, whose reserve is no other's."""
    names = "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    done = subprocess.run([sys.executable, "-c", ARENAS], check=True, capture_output=True, text=True, env=environment)
    assert int(done.stdout) in arenas


def test_a_python_without_ctypes_runs_workers_all_the_same() -> None:
    """One that was built where libffi was missing."""
    code = "import sys; sys.modules['_ctypes'] = None; from consumer.cli.run import share_arenas; share_arenas()"
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
