"""``rexstream config``: look at the configuration that a worker would run with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import yaml

from consumer.cli.options import config_options, loaded
from consumer.config.problems import KeyPath, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@click.group(name="config")
def command() -> None:
    """Look at the configuration that a worker would run with.

    \b
    Example:
      rexstream config print --config rexstream.yaml
    """  # noqa: D301 - click's own mark for a block that is not wrapped


@command.command(name="print")
@config_options
def print_config(config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Print every key with its effective value, as YAML.

    A comment says where a value came from: a line of the file, an environment variable or a flag; values without one
    are defaults. Secrets are hidden.

    \b
    Example:
      rexstream config print --config rexstream.yaml --set batching.latency_objective_ms=300
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    found = loaded(config_file, overrides)
    tree = found.config.model_dump()
    for section in ("tls", "canary"):
        if tree["model"][section] is None:
            del tree["model"][section]  # an empty section is refused
    for line in _lines(tree, (), found.origins):
        click.echo(line)


def _lines(tree: Mapping[str, Any], path: KeyPath, origins: Mapping[KeyPath, str]) -> Iterator[str]:
    """Lines of YAML for a mapping at ``path``, beginning in the first column."""
    for key, value in tree.items():
        here = (*path, key)
        head = f"{_scalar(key)}:"
        if isinstance(value, dict) and value:
            yield head
            yield from (f"  {line}" for line in _lines(value, here, origins))
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            yield head
            for index, item in enumerate(value):
                for number, line in enumerate(_lines(item, (*here, index), origins)):
                    yield f"  {line}" if number else f"- {line}"
        else:
            # A list may have been set as a whole, or only elements of it.
            places = (place for key_path, place in origins.items() if key_path[: len(here)] == here)
            place = origins.get(here) or next(places, None)
            yield f"{head} {_scalar(shown(here, value))}{f'  # {place}' if place else ''}"


def _scalar(value: Any) -> str:
    """``value`` on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")
