"""What ``rexstream check --connect`` finds at the model server."""

from __future__ import annotations

import json
import os
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from click.testing import CliRunner
from stub_server import CONTRACT, StubServer, write_bundle

from consumer.cli import broker_findings, cli
from consumer.cli.model_findings import LONG, ROUNDS, ROWS, model_findings
from consumer.config.tree import Config, ModelConfig
from consumer.serving.descriptors import GET_MODEL_STATUS, ModelVersionStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from consumer.cli.dependencies import Finding

INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


class Server(StubServer):
    """Has the versions in ``states`` of any model; with none, it does not know the model."""

    def __init__(self) -> None:
        self.states = {1: "AVAILABLE"}
        self.before_status: Callable[[Any, grpc.ServicerContext], None] = lambda *_: None
        self.status_bytes: bytes | None = None
        super().__init__()

    def _status(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.before_status(request, context)
        if self.status_bytes is not None:
            return SimpleNamespace(SerializeToString=lambda: self.status_bytes)
        name, asked = request.model_spec.name, request.model_spec.version.value
        states = self.states
        if not states:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        if asked and asked not in states:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find version {asked} of model {name}")
        response = GET_MODEL_STATUS.response()
        for version, state in states.items():
            if not asked or asked == version:
                response.model_version_status.add(version=version, state=ModelVersionStatus.State.Value(state))
        return response


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.gate.set()
    running.stop()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("REXSTREAM_"):
            monkeypatch.delenv(name)


def found(server: Server, tmp_path: Path, **model: Any) -> list[Finding]:
    bundle = str(write_bundle(tmp_path / "bundle"))
    return list(model_findings(Config(model=ModelConfig(target=server.target, bundle=bundle, **model))))


def fault(server: Server, tmp_path: Path, **model: Any) -> Finding:
    """The one finding that fails, which is the last."""
    findings = found(server, tmp_path, **model)
    assert [finding.status for finding in findings] == ["ok"] * (len(findings) - 1) + ["fail"], findings
    return findings[-1]


def rows_of(request: Any, name: str) -> int:
    rows: int = request.inputs[name].tensor_shape.dim[0].size
    return rows


def test_windows_are_sent_alone_at_once_and_many_in_a_call(server: Server, tmp_path: Path) -> None:
    """A known-good window alone, two of different length at once, many rows, and rows that do not match."""
    shapes: list[tuple[int, int]] = []

    def before(request: Any, _: Any) -> None:
        if rows_of(request, "length") == rows_of(request, "input_ids"):
            shapes.append(tuple(dim.size for dim in request.inputs["input_ids"].tensor_shape.dim))

    server.before = before
    findings = found(server, tmp_path)
    assert [finding.status for finding in findings] == ["ok"] * 4, findings
    short, long = min(shapes), max(shape for shape in shapes if shape[0] == 1)
    assert shapes[0] == short
    assert shapes.count(short) == 1 + ROUNDS
    assert shapes.count(long) == ROUNDS
    assert long[1] >= len(LONG)
    assert shapes[-1] == (ROWS, short[1])


class Merging:
    """Server-side batching: two calls that are there at once share their fate."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._here: list[int] = []

    def __call__(self, request: Any, context: grpc.ServicerContext) -> None:
        length = request.inputs["input_ids"].tensor_shape.dim[1].size
        with self._changed:
            self._here.append(length)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._here) > 1, timeout=0.2)
            mixed = len(set(self._here)) > 1
            self._changed.wait(0.05)
            self._here.remove(length)
        if mixed:
            context.abort(
                PRECONDITION,
                "Tensors with name 'serving_default_input_ids:0' from different tasks have different shapes and "
                "padding is turned off. Set pad_variable_length_inputs to true, or ensure that …",
            )


def batch_limit(request: Any, context: grpc.ServicerContext) -> None:
    if (rows := rows_of(request, "input_ids")) > 8:
        context.abort(INVALID, f"Task size {rows} is larger than maximum input batch size 8")


def equal_rows(request: Any, context: grpc.ServicerContext) -> None:
    if rows_of(request, "length") != rows_of(request, "input_ids"):
        context.abort(INVALID, "Batching Run() input tensors must have equal 0th-dimension size")


@pytest.mark.parametrize("before", [Merging(), batch_limit, equal_rows], ids=["merged", "too many rows", "unequal"])
def test_server_side_batching_is_a_fault(server: Server, tmp_path: Path, before: Any) -> None:
    """Whether calls met, a call was too large, or neither: the way out is to switch it off."""
    server.before = before
    finding = fault(server, tmp_path)
    assert finding.subject == "server-side batching"
    assert "server-side batching is on and must be off: start the model server without --enable_batching" in (
        finding.detail
    )


def refusing(code: grpc.StatusCode, message: str) -> Callable[[Any, grpc.ServicerContext], None]:
    return lambda _, context: context.abort(code, message)


@pytest.mark.parametrize(
    ("model", "before", "said"),
    [
        (
            {},
            refusing(INVALID, "indices[0,1] = 4095 is not in [0, 1000)"),
            [
                "bundle and served model do not belong together",
                "a token 4095, and the served vocabulary only 1000",
                "version 1 at 127.0.0.1",
            ],
        ),
        (
            {"label": "canary"},
            refusing(INVALID, "Unrecognized servable version label: canary"),
            ["canary", "give it to a loaded version, or change model.label"],
        ),
        (
            {},
            refusing(PRECONDITION, 'Serving signature key "serving_default" not found.'),
            ["rexstream export"],
        ),
        ({}, refusing(grpc.StatusCode.UNAVAILABLE, "Socket closed"), ["does not answer a known-good window"]),
    ],
    ids=["vocabulary", "label", "signature", "crash"],
)
def test_a_refused_window_says_what_to_change(
    server: Server, tmp_path: Path, model: dict[str, Any], before: Any, said: list[str]
) -> None:
    """The status alone had said that all is well."""
    server.before = before
    finding = fault(server, tmp_path, **model)
    assert finding.subject == "model answers"
    assert [text for text in said if text not in finding.detail] == []


def test_a_foreign_bundle_is_named_with_the_model(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both, with folder, contract, name, version and address."""
    bundle = write_bundle(tmp_path / "bundle")
    monkeypatch.setattr("stub_server.CONTRACT", CONTRACT ^ 1)
    model = ModelConfig(target=server.target, bundle=str(bundle))
    *_, finding = model_findings(Config(model=model))
    assert (finding.subject, finding.status) == ("model answers", "fail")
    assert "bundle and served model do not belong together" in finding.detail
    assert f"{bundle} (checkpoint unknown, contract {CONTRACT})" in finding.detail
    assert f"model rexuninlu version 1 at {server.target}" in finding.detail


def test_a_server_that_is_too_busy_is_a_warning(server: Server, tmp_path: Path) -> None:
    """A worker would wait for its turn; ``check`` cannot say more. It refuses a status, too."""
    server.before = server.before_status = refusing(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
    findings = found(server, tmp_path)
    assert {finding.status for finding in findings} == {"ok", "warn"}
    warned = [finding for finding in findings if finding.status == "warn"]
    assert [finding.subject for finding in warned] == ["model rexuninlu", "model answers", "server-side batching"]
    assert all("too busy to tell" in finding.detail for finding in warned)


def test_an_answer_that_is_none_of_tensorflow_serving_s(server: Server, tmp_path: Path) -> None:
    """Something else listens there; the address is what to look at."""
    server.status_bytes = b"\xff\xff"
    finding = fault(server, tmp_path)
    assert (finding.subject, "check model.target" in finding.detail) == ("model rexuninlu", True)


@pytest.mark.parametrize(
    ("states", "model", "said"),
    [
        ({}, {}, ["has no model of that name", "change model.name"]),
        ({1: "LOADING"}, {}, ["version 1 LOADING", "wait until it is loaded"]),
        ({1: "END"}, {}, ["version 1 END", "add it to the model server again"]),
        ({2: "AVAILABLE"}, {"version": 1}, ["change model.version", "(there is version 2 AVAILABLE)"]),
        (
            {1: "END", 2: "AVAILABLE"},
            {"version": 1},
            ["version 1 END", "change model.version", "(there is version 1 END, version 2 AVAILABLE)"],
        ),
    ],
    ids=["unknown", "loading", "removed", "another version", "unloaded version"],
)
def test_a_model_that_is_not_available_says_what_is_there(
    server: Server, tmp_path: Path, states: dict[int, str], model: dict[str, Any], said: list[str]
) -> None:
    """No window is sent then."""
    server.states = states
    finding = fault(server, tmp_path, **model)
    assert finding.subject == "model rexuninlu"
    assert [text for text in said if text not in finding.detail] == []
    assert server.calls == 0


def test_a_server_that_hangs_is_reported_in_time(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the model, and before it: an address that takes connections and says nothing."""
    monkeypatch.setattr("consumer.cli.model_findings.PREDICT_SECONDS", 0.5)
    server.gate.clear()
    finding = fault(server, tmp_path)
    assert (finding.subject, "does the model server hang" in finding.detail) == ("model answers", True)
    monkeypatch.setattr("consumer.cli.model_findings.ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        model = ModelConfig(target=target, bundle=str(tmp_path / "bundle"))
        (finding,) = model_findings(Config(model=model))
    assert finding.status == "fail"
    assert "no answer within" in finding.detail


def test_the_command_ends_with_3(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every dependency that is missing or does not fit."""
    monkeypatch.setattr(broker_findings, "ANSWER_SECONDS", 0.5)
    server.before = equal_rows
    settings = (f"model.target={server.target}", f"model.bundle={write_bundle(tmp_path / 'bundle')}")
    flags = [part for setting in (*settings, "kafka.bootstrap_servers=127.0.0.1:1") for part in ("--set", setting)]
    result = CliRunner().invoke(cli, ["check", "--connect", "--json", *flags])
    assert result.exit_code == 3
    failed = [row["subject"] for row in json.loads(result.stdout)["findings"] if row["status"] == "fail"]
    assert failed == ["kafka", "server-side batching"]
