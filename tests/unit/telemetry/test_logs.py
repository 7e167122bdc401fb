from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from typing import Any

import pytest
import structlog

from consumer.telemetry.logs import configure_logging, logged_fields

pytestmark = pytest.mark.usefixtures("process_logging")


class Lines(io.StringIO):
    """A stream that must hold one JSON object a line."""

    def objects(self) -> list[dict[str, Any]]:
        text = self.getvalue()
        assert text == "" or text.endswith("\n")
        return [json.loads(line, parse_constant=_refuse) for line in text.splitlines()]

    def only(self) -> dict[str, Any]:
        (line,) = self.objects()
        return line


def _refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


def configured(level: Any = "info") -> Lines:
    lines = Lines()
    configure_logging(level, "worker-7", lines)
    return lines


def test_a_line_starts_with_the_fixed_fields_in_order_and_carries_what_was_bound() -> None:
    """Operators read the same five fields first, then the bound ones."""
    lines = configured()
    log = structlog.stdlib.get_logger("consumer.sample").bind(topic="reviews.raw", partition=3)
    log.info("event processed", offset=41, event_id="e-1", task="sentiment", trace_id="00f0")
    line = lines.only()
    assert list(line)[:5] == ["timestamp", "level", "event", "logger", "worker"]
    assert line["timestamp"].endswith("Z")
    expected = {"level": "info", "event": "event processed", "logger": "consumer.sample", "worker": "worker-7"}
    expected |= {"topic": "reviews.raw", "event_id": "e-1", "task": "sentiment", "trace_id": "00f0"}
    assert expected.items() <= line.items()
    assert (line["partition"], line["offset"]) == (3, 41)


def test_context_variables_reach_both_kinds_of_logger() -> None:
    """A field bound to the context is on structlog's lines and on the standard library's."""
    lines = configured()
    with structlog.contextvars.bound_contextvars(trace_id="ab12"):
        structlog.stdlib.get_logger("a").info("one")
        logging.getLogger("b").info("two")
    assert [line["trace_id"] for line in lines.objects()] == ["ab12", "ab12"]


def test_fields_that_are_made_for_a_line_reach_both_kinds_of_logger() -> None:
    """What is known of a record; what the line says itself wins."""
    lines = configured()
    token = logged_fields.set(lambda: {"offset": 41, "topic": "in"})
    try:
        structlog.stdlib.get_logger("a").info("one", topic="out")
        logging.getLogger("b").info("two")
    finally:
        logged_fields.reset(token)
    assert [(line["offset"], line["topic"]) for line in lines.objects()] == [(41, "out"), (41, "in")]


def test_foreign_loggers_take_the_same_chain() -> None:
    """librdkafka's logger is a standard one: its lines have the same fields."""
    lines = configured()
    logging.getLogger("librdkafka").warning("%s broker(s) down\nsecond line", 2)
    line = lines.only()
    assert (line["level"], line["logger"], line["worker"]) == ("warning", "librdkafka", "worker-7")
    assert line["event"] == "2 broker(s) down\nsecond line"


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_a_threshold_for_everyone(level: str, seen: list[str]) -> None:
    """Nothing below the configured level is written, whichever library speaks."""
    lines = configured(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.stdlib.get_logger("ours"), name)("x")
        getattr(logging.getLogger("theirs"), name)("x")
    assert [line["level"] for line in lines.objects()] == [each for each in seen for _ in range(2)]


def test_an_unknown_level_names_the_choices() -> None:
    """A wrong level is refused with the value and the way out."""
    with pytest.raises(ValueError, match=r"'loud' is not one of debug, info, warning, error"):
        configured("loud")


def test_an_exception_is_text_without_the_values_of_variables() -> None:
    """A traceback shows where and what, and no local variable, which may hold a review."""
    lines = configured()

    def fail(review: str) -> None:
        raise LookupError(f"no task for a review of {len(review)} characters")

    try:
        fail("审" * 6)
    except LookupError:
        structlog.stdlib.get_logger("consumer.sample").exception("task failed")
    line = lines.only()
    assert line["level"] == "error"
    assert "LookupError: no task for a review of 6 characters" in line["exception"]
    assert "审审" not in line["exception"]


