"""``rexstream run``: what an event may ask for, what a forged header can do, and what one record can become at most."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from confluent_kafka import Producer
from worker_run import Run, reviews

from consumer.delivery.letters import LetterFilter, Markers, Selection, replayed
from consumer.kafka.tools.reader import headers_of, read_to_end, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from confluent_kafka import Message
    from stub_server import StubServer

    from consumer.events import Header, Output

TASKS = ["sentiment", "product_features"]
NO_FLOOD = {"REXSTREAM_DELIVERY__DEAD_LETTER_RUN": "null", "REXSTREAM_DELIVERY__DEAD_LETTER_RATE": "null"}


class Broker(Protocol):
    """The fixture ``mock_broker``."""

    bootstrap: str

    def topic(self, partitions: int, label: str = ...) -> str:
        """A new topic; its name."""


@pytest.fixture
def worker(mock_broker: Broker, server: StubServer, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts a worker; with ``topics`` of another, beside it."""
    runs: list[Run] = []

    def start(
        topics: Sequence[str] = (),
        group: str | None = None,
        environment: Mapping[str, str] | None = None,
        **route: Any,
    ) -> Run:
        named = list(topics) or [mock_broker.topic(1, label) for label in ("in", "out", "dead")]
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        routes = [{"input": named[0], "tasks": TASKS, "output": f"{named[1]}.{{task}}", **route}]
        kafka = {} if group is None else {"group_id": group}
        run = Run(mock_broker.bootstrap, named, server, folder, routes=routes, kafka=kafka, environment=environment)
        if group is not None:
            run.group = group
        runs.append(run)
        run.start()
        return run

    yield start
    for run in runs:
        run.kill()


def send(run: Run, *records: tuple[bytes | None, Sequence[Header]], topic: str | None = None) -> None:
    producer = Producer({"bootstrap.servers": run.bootstrap, "message.max.bytes": 5_000_000})
    for value, own in records:
        producer.produce(topic or run.input, value, b"k", headers=list(own))
    assert producer.flush(30) == 0


def as_json(**fields: object) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def said(message: Message) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in headers_of(message)}


def results(run: Run, task: str) -> list[dict[str, Any]]:
    topic = run.output if task == "inline" else f"{run.output}.{task}"
    return [json.loads(message.value() or b"") for message in read_to_end(run.bootstrap, topic)]


def finish(run: Run) -> list[dict[str, str]]:
    """Wait until all is committed, end the worker, which must be well; the letters' headers."""
    run.wait(lambda: run.lag() == 0)
    assert run.get("/readyz")[0] == 200
    assert run.end() == 0
    return [said(letter) for letter in run.dead_letters()]


def test_an_event_cannot_send_a_worker_to_a_topic_of_its_choice(worker: Callable[..., Run]) -> None:
    """Tasks of other routes, unknown ones and a forged header: one letter for each event, and all else goes on."""
    run = worker()
    send(
        run,
        (as_json(event_id="a", text="好用", tasks=["ner"]), ()),
        (as_json(event_id="b", text="好用", tasks=["ner", "sentiment", "stars"]), ()),
        (as_json(event_id="c", text="好用", tasks=["ner"]), [("rexstream-only-tasks", b"ner")]),
        (as_json(event_id="d", text="好用", schema={"优点": None}), ()),
    )
    run.send(reviews(5))
    letters = finish(run)
    assert [(letter["rexstream-dlq-class"], letter["rexstream-dlq-task"]) for letter in letters] == [
        ("TaskNotAllowed", "ner"),
        ("UnknownTask", "ner,stars"),
        ("TaskNotAllowed", "ner"),
    ]
    assert all("event_tasks" in letter["__dlq.errors.message"] for letter in letters)
    assert sorted(result["event_id"] for result in results(run, "sentiment")) == ["b", *(f"e{n}" for n in range(5))]
    assert [result["event_id"] for result in results(run, "inline")] == ["d"]
    assert results(run, "ner") == []


def test_a_route_may_let_events_choose_and_refuse_their_schemas(worker: Callable[..., Run]) -> None:
    """Each by its own key."""
    run = worker(event_tasks="any", inline_schemas=False)
    send(
        run,
        (as_json(event_id="a", text="好用", tasks=["ner"]), ()),
        (as_json(event_id="b", text="好用", schema={"优点": None}, tasks=["sentiment"]), ()),
    )
    (letter,) = finish(run)
    assert (letter["rexstream-dlq-class"], letter["rexstream-dlq-task"]) == ("SchemaNotAllowed", "inline")
    assert "inline_schemas" in letter["__dlq.errors.message"]
    assert [result["event_id"] for result in results(run, "ner")] == ["a"]
    assert [result["event_id"] for result in results(run, "sentiment")] == ["b"]
    assert results(run, "inline") == []


