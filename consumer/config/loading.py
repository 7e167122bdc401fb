"""Load the configuration: merge its sources, check every key, check the combinations, report all that is wrong.

Every command that takes ``--config`` calls ``load``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from consumer.config.layers import Layers, gather
from consumer.config.oauth_rules import MSK_IAM, NO_MSK_IAM
from consumer.config.problems import ConfigError, KeyPath, Problem, dotted, is_secret, kind_of, nearest
from consumer.config.rules import find_problems, find_warnings
from consumer.config.task_files import load_tasks
from consumer.config.text_rules import text_problems
from consumer.config.tree import KEYS, Config, is_section, key_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

    from consumer.extraction.task import Task


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration with its tasks, where each key that was set came from, and the warnings."""

    config: Config
    tasks: Mapping[str, Task]
    origins: Mapping[KeyPath, str]
    warnings: tuple[Problem, ...]


def load_config(path: str | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Config:
    """The configuration from a YAML file, ``REXSTREAM_…`` variables and ``key=value`` overrides; the later wins.

    Raises ConfigError with every problem that was found.
    """
    return load(path, environ, overrides).config


def load(path: str | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Loaded:
    """As ``load_config``, with the tasks, the origin of each key that was set, and the warnings."""
    layers = gather(path, environ, overrides)
    odd_texts = list(text_problems(layers.tree, layers.origin))
    problems = [*layers.problems, *odd_texts]
    # What else is wrong with such a text follows from that.
    reported = {problem.key for problem in odd_texts}
    try:
        config = Config.model_validate(layers.tree)
    except ValidationError as error:
        # A list with a bad element is reported as too short as well.
        translated = (
            _translated(detail, layers)
            for detail in error.errors(include_url=False)
            if detail["type"] != "too_short" or not detail["input"]
        )
        raise ConfigError([*problems, *(each for each in translated if each.key not in reported)]) from None
    tasks: dict[str, Task] | None
    try:
        tasks = load_tasks(config.tasks_dirs)
    except ConfigError as error:
        tasks = None
        problems += error.problems
    problems += [each for each in find_problems(config, tasks, layers.origin) if each.key not in reported]
    if problems or tasks is None:
        raise ConfigError(problems)
    return Loaded(config, tasks, layers.origins, tuple(find_warnings(config, layers.origin)))


def _translated(detail: ErrorDetails, layers: Layers) -> Problem:
    path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    key, origin = dotted(path), layers.origin(path)
    if detail["type"] == "extra_forbidden":
        return Problem(
            key, origin, f"there is no such key (its value is {kind_of(detail['input'])})", _suggestion(path)
        )
    if detail["type"] == "missing":
        return Problem(key, layers.origin(path[:-1]), "is not set and has no default", "add it")
    wanted = _WANTED.get(detail["type"])
    needed = wanted.format_map(detail.get("ctx", {})) if wanted else f"a valid {path[-1]}"
    what = f"is {_described(path, detail['input'])}, but must be {needed}"
    return Problem(key, origin, what, _fix(path, detail))


def _described(path: KeyPath, value: Any) -> str:
    kind = kind_of(value)
    # A value under a key of free form may be a secret whatever its name is.
    hidden = is_secret(path) or path[:2] == ("kafka", "client") or isinstance(value, (dict, list, tuple))
    return kind if hidden or value in (None, "") else f"{kind} ({str(value)[:60]})"


_WANTED = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a section, a mapping of keys to values",
    "too_short": "a list with at least one element",
    "literal_error": "one of {expected}",
    "greater_than": "greater than {gt}",
    "less_than": "less than {lt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}
"""pydantic's name of an error -> what the value must be, with the error's context filled in."""


def _fix(path: KeyPath, detail: ErrorDetails) -> str:
    kind, value = detail["type"], detail["input"]
    if value == MSK_IAM:
        return NO_MSK_IAM
    if kind == "literal_error" and isinstance(value, str):
        guess = nearest(value, [word.strip("' ") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")])
        return f"did you mean {guess}?" if guess else "choose one of them"
    if kind == "string_type" and not isinstance(value, (dict, list, tuple, type(None))):
        return "put it in quotes"
    if kind == "string_type" and isinstance(value, tuple):
        return "write one text" + (", with commas between the brokers" if path[-1] == "bootstrap_servers" else "")
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "write it without quotes or units"
    if kind == "tuple_type" and isinstance(value, str):
        return f"write it as [{value[:60]}]" if not is_secret(path) else "write it in square brackets"
    return "change it, or remove the key to take its default"


def _suggestion(path: KeyPath) -> str:
    """What an unknown key was probably meant to be: a sibling's name, else a name in other sections."""
    parent, name = path[:-1], str(path[-1])
    section = key_at(parent).type
    siblings = list(section.model_fields) if is_section(section) else []
    if guess := nearest(name, siblings):
        return f"did you mean {dotted((*parent, guess))}?"
    everywhere: dict[str, list[KeyPath]] = {}
    for known in KEYS:
        if known and isinstance(known[-1], str):
            everywhere.setdefault(known[-1], []).append(known)
            if not parent:  # a variable with one underscore where two belong
                everywhere.setdefault("_".join(map(str, known)), []).append(known)
    if guess := nearest(name, everywhere, strict=True):
        return f"did you mean {' or '.join(map(dotted, everywhere[guess]))}?"
    return f"the keys here are {', '.join(sorted(siblings))}" if siblings else "remove it"
