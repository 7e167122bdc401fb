"""The worst that one record can make of itself: every row of docs/amplification.md, through the real processor.

The model that answers here finds every type wherever it can, each over as much of the text as it can.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_model import TOKENIZER

from consumer.codecs.control_headers import EVENT_ID_CHARS, HEADERS_BYTES
from consumer.codecs.decoding import ATTRIBUTES_CHARS, FIELD_CHARS, KEY_BYTES, MAX_TASKS
from consumer.codecs.outputs import ModelUsed, Routes
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.delivery.dead_letters import DeadLetters
from consumer.events import BadInput, Outcome, Output, SourceRecord, Work
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import PromptLimits
from consumer.extraction.task import INLINE, ExtractionLimits, Task
from consumer.extraction.window import Cells, Window
from consumer.telemetry.logs import merge_logged_fields
from consumer.telemetry.metrics import Metrics
from consumer.worker.event_processor import EventProcessor
from consumer.worker.failures import LETTERS
from consumer.worker.inference import Inference
from consumer.worker.task_runner import DECODED, WorkBudget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.events import Header

MIB = 1_048_576
LIMITS = ExtractionLimits()
TASKS = {**load_tasks(), **{f"t{number}": Task(f"t{number}", "extract", {"词": None}) for number in range(MAX_TASKS)}}
ROUTES = (
    RouteConfig(input="in", tasks=("sentiment", "product_features"), output="out.{task}"),
    RouteConfig(input="any", tasks=("sentiment",), event_tasks="any", output="out.{task}"),
    RouteConfig(input="packed", tasks=("sentiment",), compression="gzip", output="out.{task}"),
)

ENVELOPE = 20_000
"""Bytes that a dead letter has beside the key, the value and the headers of its record."""
COPIED = 6 * (ATTRIBUTES_CHARS + EVENT_ID_CHARS + 3 * FIELD_CHARS) + 60_000
"""Bytes of JSON that a result repeats of its event, if all of it must be escaped, and the punctuation of attributes."""
RESULT = LIMITS.result_bytes + COPIED + 4096
"""Largest value of a result."""
LINE = 8_192
"""Longest log line about one event."""


@dataclass
class Made:
    """What a record was turned into, and what that took."""

    outcome: Outcome
    windows: int = 0
    accounted: int = 0
    """Bytes of the budget when the first task began."""
    lines: list[str] = field(default_factory=list)

    @property
    def results(self) -> list[Output]:
        return [output for output in self.outcome.outputs if output.topic != "dead"]

    @property
    def letters(self) -> list[dict[str, str]]:
        return [headers(output) for output in self.outcome.outputs if output.topic == "dead"]


def headers(output: Output) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in output.headers}


def size(output: Output) -> int:
    carried = sum(len(name.encode()) + len(value or b"") for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + carried


def dropped_of(output: Output) -> list[str]:
    """What a result says of fields that are not in it."""
    return [each for each in json.loads(output.value or b"")["warnings"] if each.startswith("field-dropped")]


def greedy(window: Window) -> Cells:
    """Every type at a dozen places."""
    start, end = window.text_start, window.length - 1
    types = np.flatnonzero(window.input_ids[:start] == TOKENIZER.type).tolist()
    firsts = range(start, min(start + 12, end))
    cells = [(start, start), *((first, end - 1) for first in firsts)]
    for kind in types:
        cells += [(kind, start), (kind, end - 1), *((first, kind) for first in firsts)]
    rows, columns = np.array(cells, dtype=np.int32).T
    return Cells(rows, columns, np.full(len(rows), 5, dtype=np.float32))


def make(record: SourceRecord, fail: Mapping[str, BadInput] | None = None) -> Made:
    """Process one record. ``fail`` says what a task raises instead of giving a result."""
    made = Made(Outcome("dropped"))
    engine = Engine(TOKENIZER, PromptLimits(), LIMITS)

    async def infer(text: str, task: Task, work: Work) -> Inference:
        made.accounted = made.accounted or work.granted
        if fail and task.name in fail:
            raise fail[task.name]
        extraction = engine.start(text, task)
        while not extraction.finished:
            made.windows += len(extraction.windows)
            extraction.advance([greedy(window) for window in extraction.windows])
        return Inference(extraction.result(), ModelUsed("m", "1", "s"), 0.0, 0.0, 0, 0)

    def keep(_: Any, __: str, line: Any) -> Any:
        made.lines.append(json.dumps(line, ensure_ascii=False, default=repr))
        raise structlog.DropEvent

    processor = EventProcessor(
        Routes(ROUTES, TASKS),
        infer,
        DeadLetters("dead", "group", "0", "spring", stack_traces=True),
        Metrics(),
        budgets=defaultdict(lambda: WorkBudget(100_000_000)),
        model="m",
        max_value_bytes=MIB,
        latency_objective=1.0,
    )
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, merge_logged_fields, keep])
    try:
        made.outcome = asyncio.run(processor.process(record))
    finally:
        structlog.reset_defaults()
    return made


def record(value: bytes | None, *own: Header, topic: str = "in", key: bytes | None = b"k") -> SourceRecord:
    return SourceRecord(topic, 0, 1, 1, key, value, own, None, 0.0)


def event(topic: str = "in", pad: int = 0, **fields: Any) -> SourceRecord:
    """An event, with a field that nobody reads to make it larger."""
    value = json.dumps({"text": "好用", **fields, **({"pad": "x" * pad} if pad else {})}, ensure_ascii=False).encode()
    assert len(value) <= MIB
    return record(value, topic=topic)


def check(made: Made, source: SourceRecord, outputs: int) -> None:
    """What holds of every record."""
    assert len(made.outcome.outputs) <= outputs
    for line in made.lines:
        assert {"topic", "partition", "offset", "trace_id"} <= json.loads(line).keys()
    own = size(Output("", source.key, source.value, source.headers))
    for output in made.outcome.outputs:
        if output.topic == "dead":
            assert size(output) <= own + ENVELOPE
        else:
            assert len(output.value or b"") <= RESULT
            assert size(output) <= RESULT + KEY_BYTES + HEADERS_BYTES + 4096
    assert len(made.lines) <= outputs
    assert all(len(line.encode()) <= LINE for line in made.lines), max(made.lines, key=len)[:500]


def test_a_megabyte_that_names_unknown_tasks_is_one_letter() -> None:
    """That lists them; and of the tasks that it may have it has its result."""
    names = [f"unknown-{number}" for number in range(MAX_TASKS - 2)]
    source = event(pad=MIB - 2000, tasks=["sentiment", *names, "ner"])
    made = make(source)
    check(made, source, 2)
    (letter,) = made.letters
    assert letter["rexstream-dlq-task"].split(",") == [*names, "ner"]
    assert letter["rexstream-dlq-task-count"] == str(MAX_TASKS - 1)
    assert letter["rexstream-dlq-class"] == "UnknownTask"
    assert [output.topic for output in made.results] == ["out.sentiment"]


@pytest.mark.parametrize("names", [["我的电话"], ["x" * 1000], ["a,b", "sentiment,ner"], ["inline"]])
def test_names_that_no_task_can_have_run_nothing_again(names: list[str]) -> None:
    """A letter without a task would, replayed, repeat the event's other tasks."""
    made = make(event(tasks=["sentiment", *names]))
    (letter,) = made.letters
    assert letter["rexstream-dlq-task"] == "(no task)"
    assert not [name for name in names if name in letter["rexstream-dlq-id"] or name in str(made.lines)]


