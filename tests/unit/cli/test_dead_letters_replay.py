"""``rexstream dead-letters replay`` without a cluster: its order of steps, its pace, and what it says at the end."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from consumer.cli import cli
from consumer.cli.dead_letter_topic import DeadLetterTopic
from consumer.delivery.dead_letters import DeadLetters, Failure
from consumer.delivery.letters import Markers
from consumer.events import SourceRecord
from consumer.kafka.clients import cluster
from consumer.kafka.clients.cluster import ClusterUnreachable, TopicUnusable
from consumer.kafka.tools import replay_markers
from consumer.kafka.tools import replayer as replay_targets
from consumer.kafka.tools import replayer as replaying
from consumer.kafka.tools.transactions import TakenOver

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from click.testing import Result

    from consumer.delivery.letters import Letter, LetterFilter
    from consumer.kafka.tools.replayer import Replay

NOW = 1_760_000_000_000


@dataclass
class Cluster:
    """Letters and markers of one topic, and a replayer that may do as it likes."""

    letters: int = 5
    topics: Sequence[str] = ("in",)
    """What the letters came from, in turn."""
    value: bytes = b"v"
    group: str = "g"
    only: Collection[str] | None = None
    markers: set[str] = field(default_factory=set)
    written: list[list[str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    on_begin: Callable[[], None] = lambda: None
    on_write: Callable[[Sequence[Replay]], list[tuple[Replay, str]]] = lambda _: []

    def begin(self) -> None:
        self.log.append("begin")
        self.on_begin()

    def allows(self, topic: str) -> bool:
        return self.only is None or topic in self.only

    def exists(self, topic: str) -> bool:
        if topic == "secret":
            raise TopicUnusable("topic 'secret' cannot be used: not authorized")
        return topic == "in"

    def write(self, replays: Sequence[Replay]) -> list[tuple[Replay, str]]:
        refused = self.on_write(replays)
        self.written.append([replay.id for replay in replays])
        self.markers |= {replay.marker_key for replay in replays}
        return refused

    def read(self, sieve: LetterFilter) -> Iterator[Letter]:
        made = DeadLetters("dead", self.group, "1")
        for number in range(self.letters):
            record = SourceRecord(self.topics[number % len(self.topics)], 0, number, 1, b"k", self.value, (), NOW, 0.0)
            output = made.of(record, Failure("extract", "Poison", "x", NOW, task="sentiment"), NOW)
            letter = sieve.take(SourceRecord("dead", 0, number, 0, b"k", output.value, output.headers, NOW, 0.0))
            if letter is not None:
                yield letter

    def marked(self) -> Markers:
        self.log.append("markers")
        return Markers(dict.fromkeys(self.markers, NOW))


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    it = Cluster()

    @contextmanager
    def targets(_: str, only: Collection[str] | None, **__: object) -> Iterator[Cluster]:
        it.only = only
        yield it

    monkeypatch.setattr(cluster, "is_embedded", lambda *_, **__: False)
    monkeypatch.setattr(replay_markers, "ensure_marker_topic", lambda *_, **__: it.log.append("ensure"))
    monkeypatch.setattr(cluster, "require_topic", lambda *_, **__: it.log.append("there"))
    monkeypatch.setattr(replay_targets, "open_targets", targets)
    monkeypatch.setattr(replaying, "open_replayer", lambda *_, **__: it)
    monkeypatch.setattr(DeadLetterTopic, "letters", lambda _, sieve: it.read(sieve))
    monkeypatch.setattr(DeadLetterTopic, "markers", lambda _: it.marked())
    return it


def replay(*arguments: str) -> Result:
    configured = [f"--set={setting}" for setting in ("kafka.group_id=g", "routes.0.input=in")]
    return CliRunner().invoke(cli, ["dead-letters", "replay", "--json", *configured, *arguments])


def test_markers_are_read_when_no_other_replay_can_write_any_more(there: Cluster) -> None:
    """Read earlier they would lack those that the one that is fenced now had still committed."""
    there.on_begin = lambda: there.markers.update({"in-0-0-sentiment@g", "in-0-3-sentiment@g"})
    found = replay()
    assert found.exit_code == 0, found.output
    assert there.log == ["there", "ensure", "begin", "markers"]
    assert there.written == [["in-0-1-sentiment", "in-0-2-sentiment", "in-0-4-sentiment"]]
    assert json.loads(found.stdout)["replayed_before"] == 2


def test_a_dry_run_disturbs_no_replay(there: Cluster) -> None:
    """It neither fences nor creates nor writes."""
    found = replay("--dry-run", "--limit", "2")
    assert json.loads(found.stdout)["replayable"] == 2
    assert there.log == ["there", "markers"]
    assert there.written == []


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
@pytest.mark.parametrize("watched", [False, True])
def test_a_topic_that_cannot_be_used_holds_up_no_other(
    there: Cluster, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], watched: bool
) -> None:
    """Its letters are refused, each with the reason; those of a topic that is gone are left out. A dry run says the
    same, whether or not the letters are counted first."""
    monkeypatch.setattr("consumer.cli.dead_letters._watched", lambda: watched)
    there.letters, there.topics = 6, ("in", "gone", "secret")
    found = replay("--any-topic", *arguments)
    assert found.exit_code == 1
    summary = json.loads(found.stdout)
    assert (summary["refused"], summary["skipped"]) == (2, {"topic_missing": 2})
    assert summary["replayable" if arguments else "replayed"] == 2
    assert "secret-0-2-sentiment not replayed: topic 'secret' cannot be used: not authorized" in found.stderr
    assert there.written == ([] if arguments else [["in-0-0-sentiment", "in-0-3-sentiment"]])


def test_only_inputs_are_written_to_unless_somebody_says_otherwise(there: Cluster) -> None:
    """Whoever may write a dead letter can name any topic in it. A topic that is named on the command line is known."""
    there.letters, there.topics = 6, ("in", "gone", "secret")
    found = replay("--dry-run")
    assert found.exit_code == 0, found.output
    assert (json.loads(found.stdout)["replayable"], json.loads(found.stdout)["skipped"]) == (2, {"not_an_input": 4})
    assert "--any-topic" in found.stderr
    found = replay("--dry-run", "--topic", "gone", "--topic", "in")
    assert json.loads(found.stdout)["skipped"] == {"topic_missing": 2}


@pytest.mark.parametrize(
    "arguments", [("--any-topic",), ("--topic", "reviews.dead", "--topic", "reviews.dead.replayed")]
)
def test_letters_and_markers_are_never_forged_by_a_replay(there: Cluster, arguments: tuple[str, ...]) -> None:
    """Whatever is allowed, no record goes to the dead-letter topic or among the markers."""
    there.letters, there.topics = 2, ("reviews.dead", "reviews.dead.replayed")
    found = replay("--dry-run", *arguments)
    assert (json.loads(found.stdout)["replayable"], json.loads(found.stdout)["skipped"]) == (0, {"not_an_input": 2})


def test_letters_of_another_group_are_left_out_and_the_way_is_said(there: Cluster) -> None:
    """Nobody would run them here. A group that was renamed names its old name, and they go to the new one."""
    there.group = "old"
    found = replay()
    assert (json.loads(found.stdout)["replayed"], json.loads(found.stdout)["skipped"]) == (0, {"other_group": 5})
    assert "--group" in found.stderr
    sent: list[Replay] = []
    there.on_write = lambda replays: sent.extend(replays) or []  # type: ignore[func-returns-value]
    assert json.loads(replay("--group", "old").stdout)["replayed"] == 5
    assert {dict(one.output.headers)["rexstream-replay-group"] for one in sent} == {b"g"}
    assert {one.marker_key for one in sent} == {f"in-0-{n}-sentiment@old" for n in range(5)}


@pytest.mark.usefixtures("there")
def test_a_route_that_believes_no_control_headers_gets_no_replay() -> None:
    """It would run every task of each record again, under the ids of other places."""
    found = replay("--set=routes.0.control_headers=false")
    assert json.loads(found.stdout)["skipped"] == {"control_headers_off": 5}
    assert "control_headers false" in found.stderr


def test_a_name_without_a_topic_is_bad_usage_before_anything_is_made(
    there: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped one would look like a topic without dead letters."""

    def missing(_: str, topic: str, **__: object) -> None:
        raise TopicUnusable(f"topic {topic!r} does not exist")

    monkeypatch.setattr(cluster, "require_topic", missing)
    found = replay("--dead-letter-topic", "typo")
    assert found.exit_code == 2
    assert "'typo' does not exist" in found.stderr
    assert there.log == []


