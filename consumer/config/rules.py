"""Combinations of settings that parse but cannot work, or would break a guarantee.

Each function goes through the checks of one section and yields them all, each with whether it has failed.
"""

from __future__ import annotations

from string import Formatter
from typing import TYPE_CHECKING

from consumer.config.address_rules import address_checks, address_warnings
from consumer.config.canary_rules import canary_checks
from consumer.config.client_rules import client_problems
from consumer.config.mapping_rules import mapping_checks, mapping_doubts
from consumer.config.names import HTTP_HOST, TOPIC_NAME, marker_topic, plain_topic, result_topics, runnable
from consumer.config.pattern_rules import pattern_checks
from consumer.config.problems import Check, KeyPath, Origin, Problem, dotted, nearest
from consumer.config.security_rules import key_pair, security_checks, security_warnings
from consumer.config.start import start_check
from consumer.config.topic_patterns import is_pattern
from consumer.config.tracing import TracingConfig
from consumer.config.value_rules import value_checks
from consumer.extraction.task import INLINE, SchemaTree, Task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from consumer.config.route import RouteConfig
    from consumer.config.tree import Config, RegistryConfig


def find_problems(config: Config, tasks: Mapping[str, Task] | None, origin: Origin) -> list[Problem]:
    """Every combination that cannot work. ``tasks`` is None when the task files did not load."""
    checks = (
        *_routes(config),
        *value_checks(config),
        *mapping_checks(config),
        *(() if tasks is None else _tasks(config, tasks)),
        *_topics(config, tasks or ()),
        *pattern_checks(config, tasks or ()),
        *_lanes(config),
        *_model_and_limits(config),
        *canary_checks(config.model),
        *_registry(config.kafka.registry),
        *address_checks(config),
        *_delivery(config),
        *((True, ("kafka", "client", key), what, fix) for key, what, fix in client_problems(config.kafka.client)),
        *security_checks(config.kafka, origin),
        start_check(config.kafka.start),
        (
            not any(config.batching.cost.model_dump().values()),
            ("batching", "cost"),
            "says that no call takes any time: all of it is 0",
            "give what rexstream tune measures, or remove it",
        ),
    )
    return [Problem(dotted(path), origin(path), what, fix) for failed, path, what, fix in checks if failed]


def find_warnings(config: Config, origin: Origin) -> list[Problem]:
    """Settings that work but are probably a mistake."""
    doubts = (*_doubtful(config), *mapping_doubts(config))
    unsafe = (*security_warnings(config, origin), *address_warnings(config))
    return [
        *(Problem(dotted(path), None, what, fix) for failed, path, what, fix in doubts if failed),
        *(Problem(dotted(path), origin(path), what, fix) for failed, path, what, fix in unsafe if failed),
    ]


def _doubtful(config: Config) -> Iterator[Check]:
    delivery = config.delivery
    markers = marker_topic(delivery.dead_letter_topic)
    yield (
        TOPIC_NAME.fullmatch(markers) is None,
        ("delivery", "dead_letter_topic"),
        f"has {len(delivery.dead_letter_topic)} characters: the topic of its replay markers, {markers}, cannot be made",
        "use a name of at most 240 characters, or no letter can be replayed",
    )
    formats = {route.output: route.output_format for route in reversed(config.routes)}
    for index, route in enumerate(config.routes):
        yield (
            formats[route.output] != route.output_format,
            ("routes", index, "output_format"),
            f"is {route.output_format}, and another route's results on {route.output} are {formats[route.output]}",
            "give them a topic of their own: few subscribers read both from one",
        )
        yield (
            not route.tasks and route.format != "text" and (route.may_name("tasks") or route.may_name("schema")),
            ("routes", index, "tasks"),
            f"{route.input} has no tasks: an event that {_lacking(route)} becomes a dead letter",
            "add a task unless every event brings its own",
        )
    yield (
        config.batching.latency_objective_ms > delivery.grace_seconds * 1000,
        ("delivery", "grace_seconds"),
        "is shorter than batching.latency_objective_ms, so work in flight may be cut off when a worker stops",
        "raise it",
    )
    yield (
        bool(config.batching.lanes) and len(config.lanes()) == 1,
        ("batching", "lanes"),
        "has nothing to divide: all routes are in one lane",
        "set lane for some route, such as lane: replay",
    )
    yield (
        delivery.dead_letter_run is None and delivery.dead_letter_rate is None,
        ("delivery", "dead_letter_run"),
        "and delivery.dead_letter_rate are both null: a producer that breaks has all it sends dead-lettered",
        "set one of them: 50 and 0.2 are the defaults",
    )
    yield (
        str(config.kafka.client.get("check.crcs", True)).strip().lower() in ("false", "0", "f"),
        ("kafka", "client", "check.crcs"),
        "is off: a byte that changed on a broker's disk becomes a fact, and a batch with it may be passed over",
        "remove it: Rexstream sets true",
    )


