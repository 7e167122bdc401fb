"""``rexstream serve`` as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from certificates import Authority
from stub_server import write_bundle

from consumer.cli.model_findings import model_findings
from consumer.config.tree import Config, ModelConfig, ModelTlsConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

Lab = Any
Caller = Any
"""The classes of those names in this folder's conftest.py."""

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[3]


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that do not outlive their test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(processes: list[subprocess.Popen[str]], *arguments: str, **environ: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer", "serve", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    processes.append(process)
    return process


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def failed(processes: list[subprocess.Popen[str]], *arguments: str, **environ: str) -> tuple[int, str]:
    """Exit code and standard error of a server that does not start."""
    process = start(processes, *arguments, **environ)
    output, errors = process.communicate(timeout=60)
    assert output == ""
    return process.returncode, errors


def test_it_serves_says_so_and_stops(lab: Lab, caller_at: Any, processes: list[subprocess.Popen[str]]) -> None:
    """One JSON line with address and models when ready; a call is answered; SIGTERM ends it with 0."""
    lab.add("3")
    process = start(processes, "--models", str(lab.models), "--port", "0", "--json", "--poll-seconds", "0.05")
    ready = json.loads(read_line(process))
    assert ready["models"] == {"demo": [3]}
    caller = caller_at(ready["address"])
    assert caller.version() == 3
    lab.add("4")
    while caller.version() != 4:
        pass
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    logged = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    assert [(line["event"], line["version"]) for line in logged][:2] == [
        ("model version available", 3),
        ("model version available", 4),
    ]


def test_one_model_is_served_under_its_folder_s_name(lab: Lab, processes: list[subprocess.Popen[str]]) -> None:
    """The folder of one model works too; Ctrl-C ends it with 0."""
    lab.add("3")
    process = start(processes, "--models", str(lab.models / "demo"), "--port", "0")
    line = read_line(process)
    assert line.startswith("serving demo version 3 on 127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0


def test_it_ends_with_the_process_that_started_it(lab: Lab) -> None:
    """With the flag, a server whose parent was killed ends by itself."""
    lab.add("1")
    read_end, write_end = os.pipe()  # held open by the server alone once its parent is gone
    server = [sys.executable, "-m", "consumer", "serve", "--models", str(lab.models), "--port", "0"]
    parent = (
        "import os, subprocess, sys\n"
        f"server = subprocess.Popen([*sys.argv[1:], '--exit-with-parent'], stdout=-1, pass_fds=[{write_end}])\n"
        "assert server.stdout.readline()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent, *server], cwd=ROOT, pass_fds=[write_end], check=False)
    assert done.returncode == -9
    os.close(write_end)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_it_speaks_tls_and_asks_clients_for_a_certificate(
    lab: Lab, processes: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A client with a certificate of the authority is answered, one without is not; a wrong key is bad usage."""
    ours = Authority()
    names = ("server.pem", "server.key", "client.pem", "client.key")
    files = dict(zip(names, (*ours.issue("server"), *ours.issue("client")), strict=True))
    for name, content in {**files, "ca.pem": ours.pem}.items():
        (tmp_path / name).write_bytes(content)
    lab.add("3")
    tls = ["--tls-certificate", str(tmp_path / "server.pem"), "--tls-client-ca", str(tmp_path / "ca.pem")]
    serve = ["--models", str(lab.models), "--port", "0", "--json", *tls, "--tls-key"]
    code, errors = failed(processes, *serve, str(tmp_path / "client.key"))
    assert (code, "is not the key of the certificate" in errors) == (2, True)
    code, errors = failed(processes, "--models", str(lab.models), *tls)
    assert (code, "both --tls-certificate and --tls-key" in errors) == (2, True)
    address = json.loads(read_line(start(processes, *serve, str(tmp_path / "server.key"))))["address"]
    for pair, status in (({"certificate_file": "client.pem", "key_file": "client.key"}, "ok"), ({}, "fail")):
        named = {"ca_file": "ca.pem", **pair}
        settings = ModelTlsConfig(**{key: str(tmp_path / name) for key, name in named.items()})
        bundle = str(write_bundle(tmp_path / "bundle"))
        model = ModelConfig(target=address, name="demo", bundle=bundle, tls=settings)
        finding = next(model_findings(Config(model=model)))
        assert finding.status == status, finding.detail


def test_no_model_is_bad_usage(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """A folder without versions is refused with what it should hold and how to write it."""
    code, errors = failed(processes, "--models", str(tmp_path))
    assert code == 2
    assert f"no model in {tmp_path}" in errors
    assert "rexstream export" in errors


def test_a_port_in_use_is_bad_usage(lab: Lab, tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """The port is named with the way out, before TensorFlow is loaded."""
    lab.add("1")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "tensorflow.py").write_text("raise RuntimeError('loaded too early')\n")
    hidden = str(tmp_path / "hidden")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = failed(processes, "--models", str(lab.models), "--port", str(port), PYTHONPATH=hidden)
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in errors
    assert "--port 0" in errors


def test_a_broken_model_is_failed_work(lab: Lab, processes: list[subprocess.Popen[str]]) -> None:
    """A model that does not load is named, with exit code 1."""
    (lab.add("1") / "saved_model.pb").unlink()
    code, errors = failed(processes, "--models", str(lab.models), "--port", "0")
    assert code == 1
    assert "did not become available: {{{name: demo version: 1} due to error" in errors
    assert "Traceback" not in errors


def test_without_tensorflow_the_command_says_what_to_install(
    lab: Lab, tmp_path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    """A missing extra is bad usage, with the command that installs it."""
    lab.add("1")
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    missing = "raise ModuleNotFoundError('no TensorFlow here', name='tensorflow')\n"
    (hidden / "tensorflow.py").write_text(missing)
    code, errors = failed(processes, "--models", str(lab.models), "--port", "0", PYTHONPATH=str(hidden))
    assert code == 2
    assert "pip install 'rexstream[model]'" in errors
    assert "Traceback" not in errors
