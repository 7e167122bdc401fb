"""Combinations of settings that parse but cannot work, or would break a guarantee."""

from __future__ import annotations

import re
from string import Formatter
from typing import TYPE_CHECKING, Any

from consumer.config.problems import KeyPath, Origin, Problem, dotted, kind_of, nearest
from consumer.config.secrets import is_secret
from consumer.config.security_rules import security_problems, security_warnings
from consumer.config.topics import output_topic, plain_topic
from consumer.extraction.task import INLINE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from consumer.config.tree import Config, RegistryConfig, RouteConfig
    from consumer.extraction.task import SchemaTree, Task

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s/]+):(?P<port>\d{1,5})")


def find_problems(config: Config, tasks: Mapping[str, Task] | None, origin: Origin) -> list[Problem]:
    """Everything that makes the configuration impossible. ``tasks`` is None when the task files did not load."""

    def problems() -> Iterator[tuple[KeyPath, str, str]]:
        yield from _route_problems(config)
        if tasks is not None:
            yield from _task_problems(config, tasks)
        yield from _topic_problems(config, tasks or ())
        yield from _limit_problems(config)
        yield from _registry_problems(config.kafka.registry)
        yield from _delivery_problems(config)
        yield from _client_problems(config.kafka.client)
        yield from security_problems(config.kafka, origin)

    return [Problem(dotted(path), origin(path), what, fix) for path, what, fix in problems()]


def find_warnings(config: Config, origin: Origin) -> list[Problem]:
    """What can work, and probably is not meant."""
    warnings = []
    for index, route in enumerate(config.routes):
        if not route.tasks and route.format != "text":
            what = f"{route.input} has no tasks: an event that names none and brings no schema becomes a dead letter"
            warnings.append(
                Problem(f"routes.{index}.tasks", None, what, "add a task unless every event brings its own")
            )
    if config.batching.latency_objective_ms > config.delivery.grace_seconds * 1000:
        what = "is shorter than batching.latency_objective_ms, so work in flight may be cut off when a worker stops"
        warnings.append(Problem("delivery.grace_seconds", None, what, "raise it"))
    delivery = config.delivery
    if delivery.dead_letter_run is None and delivery.dead_letter_rate is None:
        what = "and delivery.dead_letter_rate are both null: a producer that breaks has all it sends dead-lettered"
        warnings.append(Problem("delivery.dead_letter_run", None, what, "set one of them: 50 and 0.2 are the defaults"))
    warnings += security_warnings(config, origin)
    return warnings


