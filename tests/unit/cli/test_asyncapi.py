"""``rexstream asyncapi``: the document is valid, true and current."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft7Validator

from consumer.cli import cli
from consumer.cli.asyncapi_document import asyncapi_document
from consumer.config.loading import load
from consumer.config.route import RouteConfig
from consumer.config.task_files import load_tasks
from consumer.config.tree import Config

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "tests/data/asyncapi-3.0.0.schema.json.gz"
OFFICIAL = Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))

EVERYTHING = [
    "kafka.bootstrap_servers=a:1,b:2",
    "kafka.group_id=shop/ü~x",
    "routes.0={input: json.in, output: 'out.{task}', event_tasks: any}",
    "routes.1={input: avro.in, format: avro, output_format: avro, output: out.avro, tasks: [ner, sentiment]}",
    "routes.2={input: text.in, format: text, output_format: avro, output: out.avro, tasks: [relation]}",
    "routes.3={input: cdc, tasks: [ner], output: cdc.out, preset: debezium, fields: {text: content}}",
    "routes.3.on_delete=forward",
    "routes.2.encoding=gb18030",
    "routes.2.compression=gzip",
]


def document(*settings: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    found = load(None, environ or {}, settings)
    return asyncapi_document(found.config, found.tasks)


def resolved(whole: dict[str, Any], reference: dict[str, str]) -> Any:
    node: Any = whole
    for part in reference["$ref"].removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("REXSTREAM_"):
            monkeypatch.delenv(name)


def test_the_committed_document_is_current() -> None:
    """``make docs`` writes it."""
    result = CliRunner().invoke(cli, ["asyncapi"])
    assert result.exit_code == 0, result.output
    assert (ROOT / "docs/asyncapi.yaml").read_text("utf-8") == result.stdout


@pytest.mark.parametrize("settings", [[], EVERYTHING], ids=["defaults", "everything"])
def test_the_official_schema_takes_it(settings: list[str]) -> None:
    whole = document(*settings)
    assert [error.message for error in OFFICIAL.iter_errors(whole)] == []
    assert list(OFFICIAL.iter_errors({**whole, "operations": {"a": {"action": "read"}}}))


def test_every_reference_leads_somewhere() -> None:
    whole = document(*EVERYTHING)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                assert isinstance(resolved(whole, node), dict)
            for item in node.values():
                walk(item)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(whole)


@pytest.mark.parametrize("settings", [[], EVERYTHING], ids=["defaults", "everything"])
def test_every_example_is_one(settings: list[str]) -> None:
    """Of the payload, and of the headers where there are some. Avro's are looked at as JSON."""
    examples = 0
    for message in document(*settings)["components"]["messages"].values():
        for example in message.get("examples", ()):  # a producer's own form has none
            if "schemaFormat" not in message["payload"]:
                Draft7Validator(message["payload"]).validate(example["payload"])
            if "headers" in message:
                Draft7Validator(message["headers"]).validate(example["headers"])
            examples += 1
    assert examples >= 3


def test_it_has_every_topic_in_its_direction() -> None:
    """Inputs are received by the group; results and dead letters are sent, with the tasks that each topic has."""
    whole = document(*EVERYTHING)
    channels = whole["channels"]
    received, sent = (
        {resolved(whole, one["channel"])["address"] for one in whole["operations"].values() if one["action"] == action}
        for action in ("receive", "send")
    )
    assert received == {"json.in", "avro.in", "text.in", "cdc"}
    assert {"out.ner", "out.sentiment", "out", "out.avro", "reviews.dead"} <= sent
    assert set(channels) == received | sent
    (message,) = (resolved(whole, each) for each in channels["out.ner"]["messages"].values())
    assert message["payload"]["properties"]["task"]["enum"] == ["ner"]
    assert len(channels["out.avro"]["messages"]) == 2
    binding = whole["operations"]["receive-0"]["bindings"]["kafka"]
    assert binding["groupId"] == {"type": "string", "enum": ["shop/ü~x"]}
    assert set(channels["cdc.out"]["messages"]) == {"result-3-cdc.out", "tombstone"}
    mapped = whole["components"]["messages"]["review-3"]["payload"]
    assert "preset debezium" in mapped["description"]
    assert "text: content" in mapped["description"]
    review = whole["components"]["messages"]["review-2"]
    assert (review["contentType"], "gzip" in review["description"]) == ("text/plain; charset=gb18030", True)
    assert [server["host"] for server in whole["servers"].values()] == ["a:1", "b:2"]


def test_inputs_by_pattern_have_no_single_address() -> None:
    """The document says what the topics' names match."""
    patterns = RouteConfig(input="^shop\\..*\\.reviews$", tasks=("ner",))
    config = Config(routes=(patterns, RouteConfig(input="inputs-0", tasks=("ner",))))  # a topic that may be called so
    whole = asyncapi_document(config, load_tasks())
    channel = whole["channels"]["inputs:0"]
    assert whole["channels"]["inputs-0"]["address"] == "inputs-0"
    assert (channel["address"], "match ^shop" in channel["description"]) == (None, True)
    assert [error.message for error in OFFICIAL.iter_errors(whole)] == []


def test_nothing_secret_is_in_it(tmp_path: Path) -> None:
    """Neither of the brokers' login nor of the registry's address."""
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    whole = document(
        "kafka.security.protocol=sasl_ssl",
        "kafka.security.mechanism=SCRAM-SHA-512",
        "kafka.security.username=alice",
        f"kafka.security.password_file={secret}",
        environ={"REXSTREAM_KAFKA__REGISTRY__URL": "https://bob:hunter2@registry:8081"},
    )
    (server,) = whole["servers"].values()
    assert server["protocol"] == "kafka-secure"
    assert server["bindings"]["kafka"]["schemaRegistryUrl"] == "https://registry:8081"
    assert whole["components"]["securitySchemes"]["login"]["type"] == "scramSha512"
    assert [error.message for error in OFFICIAL.iter_errors(whole)] == []
    for word in ("hunter2", "alice", "bob", str(secret)):
        assert word not in json.dumps(whole)


def test_yaml_json_and_files_are_the_same_document(tmp_path: Path) -> None:
    """And a folder that is none is bad usage."""
    as_yaml, as_json = (CliRunner().invoke(cli, ["asyncapi", *options]) for options in ((), ("--json",)))
    assert yaml.safe_load(as_yaml.stdout) == json.loads(as_json.stdout)
    assert "&id" not in as_yaml.stdout
    path = tmp_path / "asyncapi.yaml"
    assert CliRunner().invoke(cli, ["asyncapi", "--output", str(path)]).stdout == ""
    assert path.read_text("utf-8") == as_yaml.stdout
    refused = CliRunner().invoke(cli, ["asyncapi", "--output", str(tmp_path / "no/asyncapi.yaml")])
    assert (refused.exit_code, "No such file" in refused.stderr) == (2, True)