def test_an_event_that_fails_in_every_task_has_few_letters() -> None:
    """One for each reason, each with the tasks that a replay runs again."""
    names = [f"t{number}" for number in range(MAX_TASKS)]
    reasons = [BadInput("extract", reason, "no") for reason in ("TooManyModelCalls", "Poison", "BatchFault")]
    source = event("any", MIB - 2000, tasks=names)
    made = make(source, {name: reasons[number % 3] for number, name in enumerate(names)})
    check(made, source, 3)
    assert [(line["task"].count(","), line["tasks"]) for line in map(json.loads, made.lines)] == [
        (LETTERS - 1, 22),
        (LETTERS - 1, 21),
        (LETTERS - 1, 21),
    ]
    assert sorted(task for letter in made.letters for task in letter["rexstream-dlq-task"].split(",")) == sorted(names)
    assert {letter["rexstream-dlq-class"] for letter in made.letters} == {reason.reason for reason in reasons}
    assert len({letter["rexstream-dlq-id"] for letter in made.letters}) == 3


def test_a_few_failed_tasks_have_a_letter_each() -> None:
    """As many as LETTERS; the results beside them stay where they are."""
    names = [f"t{number}" for number in range(LETTERS + 1)]
    fail = {name: BadInput("extract", "Poison", "no") for name in names[1:]}
    made = make(event("any", tasks=names), fail)
    assert [output.topic for output in made.outcome.outputs] == ["out.t0", *["dead"] * LETTERS]
    assert [letter["rexstream-dlq-task"] for letter in made.letters] == names[1:]
    assert "rexstream-dlq-task-count" not in made.letters[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_id", "i" * (MIB - 100)),
        ("tasks", [str(number) for number in range(100_000)]),
        ("schema", {str(number): None for number in range(60_000)}),
        ("schema", {"x" * 500 + str(number): None for number in range(400)}),
    ],
)
def test_a_field_that_fills_the_value_is_one_letter(name: str, value: Any) -> None:
    """Whatever results and log lines would repeat of it."""
    source = event(**{name: value})
    made = make(source)
    check(made, source, 1)
    assert made.results == []
    assert made.windows == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("product_id", "i" * (MIB - 100)),
        ("source", {"i" * 500_000: "i" * 500_000}),
        ("created_at", "9" * (MIB - 100)),
        ("kind", "i" * (MIB - 100)),
        ("attributes", {"k": "v" * (MIB - 100)}),
        ("attributes", {str(number): "" for number in range(80_000)}),
        ("attributes", {"k": [0] * 300_000}),
        ("attributes", {str(number): {"": []} for number in range(50_000)}),
    ],
)
def test_metadata_that_fills_the_value_is_in_no_result(name: str, value: Any) -> None:
    """Nor in a log line: each result has a short warning in its place."""
    source = event(**{name: value})
    made = make(source)
    check(made, source, 2)
    assert (len(made.results), made.letters, made.lines) == (2, [], [])
    for output in made.results:
        (warning,) = dropped_of(output)
        assert warning.startswith(f"field-dropped: {name} ")
        assert len(warning) < 160
        assert size(output) < 10_000