def _lacking(route: RouteConfig) -> str:
    """What an event must lack to have nothing to run on a route without tasks."""
    names = route.event_tasks == "any" and route.may_name("tasks")
    ways = ("names none",) * names + ("brings no schema",) * (route.inline_schemas and route.may_name("schema"))
    return " and ".join(ways)


def _routes(config: Config) -> Iterator[Check]:
    first: dict[str, int] = {}
    for index, route in enumerate(config.routes):
        earlier = first.setdefault(route.input, index)
        yield (
            earlier != index,
            ("routes", index, "input"),
            f"{route.input} is already the input of routes.{earlier}",
            "put the tasks of both into one route",
        )
        yield (
            route.format == "text" and not route.tasks,
            ("routes", index, "tasks"),
            "a text value cannot name tasks, and the route names none, so nothing could be extracted",
            "add a task, such as product_features",
        )
        yield (
            route.format != "text" and not route.tasks and not route.inline_schemas and route.event_tasks == "route",
            ("routes", index, "tasks"),
            "has no task, and neither a task nor a schema of an event's own is taken, so nothing could be extracted",
            "add a task, or set event_tasks to any or inline_schemas to true",
        )


def _tasks(config: Config, known: Mapping[str, Task]) -> Iterator[Check]:
    for index, route in enumerate(config.routes):
        for number, task in enumerate(route.tasks):
            path = ("routes", index, "tasks", number)
            if task in route.tasks[:number]:
                yield True, path, f"{task} is listed twice", "list it once"
            elif task == INLINE:
                yield (
                    True,
                    path,
                    f"{INLINE} is the name of schemas that come with events",
                    "leave it out, they always run",
                )
            elif task not in known:
                guess = nearest(task, known)
                fix = f"did you mean {guess}?" if guess else f"choose among {', '.join(sorted(known))}"
                yield True, path, f"there is no task {task}", f"{fix} (own task files go into a folder of tasks_dirs)"
            else:
                for key, size in _size(known[task].schema).items():
                    yield (
                        size > getattr(config.limits, key),
                        path,
                        f"the schema of {task} has {size}, more than limits.{key}, so every event would fail",
                        f"raise limits.{key} to {size}",
                    )


def _size(schema: SchemaTree) -> dict[str, int]:
    """Levels of a schema, and the types of its widest level, by the names of their limits."""
    widths = []
    level: list[SchemaTree] = [schema]
    while level:
        widths.append(sum(map(len, level)))
        level = [children for tree in level for children in tree.values() if children]
    return {"schema_depth": len(widths), "types_per_level": max(widths)}


def _topics(config: Config, known: Collection[str]) -> Iterator[Check]:
    inputs = {route.input for route in config.routes}
    dead: KeyPath = ("delivery", "dead_letter_topic")
    letters = config.delivery.dead_letter_topic
    yield _is_topic(dead, letters)
    yield (
        letters in inputs,
        dead,
        f"{letters} is also an input, so dead letters would be read and fail for ever",
        "use another topic",
    )
    markers = marker_topic(letters)
    whose = f"{markers}, where replays of {letters} note what they have sent"
    for index, route in enumerate(config.routes):
        if not is_pattern(route.input):
            yield _is_topic(("routes", index, "input"), route.input)
        yield route.input == markers, ("routes", index, "input"), f"is {whose}", "read another topic"
        path: KeyPath = ("routes", index, "output")
        if fault := _template_fault(route.output, inline=INLINE in runnable(route, known)):
            yield True, path, fault, "{task} is the only placeholder, for example reviews.extracted.{task}"
            continue
        topics = result_topics(route, known)
        for topic in sorted(topics):
            yield _is_topic(path, topic)
            yield (
                topic in inputs,
                path,
                f"results would go to {topic}, which is an input",
                "use a topic that no route reads",
            )
        yield (
            letters in topics,
            path,
            f"results would go to {letters}, the dead-letter topic",
            "use another topic",
        )
        yield markers in topics, path, f"results would go to {whose}", "use another topic"


