"""Sends dead letters again, each together with its marker in one transaction: both are there, or neither is.

That nothing is doubled rests on three things. The transactional id is the same for every replay of a dead-letter topic,
so ``init_transactions`` aborts what a killed replay left open, waits for what it was committing, and fences one that
still runs. The markers are read only after that: read before, they could lack those of a transaction that was committed
in between, by a replay not yet fenced. And a fenced replay can commit nothing any more, so what it replayed has its
marker already, and the new one replays the rest.

``rexstream dead-letters replay`` uses it, and checks with ``ReplayTargets`` which topics the letters can go back to.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.config.names import TOPIC_NAME, marker_topic
from consumer.kafka.clients.cluster import ClientErrors, ClusterUnreachable, Reader, TopicUnusable
from consumer.kafka.clients.errors import ENDED, client_errors
from consumer.kafka.publish.producers import KEYED
from consumer.kafka.tools.replay_markers import marker_value, older_releases_value

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from consumer.events import Output


CHUNK_RECORDS = 500
CHUNK_BYTES = 4 * 1024 * 1024
"""A transaction holds at most so much: it is written in far less time than its timeout, and an abort repeats little."""

_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
_REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""Errors that no further try mends: a record of the transaction cannot be written to its topic."""


class ReplayFenced(Exception):  # noqa: N818 - named for what it is
    """Another replay of the same dead-letter topic took over. What this one replayed has its markers."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A dead letter's id, the record to send for it, and its marker's key and count."""

    id: str
    output: Output
    marker_key: str
    count: int


def open_replayer(
    bootstrap_servers: str,
    dead_letter_topic: str,
    targets: ReplayTargets,
    *,
    producer: Mapping[str, Any],
    timeout: float,
) -> Replayer:
    """A replayer. ``producer`` are the settings of the transactional client, ``timeout`` is in seconds."""
    errors = ClientErrors(bootstrap_servers)
    client = Producer(errors.settings(producer))
    return Replayer(client, targets, dead_letter_topic, bootstrap_servers, timeout, errors.advertised)


