from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.dead_letter_size import smaller, without_carried_headers, without_key, without_value
from consumer.delivery.dead_letters import DeadLetters, Failure, replay_count
from consumer.delivery.letters import read_letter, why_not
from consumer.events import Header, Outcome, Output, SourceRecord

if TYPE_CHECKING:
    from consumer.delivery.dead_letters import CompatibleSet

NOW = 1_760_000_000_000
RECORD = SourceRecord(
    topic="reviews.raw",
    partition=3,
    offset=42,
    epoch=1,
    key=b"\xff\x00",
    value=b"not json \xfe",
    headers=(("trace", b"1"), ("trace", b"2"), ("empty", None), ("bytes", b"\xff\xfe")),
    timestamp_ms=NOW - 5000,
    fetched_at=1.0,
)
FAILURE = Failure("decode", "InvalidJson", "The value is no JSON at byte 0.", NOW - 100)
LETTERS = DeadLetters("reviews.dead", "group-1", "0.1.0")
REPLAYED: tuple[Header, ...] = (("rexstream-event-id", b"e"), ("rexstream-replay-group", b"group-1"))


def added(output: Output, record: SourceRecord = RECORD) -> dict[str, str]:
    """Headers behind the record's own."""
    return {name: (value or b"").decode() for name, value in output.headers[len(record.headers) :]}


def test_the_original_is_untouched_and_the_reason_is_added() -> None:
    """Key, value, headers, timestamp and partition as they came; every contract header that has a value."""
    failure = replace(
        FAILURE, exception="json.JSONDecodeError", attempts=3, task="sentiment", model="rex", model_version="7"
    )
    letter = LETTERS.of(RECORD, failure, NOW)
    assert (letter.topic, letter.key, letter.value) == ("reviews.dead", RECORD.key, RECORD.value)
    assert (letter.partition, letter.timestamp_ms) == (3, RECORD.timestamp_ms)
    assert letter.headers[:4] == RECORD.headers
    assert added(letter) == {
        "__dlq.errors.topic": "reviews.raw",
        "__dlq.errors.partition": "3",
        "__dlq.errors.offset": "42",
        "__dlq.errors.group": "group-1",
        "__dlq.errors.delivery.count": "3",
        "__dlq.errors.message": "The value is no JSON at byte 0.",
        "rexstream-dlq-id": "reviews.raw-3-42-sentiment",
        "rexstream-dlq-stage": "decode",
        "rexstream-dlq-class": "InvalidJson",
        "rexstream-dlq-exception": "json.JSONDecodeError",
        "rexstream-dlq-attempts": "3",
        "rexstream-dlq-first-failed-at": "2025-10-09T08:53:19.900+00:00",
        "rexstream-dlq-failed-at": "2025-10-09T08:53:20.000+00:00",
        "rexstream-dlq-task": "sentiment",
        "rexstream-dlq-model": "rex",
        "rexstream-dlq-model-version": "7",
        "rexstream-dlq-service-version": "0.1.0",
        "rexstream-dlq-replay-count": "0",
    }


def test_what_is_unknown_has_no_header() -> None:
    """An event that failed before its tasks were known names no task and no model, also in its id."""
    said = added(LETTERS.of(RECORD, FAILURE, NOW))
    assert said["rexstream-dlq-id"] == "reviews.raw-3-42"
    assert not {"rexstream-dlq-task", "rexstream-dlq-model", "rexstream-dlq-exception"} & said.keys()


@pytest.mark.parametrize(("timestamp", "original"), [(None, None), (NOW + 1, str(NOW + 1)), (-1, "-1"), (0, "0")])
def test_an_impossible_timestamp_becomes_now(timestamp: int | None, original: str | None) -> None:
    """Brokers refuse records from the future; what the record said stays readable."""
    letter = LETTERS.of(replace(RECORD, timestamp_ms=timestamp), FAILURE, NOW)
    assert letter.timestamp_ms == NOW
    assert added(letter).get("rexstream-original-timestamp") == original


def test_a_replayed_record_says_what_happened_this_time() -> None:
    """Headers of an earlier round are replaced, its replay count and everyone else's headers are kept."""
    replayed: tuple[Header, ...] = (
        ("trace", b"1"),
        *REPLAYED,
        ("rexstream-dlq-replay-count", b"2"),
        ("rexstream-dlq-class", b"TooLong"),
        ("__dlq.errors.offset", b"7"),
    )
    letter = LETTERS.of(replace(RECORD, headers=replayed), FAILURE, NOW)
    names = [name for name, _ in letter.headers]
    assert names[:3] == ["trace", "rexstream-event-id", "rexstream-replay-group"]
    assert len(names) == len(set(names))
    assert dict(letter.headers)["rexstream-dlq-replay-count"] == b"2"
    assert dict(letter.headers)["rexstream-dlq-class"] == b"InvalidJson"
    assert dict(letter.headers)["__dlq.errors.offset"] == b"42"


