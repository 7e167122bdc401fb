"""``rexstream dead-letters`` on the embedded broker: what needs no transaction."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from consumer.cli import cli
from consumer.delivery.dead_letter_size import without_value
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.events import SourceRecord
from consumer.local.broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

pytestmark = pytest.mark.broker

NOW = 1_760_000_000_000
TEXT = "拉链一拉就坏"
LETTERS = DeadLetters("dead", "group", "0.1.0", "spring")


def record(offset: int, *, value: bytes = TEXT.encode()) -> SourceRecord:
    return SourceRecord("reviews.raw", 1, offset, 1, b"key-\xff", value, (("own", b"1"),), NOW - 5, 0.0)


FAILURES = {
    10: Failure("extract", "Poison", "no answer", NOW, task="sentiment", attempts=5, model="rex", model_version="3"),
    11: Failure("decode", "InvalidJson", "no JSON at byte 0", NOW),
    12: Failure("extract", "Poison", "no \x1b[31m answer", NOW + 60_000, task="ner"),
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        outputs = [
            LETTERS.of(record(offset), failure, failure.first_failed_at_ms) for offset, failure in FAILURES.items()
        ]
        bare = without_value(LETTERS.of(record(13), FAILURES[11], NOW + 120_000))
        assert bare is not None
        for output in [*outputs, outputs[0], bare]:
            producer.produce("dead", output.value, output.key, partition=0, headers=list(output.headers))
        producer.produce("dead", b"something else", partition=0)
        # Replayed: its marker is all that is looked at.
        producer.produce("dead.replayed", b"", b"reviews.raw-1-12-ner", timestamp=NOW)
        secret = LETTERS.of(record(14), Failure("validate", "UnknownTask", "x", NOW, task=TEXT), NOW)
        producer.produce("strange", secret.value, headers=list(secret.headers))
        assert producer.flush(30) == 0
        yield broker.bootstrap_servers


def run(address: str, command: str, *arguments: str) -> Result:
    options = ["-b", address, "--timeout", "30", "--dead-letter-topic", "dead"]
    return CliRunner(env={"COLUMNS": None}).invoke(cli, ["dead-letters", command, *options, *arguments])


def listed(address: str, *arguments: str) -> list[dict[str, Any]]:
    found = run(address, "list", "--json", *arguments)
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_a_list_shows_each_letter_once_and_counts_them_by_class(address: str) -> None:
    """Without those that were replayed, and without a word of the reviews."""
    found = run(address, "list")
    assert found.exit_code == 0, found.output
    head, *rows, counts = found.stdout.splitlines()
    assert head.startswith("failed at")
    assert len(rows) == 3
    assert "2025-10-09 08:53:20  extract/Poison" in rows[0]
    assert rows[0].endswith("reviews.raw-1-10-sentiment: no answer")
    assert "3 dead letters: 2 decode/InvalidJson, 1 extract/Poison" in counts
    assert "1 replayed already, 1 further copies, 1 records that are no dead letters" in counts
    assert TEXT not in found.stdout
    assert "1 of those replayed already failed after that" in found.stderr
    assert "dead.replayed" in found.stderr


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_what_an_event_asked_for_is_not_listed(address: str, arguments: tuple[str, ...]) -> None:
    """It may be its text. By what is shown in place of its id the letter can be shown in full."""
    options = ["-b", address, "--timeout", "30", "--dead-letter-topic", "strange"]
    found = CliRunner().invoke(cli, ["dead-letters", "list", *options, *arguments])
    assert "reviews.raw-1-14-(6 characters)" in found.stdout
    assert TEXT not in found.output
    shown = CliRunner().invoke(cli, ["dead-letters", "show", *options, "reviews.raw-1-14-(6 characters)"])
    assert f"rexstream-dlq-task: {TEXT}" in shown.stdout


def test_a_list_for_a_machine_has_a_line_a_letter(address: str) -> None:
    """What is said of the failure, and where both records lie."""
    first = listed(address)[0]
    assert first == {
        "id": "reviews.raw-1-10-sentiment",
        "topic": "reviews.raw",
        "partition": 1,
        "offset": 10,
        "stage": "extract",
        "class": "Poison",
        "task": "sentiment",
        "message": "no answer",
        "exception": None,
        "attempts": 5,
        "first_failed_at": "2025-10-09T08:53:20.000+00:00",
        "failed_at": "2025-10-09T08:53:20.000+00:00",
        "model": "rex",
        "model_version": "3",
        "service_version": "0.1.0",
        "replay_count": 0,
        "value_bytes": len(TEXT.encode()),
        "dead_letter": {"topic": "dead", "partition": 0, "offset": 0},
    }


@pytest.mark.parametrize(
    ("filters", "offsets"),
    [
        (["--class", "Poison"], [10]),
        (["--stage", "decode", "--limit", "1"], [11]),
        (["--task", "sentiment", "--class", "InvalidJson"], []),
        (["--topic", "elsewhere"], []),
        (["--id", "reviews.raw-1-11", "--id", "reviews.raw-1-10-sentiment"], [10, 11]),
        (["--since", "2025-10-09T08:53:21"], [13]),
        (["--until", "2025-10-09T10:53:21+02:00"], [10, 11]),
        (["--since", "2h"], []),
    ],
)
def test_filters_narrow_the_list(address: str, filters: list[str], offsets: list[int]) -> None:
    """All that are given must name the letter; times are UTC unless they say otherwise."""
    assert [letter["offset"] for letter in listed(address, *filters)] == offsets


def test_a_summary_counts_what_the_list_has(address: str) -> None:
    """By cause and hour, with what was left out, and without a word of the reviews or of their messages."""
    found = run(address, "list", "--summary")
    assert found.exit_code == 0, found.output
    lines = [" ".join(line.split()) for line in found.stdout.splitlines()]
    left_out = "1 replayed already, 1 further copies, 1 records that are no dead letters"
    assert lines[0] == f"3 dead letters in dead (besides {left_out})"
    assert "2 decode/InvalidJson - reviews.raw 2025-10-09 08:00 2025-10-09 08:00" in lines
    assert "1 extract/Poison sentiment reviews.raw 2025-10-09 08:00 2025-10-09 08:00" in lines
    assert any(line.startswith("3 2025-10-09 08:00 ━") for line in lines)
    assert TEXT not in found.output
    assert "no answer" not in found.output
    assert "1 of those replayed already failed after that" in found.stderr


@pytest.mark.parametrize(
    ("filters", "counts"),
    [
        (["--class", "Poison"], {"Poison": 1}),
        (["--since", "2025-10-09T08:53:21"], {"InvalidJson": 1}),
        (["--topic", "elsewhere"], {}),
    ],
)
def test_filters_narrow_the_summary(address: str, filters: list[str], counts: dict[str, int]) -> None:
    """The same as those of the list; for a machine it is one object."""
    found = run(address, "list", "--summary", "--json", *filters)
    (line,) = found.stdout.splitlines()
    summary = json.loads(line)
    assert {row["class"]: row["dead_letters"] for row in summary["rows"]} == counts
    assert summary["dead_letters"] == sum(counts.values())


def test_a_summary_takes_no_limit(address: str) -> None:
    """It would say of a part that it is all."""
    found = run(address, "list", "--summary", "--limit", "5")
    assert found.exit_code == 2
    assert "--limit" in found.stderr


def test_one_letter_is_shown_with_its_headers_and_its_value_only_when_asked(address: str) -> None:
    """Spring's numbers as numbers, keys that are no text as base64."""
    found = run(address, "show", "reviews.raw-1-10-sentiment")
    assert found.exit_code == 0, found.output
    assert "header    own: 1" in found.stdout
    assert "header    kafka_dlt-original-offset: 10" in found.stdout
    assert "(base64) a2V5Lf8=" in found.stdout
    assert "18 bytes" in found.stdout
    assert TEXT not in found.stdout
    assert TEXT in run(address, "show", "reviews.raw-1-10-sentiment", "--value").stdout
    described = json.loads(run(address, "show", "reviews.raw-1-10-sentiment", "--json", "--value").stdout)
    assert described["value"] == TEXT
    assert described["replayed"] is False
    assert ["kafka_dlt-original-partition", 1] in described["headers"]


