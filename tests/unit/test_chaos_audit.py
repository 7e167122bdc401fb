"""The chaos suite's audit: the findings that it must report, on topics that a test writes by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from chaos.audit import Audit, audit
from chaos.load import SEQUENCE, Sent
from chaos.reference import extractions
from chaos.reviews import KINDS, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.topics import Topics

GOOD, BAD = plain(0), KINDS["not_json"](1)


@dataclass
class Record:
    """As much of a Kafka message as the audit looks at."""

    place: tuple[int, int]
    its_key: bytes | None
    its_value: bytes | None
    its_headers: list[tuple[str, bytes]]

    def partition(self) -> int:
        return self.place[0]

    def offset(self) -> int:
        return self.place[1]

    def key(self) -> bytes | None:
        return self.its_key

    def value(self) -> bytes | None:
        return self.its_value

    def headers(self) -> list[tuple[str, bytes]]:
        return self.its_headers


class Written:
    """Two records went in, a good review and one that is no JSON, and everything came out as it must."""

    def __init__(self) -> None:
        self.sent = {0: Sent(GOOD, acknowledged=True), 1: Sent(BAD, acknowledged=True)}
        self.topics: dict[str, list[Record]] = {
            "in": [
                Record((0, number), sent.review.key, sent.review.value, [(SEQUENCE, b"%d" % number)])
                for number, sent in self.sent.items()
            ],
            "out": [self.result(task, at) for at, task in enumerate(("sentiment", "product_features"))],
            "dead": [self.dead_letter(1)],
        }

    def result(self, task: str, at: int, **other: Any) -> Record:
        fields = {
            "result_id": f"id-{task}",
            "event_id": GOOD.event_id,
            "task": task,
            "extractions": extractions(GOOD.text or "", task),
            "model": {"version": "1"},
            "record": {"topic": "in", "partition": 0, "offset": 0, "timestamp": 5},
            **other,
        }
        headers = [(SEQUENCE, b"0"), ("rexstream-result-id", fields["result_id"].encode())]
        return Record((0, at), GOOD.key, json.dumps(fields).encode(), headers)

    def dead_letter(self, number: int, reason: str = "InvalidJson") -> Record:
        review = self.sent[number].review
        headers = {
            SEQUENCE: str(number),
            "__dlq.errors.topic": "in",
            "__dlq.errors.partition": "0",
            "__dlq.errors.offset": str(number),
            "rexstream-dlq-id": f"in-0-{number}",
            "rexstream-dlq-stage": "decode",
            "rexstream-dlq-class": reason,
        }
        return Record(
            (0, number), review.key, review.value, [(name, value.encode()) for name, value in headers.items()]
        )

    def exists(self, topic: str) -> bool:
        return topic in self.topics

    def settled(self, topic: str) -> bool:
        return topic in self.topics

    def read(self, topic: str) -> Iterator[Record]:
        return iter(self.topics[topic])

    def audited(self) -> Audit:
        return audit(cast("Topics", self), "in", ("out",), "dead", self.sent)


@pytest.fixture
def written() -> Written:
    return Written()


def test_everything_as_it_must_be_is_no_finding(written: Written) -> None:
    """Three outcomes for two records."""
    found = written.audited()
    assert found.problems() == []
    assert (found.inputs, found.results, found.duplicates, found.disorder) == (2, 2, 0, 0)
    assert dict(found.dead_letters) == {"decode/InvalidJson": 1}


def test_a_missing_result_is_named(written: Written) -> None:
    """The other task's result does not stand for it."""
    written.topics["out"].pop()
    assert written.audited().missing == ["0-0 (plain 0) product_features result"]


def test_a_missing_dead_letter_is_named_also_without_the_topic(written: Written) -> None:
    """A topic that was never made holds nothing."""
    del written.topics["dead"]
    assert written.audited().missing == ["0-1 (not_json 1) * decode/InvalidJson"]


def test_an_equal_copy_is_a_duplicate_and_an_unequal_one_is_more_than_that(written: Written) -> None:
    """A consumer can drop a copy by its result_id only when that is the same, and so is the record."""
    written.topics["out"].append(written.result("sentiment", 2))
    found = written.audited()
    assert (found.duplicates, found.problems()) == (1, [])
    written.topics["out"].append(written.result("sentiment", 3, result_id="another"))
    assert written.audited().unequal_copies == ["0-0 (plain 0) sentiment result"]


