"""``rexstream run`` over records that make our own code raise, wherever that is: it and their neighbours go on."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Protocol

import pytest
from stub_server import StubServer
from worker_run import Run, ids, reviews

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# In the order of a record's way. What raises does so for the records that have its name in their text, always.
PROGRAM = """
import sys
from consumer.cli import main
from consumer.codecs import outputs
from consumer.delivery.dead_letters import DeadLetters
from consumer.extraction.engine import Engine
from consumer.extraction.window import Window
from consumer.serving import client as serving
from consumer.worker import event_processor

class Panic(BaseException):
    "As one in Rust arrives."

def raising(owner, name, error, found):
    real = getattr(owner, name)
    def call(*args, **kwargs):
        if found(*args, **kwargs):
            raise error("-".join(("what", "it", "says")))
        return real(*args, **kwargs)
    setattr(owner, name, call)

def everywhere(*args, **kwargs):
    return bool({everything})

def has(word):
    return lambda *args, **kwargs: any(word in repr(each) for each in (*args, *kwargs.values()))

raising(event_processor, "decode", RecursionError, lambda *a, **k: has("DECODE")(*a, **k) or everywhere())
raising(outputs.Routes, "choose", KeyError, has("CHOOSE"))
raising(Engine, "start", Panic, has("START"))
raising(serving, "pad", ZeroDivisionError, lambda windows, *_: any(window.length > 100 for window in windows))
raising(event_processor, "encode_json", ValueError, has("ENCODE"))
raising(DeadLetters, "of", OverflowError, has("LETTER"))
sys.argv = ["rexstream", *sys.argv[1:]]
main()
"""


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def worker(mock_broker: Broker, tmp_path: Path) -> Iterator[Run]:
    server = StubServer()
    topics = [mock_broker.topic(2, label) for label in ("in", "out", "dead")]
    environment = {"REXSTREAM_DELIVERY__DEAD_LETTER_PAUSE": "600", "REXSTREAM_LIMITS__IN_FLIGHT_EVENTS": "20"}
    run = Run(mock_broker.bootstrap, topics, server, tmp_path, environment=environment)
    yield run
    run.kill()
    server.stop()


def install(worker: Run, folder: Path, *, everything: bool) -> None:
    program = folder / "raising.py"
    program.write_text(PROGRAM.replace("{everything}", str(everything)))
    worker.program = [sys.executable, str(program)]


def event(name: str, text: str) -> tuple[str, bytes]:
    return "k1", json.dumps({"event_id": name, "text": text}, ensure_ascii=False).encode()


def test_records_that_raise_become_dead_letters_and_their_neighbours_results(worker: Run, tmp_path: Path) -> None:
    """In decoding, choosing, the tokenizer, the call of a batch, a result, and the dead letter itself."""
    install(worker, tmp_path, everything=False)
    long = "这双鞋穿着很舒服，底子软，走一天也不累。" * 20
    bad = {"DECODE": "decode", "CHOOSE": "decode", "START": "extract", "LONG": "extract", "ENCODE": "produce"}
    raising = [event(name, long if name == "LONG" else f"{name} 好用") for name in bad]
    # Unreadable as well, so that a dead letter has to be made, which then raises.
    raising.append(("k1", b"LETTER"))
    good = reviews(60)
    sent = [*good[:30], *raising, *good[30:]]
    worker.start()
    worker.send(sent)
    names = {f"e{i}" for i in range(60)}
    worker.wait(
        lambda: (
            {(i, t) for i, t in ids(worker.results()) if i in names}
            == {(name, task) for name in names for task in ("sentiment", "product_features")}
        )
    )
    worker.wait(lambda: worker.lag() == 0)
    letters = [(dict(headers_of(message)), message) for message in worker.dead_letters()]
    assert {headers["rexstream-dlq-class"] for headers, _ in letters} == {b"Defect"}
    by_event: dict[str, list[str]] = {}
    for headers, message in letters:
        name = json.loads(message.value() or b"")["event_id"] if message.value() else "LETTER"
        by_event.setdefault(name, []).append((headers["rexstream-dlq-stage"] or b"").decode())
        assert b"line " in (headers["rexstream-dlq-stack-trace"] or b"")
        assert "what-it-says" not in str(headers)
    assert by_event.keys() == {*bad, "LETTER"}
    assert {name: set(stages) for name, stages in by_event.items() if name in bad} == {
        name: {stage} for name, stage in bad.items()
    }
    errors = [line for line in worker.lines() if line["event"].startswith("a defect: the record")]
    assert len(errors) == len(letters)
    assert all(line["level"] == "error" and "line " in line["exception"] for line in errors)
    assert "what-it-says" not in json.dumps(worker.lines())
    assert 'rexstream_dead_letters_total{class="Defect",stage="produce"} 2.0' in worker.get("/metrics")[1]
    assert worker.end() == 0


def test_a_defect_that_meets_every_record_pauses_consumption(worker: Run, tmp_path: Path) -> None:
    """As any flood of dead letters does: the topic is not filled, and nothing is lost."""
    install(worker, tmp_path, everything=True)
    worker.start()
    worker.send(reviews(300))
    worker.wait(lambda: "flood" in worker.get("/status")[1]["paused"])
    worker.wait(lambda: worker.get("/status")[1]["in_flight"]["events"] == 0)
    # Counted at each look: records that were on their way when the pause began may still come.
    worker.wait(lambda: worker.lag() == 300 - len(worker.dead_letters()))
    letters = len(worker.dead_letters())
    assert 50 < letters < 300
    assert worker.end() == 0