def _template_fault(template: str, *, inline: bool) -> str | None:
    """What is wrong with an output template. ``inline``: the results of inline schemas need a topic, too."""
    try:
        fields = [field for _, *field in Formatter().parse(template) if field[0] is not None]
    except ValueError:
        return "has an unbalanced brace"
    for name, spec, conversion in fields:
        if name != "task" or spec or conversion:
            return f"has the unknown placeholder {{{name}}}"
    if "{{" in template or "}}" in template:
        return "has a doubled brace, and topic names have no braces"
    lost = inline and not plain_topic(template)
    return "is nothing but a placeholder, so inline schemas have no topic to go to" if lost else None


def _is_topic(path: KeyPath, topic: str) -> Check:
    fix = "use 1 to 249 letters, digits, dots, underscores and hyphens"
    return TOPIC_NAME.fullmatch(topic) is None, path, f"{topic!r} is not a topic name", fix


def _lanes(config: Config) -> Iterator[Check]:
    known = config.lanes()
    for lane in config.batching.lanes:
        guess = nearest(lane, known)
        yield (
            lane not in known,
            ("batching", "lanes", lane),
            f"no route is in the lane {lane}",
            f"did you mean {guess}?" if guess else f"set lane: {lane} for a route, or remove it",
        )


def _model_and_limits(config: Config) -> Iterator[Check]:
    model, limits = config.model, config.limits
    yield (
        model.version is not None and model.label is not None,
        ("model", "version"),
        "version and label are both set, and each chooses the version",
        "keep one of them",
    )
    if model.tls is not None:
        yield key_pair(("model", "tls"), model.tls)
    yield (
        limits.in_flight_bytes < limits.value_bytes,
        ("limits", "in_flight_bytes"),
        f"{limits.in_flight_bytes} bytes is less than one value may have (limits.value_bytes {limits.value_bytes})",
        "raise it, or lower limits.value_bytes: such a value could never start",
    )
    yield (
        "inline_model_calls" in limits.model_fields_set and limits.inline_model_calls > limits.model_calls,
        ("limits", "inline_model_calls"),
        f"{limits.inline_model_calls} is more than limits.model_calls {limits.model_calls}",
        "lower it, or raise limits.model_calls: a schema of an event's own gets no more than a configured task",
    )
    tracing = config.observability.tracing
    yield (
        tracing.endpoint is None and tracing.sample_ratio != TracingConfig().sample_ratio,
        ("observability", "tracing", "sample_ratio"),
        "is set without observability.tracing.endpoint, so nothing is recorded",
        "set the endpoint, such as http://otel-collector:4317, or remove it",
    )
    for index, name in enumerate(config.observability.http_hosts):
        yield (
            HTTP_HOST.fullmatch(name) is None,
            ("observability", "http_hosts", index),
            f"{name!r} is not a host name",
            "write it without scheme and port, such as rexstream.shop.svc, or *.shop.svc for all names below that",
        )


def _registry(registry: RegistryConfig) -> Iterator[Check]:
    section: KeyPath = ("kafka", "registry")
    url, name = registry.url, (*section, "username")
    given = [key for key in ("username", "password_file") if getattr(registry, key) is not None]
    tls = [key for key in ("ca_file", "certificate_file", "key_file") if getattr(registry, key) is not None]
    if url is None:
        for key in (*given, *tls):
            yield True, (*section, key), "is set without kafka.registry.url", "set the url or remove it"
        yield (
            not registry.auto_register,
            (*section, "auto_register"),
            "is false without kafka.registry.url",
            "set the url or remove it",
        )
        return
    known = url.startswith(("http://", "https://", "mock://"))
    for key in tls:
        yield (
            known and not url.startswith("https://"),
            (*section, key),
            "is for TLS, but the url is not https",
            "write the url as https://host:8081",
        )
    yield len(given) == 1, name, "username and password_file belong together", "set both or neither"
    yield (
        len(given) == 2 and "@" in url,
        name,
        "is set, and the url holds credentials too",
        "remove those from the url",
    )
    yield (
        ":" in (registry.username or ""),
        name,
        "has a colon, which ends a name in HTTP's basic scheme",
        "use another name",
    )
    yield key_pair(section, registry)


def _delivery(config: Config) -> Iterator[Check]:
    delivery = config.delivery
    exactly_once = delivery.mode == "exactly_once"
    yield (
        exactly_once and delivery.order not in (None, "partition"),
        ("delivery", "order"),
        f"{delivery.order} cannot be had in exactly_once: a transaction holds a whole stretch of a partition",
        "remove it, or set delivery.mode to at_least_once",
    )
    yield (
        exactly_once and delivery.transaction_interval_ms * 2 > delivery.transaction_timeout_ms,
        ("delivery", "transaction_interval_ms"),
        f"{delivery.transaction_interval_ms} ms is more than half of delivery.transaction_timeout_ms",
        "lower it: 100 is usual",
    )