def test_a_dead_letter_in_place_of_a_result_is_not_owed(written: Written) -> None:
    """Nor is one of another class than was sent."""
    written.topics["dead"] += [written.dead_letter(0, "Poison"), written.dead_letter(1, "InvalidUtf8")]
    assert written.audited().unowed == ["0-0 (plain 0) * decode/Poison", "0-1 (not_json 1) * decode/InvalidUtf8"]


def test_what_a_result_says_is_held_against_the_model(written: Written) -> None:
    """Cells of a neighbour's window would make other extractions; another event's id is as wrong."""
    written.topics["out"] = [
        written.result("sentiment", 0, extractions=[]),
        written.result("product_features", 1, event_id="event-9"),
    ]
    assert written.audited().wrong == [
        "0-0 (plain 0) sentiment result: extractions, of version 1",
        "0-0 (plain 0) product_features result: event id event-9",
    ]


def test_a_result_says_what_the_version_that_it_names_says(written: Written) -> None:
    """Another version's facts under this one's name are wrong, as is a mixture of both."""
    of_two = extractions(GOOD.text or "", "product_features", 2)
    assert of_two != extractions(GOOD.text or "", "product_features")
    written.topics["out"][1] = written.result("product_features", 1, extractions=of_two, model={"version": "2"})
    found = written.audited()
    assert (found.problems(), dict(found.named)) == ([], {0: {"1", "2"}})
    written.topics["out"][1] = written.result("product_features", 1, extractions=of_two)
    assert written.audited().wrong == ["0-0 (plain 0) product_features result: extractions, of version 1"]


def test_outcomes_of_an_input_beside_it_are_of_another_audit(written: Written) -> None:
    """They share the topics of results and dead letters, and are strangers unless it is named."""
    letter = written.dead_letter(1)
    letter.its_headers = [(name, b"other" if name.endswith(".topic") else value) for name, value in letter.its_headers]
    written.topics["dead"].append(letter)
    elsewhere = {"topic": "other", "partition": 0, "offset": 0, "timestamp": 5}
    written.topics["out"].append(written.result("sentiment", 2, record=elsewhere))
    assert written.audited().strangers == 2
    found = audit(cast("Topics", written), "in", ("out",), "dead", written.sent, beside={"other"})
    assert (found.problems(), found.results, found.dead_letters.total()) == ([], 2, 1)


def test_outcomes_of_nothing_that_was_sent_are_strangers(written: Written) -> None:
    """Of another topic, or of an offset that the input does not hold."""
    elsewhere = {"topic": "other", "partition": 0, "offset": 0, "timestamp": 5}
    beyond = {"topic": "in", "partition": 0, "offset": 7, "timestamp": 5}
    written.topics["out"] += [written.result("sentiment", 2, record=place) for place in (elsewhere, beyond)]
    assert written.audited().strangers == 2


def test_an_acknowledged_record_that_the_broker_lost_is_no_fault_of_the_worker(written: Written) -> None:
    """It is said, for then nothing else in the run proves anything."""
    written.topics["in"].pop(0)
    assert written.audited().lost_inputs == ["record 0"]


def test_a_record_that_the_loads_producer_wrote_twice_is_one_event_twice(written: Written) -> None:
    """Each owes its results, with equal ids; another record with the same id is a finding."""
    again = {"topic": "in", "partition": 0, "offset": 2, "timestamp": 5}
    written.topics["in"].append(Record((0, 2), GOOD.key, GOOD.value, [(SEQUENCE, b"0")]))
    found = written.audited()
    assert [line.split(" (")[0] for line in found.missing] == ["0-2", "0-2"]
    written.topics["out"] += [
        written.result(task, at, record=again) for at, task in enumerate(("sentiment", "product_features"), 2)
    ]
    found = written.audited()
    assert (found.problems(), found.inputs, found.repeated_inputs, found.duplicates) == ([], 3, 1, 0)
    written.sent[2] = Sent(GOOD, acknowledged=True)
    written.topics["in"][2] = Record((0, 2), GOOD.key, GOOD.value, [(SEQUENCE, b"2")])
    assert sorted(written.audited().shared_ids) == ["id-product_features", "id-sentiment"]


def test_results_that_go_back_in_their_partition_are_counted(written: Written) -> None:
    """By the first copy of each: a repeated one may lie anywhere."""
    written.sent[1] = Sent(plain(17), acknowledged=True)
    written.topics["in"][1] = Record((0, 1), GOOD.key, b"", [(SEQUENCE, b"1")])
    later = {"topic": "in", "partition": 0, "offset": 1, "timestamp": 5}
    written.topics["out"] = [written.result("sentiment", 0, record=later), written.result("sentiment", 1)]
    found = written.audited()
    assert (found.disorder, found.disorder_of_keys) == (1, 1)