@pytest.mark.parametrize("own", [[("h", b"v" * (MIB - 100))], [(str(number), b"") for number in range(100_000)]])
def test_headers_that_fill_a_record_are_in_no_result(own: list[Header]) -> None:
    """Of which there may be many; in a dead letter they are, all of them."""
    source = record(b'{"text": "x", "tasks": ["sentiment", "product_features"]}', *own)
    made = make(source)
    check(made, source, 2)
    assert made.letters == []
    for output in made.results:
        ours = ["rexstream-result-id", "rexstream-task", "rexstream-task-fingerprint", "traceparent"]
        assert sorted(headers(output)) == ours
        (warning,) = dropped_of(output)
        assert warning == (
            f"field-dropped: headers ({len(own)} of {sum(len(name) + len(value or b'') for name, value in own)} bytes) "
            "are more than 256 or 65536 bytes"
        )
    letter = make(record(b"{", *own)).outcome.outputs[0]
    assert set(own) <= set(letter.headers)


def test_what_is_unpacked_counts_in_the_budget() -> None:
    """A thousand bytes that become a megabyte are admitted as that megabyte; what becomes more is not decoded."""
    value = json.dumps({"text": "好用", "pad": "x" * (MIB - 100)}).encode()
    packed = gzip.compress(value)
    assert len(packed) < 2000
    made = make(record(packed, topic="packed"))
    assert len(made.results) == 1
    assert made.accounted >= DECODED * len(value)
    assert make(event()).accounted < DECODED * len(value)
    (letter,) = make(record(gzip.compress(value + b" " * MIB), topic="packed")).letters
    assert letter["rexstream-dlq-class"] == "ValueTooLarge"


