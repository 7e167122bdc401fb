"""``rexstream send`` against the embedded broker."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from topic_audit import held_offsets

from consumer.cli import cli
from consumer.kafka.tools.reader import headers_of, read_to_end
from consumer.local.broker import EmbeddedBroker
from consumer.local.partition_budget import PARTITION_BYTES, partition_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result
    from confluent_kafka import Message

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap_servers


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name[:60]}-{time.monotonic_ns()}".replace("[", "-").replace("]", "")


def send(address: str, topic: str, *arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["send", "-b", address, "--topic", topic, *arguments], input=stdin)


def stored(address: str, topic: str) -> list[Message]:
    return list(read_to_end(address, topic))


def reviews(path: Path, count: int, text: str = "客服回复很慢", **more: str) -> Path:
    lines = (json.dumps({"text": text, **more, "n": number}, ensure_ascii=False) for number in range(count))
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_the_shipped_reviews_are_sent_when_nothing_is_named(address: str, topic: str) -> None:
    """Every shipped review is acknowledged, keyed by its product, on its key's partition."""
    result = send(address, topic)
    assert result.exit_code == 0, result.output
    messages = stored(address, topic)
    assert f"{topic}: {len(messages)} records acknowledged" in result.stdout
    assert len(messages) >= 100
    for message in messages:
        key = json.loads(message.value() or b"")["product_id"].encode()
        assert message.key() == key
        assert message.partition() == partition_of(key, 4)


def test_the_summary_can_be_read_by_a_machine(address: str, topic: str, tmp_path: Path) -> None:
    """--json prints one object with the counts."""
    path = reviews(tmp_path / "r", 9)
    result = send(address, topic, "--input", str(path), "--repeat", "2", "--limit", "12", "--json")
    summary = json.loads(result.stdout)
    assert (summary["topic"], summary["acknowledged"], summary["failed"], summary["bad_lines"]) == (topic, 12, 0, 0)
    assert sum(summary["partitions"].values()) == 12


def test_bad_lines_fail_the_command_and_the_rest_is_sent(address: str, topic: str) -> None:
    """Exit code 1; each bad line is named on standard error without its text."""
    result = send(address, topic, "--input", "-", stdin='{"text":"好"}\n{"text":"泄露\n{"text":"差"}\n'.encode())
    assert result.exit_code == 1
    assert "line 2: not JSON" in result.stderr
    assert "泄露" not in result.output
    assert len(stored(address, topic)) == 2


def test_text_lines_and_headers_arrive_as_given(address: str, topic: str) -> None:
    """Any bytes, no key, and a header that is given twice stays two headers."""
    options = ("--input", "-", "--format", "text", "--header", "source=a=b", "--header", "source=c")
    assert send(address, topic, *options, stdin=b"\xff\xfe broken\n").exit_code == 0
    (message,) = stored(address, topic)
    assert (message.key(), message.value()) == (None, b"\xff\xfe broken")
    assert headers_of(message) == (("source", b"a=b"), ("source", b"c"))


def test_a_table_is_sent_as_events_and_text_as_what_is_said(address: str, topic: str, tmp_path: Path) -> None:
    """Where a file's name alone makes it text, what its lines become must be said: a topic takes one of both."""
    path = tmp_path / "reviews.txt"
    path.write_text("很好\n", "utf-8")
    result = send(address, topic, "--input", str(path))
    assert (result.exit_code, "--text-as event for a topic of JSON events" in " ".join(result.stderr.split())) == (
        2,
        True,
    )
    assert send(address, topic, "--input", str(path), "--text-as", "event").exit_code == 0
    options = ("--format", "csv", "--column", "评论", "--id-field", "编号", "--key-field", "店铺")
    table = gzip.compress('编号,店铺,评论\n7,一店,"很好,\n很好"\n'.encode("gb18030"))
    assert send(address, topic, "--input", "-", *options, "--encoding", "gb18030", stdin=table).exit_code == 0
    values = {message.key(): json.loads(message.value() or b"") for message in stored(address, topic)}
    assert values == {
        None: {"text": "很好"},
        "一店".encode(): {"text": "很好,\n很好", "event_id": "7", "attributes": {"店铺": "一店"}},
    }


def test_more_than_the_embedded_broker_keeps_is_refused_before_anything_is_sent(
    address: str, topic: str, tmp_path: Path
) -> None:
    """A file over 2 MB a partition: exit code 2, the way out, and an empty topic."""
    path = reviews(tmp_path / "r", 1100, "慢" * 670, product_id="one-key")
    assert path.stat().st_size > PARTITION_BYTES
    result = send(address, topic, "--input", str(path))
    assert result.exit_code == 2
    for said in ("2 MB", "--limit", "Apache Kafka"):
        assert said in result.stderr
    assert stored(address, topic) == []
    assert send(address, topic, "--input", str(path), "--limit", "900").exit_code == 0


def test_what_the_broker_holds_already_is_counted(address: str, topic: str, tmp_path: Path) -> None:
    """Two files that fit alone do not fit together, and the first one is still whole."""
    path = reviews(tmp_path / "r", 700, "慢" * 670, product_id="one-key")
    assert send(address, topic, "--input", str(path)).exit_code == 0
    assert send(address, topic, "--input", str(path)).exit_code == 2
    assert len(stored(address, topic)) == 700
    assert all(first == 0 for first, _ in held_offsets(address, topic).values())


def test_a_stream_is_cut_off_where_the_room_ends(address: str, topic: str) -> None:
    """Standard input cannot be read ahead: what fits is sent and acknowledged, then exit code 2; nothing is lost."""
    line = json.dumps({"text": "慢" * 670, "product_id": "p"}, ensure_ascii=False).encode() + b"\n"
    result = send(address, topic, "--input", "-", "--json", stdin=line * 1200)
    assert result.exit_code == 2
    acknowledged = json.loads(result.stdout)["acknowledged"]
    assert 900 < acknowledged < 1200
    assert len(stored(address, topic)) == acknowledged


def test_records_without_keys_use_all_the_room_there_is(address: str, topic: str, tmp_path: Path) -> None:
    """Without keys a file of nearly the size of four partitions fits into four partitions."""
    path = reviews(tmp_path / "r", 3600, "慢" * 670)
    assert path.stat().st_size > 3.4 * PARTITION_BYTES
    result = send(address, topic, "--input", str(path), "--json")
    assert result.exit_code == 0, result.output
    assert len(stored(address, topic)) == 3600


def test_no_broker_is_exit_code_3() -> None:
    """The message names the address and how to start a broker."""
    result = CliRunner().invoke(cli, ["send", "-b", "127.0.0.1:1", "--timeout", "0.5"])
    assert result.exit_code == 3
    assert "127.0.0.1:1" in result.stderr
    assert "rexstream broker" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--input", "no-such-file.jsonl"), "no-such-file.jsonl"),
        (("--rate", "0"), "0"),
        (("--rate", "fast"), "fast"),
        (("--header", "novalue"), "novalue"),
        (("--input", "-", "--repeat", "2"), "--repeat"),
        (("--set", "kafka.client.no_such_setting=1"), "no_such_setting"),
    ],
)
def test_bad_usage_is_exit_code_2(address: str, topic: str, arguments: tuple[str, ...], said: str) -> None:
    """The message names what was wrong."""
    result = send(address, topic, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_damaged_gzip_file_is_refused_before_anything_is_sent(address: str, topic: str, tmp_path: Path) -> None:
    """A file that breaks off is found out in the first reading."""
    path = tmp_path / "r.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00garbage")
    assert send(address, topic, "--input", str(path)).exit_code == 2
    assert stored(address, topic) == []