def test_the_dead_letter_headers_of_another_system_stay() -> None:
    """A record that comes from someone else's dead-letter topic keeps what that one said, before what we say."""
    foreign = replace(RECORD, headers=(("__dlq.errors.offset", b"7"),))
    offsets = [value for name, value in LETTERS.of(foreign, FAILURE, NOW).headers if name == "__dlq.errors.offset"]
    assert offsets == [b"7", b"42"]


@pytest.mark.parametrize("count", [None, b"", b"x", b"-1", b"\xff"])
def test_an_unreadable_replay_count_is_zero(count: bytes | None) -> None:
    """Headers are anyone's to write."""
    assert replay_count((*REPLAYED, ("rexstream-dlq-replay-count", count)), "group-1") == 0


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_replay_count_without_the_headers_of_a_replay_for_this_group_is_zero(lacking: int) -> None:
    """It is another program's, or a forgery, or counts what another group failed at."""
    count = ("rexstream-dlq-replay-count", b"2")
    assert replay_count((*REPLAYED, count), "group-1") == 2
    assert replay_count((REPLAYED[1 - lacking], count), "group-1") == 0
    assert replay_count((*REPLAYED, count), "another") == 0


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=3000))
def test_a_long_message_is_cut_between_characters(message: str) -> None:
    """Headers stay below 2 KiB each and are UTF-8."""
    said = added(LETTERS.of(RECORD, replace(FAILURE, message=message), NOW))["__dlq.errors.message"]
    assert message.startswith(said)
    assert len(said.encode()) <= 2048
    assert said == message or len(said.encode()) > 2044


def test_without_its_value_it_says_how_much_is_missing() -> None:
    """Only a value can be left out, and only once."""
    letter = LETTERS.of(RECORD, FAILURE, NOW)
    bare = without_value(letter)
    assert bare is not None
    assert bare.value is None
    assert bare.headers == (*letter.headers, ("rexstream-dlq-value-omitted", b"10"))
    assert without_value(bare) is None


def test_without_carried_headers_it_still_says_everything_about_the_failure() -> None:
    """What the record brought is left out and counted, once; what is said of the failure and of its value stays."""
    foreign: tuple[Header, ...] = (
        *RECORD.headers,
        ("__dlq.errors.topic", b"theirs"),
        ("__dlq.errors.trace", b"x" * 90),
    )
    record = replace(RECORD, headers=(*foreign, ("größe", b"1")), timestamp_ms=NOW + 9)
    letter = without_value(LETTERS.of(record, FAILURE, NOW))
    assert letter is not None
    shorter = without_carried_headers(letter)
    assert shorter is not None
    assert (shorter.topic, shorter.key, shorter.value) == (letter.topic, letter.key, None)
    assert shorter.headers[:-1] == letter.headers[len(record.headers) :]
    # trace 5+1, twice; empty 5; bytes 5+2; the two of another system 18+6 and 18+90; größe 7 bytes and 1.
    assert shorter.headers[-1] == ("rexstream-dlq-headers-omitted", b"164")
    said = dict(shorter.headers)
    assert said["__dlq.errors.topic"] == b"reviews.raw"
    assert said["rexstream-dlq-value-omitted"] == b"10"
    assert said["rexstream-original-timestamp"] == str(NOW + 9).encode()
    assert without_carried_headers(shorter) is None


@pytest.mark.parametrize(("chosen", "names"), [("connect", 8), ("spring", 7)])
def test_another_systems_set_stands_behind_our_own(chosen: CompatibleSet, names: int) -> None:
    """It stays when the value and the record's own headers must go, and is replaced after a replay."""
    letters = replace(LETTERS, compatible=chosen)
    letter = letters.of(RECORD, FAILURE, NOW)
    added_by_set = letter.headers[len(LETTERS.of(RECORD, FAILURE, NOW).headers) :]
    assert len(added_by_set) == names
    bare = without_value(letter)
    assert bare is not None
    shorter = without_carried_headers(bare)
    assert shorter is not None
    assert shorter.headers[:-2] == letter.headers[len(RECORD.headers) :]
    again = replace(RECORD, headers=(*letter.headers, ("rexstream-dlq-replay-count", b"1")), offset=50)
    said = [name for name, _ in letters.of(again, FAILURE, NOW).headers if name.startswith(("__connect", "kafka_dlt"))]
    assert len(said) == names
    foreign = letters.of(replace(RECORD, headers=added_by_set), FAILURE, NOW)
    assert foreign.headers[:names] == foreign.headers[-names:] == added_by_set


def test_a_stack_trace_has_a_header_of_its_own() -> None:
    """Only of a failure that brings one."""
    letter = LETTERS.of(RECORD, replace(FAILURE, stack_trace="line 7"), NOW)
    assert added(letter)["rexstream-dlq-stack-trace"] == "line 7"
    assert "rexstream-dlq-stack-trace" not in added(LETTERS.of(RECORD, FAILURE, NOW))


