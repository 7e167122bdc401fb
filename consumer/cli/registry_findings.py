"""What ``rexstream check`` finds out about the Schema Registry: does it answer, and may results be written?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from consumer.cli.dependencies import Finding
from consumer.config.topics import output_topic, plain_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.config.tree import Config
    from consumer.kafka.registry.resolver import SubjectState


def registry_findings(config: Config) -> Iterator[Finding]:
    """Whether the Schema Registry, if one is configured, lets this client in and takes Avro results.

    Registers nothing.
    """
    if config.kafka.registry.url is None:
        return
    # Not at the top: the registry's client is loaded only where there is a registry.
    from consumer.config.shipped import shipped
    from consumer.kafka.registry.client import RegistryRefused, RegistryUnavailable
    from consumer.kafka.registry.resolver import RESULT_SCHEMA, SchemaResolver

    try:
        resolver = SchemaResolver(config.kafka.registry, shipped(RESULT_SCHEMA).read_text("utf-8"))
        yield Finding("schema registry", "ok", f"{resolver.probe()} subject(s)")
    except (RegistryUnavailable, RegistryRefused) as error:
        yield Finding("schema registry", "fail", str(error))
        return
    for topic, only_inline in _avro_topics(config).items():
        subject = f"subject {topic}-value"
        try:
            state = resolver.subject_state(topic)
        except (RegistryUnavailable, RegistryRefused) as error:
            yield Finding(subject, "fail", str(error))
        else:
            yield _subject_finding(subject, state, config.kafka.registry.auto_register, only_inline)


def _avro_topics(config: Config) -> dict[str, bool]:
    """Topics of Avro results -> whether only events that bring a schema send results there."""
    routes = [route for route in config.routes if route.output_format == "avro"]
    wanted = {output_topic(route.output, task) for route in routes for task in route.tasks}
    return {topic: topic not in wanted for topic in sorted(wanted | {plain_topic(route.output) for route in routes})}


def _subject_finding(subject: str, state: SubjectState, auto_register: bool, only_inline: bool) -> Finding:
    # Either way a worker would start, and pause at the first result there.
    bad: Literal["warn", "fail"] = "warn" if only_inline else "fail"
    mode = f"compatibility {state.compatibility}"
    if state.number is not None:
        return Finding(subject, "ok", f"has the result schema, id {state.number}; {mode}")
    if not state.accepts:
        detail = f"{mode} forbids the result schema; change the subject's mode, or the route's output"
        return Finding(subject, bad, detail)
    if auto_register:
        return Finding(subject, "ok", f"takes the result schema, which its first result registers; {mode}")
    detail = f"does not have the result schema, and auto_register is false; register it ({mode} allows it)"
    return Finding(subject, bad, detail)