def test_a_replayed_letter_can_still_be_shown(address: str) -> None:
    """What its message does to a terminal is not done."""
    found = run(address, "show", "reviews.raw-1-12-ner")
    assert "replayed  yes" in found.stdout
    assert "\x1b[31m" not in found.stdout


def test_a_letter_that_is_not_there_is_an_error(address: str) -> None:
    """Exit code 1, and the id in the message."""
    found = run(address, "show", "nowhere-0-0")
    assert found.exit_code == 1
    assert "nowhere-0-0" in found.stderr


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_the_embedded_broker_replays_nothing(address: str, arguments: tuple[str, ...]) -> None:
    """Its transactions commit nothing, so a replay there would promise what it cannot keep."""
    found = run(address, "replay", "--yes", *arguments)
    assert found.exit_code == 2
    assert "embedded broker" in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "soon"),
        ("--since", "9" * 300 + "d"),
        ("--since", "9" * 5000 + "s"),
        ("--until", "2h3"),
        ("--stage", "decoding"),
        ("--rate", "0"),
        ("--max-replays", "0"),
    ],
)
def test_options_that_make_no_sense_are_bad_usage(arguments: tuple[str, ...]) -> None:
    """Found before anything is connected to."""
    assert run("127.0.0.1:1", "replay", *arguments).exit_code == 2


@pytest.mark.parametrize("command", [("list",), ("show", "x"), ("replay",)])
def test_a_cluster_that_is_not_there_ends_with_exit_code_3(command: tuple[str, ...]) -> None:
    """After the time that was given for an answer."""
    started = time.monotonic()
    found = CliRunner().invoke(cli, ["dead-letters", *command, "-b", "127.0.0.1:1", "--timeout", "0.5"])
    assert found.exit_code == 3
    assert "127.0.0.1:1" in found.stderr
    assert time.monotonic() - started < 60