def test_a_forged_event_id_is_in_no_log_line() -> None:
    """Nor in a result."""
    source = record(b'{"text": "x"}', ("rexstream-event-id", b"i" * 10_000))
    made = make(source)
    check(made, source, 1)
    assert made.letters[0]["rexstream-dlq-class"] == "InvalidHeader"


def test_all_that_is_copied_at_its_bounds_in_each_result() -> None:
    """Characters that JSON writes with six bytes, the longest id, the largest key, all the headers."""
    fields: dict[str, object] = {
        "event_id": "\x01" * EVENT_ID_CHARS,
        "product_id": "\x01" * FIELD_CHARS,
        "source": "\x01" * FIELD_CHARS,
        "language": "\x01" * FIELD_CHARS,
        "attributes": {"": "\x01" * ATTRIBUTES_CHARS},
    }
    value = json.dumps({"text": "好用又便宜" * 100, **fields}).encode()
    source = record(value, *[("h" * 254, b"v")] * 256, key=b"k" * KEY_BYTES)
    made = make(source)
    check(made, source, 2)
    assert len(made.results) == 2


def test_a_small_event_with_a_schema_of_its_own() -> None:
    """Three kilobytes that made 993 model calls and 2.5 MB before."""
    schema = {f"类{number}": {f"项{item}": {"因": None} for item in range(4)} for number in range(40)}
    source = event(text="屏幕清晰，电池耐用，客服耐心，包装结实。" * 12, schema=schema)
    assert len(source.value or b"") < 6_000
    made = make(source)
    check(made, source, 1)
    assert made.windows <= LIMITS.inline_model_calls


def test_a_span_as_long_as_the_text_in_every_fact() -> None:
    """A word at each end of 9,900 spaces: two tokens, and facts that each hold all of them."""
    text = "前" * 20 + "\u3000" * 9_900 + "后" * 20
    source = event("any", text=text, tasks=["t0", "product_features", "ner", "relation"], schema={"甲": {"乙": None}})
    made = make(source)
    check(made, source, 5)
    assert sum(len(output.value or b"") for output in made.results) < 5 * RESULT
    warned = [json.loads(output.value or b"")["warnings"] for output in made.results]
    assert any("result-capped" in str(warnings) for warnings in warned)


SHORT = st.text(st.characters(codec="utf-8"), max_size=20)
HOSTILE = st.fixed_dictionaries(
    {"text": st.tuples(SHORT, st.integers(1, 300)).map(lambda pair: pair[0] * pair[1])},
    optional={
        "tasks": st.lists(st.sampled_from(sorted(TASKS)) | SHORT, max_size=MAX_TASKS + 2),
        "schema": st.recursive(
            st.none(), lambda below: st.dictionaries(SHORT, below, min_size=1, max_size=20), max_leaves=60
        ),
        "kind": st.sampled_from(["extract", "classify", "multi_classify"]),
        "event_id": st.integers(0, EVENT_ID_CHARS + 1).map(lambda count: "\x01" * count),
        "attributes": st.dictionaries(SHORT, st.integers(0, 20_000).map(lambda count: '"' * count), max_size=3),
    },
)
OWN_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["rexstream-event-id", "rexstream-only-tasks", "rexstream-dlq-replay-count", "traceparent", "h"]
        ),
        st.none() | st.binary(max_size=20) | st.integers(0, 40_000).map(lambda count: b"x" * count),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=80)
@given(fields=HOSTILE, own=OWN_HEADERS, topic=st.sampled_from(["in", "any"]), key=st.none() | st.binary(max_size=9))
def test_no_record_is_more_than_its_tasks_and_two_letters(
    fields: dict[str, Any], own: list[Header], topic: str, key: bytes | None
) -> None:
    """Results within their bound, letters no larger than the record and an envelope, a line a letter at most."""
    source = record(json.dumps(fields).encode(), *own, topic=topic, key=key)
    made = make(source)
    tasks = 2 if topic == "in" else MAX_TASKS
    check(made, source, tasks + 1 + 2)
    assert made.windows <= tasks * LIMITS.model_calls + LIMITS.inline_model_calls
    allowed = {"sentiment", "product_features"} if topic == "in" else set(TASKS)
    assert {headers(output)["rexstream-task"] for output in made.results} <= {*allowed, INLINE}
