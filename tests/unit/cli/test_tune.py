"""``rexstream tune`` against a model server that finds nothing: its output, and what is refused."""

from __future__ import annotations

import json
import random
import socket
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from click.testing import CliRunner, Result
from stub_server import write_bundle

from consumer.cli.tune import command

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("logging_as_before")

SHORT = ("--minutes", "0.01", "--max-tokens", "512")
"""Half a second: what is measured is no matter here."""


def tune(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(command, [*SHORT, *arguments], input=given, env={"REXSTREAM_CONFIG": None})


def said(result: Result) -> str:
    return " ".join(result.stderr.replace("│", "").split())


class TestOutput:
    def test_the_page_and_the_profile_say_the_same(self, stub_server: Any, tmp_path: Path) -> None:
        """And neither holds a word of the reviews."""
        out = tmp_path / "profile.json"
        result = tune("--server", stub_server.address, "--out", str(out), "--task", "sentiment")
        profile = json.loads(out.read_text("utf-8"))
        assert result.exit_code == (1 if profile["doubts"] else 0), result.output
        assert f"Model rexuninlu version 5 at {stub_server.address}" in result.stdout
        for key, value in profile["recommended"]["batching"].items():
            assert f"  {key}: {value}\n" in result.stdout
        assert (profile["model"]["version"], profile["settings"]["tasks"]) == ("5", ["sentiment"])
        assert not any("\u4e00" <= char <= "\u9fff" for char in result.output + out.read_text("utf-8"))

    def test_json_stands_alone_on_standard_output(self, stub_server: Any) -> None:
        """Of reviews from standard input, in a form of their own; lines without a review are passed over."""
        given = "id,content\n1,屏幕很清晰\n2,\n3,很好\n".encode()
        options = ("--input", "-", "--format", "csv", "--column", "content")
        result = tune("--server", stub_server.address, "--json", *options, given=given)
        profile = json.loads(result.stdout)
        assert (profile["input"]["reviews"], profile["input"]["lines_passed_over"]) == (2, 1)
        assert profile["settings"]["input"] == "-"
        assert profile["grid"][0]["rows"] == 1

    def test_the_tasks_and_the_server_are_those_of_the_configuration(self, stub_server: Any, tmp_path: Path) -> None:
        """Where no option says otherwise."""
        config = tmp_path / "worker.yaml"
        config.write_text(
            f"model: {{target: '{stub_server.address}', name: other}}\n"
            "routes: [{input: a, tasks: [sentiment, category]}, {input: b, tasks: [sentiment]}]\n"
        )
        profile = json.loads(tune("--config", str(config), "--json").stdout)
        assert (profile["model"]["name"], profile["settings"]["tasks"]) == ("other", ["sentiment", "category"])

    def test_calls_that_differ_are_1(self, stub_server: Any) -> None:
        """Half of them take 20 ms longer; the figures are there all the same."""
        draw = random.Random(1)

        def hold_up(_: Any, __: Any) -> None:
            time.sleep(draw.choice((0, 0.02)))

        stub_server.refuse = hold_up
        result = tune("--server", stub_server.address, "--json", "--minutes", "0.1", "--task", "sentiment")
        profile = json.loads(result.stdout)
        assert (result.exit_code, profile["recommended"]["server_batching"]) == (1, "off")
        assert any("equal calls differ by" in doubt for doubt in profile["doubts"])


class TestUsage:
    """Exit code 2, before anything is asked."""

    def test_options_of_a_server_that_is_not_named(self, tmp_path: Path) -> None:
        """They would silently not be used."""
        for options in (("--bundle", str(tmp_path)), ("--model", "other"), ("--ca-file", "ca.pem")):
            result = tune(*options)
            assert (result.exit_code, "belong to --server" in said(result)) == (2, True)

    def test_an_unknown_task(self) -> None:
        """With the known ones."""
        result = tune("--task", "sentimnet")
        assert (result.exit_code, "there is no task 'sentimnet'; the tasks are category" in said(result)) == (2, True)

    @pytest.mark.parametrize(
        ("given", "why"),
        [(b"", "has no review"), (b'{"txt": "x"}\n', "has no review; line 1: the event has no text")],
    )
    def test_input_without_reviews(self, given: bytes, why: str) -> None:
        """With the first line's fault."""
        result = tune("--input", "-", given=given)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"--input - {why}" in said(result)

    def test_input_that_cannot_be_read(self, tmp_path: Path) -> None:
        """The file is named."""
        result = tune("--input", str(tmp_path / "none.jsonl"))
        assert (result.exit_code, f"--input {tmp_path}/none.jsonl cannot be read" in said(result)) == (2, True)

    def test_a_profile_that_cannot_be_written(self, tmp_path: Path) -> None:
        """Seen before minutes go by; what is there is left as it is."""
        result = tune("--out", str(tmp_path / "none" / "profile.json"))
        assert (result.exit_code, "profile.json cannot be written: No such file" in said(result)) == (2, True)

    def test_an_input_that_asks_nothing(self, stub_server: Any) -> None:
        """All of its texts are too long."""
        given = json.dumps({"text": "好" * 10_001}).encode()
        result = tune("--server", stub_server.address, "--input", "-", given=given)
        assert (result.exit_code, "none of the 1 reviews asks anything of the model" in said(result)) == (2, True)


class TestServer:
    """Exit code 3: the server, its address and the way out."""

    def test_that_cannot_be_reached(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            target = f"127.0.0.1:{closed.getsockname()[1]}"
            result = tune("--server", target)
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"AVAILABLE at {target}" in said(result)
        assert "is a server running there" in said(result)

    def test_without_the_model(self, stub_server: Any) -> None:
        """In options where those named it, in keys where the configuration did."""

        def refuse(_: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(other)")

        stub_server.refuse = refuse
        result = tune("--server", stub_server.address, "--model", "other")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "has no model of that name, or has it no more: add it there, or change --model" in said(result)
        result = tune("--set", f"model.target={stub_server.address}")
        assert (result.exit_code, "or change model.name" in said(result)) == (3, True)

    def test_of_another_bundle(self, stub_server: Any, tmp_path: Path) -> None:
        """Both are named."""
        result = tune("--server", stub_server.address, "--bundle", str(write_bundle(tmp_path / "bundle")))
        assert (result.exit_code, result.stdout) == (3, "")
        assert "bundle and served model do not belong together" in said(result)
        assert f"model rexuninlu version 5 at {stub_server.address}" in said(result)

    def test_that_batches_by_itself(self, stub_server: Any) -> None:
        """A call of many rows is refused in the words that only server-side batching has."""

        def refuse(request: Any, context: Any) -> None:
            if request.inputs["length"].tensor_shape.dim[0].size > 2:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Task size 4 is larger than maximum input batch size 2")

        stub_server.refuse = refuse
        result = tune("--server", stub_server.address)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "start the model server without --enable_batching" in said(result)

    def test_that_others_keep_busy(self, stub_server: Any) -> None:
        """It refuses whatever is asked."""

        def refuse(_: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")

        stub_server.refuse = refuse
        result = tune("--server", stub_server.address)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "one call at a time: others keep it busy. Measure when they do not" in said(result)

    def test_that_goes_away(self, stub_server: Any) -> None:
        """While shapes are measured."""

        def refuse(request: Any, context: Any) -> None:
            if request.inputs["input_ids"].tensor_shape.dim[1].size == 512:
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")

        stub_server.refuse = refuse
        result = tune("--server", stub_server.address, "--minutes", "0.1", "--task", "sentiment")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "the model server does not answer: UNAVAILABLE: connection reset" in said(result)
        assert "it was sent 1 x 512 tokens" in said(result)