def _route_problems(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    first: dict[str, int] = {}
    for index, route in enumerate(config.routes):
        if route.input in first:
            what = f"{route.input} is already the input of routes.{first[route.input]}"
            yield ("routes", index, "input"), what, "put the tasks of both into one route"
        first.setdefault(route.input, index)
        if route.format == "text" and not route.tasks:
            what = "a text value cannot name tasks, and the route names none, so nothing could be extracted"
            yield ("routes", index, "tasks"), what, "add a task, such as product_features"


def _task_problems(config: Config, known: Mapping[str, Task]) -> Iterator[tuple[KeyPath, str, str]]:
    for index, route in enumerate(config.routes):
        for number, task in enumerate(route.tasks):
            path = ("routes", index, "tasks", number)
            if task in route.tasks[:number]:
                yield path, f"{task} is listed twice", "list it once"
            elif task == INLINE:
                yield path, f"{INLINE} is the name of schemas that come with events", "leave it out, they always run"
            elif task not in known:
                guess = nearest(task, known)
                fix = f"did you mean {guess}?" if guess else f"choose among {', '.join(sorted(known))}"
                yield path, f"there is no task {task}", f"{fix} (own task files go into a folder of tasks_dirs)"
            else:
                depth, width = _size(known[task].schema)
                for size, key in ((depth, "schema_depth"), (width, "types_per_level")):
                    if size > getattr(config.limits, key):
                        what = f"the schema of {task} has {size}, more than limits.{key}, so every event would fail"
                        yield path, what, f"raise limits.{key} to {size}"


def _size(schema: SchemaTree) -> tuple[int, int]:
    """Levels of a schema, and the types of its widest level."""
    widths = []
    level: list[SchemaTree] = [schema]
    while level:
        widths.append(sum(map(len, level)))
        level = [children for tree in level for children in tree.values() if children]
    return len(widths), max(widths)


def _topic_problems(config: Config, known: Collection[str]) -> Iterator[tuple[KeyPath, str, str]]:
    inputs = {route.input for route in config.routes}
    dead: KeyPath = ("delivery", "dead_letter_topic")
    letters = config.delivery.dead_letter_topic
    yield from _name_problem(dead, letters)
    if letters in inputs:
        yield dead, f"{letters} is also an input, so dead letters would be read and fail for ever", "use another topic"
    for index, route in enumerate(config.routes):
        yield from _name_problem(("routes", index, "input"), route.input)
        path: KeyPath = ("routes", index, "output")
        unusable = _template_fault(route.output)
        if unusable:
            yield path, unusable, "{task} is the only placeholder, for example reviews.extracted.{task}"
            continue
        topics = _topics_of(route, known)
        for topic in sorted(topics):
            yield from _name_problem(path, topic)
        for topic in sorted(topics & inputs):
            yield path, f"results would go to {topic}, which is an input", "use a topic that no route reads"
        if letters in topics:
            yield path, f"results would go to {letters}, the dead-letter topic", "use another topic"


def _topics_of(route: RouteConfig, known: Collection[str]) -> set[str]:
    """Every topic that a result of this route can go to: events may name any known task, or bring a schema."""
    return {output_topic(route.output, task) for task in {*route.tasks, *known}} | {plain_topic(route.output)}


def _template_fault(template: str) -> str | None:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError:
        return "has an unbalanced brace"
    for name, spec, conversion in fields:
        if name != "task" or spec or conversion:
            return f"has the unknown placeholder {{{name}}}"
    if "{{" in template or "}}" in template:
        return "has a doubled brace, and topic names have no braces"
    return None if plain_topic(template) else "is nothing but a placeholder, so inline schemas have no topic to go to"


def _name_problem(path: KeyPath, topic: str) -> Iterator[tuple[KeyPath, str, str]]:
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        yield path, f"{topic!r} is not a topic name", "use 1 to 249 letters, digits, dots, underscores and hyphens"


def _limit_problems(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    model, limits = config.model, config.limits
    if model.version is not None and model.label is not None:
        yield ("model", "version"), "version and label are both set, and each chooses the version", "keep one of them"
    if model.tls is not None and (model.tls.certificate_file is None) != (model.tls.key_file is None):
        given, other = ("key", "certificate") if model.tls.certificate_file is None else ("certificate", "key")
        what = f"is set without model.tls.{other}_file, and neither is of use alone"
        yield ("model", "tls", f"{given}_file"), what, "set both, or neither"
    if limits.in_flight_bytes < limits.value_bytes:
        what = (
            f"{limits.in_flight_bytes} bytes is less than one value may have (limits.value_bytes {limits.value_bytes})"
        )
        yield (
            ("limits", "in_flight_bytes"),
            what,
            "raise it, or lower limits.value_bytes: such a value could never start",
        )
    http = config.observability.http
    address = _ADDRESS.fullmatch(http)
    if address is not None and int(address["port"]) > 65_535:
        yield ("observability", "http"), f"{http!r} has a port above 65535", "choose 0 to 65535; 0 takes a free port"
    elif http and address is None:
        yield (
            ("observability", "http"),
            f"{http!r} is not host:port",
            "write 127.0.0.1:9464, or an empty string for none",
        )


def _registry_problems(registry: RegistryConfig) -> Iterator[tuple[KeyPath, str, str]]:
    section: KeyPath = ("kafka", "registry")
    url, tls = registry.url, ("ca_file", "certificate_file", "key_file")
    if url is None:
        for key in ("username", "password_file", *tls):
            if getattr(registry, key) is not None:
                yield (*section, key), "is set without kafka.registry.url", "set the url or remove it"
        if not registry.auto_register:
            yield (*section, "auto_register"), "is false without kafka.registry.url", "set the url or remove it"
        return
    if not url.startswith(("http://", "https://", "mock://")):
        yield (*section, "url"), "is not an http or https address", "write it as http://host:8081"
    elif not url.startswith("https://"):
        for key in tls:
            if getattr(registry, key) is not None:
                yield (*section, key), "is for TLS, but the url is not https", "write the url as https://host:8081"
    if (registry.username is None) != (registry.password_file is None):
        yield (*section, "username"), "username and password_file belong together", "set both or neither"
    elif registry.username is not None and "@" in url:
        yield (*section, "username"), "is set, and the url holds credentials too", "remove those from the url"
    elif ":" in (registry.username or ""):
        yield (*section, "username"), "has a colon, which ends a name in HTTP's basic scheme", "use another name"
    if (registry.certificate_file is None) != (registry.key_file is None):
        given, other = ("key", "certificate") if registry.certificate_file is None else ("certificate", "key")
        what = f"is set without kafka.registry.{other}_file, and neither is of use alone"
        yield (*section, f"{given}_file"), what, "set both, or neither"


def _delivery_problems(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    delivery = config.delivery
    if delivery.mode != "exactly_once":
        return
    if delivery.order not in (None, "partition"):
        what = f"{delivery.order} cannot be had in exactly_once: a transaction holds a whole stretch of a partition"
        yield ("delivery", "order"), what, "remove it, or set delivery.mode to at_least_once"
    if delivery.transaction_interval_ms * 2 > delivery.transaction_timeout_ms:
        what = f"{delivery.transaction_interval_ms} ms is more than half of delivery.transaction_timeout_ms"
        yield ("delivery", "transaction_interval_ms"), what, "lower it: 100 is usual"


_OURS = "remove it: Rexstream sets it"
_COMMITS = "offsets are committed when their results are durable, never by a timer"
_ELSEWHERE = "has a key of its own"
_SAFE = "a result counts as written only when all in-sync replicas have it"
_KEYED = "results of a key must land on the partition where Java clients would put them"
_CLIENT_RULES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "bootstrap.servers": ((), _ELSEWHERE, "set kafka.bootstrap_servers instead"),
    "metadata.broker.list": ((), _ELSEWHERE, "set kafka.bootstrap_servers instead"),
    "group.id": ((), _ELSEWHERE, "set kafka.group_id instead"),
    "enable.auto.commit": ((), _COMMITS, _OURS),
    "auto.commit.interval.ms": ((), _COMMITS, "set delivery.commit_interval_ms instead"),
    "enable.auto.offset.store": ((), _COMMITS, _OURS),
    "auto.offset.reset": (
        ("earliest", "smallest", "beginning", "error"),
        "would silently skip data for a new group, an added partition or an expired offset",
        "remove it: a worker starts at the earliest record",
    ),
    "enable.partition.eof": ((), "the end of a partition is how lag reaches zero behind transaction markers", _OURS),
    "isolation.level": (("read_committed",), "would turn reviews of aborted transactions into results", "remove it"),
    "partition.assignment.strategy": (
        ("cooperative-sticky",),
        "would take all partitions away at every rebalance, where workers give up only those that move",
        "remove it, or set group.protocol: consumer for the broker's own assignment",
    ),
    "enable.idempotence": ((), "without it a retried result is written twice or out of order", _OURS),
    "enable.gapless.guarantee": ((), "one refused record would stop all others", _OURS),
    "delivery.report.only.error": ((), "without reports no offset could ever be committed", _OURS),
    "transactional.id": ((), "would open transactions that delivery.mode does not ask for", "remove it"),
    "acks": ((), _SAFE, _OURS),
    "request.required.acks": ((), _SAFE, _OURS),
    "retries": ((), "would give up results that a broker may still accept", _OURS),
    "message.send.max.retries": ((), "would give up results that a broker may still accept", _OURS),
    "partitioner": ((), _KEYED, _OURS),
    "partitioner_cb": ((), _KEYED, _OURS),
}
"""librdkafka key -> the values that change nothing, what any other would break, the way out."""


_CLASSIC_ONLY = ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type")


def _client_problems(client: dict[str, Any]) -> Iterator[tuple[KeyPath, str, str]]:
    for key, value in client.items():
        path: KeyPath = ("kafka", "client", key)
        if not isinstance(value, (str, int, float)):
            yield path, "is neither text nor a number nor true/false", "librdkafka settings are flat: dots in the key"
            continue
        if is_secret(path) and not isinstance(value, str):
            yield path, f"YAML reads this secret as {kind_of(value)}", "put it in quotes"
        if key in _CLIENT_RULES:
            harmless, what, fix = _CLIENT_RULES[key]
            if str(value).strip().lower() not in harmless:
                yield path, what, fix
    if str(client.get("group.protocol", "classic")).lower() == "consumer":
        for key in _CLASSIC_ONLY:
            if key in client:
                yield ("kafka", "client", key), "belongs to the broker under group.protocol: consumer", "remove it"
