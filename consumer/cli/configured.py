"""The options by which commands take their configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import click

from consumer.config.layers import CONFIG_FILE_VARIABLE
from consumer.config.problems import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from consumer.config.loading import Loaded

_Function = TypeVar("_Function", bound="Callable[..., Any]")


class ConfigFailure(click.ClickException):
    """A configuration that cannot be run; click prints its problems and ends with exit code 2."""

    exit_code = ConfigError.exit_code


def config_options(function: _Function) -> _Function:
    """Add ``--config FILE`` (argument ``config_file``) and repeatable ``--set KEY=VALUE`` (argument ``overrides``)."""
    set_option = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Set one key, such as model.target=host:8500; may be given many times and wins over file and environment.",
    )
    file_option = click.option(
        "--config",
        "-c",
        "config_file",
        metavar="FILE",
        envvar=CONFIG_FILE_VARIABLE,
        help=f"YAML file with the configuration (also {CONFIG_FILE_VARIABLE}); without one the defaults hold.",
    )
    return file_option(set_option(function))


def loaded(config_file: str | None, overrides: Sequence[str]) -> Loaded:
    """The configuration from file, environment and flags. Raises ConfigFailure, which click turns into exit code 2."""
    # Not at the top: --help should not load the task files' reader.
    from consumer.config.loading import load

    try:
        return load(config_file, os.environ, overrides)
    except ConfigError as error:
        raise ConfigFailure(str(error)) from None
