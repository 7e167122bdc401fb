"""Publishes the results of a shadow run to the live topics, each with its place in the shadow in one transaction.

That nothing is doubled rests on two things. The offsets up to which the shadow topics were published are committed by
the transactions that publish, for the group ``<group>.switch``. And they are read only after ``begin``, which fences a
switch that still runs: it commits nothing any more.

``rexstream shadow switch`` uses it; which results are published is ``delivery.shadow_switch``'s.
"""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from confluent_kafka import TopicPartition

from consumer.codecs.result_values import framed_with
from consumer.delivery.shadow_switch import Step, in_chunks, positions
from consumer.events import BadInput, Partition
from consumer.kafka.clients.cluster import TopicUnusable
from consumer.kafka.publish.producers import KEYED
from consumer.kafka.tools.reader import headers_of, read_to_end
from consumer.kafka.tools.transactions import CHUNK_BYTES, CHUNK_RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from confluent_kafka import Message

    from consumer.delivery.shadow_switch import SwitchChoice, Verdict
    from consumer.kafka.tools.shadow_group import ShadowGroup
    from consumer.kafka.tools.transactions import Transaction, Transactions

LOOK_SECONDS = 5.0
"""What live workers publish meanwhile is seen so late at most, between two transactions."""
PASSED_RECORDS = 10_000
"""Records that one transaction passes over at most."""


class Switcher:
    """``read``, then ``publish``. Methods raise ClusterUnreachable, TopicUnusable and TakenOver."""

    def __init__(
        self,
        servers: str,
        topics: Mapping[str, str],
        choice: SwitchChoice,
        counts: Callable[[str], int],
        *,
        client: Mapping[str, Any],
        timeout: float,
    ) -> None:
        """``topics``: shadow topics, each with the live one. ``counts``: partitions of a topic, 0 where it is gone."""
        self._topics = topics
        self._choice = choice
        self._counts = counts
        self._read = partial(read_to_end, servers, client=client, timeout=timeout)
        self._shadow_ends: dict[Partition, int] = {}
        self._live_ends: dict[str, dict[int, int]] = {live: {} for live in topics.values()}
        self.schemas: set[tuple[str, int]] = set()
        """Of results of the shadow that have a registry's schema its id, with the live topic that they go to."""
        self.unreadable: dict[str, tuple[int, str]] = {}
        """By live topic, how many records could not be read, and why the first of them."""

    def read(self) -> None:
        """Read the shadow topics and the live ones. A result of the shadow that cannot be read is TopicUnusable."""
        for shadow, live in self._topics.items():
            for message in self._read(shadow):
                place, offset = _place(message)
                value = message.value()
                try:
                    self._choice.add_shadow(live, place, offset, message.key(), value)
                except BadInput as bad:
                    raise TopicUnusable(
                        f"the result at {place}@{offset} cannot be read: {bad.message}; use the registry that the run "
                        "had, or drop the shadow and run it again"
                    ) from None
                if (number := framed_with(value)) is not None:
                    self.schemas.add((live, number))
                self._shadow_ends[place] = offset + 1
        self.look()

    def look(self) -> None:
        """Read what is new in the live topics."""
        for live, ends in self._live_ends.items():
            for message in self._read(live, since=ends):
                place, offset = _place(message)
                try:
                    self._choice.add_live(live, message.key(), message.value())
                except BadInput as bad:
                    number, first = self.unreadable.get(live, (0, bad.message))
                    self.unreadable[live] = number + 1, first
                ends[place.number] = offset + 1

    def publish(
        self, transactions: Transactions, group: ShadowGroup, rate: float | None, progress: Callable[[int], object]
    ) -> Counter[Verdict]:
        """Publish what is left, ``rate`` results a second at most; how many records came to what.

        ``transactions`` have begun. ``progress`` is called with the number of results that are published.
        """
        self.look()
        switched = group.switched(list(self._shadow_ends), pending=False)
        most = CHUNK_RECORDS if rate is None else min(CHUNK_RECORDS, max(1, int(rate)))
        done: Counter[Verdict] = Counter()
        started = looked_at = time.monotonic()
        for chunk in in_chunks(self._steps(switched), most, CHUNK_BYTES, PASSED_RECORDS):
            self._write(transactions, group, chunk)
            done.update(step.verdict for step in chunk)
            progress(done["publish"])
            if rate is not None:
                time.sleep(max(0.0, started + done["publish"] / rate - time.monotonic()))
            if time.monotonic() >= looked_at + LOOK_SECONDS:
                self.look()
                looked_at = time.monotonic()
        return done

    def _steps(self, switched: Mapping[Partition, int]) -> Iterator[Step]:
        for shadow, live in self._topics.items():
            since = {place.number: offset for place, offset in switched.items() if place.topic == shadow}
            for message in self._read(shadow, since=since):
                place, offset = _place(message)
                # What came behind the end that was read is left to the next switch.
                if offset < self._shadow_ends.get(place, 0):
                    value = message.value()
                    verdict, origin = self._choice.verdict(live, place, offset, value)
                    yield Step(place, offset + 1, verdict, live, origin, message.key(), value, headers_of(message))

    def _write(self, transactions: Transactions, group: ShadowGroup, steps: Sequence[Step]) -> None:
        """Publish all of them: in one transaction, unless something in it is refused, then in halves.

        A refused result is named, and none behind it in the order of reading is published.
        """
        error = transactions.commit(partial(self._fill, group.switch_metadata(), steps))
        if error is None:
            return
        if len(steps) > 1:
            middle = len(steps) // 2
            self._write(transactions, group, steps[:middle])
            self._write(transactions, group, steps[middle:])
            return
        (step,) = steps
        raise TopicUnusable(
            f"topic {step.topic!r} does not take the result at {step.place}@{step.next - 1} ({step.size} bytes): "
            f"{error.str()}; mend it, as by max.message.bytes of the topic or the right WRITE, and run the command "
            "again: what was published before it is not published again"
        )

    def _fill(self, metadata: Any, steps: Sequence[Step], transaction: Transaction) -> None:
        for step in steps:
            if step.verdict == "publish":
                transaction.produce(
                    topic=step.topic,
                    value=step.value,
                    key=step.key,
                    headers=list(step.headers),
                    partition=self._partition(step),
                )
        behind = [TopicPartition(*place, offset) for place, offset in positions(steps).items()]
        transaction.offsets = behind, metadata

    def _partition(self, step: Step) -> int:
        """As workers place results: the input's partition while both topics have as many, else the key's."""
        if step.input is None:
            return KEYED
        count = self._counts(step.topic)
        return step.input.number if self._counts(step.input.topic) == count > step.input.number else KEYED


def _place(message: Message) -> tuple[Partition, int]:
    return Partition(message.topic() or "", message.partition() or 0), message.offset() or 0
