"""``rexstream extract --route``: a route of the configuration tried on a sample, without Kafka."""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from avro_values import EVENT_SCHEMA, avro
from click.testing import CliRunner, Result

from consumer.cli.extract import command

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("logging_as_before")

EVENT = {"text": "屏幕很亮", "event_id": "e1", "product_id": "p1"}


def extract(tmp_path: Path, *options: str, lines: list[Any] | bytes, model: bool = False, **route: Any) -> Result:
    config = {"routes": [{"input": "shop.reviews", "tasks": ["sentiment", "category"], **route}]}
    (tmp_path / "worker.yaml").write_text(yaml.safe_dump(config), "utf-8")
    given = lines if isinstance(lines, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    name = ("--config", str(tmp_path / "worker.yaml"), "--route", "shop.reviews")
    return CliRunner().invoke(command, [*name, *options, *([] if model else ["--no-model"])], input=given)


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code in (0, 1), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_line_is_a_value_and_what_a_worker_would_publish_is_printed(tmp_path: Path) -> None:
    """One line for each result or dead letter, with its line; without a model, the event and its tasks."""
    result = extract(tmp_path, lines=[EVENT, {"text": " "}, {"text": "好", "tasks": ["category", "product_features"]}])
    assert result.exit_code == 1
    first, second, empty, refused, last = objects(result)
    assert (first["event_id"], first["text"], first["product_id"], first["task"]) == (
        "e1",
        "屏幕很亮",
        "p1",
        "sentiment",
    )
    assert (second["task"], last["task"], last["event_id"]) == ("category", "category", "shop.reviews-0-3")
    said = [(each["error"]["line"], each["error"]["stage"], each["error"]["class"]) for each in (empty, refused)]
    assert said == [(2, "validate", "EmptyText"), (3, "validate", "TaskNotAllowed")]
    assert "white space" in empty["error"]["message"]


def test_a_text_that_is_too_long_is_said_without_a_model(tmp_path: Path) -> None:
    """As the worker's dead letter says it, with the key to raise."""
    taken, refused = objects(
        extract(tmp_path, lines=[{"text": n * "好"} for n in (10_000, 20_000)], tasks=["sentiment"])
    )
    assert len(taken["text"]) == 10_000
    assert (refused["error"]["line"], refused["error"]["class"]) == (2, "TextTooLong")
    assert "20000 characters; 10000 are allowed (limits.text_chars)" in refused["error"]["message"]


def test_records_bring_key_headers_and_place(tmp_path: Path) -> None:
    """As ``rexstream tail --json`` and ``kcat -J`` print them; a tombstone is one too."""
    value = json.dumps({"text": "好"})
    lines = [
        {"topic": "t", "partition": 3, "offset": 7, "timestamp": 1_700_000_000_000, "value": value},
        {"topic": "t", "partition": 1, "offset": 8, "ts": 5, "key": "k", "headers": ["a", "1"], "payload": value},
        {"partition": 1, "offset": 8, "key": None, "payload": {"text": "好"}},
        {"value_base64": base64.b64encode(value.encode()).decode(), "headers": {"rexstream-event-id": "old"}},
        {"value": value, "headers": [["rexstream-only-tasks", "category"], ["b", {"base64": "/w=="}], ["n", None]]},
        {"value": None, "key": "k"},
        {"value": value, "headers": [["rexstream-replay-group", "another"]]},
        {"text": "好"},
        {"value_base64": "!"},
    ]
    result = extract(tmp_path, "--records", lines=lines, tasks=["category"])
    out = objects(result)
    assert [each.get("event_id") for each in out[:5]] == [
        "shop.reviews-3-7",
        "shop.reviews-1-8",
        "shop.reviews-1-8",
        "old",
        "shop.reviews-0-5",
    ]
    assert out[0]["record"] == {"topic": "shop.reviews", "partition": 3, "offset": 7, "timestamp": 1_700_000_000_000}
    assert out[5:7] == [
        {"dropped": {"line": 6, "reason": "null_value"}},
        {"dropped": {"line": 7, "reason": "other_group"}},
    ]
    assert [each["error"]["class"] for each in out[7:]] == ["InvalidRecord", "InvalidRecord"]
    assert "tail --json" in out[7]["error"]["message"]


@pytest.mark.parametrize(
    ("value", "options", "route"),
    [
        (avro(EVENT_SCHEMA, event_id="e1", text="屏幕很亮", product_id="a\n\nb"), (), {"format": "avro"}),
        (json.dumps(EVENT, indent=2).encode(), (), {}),
        (json.dumps(EVENT).encode(), ("--whole",), {}),
        (json.dumps(EVENT, ensure_ascii=False).encode("gb18030"), (), {"encoding": "gb18030"}),
        (json.dumps(EVENT, ensure_ascii=False).encode("utf-16"), (), {"encoding": "utf-16"}),
        (gzip.compress(json.dumps(EVENT).encode(), mtime=0), (), {"compression": "gzip"}),
    ],
)
def test_a_file_may_be_one_value(tmp_path: Path, value: bytes, options: tuple[str, ...], route: dict[str, Any]) -> None:
    """Avro has no lines, and a sample out of a document is often indented."""
    result = extract(tmp_path, *options, lines=value, tasks=["sentiment"], **route)
    (event,) = objects(result)
    assert (event["event_id"], event["text"]) == ("e1", "屏幕很亮")


def test_a_mapping_is_tried_as_a_worker_maps(tmp_path: Path) -> None:
    """Rows, deletes and tombstones of a table, with the key and the headers that its fields name."""
    fields = {"text": "content", "event_id": ["id", "$key"], "attributes": {"lang": "$headers.lang"}}
    inserted = {"before": None, "after": {"content": "好用", "id": None}, "op": "c"}
    lines = [
        {"key": "k1", "headers": {"lang": "zh"}, "value": inserted},
        {"key": "k1", "value": {"before": {"id": 7}, "after": None, "op": "d"}},
        {"key": "k1", "value": None},
        {"value": {"before": None, "after": {"id": 7}, "op": "u"}},
        {"value": {"before": None, "after": None, "op": "m"}},
    ]
    mapping: dict[str, Any] = {"preset": "debezium", "fields": fields, "on_delete": "forward", "tasks": ["sentiment"]}
    event, deleted, null, textless, message = objects(extract(tmp_path, "--records", lines=lines, **mapping))
    assert (event["event_id"], event["text"], event["attributes"]) == ("k1", "好用", {"lang": "zh"})
    tombstone = {"topic": "reviews.extracted", "key": "k1"}
    assert [deleted, null] == [{"tombstone": {"line": number, **tombstone}} for number in (2, 3)]
    assert (textless["error"]["class"], "path content" in textless["error"]["message"]) == ("MissingText", True)
    assert message == {"dropped": {"line": 5, "reason": "no_review"}}


def test_every_row_of_a_value_is_printed(tmp_path: Path) -> None:
    """Each is an event of its own, with its number behind the id."""
    lines = [{"type": "INSERT", "data": [{"content": "好"}, {"content": None}, {"content": "差"}]}]
    fields = {"text": "content"}
    found = objects(extract(tmp_path, lines=lines, preset="canal", fields=fields, tasks=["sentiment"]))
    assert [each.get("event_id") for each in found] == ["shop.reviews-0-1#1", "shop.reviews-0-1#3", None]
    assert found[2]["error"]["message"].startswith("row 2 of 3")


def test_a_topic_is_read_by_the_route_whose_pattern_it_matches(tmp_path: Path) -> None:
    """The topic is named, not the pattern: ids and results have it."""
    (event,) = objects(extract(tmp_path, lines=[{"text": "好"}], input=r"^shop\..*$", tasks=["sentiment"]))
    assert event["event_id"] == "shop.reviews-0-1"
    result = extract(tmp_path, "--route", "others", lines=[], input=r"^shop\..*$", tasks=["sentiment"])
    assert (result.exit_code, r"no route reads topic others; the routes read ^shop\..*$" in result.stderr) == (2, True)


def test_text_routes_take_lines_of_text(tmp_path: Path) -> None:
    """Whatever they look like."""
    result = extract(tmp_path, lines='屏幕很亮\n{"text": 5}\n'.encode() + b"\xff", tasks=["sentiment"], format="text")
    good, braces, bad = objects(result)
    assert (good["text"], braces["text"], bad["error"]["class"]) == ("屏幕很亮", '{"text": 5}', "InvalidUtf8")


def test_with_a_model_results_are_printed(tmp_path: Path, stub_server: Any) -> None:
    """Avro results as JSON; the limits are those of the configuration."""
    options = (
        "--server",
        stub_server.address,
        "--set",
        "limits.text_chars=10",
        "--set",
        "kafka.registry.url=http://x:1",
    )
    lines = [EVENT, {"text": "好" * 11}]
    result = extract(tmp_path, *options, lines=lines, model=True, output_format="avro", tasks=["product_features"])
    found, too_long = objects(result)
    assert (found["event_id"], found["extractions"], found["model"]["version"]) == ("e1", [], "5")
    assert (too_long["error"]["class"], too_long["error"]["task"]) == ("TextTooLong", "product_features")


def test_a_registry_that_is_away_is_3(tmp_path: Path) -> None:
    """The address and the reason, instead of waiting as a worker does."""
    options = ("--set", "kafka.registry.url=http://127.0.0.1:1", "--whole")
    result = extract(tmp_path, *options, lines=b"\x00\x00\x00\x00\x07abc", format="avro")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "the schema registry http://127.0.0.1:1" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--route", "reviews"), "no route reads topic reviews; the routes read shop.reviews"),
        (("--route", "shop.reviews", "--task", "sentiment"), "the configuration says what values hold"),
        (("--route", "shop.reviews", "--column", "content"), "the configuration says what values hold"),
        (("--route", "shop.reviews", "--encoding", "gb18030"), "the configuration says what values hold"),
        (("--route", "shop.reviews", "--format", "csv"), "the configuration says what values hold"),
        ((), "belong to --route"),
        (("--no-model",), "belong to --route"),
        (("--records",), "belong to --route"),
        (("--set", "limits.text_chars=5"), "belong to --route"),
    ],
)
def test_bad_usage_is_2(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """Options of one of both ways to read are not silently without effect in the other."""
    path = tmp_path / "worker.yaml"
    path.write_text("routes: [{input: shop.reviews, tasks: [sentiment]}]", "utf-8")
    result = CliRunner().invoke(command, ["--config", str(path), *options])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.replace("│", "").split())
