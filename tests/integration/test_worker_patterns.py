"""``rexstream run`` with an input that is a pattern: topics that come later are found, and only those that match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from worker_run import Run, reviews

from consumer.kafka.tools.reader import headers_of

if TYPE_CHECKING:
    from pathlib import Path

    from stub_server import StubServer

PATTERN = r"^shop\..*\.reviews$"
LABEL = PATTERN.replace("\\", "\\\\")
NONE = r"^none\..*$"
CLIENT = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 100, "topic.metadata.refresh.interval.ms": 300}
FLOOD = {
    "REXSTREAM_DELIVERY__DEAD_LETTER_RUN": "3",
    "REXSTREAM_DELIVERY__DEAD_LETTER_RATE": "null",
    "REXSTREAM_DELIVERY__DEAD_LETTER_PAUSE": "600",
}


class Broker(Protocol):
    """The fixture ``own_broker``."""

    bootstrap: str

    def order(self, line: str) -> None:
        """One order of mock_broker.py."""


def topics_of(results: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in results:
        found.setdefault(each["record"]["topic"], set()).add(each["event_id"])
    return found


def test_topics_that_match_later_are_found_and_share_one_pause(
    own_broker: Broker, server: StubServer, tmp_path: Path
) -> None:
    """Each record is processed once, from the first of a new topic, also where kafka.start is latest; labels and pauses
    are the pattern's, all else names the topic. A route that names a topic has it, although the pattern matches it too.
    """
    for topic in ("out", "named", "dead"):
        own_broker.order(f"topic {topic} 2")
    routes = [
        {"input": PATTERN, "tasks": ["sentiment"], "output": "out"},
        {"input": NONE, "tasks": ["sentiment"], "output": "out"},
        {"input": "shop.named.reviews", "tasks": ["sentiment"], "output": "named", "format": "text"},
    ]
    topics, kafka = (PATTERN, "out", "dead"), {"client": CLIENT, "start": "latest"}
    run = Run(own_broker.bootstrap, topics, server, tmp_path, routes=routes, kafka=kafka, environment=FLOOD)
    try:
        run.start()
        run.wait(lambda: any("no input topic is there yet" in line["event"] for line in run.lines()))
        run.wait(lambda: run.get("/readyz") == (503, {"ok": False, "reasons": ["not joined to the consumer group"]}))
        for topic in ("shop.a.reviews", "shop.a.reviews.old", "shop.named.reviews"):
            own_broker.order(f"topic {topic} 2")
        for topic, first in (("shop.a.reviews", 0), ("shop.b.reviews", 20)):
            own_broker.order(f"topic {topic} 2")
            run.send(reviews(20, first), topic)  # before the worker can know it
            run.send(reviews(20, first), "shop.a.reviews.old")
            run.wait(lambda topic=topic: run.lag(topic) == 0)  # type: ignore[misc]
        run.send([("k", "外壳结实，颜色正".encode())], "shop.named.reviews")
        run.wait(lambda: run.lag("shop.named.reviews") == 0)
        assert set(topics_of(run.results("named"))) == {"shop.named.reviews"}
        assert len(run.results()) == 40
        assert topics_of(run.results()) == {
            "shop.a.reviews": {f"e{i}" for i in range(20)},
            "shop.b.reviews": {f"e{i}" for i in range(20, 40)},
        }
        assert run.get("/readyz") == (200, {"ok": True, "reasons": []})
        assert list(run.get("/status")[1]["waiting"]) == [NONE]
        (said,) = [line for line in run.lines() if "no topic matches the pattern" in line["event"]]
        assert said["input"] == NONE

        run.send([("k", b"{")] * 4, "shop.b.reviews")
        run.wait(lambda: run.get("/status")[1]["paused_topics"] == {"flood": [PATTERN]})
        run.wait(lambda: run.lag("shop.b.reviews") == 0)
        assert {dict(headers_of(each))["__dlq.errors.topic"] for each in run.dead_letters()} == {b"shop.b.reviews"}
        metrics = run.get("/metrics")[1]
        assert f'rexstream_events_total{{outcome="done",topic="{LABEL}"}} 40.0' in metrics
        assert f'rexstream_paused{{reason="flood",topic="{LABEL}"}} 1.0' in metrics
        assert 'topic="shop.b' not in metrics
        assert 'topic="shop.a' not in metrics
        assert run.end() == 0
    finally:
        run.kill()
