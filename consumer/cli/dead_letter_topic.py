"""The dead-letter topic that ``dead-letters`` works on: reading its letters and replaying them.

``DeadLetterTopic`` reads the letters and the markers of what was replayed; ``Replaying`` chooses the letters that can
be sent again, counts the others, sends at the given rate and prints the summary.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from consumer.cli.record_lines import printable
from consumer.delivery.letter_summary import LetterSummary
from consumer.delivery.letters import WHY_SKIPPED, Letter, LetterFilter, Markers, replayed, why_not
from consumer.exit_codes import EXIT_FENCED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.cli.options import KafkaAccess
    from consumer.delivery.letters import Selection
    from consumer.events import SourceRecord
    from consumer.kafka.tools.replayer import Replay, ReplayTargets

_REPORTED = 20
_PROGRESS_RECORDS = 256
"""Records between two looks at the clock: a bar takes as long to update as a record to count."""


@dataclass(frozen=True, slots=True)
class DeadLetterTopic:
    """A dead-letter topic, and how to reach it."""

    kafka: KafkaAccess
    topic: str

    def letters(self, letter_filter: LetterFilter) -> Iterator[Letter]:
        """Yield the letters that the topic holds now and that pass ``letter_filter``."""
        for record in self._records():
            if (letter := letter_filter.take(record)) is not None:
                yield letter
        yield from letter_filter.rest()

    def summary(self, selection: Selection) -> LetterSummary:
        """Count the letters that the topic holds now, with progress on standard error."""
        from consumer.cli.progress import LINE_SECONDS, counter

        summary = LetterSummary(selection, self.markers())
        with counter(f"records of {self.topic} read", line_seconds=LINE_SECONDS) as progress:
            for done, record in enumerate(self._records(), 1):
                summary.take(record)
                if done % _PROGRESS_RECORDS == 0:
                    progress(done)
        return summary

    def _records(self) -> Iterator[SourceRecord]:
        from consumer.kafka.tools.reader import read_to_end, record_of

        kafka = self.kafka
        return map(record_of, read_to_end(kafka.servers, self.topic, client=kafka.client, timeout=kafka.timeout))

    def markers(self) -> Markers:
        """What was replayed."""
        from consumer.kafka.tools.replay_markers import read_markers

        return read_markers(self.kafka.servers, self.topic, client=self.kafka.client, timeout=self.kafka.timeout)


@dataclass(slots=True)
class Replaying:
    """Chooses the selected letters that can be replayed, counts the others by reason, and replays."""

    source: DeadLetterTopic
    targets: ReplayTargets
    letter_filter: LetterFilter
    """The filter of the latest read of the topic, with its counts."""
    max_replays: int
    group: str
    """The consumer group that wrote the letters that are meant."""
    limit: int | None
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(name of the reason in the summary, reason in words) -> letters."""
    refused: int = 0
    """Letters that their topic refuses."""
    refusals: list[str] = field(default_factory=list)
    """The first few of those, with the reason."""

    def letters(self, markers: Markers) -> Iterator[Letter]:
        """Read the dead-letter topic: yield the letters to replay and count the others anew."""
        from consumer.kafka.clients.cluster import TopicUnusable

        self.letter_filter = LetterFilter(self.letter_filter.selection, markers)
        self.left_out.clear()
        self.refused = 0
        self.refusals.clear()
        count = 0
        for letter in self.source.letters(self.letter_filter):
            if (why := why_not(letter, self.max_replays, self.group)) is not None:
                self.left_out[why, WHY_SKIPPED[why]] += 1
                continue
            if (refusal := self._refusal(letter.topic)) is not None:
                self.left_out[refusal] += 1
                continue
            try:
                exists = self.targets.exists(letter.topic)
            except TopicUnusable as error:
                self._refuse(letter.id, str(error))
                continue
            if not exists:
                self.left_out["topic_missing", f"their topic {letter.topic} does not exist any more"] += 1
                continue
            # Checked only here, so that letters left out behind the last one to replay are counted too.
            if count == self.limit:
                return
            count += 1
            yield letter

    def _refusal(self, topic: str) -> tuple[str, str] | None:
        """Why no letter goes back to ``topic``, as a key of ``left_out``. None when it may."""
        from consumer.config.inputs import Inputs
        from consumer.config.names import marker_topic

        if not self.targets.allows(topic) or topic in (self.source.topic, marker_topic(self.source.topic)):
            why = (
                "their topic is no input of this configuration; --topic NAME takes letters of a topic that you know, "
                "--any-topic those of any"
            )
            return "not_an_input", why
        routes = self.source.kafka.config.routes
        read_by = Inputs(route.input for route in routes).find(topic)
        if any(not route.control_headers for route in routes if route.input == read_by):
            why = (
                f"the route of {topic} has control_headers false: its workers would run all tasks again under other "
                "ids; set it to true for them and here while you replay"
            )
            return "control_headers_off", why
        return None

    def run(self, rate: float | None, as_json: bool) -> None:
        """Replay at ``rate`` letters a second, or as fast as Kafka takes them; whatever ends it, print the summary.

        Ends the process with exit code 4 when another replay of the topic took over.
        """
        from consumer.cli.progress import counter
        from consumer.kafka.clients.settings import transaction_settings
        from consumer.kafka.tools.replay_markers import ensure_marker_topic
        from consumer.kafka.tools.replayer import open_replayer
        from consumer.kafka.tools.transactions import TakenOver

        kafka, topic = self.source.kafka, self.source.topic
        ensure_marker_topic(kafka.servers, topic, client=kafka.client, timeout=kafka.timeout)
        producer = transaction_settings(kafka.config, f"rexstream-replay-{topic}")
        done = 0
        try:
            replayer = open_replayer(kafka.servers, topic, self.targets, producer=producer, timeout=kafka.timeout)
            with counter("dead letters replayed", self.limit) as progress:
                replayer.begin()
                # The markers are read only after ``begin``: see consumer.kafka.tools.replayer.
                for chunk in _paced(self.letters(self.source.markers()), kafka.config.kafka.group_id, rate):
                    refused = replayer.write(chunk)
                    for one, reason in refused:
                        self._refuse(one.id, f"topic {one.output.topic} refuses it: {reason}")
                    done += len(chunk) - len(refused)
                    progress(done)
        except TakenOver as fenced:
            click.echo(f"Error: {fenced}", err=True)
            sys.exit(EXIT_FENCED)
        finally:
            self.print_summary(done, as_json)

    def _refuse(self, letter_id: str, reason: str) -> None:
        self.refused += 1
        if self.refused <= _REPORTED:
            self.refusals.append(f"{letter_id} not replayed: {reason}")

    def print_summary(self, count: int, as_json: bool, *, dry_run: bool = False) -> None:
        """Print ``count``, the letters replayed (or to be), on standard output; what was left out on standard error."""
        topic, before = self.source.topic, self.letter_filter.replayed
        if as_json:
            skipped = Counter[str]()
            for (why, _), number in self.left_out.items():
                skipped[why] += number
            content = {
                "topic": topic,
                "dry_run": dry_run,
                "replayed": 0 if dry_run else count,
                "replayable": count if dry_run else None,
                "replayed_before": before,
                "skipped": skipped,
                "refused": self.refused,
            }
            click.echo(json.dumps(content))
        else:
            done = "would be replayed" if dry_run else "replayed"
            click.echo(f"{topic}: {count} dead letters {done}{f', {before} had been before' if before else ''}")
        for (_, words), number in self.left_out.items():
            click.echo(f"{number} left out: {words}", err=True)
        for refusal in self.refusals:
            click.echo(printable(refusal), err=True)
        if self.refused > len(self.refusals):
            click.echo(f"... and {self.refused - len(self.refusals)} more", err=True)


def _paced(letters: Iterator[Letter], group: str, rate: float | None) -> Iterator[list[Replay]]:
    """Lists of letters, one for each transaction: at most a second's worth. Waits between transactions only."""
    from consumer.kafka.tools.replayer import Replay
    from consumer.kafka.tools.transactions import CHUNK_BYTES, CHUNK_RECORDS

    most = CHUNK_RECORDS if rate is None else min(CHUNK_RECORDS, max(1, int(rate)))
    started, sent = time.monotonic(), 0
    chunk: list[Replay] = []
    size = 0
    for letter in letters:
        one = Replay(letter.id, replayed(letter, group), letter.marker_key, letter.replay_count + 1)
        if chunk and (len(chunk) >= most or size + one.output.size > CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            if rate is not None:
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
            chunk, size = [], 0
        chunk.append(one)
        size += one.output.size
    if chunk:
        yield chunk
