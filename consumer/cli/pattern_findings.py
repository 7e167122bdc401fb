"""What ``rexstream check --connect`` finds out about inputs that are patterns: the topics that they match now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.cli.dependencies import Finding
from consumer.config.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from confluent_kafka.admin._metadata import TopicMetadata

    from consumer.config.tree import Config

_NAMED = 10
"""Topics that a finding names; a pattern may match thousands."""


def matched_topics(config: Config, existing: Iterable[str]) -> dict[str, list[str]]:
    """Each pattern among the inputs -> those of the ``existing`` topics that it reads, in order."""
    inputs = Inputs(route.input for route in config.routes)
    matched: dict[str, list[str]] = {pattern.text: [] for pattern in inputs.patterns}
    for topic in sorted(existing) if matched else ():
        if (name := inputs.find(topic)) in matched:
            matched[name].append(topic)
    return matched


def pattern_findings(
    config: Config,
    matched: Mapping[str, Collection[str]],
    outputs: Mapping[str, str],
    topics: Mapping[str, TopicMetadata],
    rights: Mapping[str, frozenset[str]],
) -> Iterator[Finding]:
    """Whether each pattern matches topics, and these may be read.

    ``matched``: by pattern; ``outputs``: the input of each topic that is written to; ``rights``: operations by topic,
    where they are known.
    """
    for pattern, found in matched.items():
        subject = f"topics {pattern}"
        if not found:
            what = "no topic matches now, and a worker waits for one; create it, or check the pattern"
            yield Finding(subject, "warn", f"{what} and this client's right to DESCRIBE")
            continue
        if refused := [topic for topic in found if "READ" not in rights.get(topic, {"READ"})]:
            what = f"no right to READ {_named(refused)}; grant this client READ on what the pattern matches"
            yield Finding(subject, "fail", f"{what}: a prefixed ACL also covers topics that come later")
        else:
            yield Finding(subject, "ok", f"input: {_named(found)}")
        for output in (topic for topic, its_input in outputs.items() if its_input == pattern and topic in topics):
            count = len(topics[output].partitions)
            if others := [topic for topic in found if len(topics[topic].partitions) != count]:
                what = f"{output} has {count} partitions, which differs from {_named(others)}"
                yield Finding(subject, "warn", f"{what}; records are placed by their key, not beside their input")
    inputs = Inputs(route.input for route in config.routes)
    twice = [topic for found in matched.values() for topic in found if len(inputs.all_of(topic)) > 1]
    if twice:
        what = f"the patterns of several routes match {_named(twice)}; the first of those routes reads each"
        yield Finding("routes", "warn", what)


def _named(topics: Collection[str]) -> str:
    """The first few, and how many they are."""
    named = ", ".join(list(topics)[:_NAMED])
    more = f" and {len(topics) - _NAMED} more" if len(topics) > _NAMED else ""
    return f"{len(topics)} topic(s): {named}{more}"