def test_one_record_is_never_many_times_its_size(worker: Callable[..., Run]) -> None:
    """Nor are its log lines longer than others: names, ids, keys and headers that fill a record."""
    run = worker()
    big, half = "x" * 900_000, 450_000
    unknown = [f"unknown-{number}" for number in range(62)]
    send(
        run,
        (as_json(text="好用", tasks=["sentiment", *unknown], pad=big), ()),
        (as_json(text="好用", event_id=big), ()),
        (as_json(text="好用"), [("rexstream-event-id", b"i" * half)]),
        (as_json(text="好用"), [("h", b"v" * half)]),
        (as_json(text="好用", attributes={"k": big}), ()),
        (as_json(text="好用", event_id="e" * 512), ()),
    )
    letters = finish(run)
    assert [letter["rexstream-dlq-class"] for letter in letters] == ["UnknownTask", "FieldTooLong", "HeadersTooLarge"]
    assert letters[0]["rexstream-dlq-task"].split(",") == unknown
    found = results(run, "sentiment")
    assert [[each.split()[1] for each in result["warnings"] if "field-dropped" in each] for result in found] == [
        [],
        ["headers"],
        ["attributes"],
        [],
    ]
    sizes = [
        len(message.value() or b"") + sum(len(value or b"") for _, value in headers_of(message))
        for message in read_to_end(run.bootstrap, f"{run.output}.sentiment")
    ]
    assert max(sizes) < 20_000
    written = sum(
        len(message.value() or b"") + sum(len(value or b"") for _, value in headers_of(message))
        for message in run.dead_letters()
    )
    assert written < 3 * 900_000 + 2 * half + 5 * 20_000
    assert max(len(json.dumps(line)) for line in run.lines()) < 8_192


def test_a_small_event_gets_only_so_many_model_calls(worker: Callable[..., Run], server: StubServer) -> None:
    """With a schema of its own; the next event does not wait for more than those."""
    run = worker()
    before = server.calls
    schema = {f"类{number}": {f"项{item}": {"因": None} for item in range(4)} for number in range(40)}
    send(run, (as_json(text="屏幕清晰，电池耐用，客服耐心，包装结实。" * 400, schema=schema), ()))
    run.send(reviews(3))
    (letter,) = finish(run)
    assert (letter["rexstream-dlq-class"], letter["rexstream-dlq-task"]) == ("TooManyModelCalls", "inline")
    assert "limits.inline_model_calls" in letter["__dlq.errors.message"]
    assert server.calls - before < 300


def letters_of(run: Run) -> list[Output]:
    """What a replay for the group of ``run`` sends for its letters."""
    sieve = LetterFilter(Selection(), Markers())
    taken = [sieve.take(record_of(message)) for message in run.dead_letters()]
    return [replayed(letter, run.group) for letter in taken if letter is not None and letter.group == run.group]


def test_a_replay_of_one_group_is_nothing_to_another(worker: Callable[..., Run], mock_broker: Broker) -> None:
    """Two groups with other tasks read one topic. The letters of one are replayed: the other drops and counts them."""
    first = worker(environment={**NO_FLOOD, "REXSTREAM_LIMITS__TEXT_CHARS": "3"}, tasks=["sentiment"])
    beside = [first.input, mock_broker.topic(1, "out"), mock_broker.topic(1, "dead")]
    second = worker(beside, f"second-{first.input}", tasks=["category"])
    send(first, *((as_json(text=f"好用又便宜{number}"), ()) for number in range(60)))
    first.wait(lambda: len(first.dead_letters()) == 60)
    first.wait(lambda: first.lag() == second.lag() == 0)
    assert second.dead_letters() == []
    assert first.end() == 0
    del first.environment["REXSTREAM_LIMITS__TEXT_CHARS"]
    first.start()

    again = letters_of(first)
    assert len(again) == 60
    send(first, *((output.value, output.headers) for output in again))
    first.wait(lambda: len(results(first, "sentiment")) == 60)
    second.wait(lambda: second.lag() == 0)
    assert second.dead_letters() == []
    assert len(results(second, "category")) == 60
    assert 'rexstream_dropped_total{reason="other_group"} 60.0' in second.get("/metrics")[1]
    assert 'rexstream_dropped_total{reason="other_group"}' not in first.get("/metrics")[1]
    assert second.get("/readyz")[0] == 200
    # Their ids are those that the events had before, and the headers of the replay are not passed on.
    ids = {result["event_id"] for result in results(first, "sentiment")}
    assert ids == {f"{first.input}-0-{offset}" for offset in range(60)}
    for message in read_to_end(first.bootstrap, f"{first.output}.sentiment"):
        assert not {"rexstream-event-id", "rexstream-only-tasks", "rexstream-replay-group"} & set(said(message))


FORGED: list[Header] = [
    ("rexstream-event-id", b"forged"),
    ("rexstream-only-tasks", b"sentiment"),
    ("rexstream-dlq-replay-count", b"999999"),
    ("rexstream-replay-group", b"somebody"),
]


@pytest.mark.parametrize("believed", [True, False])
def test_a_route_may_believe_no_control_headers(worker: Callable[..., Run], believed: bool) -> None:
    """Then they narrow, rename and hide nothing, and are not in the letters either."""
    run = worker(control_headers=believed)
    send(run, (as_json(text="好用"), FORGED), (b"{", FORGED), (as_json(text="好用"), FORGED[:3]), (b"{", FORGED[:3]))
    letters = finish(run)
    assert [letter["rexstream-dlq-replay-count"] for letter in letters] == ["0"] * (1 if believed else 2)
    assert ["rexstream-event-id" in letter for letter in letters] == ([True] if believed else [False, False])
    found = [(result["event_id"], result["task"]) for task in TASKS for result in results(run, task)]
    places = [f"{run.input}-0-{offset}" for offset in (0, 2)]
    assert found == ([("forged", "sentiment")] if believed else [(place, task) for task in TASKS for place in places])