@pytest.mark.parametrize(
    ("carried", "kept"),
    [
        ([b"-9223372036854775808"], [b"-9223372036854775808"]),
        ([b"7", b"8"], [b"8"]),
        ([b"7" * 21], []),
        ([None], [None]),
    ],
)
def test_an_original_timestamp_of_an_earlier_round_outlives_other_headers(
    carried: list[bytes | None], kept: list[bytes | None]
) -> None:
    """Unless it is none: whoever can send headers could block the topic with it."""
    headers = (("other", b"1"), *(("rexstream-original-timestamp", value) for value in carried))
    shorter = without_carried_headers(LETTERS.of(replace(RECORD, headers=headers), FAILURE, NOW))
    assert shorter is not None
    assert [value for name, value in shorter.headers if name == "rexstream-original-timestamp"] == kept
    assert "other" not in dict(shorter.headers)
    assert without_carried_headers(shorter) is None


def test_a_record_without_headers_has_none_to_leave_out() -> None:
    """Then its key is what is too large."""
    assert without_carried_headers(LETTERS.of(replace(RECORD, headers=()), FAILURE, NOW)) is None


def test_a_key_that_is_left_out_can_still_be_known() -> None:
    """By its hash; one that is no longer than that stays."""
    letter = LETTERS.of(replace(RECORD, key=b"k" * 2_000_000), FAILURE, NOW)
    bare = without_key(letter)
    assert bare is not None
    assert bare.key is None
    said = dict(bare.headers)
    assert said["rexstream-dlq-key-omitted"] == b"2000000"
    assert said["rexstream-dlq-key-sha256"] == hashlib.sha256(b"k" * 2_000_000).hexdigest().encode()
    assert bare.headers[: len(letter.headers)] == letter.headers
    assert without_key(bare) is None
    assert without_key(LETTERS.of(replace(RECORD, key=b"order-4711"), FAILURE, NOW)) is None


KEYS = st.none() | st.binary(max_size=300)
CARRIED = st.lists(
    st.tuples(
        st.sampled_from(["trace", "rexstream-original-timestamp", "__dlq.errors.topic", "rexstream-dlq-replay-count"]),
        st.none() | st.binary(max_size=300),
    ),
    max_size=5,
)


@given(KEYS, st.binary(max_size=2000), CARRIED, st.sampled_from(["none", "connect", "spring"]), st.booleans())
def test_every_dead_letter_shrinks_to_a_few_hundred_bytes_and_still_says_which_record_it_was(
    key: bytes | None, value: bytes, carried: list[Header], chosen: CompatibleSet, timed: bool
) -> None:
    """Whatever its sender put into it. Its value goes first, so that none is replayed without its key or headers."""
    record = replace(RECORD, key=key, value=value, headers=tuple(carried), timestamp_ms=NOW if timed else NOW + 10**9)
    failure = replace(FAILURE, message="m" * 3000, stack_trace="s" * 4096, exception="e", task="sentiment")
    letter = replace(LETTERS, compatible=chosen).of(record, failure, NOW)
    steps = [letter]
    while (found := smaller(steps[-1])) is not None:
        assert found.partition == letter.partition
        assert found.value is None
        steps.append(found)
    assert len(steps) <= 5
    assert steps[-1].size < 700
    read = read_letter(SourceRecord("dead", 0, 0, 1, steps[-1].key, steps[-1].value, steps[-1].headers, NOW, 0.0))
    assert read is not None
    assert (read.topic, read.partition, read.offset, read.task) == ("reviews.raw", 3, 42, "sentiment")
    assert (read.stage, read.reason) == ("decode", "InvalidJson")
    assert read.id == "reviews.raw-3-42-sentiment"
    assert why_not(read, 10, "group-1") == "value_omitted"


@pytest.mark.parametrize(("kind", "outputs"), [("done", ()), ("dropped", (Output("t", None, b""),))])
def test_an_outcome_that_would_lose_a_record_cannot_be_made(kind: str, outputs: tuple[Output, ...]) -> None:
    """Done publishes something; dropped publishes nothing."""
    with pytest.raises(ValueError, match=f"An outcome '{kind}'"):
        Outcome(kind, outputs)  # type: ignore[arg-type]


def test_a_replay_count_of_thousands_of_digits_is_none() -> None:
    """Found by fuzzing: another program's header, which Python refuses to convert, must not end the worker."""
    for digits in (20, 5000):
        headers: tuple[Header, ...] = (*REPLAYED, ("rexstream-dlq-replay-count", b"9" * digits))
        assert replay_count(headers, "group-1") == 0
        letter = LETTERS.of(replace(RECORD, headers=headers), FAILURE, NOW)
        assert added(letter, replace(RECORD, headers=REPLAYED))["rexstream-dlq-replay-count"] == "0"
    assert replay_count((*REPLAYED, ("rexstream-dlq-replay-count", b"9" * 19)), "group-1") == int("9" * 19)
