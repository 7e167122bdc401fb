"""Which topics the patterns among the inputs match now: logged when that changes, and shown in ``/status``.

The consumer's client finds new topics by itself and joins the group again for them. It says nothing of it, nor of a
pattern that matches nothing, for which it does not even join. The lag watch has the list of topics, and tells it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from consumer.config.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from consumer.kafka.clients.observer import KafkaObserver

_log = structlog.stdlib.get_logger(__name__)

SHOWN = 20
"""Most topics that a log line names."""


class Discovery:
    """What the patterns match, of all topics that this client may see. One thread calls ``saw``."""

    def __init__(self, inputs: Iterable[str], observer: KafkaObserver) -> None:
        self._inputs = Inputs(inputs)
        self._observer = observer
        self._seen: frozenset[str] = frozenset()
        self._matched: dict[str, set[str]] = {pattern.text: set() for pattern in self._inputs.patterns}
        self.wanted = bool(self._matched)
        """Whether there is a pattern, and so anything to look for."""
        self.counts: Mapping[str, int] = {}
        """How many topics each pattern matches; empty until they were looked for. Replaced, never changed in place."""

    def saw(self, topics: Iterable[str]) -> None:
        """These are all the topics that there are now."""
        now = frozenset(topics)
        new, gone = now - self._seen, self._seen - now
        self._seen = now
        came: dict[str, list[str]] = {pattern: [] for pattern in self._matched}
        left: dict[str, list[str]] = {pattern: [] for pattern in self._matched}
        for changed, topics_changed in ((came, new), (left, gone)):
            for topic in sorted(topics_changed):
                if (name := self._inputs.find(topic)) in changed:
                    changed[name].append(topic)
        twice = [topic for topic in sorted(new) if len(self._inputs.all_of(topic)) > 1]
        before = self.counts
        for pattern, matched in self._matched.items():
            matched |= set(came[pattern])
            matched -= set(left[pattern])
            self._say(pattern, len(matched), before.get(pattern), came[pattern], left[pattern])
        if twice:
            what = "topics match the patterns of several routes: the first of those routes reads each"
            _log.warning(what, topics=twice[:SHOWN], count=len(twice))
        self.counts = {pattern: len(matched) for pattern, matched in self._matched.items()}
        if self.counts != before:
            self._observer.matched(self.counts)

    def _say(self, pattern: str, count: int, before: int | None, came: list[str], left: list[str]) -> None:
        if came or left:
            _log.info("topics of a pattern", input=pattern, count=count, new=came[:SHOWN], gone=left[:SHOWN])
        if not count and before != 0:
            _log.warning(
                "no topic matches the pattern of a route: it reads nothing until one does",
                input=pattern,
                fix="create the topic, or check the pattern and this client's right to DESCRIBE what it should match",
            )
