"""``rexstream config``: look at the configuration that a worker would run with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import yaml

from consumer.cli.options import config_options, loaded
from consumer.config.secrets import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from consumer.config.problems import KeyPath


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
    if tree["model"]["tls"] is None:
        del tree["model"]["tls"]  # a section that is there and says nothing is refused
    for line in _lines(tree, (), found.origins):
        click.echo(line)


def _lines(tree: Mapping[str, Any], path: KeyPath, origins: Mapping[KeyPath, str], lead: str = "") -> Iterator[str]:
    indent = "  " * sum(isinstance(part, str) for part in path)
    for key, value in tree.items():
        here = (*path, key)
        yield from _entry(here, value, origins, f"{lead or indent}{_scalar(key)}:")
        lead = ""


def _entry(here: KeyPath, value: Any, origins: Mapping[KeyPath, str], head: str) -> Iterator[str]:
    indent = "  " * sum(isinstance(part, str) for part in here)
    if isinstance(value, dict) and value:
        yield head
        yield from _lines(value, here, origins)
    elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        yield head
        for index, item in enumerate(value):
            yield from _lines(item, (*here, index), origins, lead=f"{indent[:-2]}- ")
    else:
        # A list may have been set as a whole, or only elements of it.
        place = origins.get(here) or next((place for path, place in origins.items() if path[: len(here)] == here), None)
        yield f"{head} {_scalar(shown(here, value))}{f'  # {place}' if place else ''}"


def _scalar(value: Any) -> str:
    """``value`` on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")
