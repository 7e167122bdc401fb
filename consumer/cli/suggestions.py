"""What a shell may complete the options of several commands with. Asks no broker: a key press must not wait for one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

    from consumer.config.loading import Loaded


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The shell's own completion of files."""
    return [CompletionItem(incomplete, type="file")]


def settings(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """``KEY=`` of the configuration; after the sign, the values of a key that has few."""
    from consumer.config.problems import dotted
    from consumer.config.tree import KEYS, is_section

    kinds: dict[str, Any] = {dotted(path): key.type for path, key in KEYS.items() if path and not is_section(key.type)}
    key, sign, _value = incomplete.partition("=")
    if sign:
        return _beginning((f"{key}={value}" for value in _values(kinds.get(key))), incomplete)
    # Below a mapping, keys are anybody's.
    return _beginning((f"{name}{'.' if get_origin(kind) is dict else '='}" for name, kind in kinds.items()), incomplete)


def topics(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The topics that the configuration names."""
    from consumer.config.names import result_topics
    from consumer.config.topic_patterns import is_pattern

    found = _loaded(context)
    if found is None:
        return []
    routes = found.config.routes
    names = [route.input for route in routes if not is_pattern(route.input)]
    names += [topic for route in routes for topic in result_topics(route, found.tasks)]
    return _beginning([*names, found.config.delivery.dead_letter_topic], incomplete)


def tasks(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The tasks that the configuration loads, those that ship among them."""
    found = _loaded(context)
    return [] if found is None else _beginning(found.tasks, incomplete)


def _loaded(context: click.Context) -> Loaded | None:
    """The configuration that the options before name; None where it cannot be loaded."""
    from consumer.config.loading import load
    from consumer.config.problems import ConfigError

    try:
        return load(context.params.get("config_file"), os.environ, context.params.get("overrides") or ())
    except (ConfigError, OSError):
        return None


def _values(kind: Any) -> list[str]:
    if kind is bool:
        return ["true", "false"]
    return [str(each) for each in get_args(kind)] if get_origin(kind) is Literal else []


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.startswith(incomplete)]