def test_a_second_call_replaces_the_first() -> None:
    """Configuring again does not double lines, and loggers that were used before move along."""
    first = configured()
    log = structlog.stdlib.get_logger("kept")
    log.info("before")
    second = configured()
    log.info("after")
    assert [line["event"] for line in first.objects()] == ["before"]
    assert [line["event"] for line in second.objects()] == ["after"]


def test_values_that_json_lacks_do_not_cost_the_line() -> None:
    """NaN, bytes, a set, lone surrogates, line separators and odd keys all end up in one valid line."""
    lines = configured()
    odd: dict[Any, Any] = {"ratio": float("nan")}
    odd["self"] = odd
    log = structlog.stdlib.get_logger("odd")
    log.info("one", key=b"\xff\x00", members={1}, half="\ud83d", breaks="a\u2028b\u0085c")
    log.info("two", ratio=float("inf"))
    log.info("three", nested=odd)
    log.info("four", nested={(1, 2): "tuple key"})
    assert [line["event"] for line in lines.objects()] == ["one", "two", "three", "four"]
    assert lines.objects()[0]["half"] == "\ud83d"


def test_a_malformed_log_call_leaves_one_line_and_does_not_raise(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong format string in any library neither stops the worker nor breaks the JSON stream."""
    lines = configured()
    logging.getLogger("their.module").error("%d records", "many")
    line = lines.only()
    assert (line["level"], line["logger"]) == ("error", "their.module")
    assert line["event"] == "a log call failed"
    assert line["at"].startswith("test_logs.py:")
    assert capsys.readouterr().err == ""


def test_a_closed_stream_does_not_raise() -> None:
    """A worker outlives the reader of its stderr."""
    lines = configured()
    lines.close()
    logging.getLogger("x").error("nobody hears this")


def test_warnings_are_lines() -> None:
    """What the warnings module prints is a JSON line of logger py.warnings."""
    lines = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old option", DeprecationWarning, stacklevel=1)
    line = lines.only()
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "DeprecationWarning: old option" in line["event"]


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_libraries_that_log_every_request_are_quiet_at_info(library: str) -> None:
    """A registry's address, which may hold a password, is not logged once a request."""
    lines = configured()
    logging.getLogger(library).info("HTTP Request: GET http://user:secret@registry.test/subjects")
    logging.getLogger(library).warning("slow")
    assert [line["event"] for line in lines.objects()] == ["slow"]


UNCAUGHT = """
import sys, threading, time
from consumer.telemetry.logs import configure_logging
configure_logging("info", "w")

class Loud:
    def __del__(self):
        raise RuntimeError("in a destructor")

def thread():
    raise KeyError("in a thread")

del_me = Loud()
del del_me
t = threading.Thread(target=thread, name="poll")
t.start()
t.join()
quiet = threading.Thread(target=sys.exit)
quiet.start()
quiet.join()
raise ValueError("in the main thread")
"""


def test_exceptions_that_nobody_caught_are_lines() -> None:
    """Main thread, other threads and destructors: stderr stays one JSON object a line, and the exit code stays 1."""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["exception"].splitlines()[-1] for line in lines] == [
        "RuntimeError: in a destructor",
        "KeyError: 'in a thread'",
        "ValueError: in the main thread",
    ]
    assert lines[1]["thread"] == "poll"
    assert {line["worker"] for line in lines} == {"w"}


def test_grpc_is_silent_unless_the_operator_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C core's own lines are not JSON: off by default, and an explicit setting is kept."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    configured()
    assert os.environ["GRPC_VERBOSITY"] == "NONE"
    monkeypatch.setenv("GRPC_VERBOSITY", "DEBUG")
    configured()
    assert os.environ["GRPC_VERBOSITY"] == "DEBUG"


def test_what_colours_consoles_is_not_loaded_for_lines_of_json_and_can_be_loaded_later() -> None:
    """Though it is installed: commands with tables use it."""
    code = (
        "import sys, consumer.telemetry.logs\n"
        "assert not any(name.split('.')[0] == 'rich' for name in sys.modules)\n"
        "import rich.console"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