class Replayer:
    """The one replay of a dead-letter topic; ``begin`` first.

    Methods raise ReplayFenced, ClusterUnreachable and TopicUnusable.
    """

    def __init__(
        self,
        producer: Producer,
        targets: ReplayTargets,
        dead_letter_topic: str,
        bootstrap_servers: str,
        timeout: float,
        advertised_trouble: Callable[[], str] = lambda: "",
    ) -> None:
        """``timeout`` is in seconds; ``advertised_trouble()`` names advertised addresses that are not reached."""
        self._advertised_trouble = advertised_trouble
        self._producer = producer
        self._targets = targets
        self._dead_letter_topic = dead_letter_topic
        self._markers = marker_topic(dead_letter_topic)
        self._bootstrap_servers = bootstrap_servers
        self._timeout = timeout

    def begin(self) -> None:
        """Become the only replay of this topic. Markers read afterwards include all that was replayed before."""
        try:
            self._patiently(self._producer.init_transactions)
        except KafkaException as error:
            raise self._unwell(error.args[0]) from None

    def write(self, replays: Sequence[Replay]) -> list[tuple[Replay, str]]:
        """Send all of them, with their markers; returns those that their topic refuses, with the reason.

        In one transaction, unless something in it is refused: then in halves, since brokers refuse whole batches.
        """
        attempts = 0
        while (error := self._transaction(replays)) is not None and error.code() not in _REFUSALS:
            attempts += 1
            if attempts == _ATTEMPTS:
                raise self._unwell(error)
            time.sleep(_PAUSE_SECONDS)
        if error is None:
            return []
        # The transaction was aborted, so none of them was sent.
        if len(replays) == 1:
            return [(replays[0], error.str())]
        middle = len(replays) // 2
        return [*self.write(replays[:middle]), *self.write(replays[middle:])]

    def _transaction(self, replays: Sequence[Replay]) -> KafkaError | None:
        """One transaction; None when it was committed, else the error that it was aborted for."""
        failed: list[KafkaError] = []
        places: dict[int, str] = {}

        def reported(number: int, error: KafkaError | None, message: Message | None) -> None:
            if error is not None:
                failed.append(error)
            elif message is not None:
                places[number] = f"{message.topic()}-{message.partition()}-{message.offset()}"

        try:
            with client_errors():
                self._producer.begin_transaction()
                for number, replay in enumerate(replays):
                    self._produce(self._record(replay), partial(reported, number))
                self._flush()
                # Only now it is known where the records stand, of which the markers tell how often they were replayed.
                if not failed:
                    for number, replay in enumerate(replays):
                        for marker in self._marked(replay, places.get(number, "")):
                            self._produce(marker, partial(reported, -1))
                    self._flush()
            if not failed:
                self._patiently(self._producer.commit_transaction)
                return None
        except KafkaException as error:
            self._check(error.args[0])
            failed.append(error.args[0])
        except KeyboardInterrupt:
            # Left open it would block the readers of the topics until its timeout.
            with contextlib.suppress(KafkaException), client_errors():
                self._producer.abort_transaction(self._timeout)
            raise
        try:
            self._patiently(self._producer.abort_transaction)
        except KafkaException as error:
            raise self._unwell(error.args[0]) from None
        # Of a refused batch, some records only report that they failed with the rest.
        return next((error for error in failed if error.code() in _REFUSALS), failed[0])

    def _flush(self) -> None:
        """Serve reports until all are there; message.timeout.ms bounds the wait."""
        while self._producer.flush(1.0):
            pass

    def _record(self, replay: Replay) -> dict[str, Any]:
        output = replay.output
        # The original partition while both topics have the same number of them, as when the letter was written; else
        # the key's.
        count = self._targets.count(output.topic)
        same = count == self._targets.count(self._dead_letter_topic)
        kept = same and output.partition is not None and output.partition < count
        return {
            "topic": output.topic,
            "value": output.value,
            "key": output.key,
            "headers": list(output.headers),
            "partition": output.partition if kept else KEYED,
        }

    def _marked(self, replay: Replay, place: str) -> list[dict[str, Any]]:
        """The marker, and the one that older releases look for."""
        marker = (replay.marker_key, marker_value(place, replay.count))
        older = (replay.id, older_releases_value(replay.marker_key))
        return [{"topic": self._markers, "key": key.encode(), "value": value} for key, value in (marker, older)]

    def _produce(self, content: Mapping[str, Any], reported: Callable[..., None]) -> None:
        """Queue a record or a marker, and wait for that while the client's queue is full."""
        while True:
            try:
                self._producer.produce(**content, on_delivery=reported)
                return
            except BufferError:
                if not len(self._producer):
                    # Larger than the whole queue, which does not take it even when it is empty.
                    raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)) from None
                self._producer.poll(1.0)

    def _patiently(self, call: Callable[[float], None]) -> None:
        """Repeat a transactional call while it only needs more time, up to the timeout."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                with client_errors():
                    call(max(0.1, deadline - time.monotonic()))
            except KafkaException as raised:
                error = raised.args[0]
                self._check(error)
                if not error.retriable():
                    raise
                if time.monotonic() >= deadline:
                    raise self._unwell(error) from None
                with client_errors():
                    self._producer.poll(0)
            else:
                return

    def _unwell(self, error: KafkaError) -> ClusterUnreachable:
        self._producer.poll(0)  # the reasons come by callbacks
        why = self._advertised_trouble() or f"{error.name()}: {error.str()}"
        return ClusterUnreachable(
            f"{self._bootstrap_servers} makes no transaction ({why}); run the command again when it does: what was "
            "replayed has its marker"
        )

    def _check(self, error: KafkaError) -> None:
        """Raise for an error after which this producer is of no use."""
        if error.code() in ENDED:
            raise ReplayFenced(
                f"another replay of {self._dead_letter_topic} took over ({error.name()}); run this one again when it "
                "has ended: what either replayed has its marker"
            ) from None
        if error.fatal():
            raise TopicUnusable(
                f"{self._bootstrap_servers} gives this client no transaction ({error.name()}: {error.str()}); grant it "
                "WRITE on the transactional id and on the topics"
            ) from None


class ReplayTargets:
    """The topics that dead letters came from and go back to; each is looked up once, whatever the answer.

    Anyone who may write to the dead-letter topic can name any topic in a letter.
    """

    def __init__(self, lookup: Callable[[str], int], only: Container[str] | None = None) -> None:
        """``lookup`` gives a topic's number of partitions, 0 for none such, and raises TopicUnusable.

        ``only``: the topics to which letters may go back; None for all but Kafka's own.
        """
        self._lookup = lookup
        self._only = only
        self._found: dict[str, int | str] = {}

    def allows(self, topic: str) -> bool:
        """Whether letters may go back to ``topic``, be it there or not."""
        return not topic.startswith("__") if self._only is None else topic in self._only

    def exists(self, topic: str) -> bool:
        """Whether it is still there: producing to it could create it anew. Raises as ``count``."""
        return self.count(topic) > 0

    def count(self, topic: str) -> int:
        """How many partitions it has, 0 for none such. Raises ClusterUnreachable, and TopicUnusable each time."""
        if topic not in self._found:
            self._found[topic] = self._asked(topic)
        found = self._found[topic]
        if isinstance(found, str):
            raise TopicUnusable(found)
        return found

    def _asked(self, topic: str) -> int | str:
        """The number of partitions, or why it cannot be used."""
        # Anyone may write to a dead-letter topic, and the client takes no text with a zero byte.
        if not TOPIC_NAME.fullmatch(topic):
            return f"{topic[:249]!r} is no name of a topic"
        try:
            return self._lookup(topic)
        except TopicUnusable as error:
            return str(error)


@contextlib.contextmanager
def open_targets(
    bootstrap_servers: str, only: Container[str] | None, *, client: Mapping[str, Any], timeout: float
) -> Iterator[ReplayTargets]:
    """The topics of one cluster. ``client`` are the settings of any client, ``timeout`` is in seconds."""
    with Reader(bootstrap_servers, client=client, timeout=timeout) as reader:
        yield ReplayTargets(lambda topic: len(reader.partitions(topic)), only)