def test_the_rate_lies_between_transactions(there: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a second's worth at most; an open one that waits would hold up readers."""
    pauses: list[float] = []
    monkeypatch.setattr("consumer.cli.dead_letter_topic.time.sleep", pauses.append)
    monkeypatch.setattr("consumer.cli.dead_letter_topic.time.monotonic", lambda: 100.0)
    assert replay("--rate", "2").exit_code == 0
    assert [len(chunk) for chunk in there.written] == [2, 2, 1]
    assert pauses == [1.0, 2.0]


def test_transactions_are_bounded(there: Cluster) -> None:
    """By records and by bytes."""
    there.letters = 501
    assert replay().exit_code == 0
    assert [len(chunk) for chunk in there.written] == [500, 1]
    there.markers.clear()
    there.written.clear()
    there.letters, there.value = 3, b"v" * 3_000_000
    assert replay().exit_code == 0
    assert [len(chunk) for chunk in there.written] == [1, 1, 1]


def test_a_limit_is_kept(there: Cluster) -> None:
    """Also over several transactions; another run takes the next ones."""
    assert replay("--limit", "2").exit_code == 0
    assert replay("--limit", "2").exit_code == 0
    assert there.written == [["in-0-0-sentiment", "in-0-1-sentiment"], ["in-0-2-sentiment", "in-0-3-sentiment"]]


def test_refused_letters_fail_the_command_and_are_named(there: Cluster) -> None:
    """The others are replayed."""
    there.on_write = lambda replays: [(replays[1], "too large")]
    found = replay()
    assert found.exit_code == 1
    assert (json.loads(found.stdout)["replayed"], json.loads(found.stdout)["refused"]) == (4, 1)
    assert "in-0-1-sentiment not replayed: topic in refuses it: too large" in found.stderr


@pytest.mark.parametrize(
    ("error", "code"), [(TakenOver("taken over"), 4), (ClusterUnreachable("away"), 3), (KeyboardInterrupt(), 130)]
)
def test_whatever_ends_it_what_was_replayed_is_said(there: Cluster, error: BaseException, code: int) -> None:
    """The exit code says why."""

    def second_fails(_: Sequence[Replay]) -> list[tuple[Replay, str]]:
        if there.written:
            raise error
        return []

    there.on_write = second_fails
    found = replay("--rate", "3")
    assert found.exit_code == code
    assert json.loads(found.stdout)["replayed"] == 3


def test_on_a_terminal_it_asks_first(there: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """And replays no more than it asked about: letters that came meanwhile may have another cause."""
    questions: list[str] = []

    def confirm(question: str, **_: Any) -> None:
        questions.append(question)
        there.letters = 9

    with monkeypatch.context() as patch:
        patch.setattr("click.confirm", confirm)
        patch.setattr("consumer.cli.dead_letters._watched", lambda: True)
        patch.setattr("consumer.cli.dead_letters._asked", lambda: True)
        assert replay().exit_code == 0
        assert replay("--yes").exit_code == 0
    assert questions == ["Replay 5 dead letters of reviews.dead at 127.0.0.1:9092?"]
    assert [len(chunk) for chunk in there.written] == [5, 4]


@pytest.mark.parametrize("believed", [True, False])
def test_topics_of_a_pattern_are_inputs(there: Cluster, believed: bool) -> None:
    """Each under the route that reads it; what only looks like one of its topics is none."""
    there.letters, there.topics = 6, ("shop.a", "shop.own", "my.shop.a")
    there.exists = lambda _: True  # type: ignore[method-assign, assignment]
    own = ("--set=routes.1.input=shop.own", "--set=routes.1.tasks=[ner]", "--set=routes.1.control_headers=false")
    found = replay("--dry-run", r"--set=routes.0.input=^shop\..*$", f"--set=routes.0.control_headers={believed}", *own)
    summary = json.loads(found.stdout)
    skipped = {"control_headers_off": 2 if believed else 4, "not_an_input": 2}
    assert (summary["replayable"], summary["skipped"]) == (2 if believed else 0, skipped)
