"""``rexstream dead-letters replay``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from consumer.cli.dead_letter_source import open_source, selection, selection_options, source_options
from consumer.cli.options import exit_codes, rate_option
from consumer.delivery.letters import WHY_SKIPPED, LetterFilter, replayed, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from consumer.cli.dead_letter_source import Source
    from consumer.delivery.letters import Letter, Selection, Skipped
    from consumer.kafka.tools.replayer import Replay, ReplayTargets

_FENCED = 4
_REPORTED = 20


@click.command(name="replay", short_help="Send dead letters again to the topics they came from.")
@source_options
@selection_options
@rate_option("Dead letters a second. Default: as fast as Kafka takes them.")
@click.option("--limit", type=click.IntRange(min=1), help="Replay at most this many.")
@click.option(
    "--max-replays",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Leave out records that were replayed this often and still fail.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as a JSON object.")
def replay(
    bootstrap_servers: str | None,
    timeout: float,
    config_file: str | None,
    overrides: tuple[str, ...],
    dead_letter_topic: str | None,
    rate: float | None,
    limit: int | None,
    max_replays: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Send dead letters again to the topics they came from; the worker then runs only the task that failed.

    Each goes in one Kafka transaction with a marker of its id, so a replay that is interrupted, killed or started twice
    doubles nothing: run it again, and it goes on with the rest. One replay of a topic runs at a time; a second one
    takes over and ends the first. Letters without their value, and records that failed after --max-replays replays, are
    left out and counted.

    After a dead-letter topic or a topic that letters came from was deleted and made anew, delete <dead-letter
    topic>.replayed too: by its markers new letters of the same places would pass for replayed.

    Exit code 0, also when letters were left out; 1 when a topic refused some, 4 when another replay took over.

    \b
    Example:
      rexstream dead-letters replay --class TextTooLong --dry-run
      rexstream dead-letters replay --task sentiment --since 2h --rate 50
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    from consumer.cli import record_lines as lines
    from consumer.kafka.tools.replayer import open_targets

    with exit_codes():
        source = open_source(bootstrap_servers, timeout, config_file, overrides, dead_letter_topic)
        _refuse_embedded(source)
        with open_targets(source.servers, client=source.client, timeout=source.timeout) as targets:
            work = _Work(source, targets, selection(**filters), max_replays, limit)
            if dry_run:
                count = 0
                for letter in work.letters(source.replayed_ids()):
                    count += 1
                    if not as_json:
                        click.echo(lines.row(letter))
                _summary(work, count, as_json, dry_run=True)
            else:
                if _watched():
                    work.limit = sum(1 for _ in work.letters(source.replayed_ids()))
                    # The limit stays: letters that come meanwhile may have causes that nobody has looked at.
                    if not yes and _asked():
                        question = f"Replay {work.limit} dead letters of {source.topic} at {source.servers}?"
                        click.confirm(question, abort=True, err=True)
                _replay(work, rate, as_json)
    sys.exit(int(bool(work.refused)))


def _watched() -> bool:
    """Whether somebody sees the progress."""
    return sys.stderr.isatty()


def _asked() -> bool:
    """Whether somebody can answer."""
    return sys.stdin.isatty()


@dataclass(slots=True)
class _Work:
    """The letters to send again, and how many of those that were meant cannot be."""

    source: Source
    targets: ReplayTargets
    selection: Selection
    max_replays: int
    limit: int | None
    missing_topics: Counter[str] = field(default_factory=Counter)
    skipped: Counter[Skipped] = field(default_factory=Counter)
    already: int = 0
    refused: int = 0
    refusals: list[str] = field(default_factory=list)
    """The first of them, with the reason."""

    def refuse(self, letter_id: str, reason: str) -> None:
        """Its topic does not take a letter."""
        self.refused += 1
        if self.refused <= _REPORTED:
            self.refusals.append(f"{letter_id} not replayed: {reason}")

    def letters(self, replayed_ids: Mapping[str, int]) -> Iterator[Letter]:
        """Read the dead-letter topic and count anew."""
        from consumer.kafka.clients.cluster import TopicUnusable

        self.missing_topics.clear()
        self.skipped.clear()
        self.refused = 0
        self.refusals.clear()
        sieve = LetterFilter(self.selection, replayed_ids)
        count = 0
        for letter in self.source.letters(sieve):
            self.already = sieve.replayed
            if (why := why_not(letter, self.max_replays)) is not None:
                self.skipped[why] += 1
                continue
            try:
                exists = self.targets.exists(letter.topic)
            except TopicUnusable as error:
                self.refuse(letter.id, str(error))
                continue
            if not exists:
                self.missing_topics[letter.topic] += 1
                continue
            # Only now, so that what is left out behind the last letter is counted too.
            if count == self.limit:
                return
            count += 1
            yield letter
        self.already = sieve.replayed


def _refuse_embedded(source: Source) -> None:
    """Its transactions commit nothing and fence nobody, so a replay would double letters without a word."""
    from consumer.kafka.clients.cluster import is_embedded

    if is_embedded(source.servers, client=source.client, timeout=source.timeout):
        raise click.UsageError(
            f"{source.servers} is the embedded broker, which has no working transactions, so a replay could double "
            "events; use Apache Kafka"
        )


def _replay(work: _Work, rate: float | None, as_json: bool) -> None:
    """Replay. Whatever ends it, the summary is printed."""
    from consumer.cli.progress import counter
    from consumer.kafka.clients.settings import transaction_settings
    from consumer.kafka.tools.replay_markers import ensure_marker_topic
    from consumer.kafka.tools.replayer import ReplayFenced, open_replayer

    source = work.source
    ensure_marker_topic(source.servers, source.topic, client=source.client, timeout=source.timeout)
    producer = transaction_settings(source.config, f"rexstream-replay-{source.topic}")
    done = 0
    try:
        replayer = open_replayer(source.servers, source.topic, work.targets, producer=producer, timeout=source.timeout)
        with counter("dead letters replayed", work.limit) as progress:
            replayer.begin()
            # Only now: see consumer.kafka.tools.replayer.
            for chunk in _paced(work.letters(source.replayed_ids()), rate):
                refused = replayer.write(chunk)
                for one, reason in refused:
                    work.refuse(one.id, f"topic {one.output.topic} refuses it: {reason}")
                done += len(chunk) - len(refused)
                progress(done)
    except ReplayFenced as fenced:
        click.echo(f"Error: {fenced}", err=True)
        sys.exit(_FENCED)
    finally:
        _summary(work, done, as_json)


def _paced(letters: Iterator[Letter], rate: float | None) -> Iterator[list[Replay]]:
    """What goes into one transaction each: at most a second's worth. The waits lie between transactions."""
    from consumer.kafka.tools.replayer import CHUNK_BYTES, CHUNK_RECORDS, Replay

    most = CHUNK_RECORDS if rate is None else min(CHUNK_RECORDS, max(1, int(rate)))
    started, sent = time.monotonic(), 0
    chunk: list[Replay] = []
    size = 0
    for letter in letters:
        one = Replay(letter.id, replayed(letter))
        if chunk and (len(chunk) >= most or size + one.size > CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            if rate is not None:
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
            chunk, size = [], 0
        chunk.append(one)
        size += one.size
    if chunk:
        yield chunk


def _summary(work: _Work, count: int, as_json: bool, *, dry_run: bool = False) -> None:
    from consumer.cli.record_lines import printable

    left_out: dict[str, int] = {str(why): number for why, number in work.skipped.items()}
    if work.missing_topics:
        left_out["topic_missing"] = work.missing_topics.total()
    if as_json:
        content = {
            "topic": work.source.topic,
            "dry_run": dry_run,
            "replayed": 0 if dry_run else count,
            "replayable": count if dry_run else None,
            "replayed_before": work.already,
            "skipped": left_out,
            "refused": work.refused,
        }
        click.echo(json.dumps(content))
    else:
        before = f", {work.already} had been before" if work.already else ""
        click.echo(
            f"{work.source.topic}: {count} dead letters {'would be replayed' if dry_run else 'replayed'}{before}"
        )
    for why, number in work.skipped.items():
        click.echo(f"{number} left out: {WHY_SKIPPED[why]}", err=True)
    for topic, number in work.missing_topics.items():
        click.echo(f"{number} left out: their topic {topic} does not exist any more", err=True)
    for refusal in work.refusals:
        click.echo(printable(refusal), err=True)
    if work.refused > len(work.refusals):
        click.echo(f"... and {work.refused - len(work.refusals)} more", err=True)
