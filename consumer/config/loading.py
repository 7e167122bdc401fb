"""Load the configuration: merge its sources, check every key, check the combinations, report all that is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import ValidationError

from consumer.config.layers import Layers, annotation_at, gather, is_model
from consumer.config.problems import ConfigError, KeyPath, Problem, dotted, kind_of, nearest
from consumer.config.rules import find_problems, find_warnings
from consumer.config.secrets import is_secret
from consumer.config.task_files import load_tasks
from consumer.config.tree import Config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from consumer.extraction.task import Task


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration with its tasks, where each key that was set came from, and what is worth a warning."""

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
    """As ``load_config``, with the tasks, origins and warnings that it came upon."""
    layers = gather(path, environ, overrides)
    problems = list(layers.problems)
    try:
        config = Config.model_validate(layers.tree)
    except ValidationError as error:
        # A list with a bad element is reported as too short as well.
        problems += [
            _translated(detail, layers)
            for detail in error.errors(include_url=False)
            if detail["type"] != "too_short" or not detail["input"]
        ]
        raise ConfigError(problems) from None
    tasks: dict[str, Task] | None
    try:
        tasks = load_tasks(config.tasks_dirs)
    except ConfigError as error:
        tasks = None
        problems += error.problems
    problems += find_problems(config, tasks, layers.origin)
    if problems or tasks is None:
        raise ConfigError(problems)
    return Loaded(config, tasks, layers.origins, tuple(find_warnings(config, layers.origin)))


def _translated(detail: ErrorDetails, layers: Layers) -> Problem:
    path: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    value, kind = detail["input"], detail["type"]
    if kind == "extra_forbidden":
        return Problem(
            dotted(path),
            layers.origin(path),
            f"there is no such key (its value is {kind_of(value)})",
            _suggestion(path),
        )
    if kind == "missing":
        return Problem(dotted(path), layers.origin(path[:-1]), "is not set and has no default", "add it")
    what = f"is {_described(path, value)}, but must be {_wanted(path, detail)}"
    return Problem(dotted(path), layers.origin(path), what, _fix(path, value, detail))


def _described(path: KeyPath, value: Any) -> str:
    kind = kind_of(value)
    # A value under a key of free form may be a secret whatever its name says.
    hidden = is_secret(path) or path[:2] == ("kafka", "client") or isinstance(value, (dict, list, tuple))
    return kind if hidden or value in (None, "") else f"{kind} ({str(value)[:60]})"


_WANTED = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a section, a mapping of keys to values",
    "too_short": "a list with at least one element",
}


def _wanted(path: KeyPath, detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "literal_error":
            return f"one of {context['expected']}"
        case "greater_than":
            return f"greater than {context['gt']}"
        case "less_than":
            return f"less than {context['lt']}"
        case "greater_than_equal":
            return f"at least {context['ge']}"
        case known if known in _WANTED:
            return _WANTED[known]
        case _:
            return f"a valid {path[-1]}"


def _fix(path: KeyPath, value: Any, detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "literal_error" and isinstance(value, str):
        guess = nearest(value, [word.strip("' ") for word in detail["ctx"]["expected"].replace(" or ", ",").split(",")])
        return f"did you mean {guess}?" if guess else "choose one of them"
    if kind == "string_type" and not isinstance(value, (dict, list, tuple, type(None))):
        return "put it in quotes"
    if kind in ("int_type", "float_type") and isinstance(value, str):
        return "write it without quotes or units"
    if kind == "tuple_type" and isinstance(value, str):
        return f"write it as [{value[:60]}]" if not is_secret(path) else "write it in square brackets"
    return "change it, or remove the key to take its default"


def _suggestion(path: KeyPath) -> str:
    """What an unknown key was probably meant to be: a sibling's name, or the same name in another section."""
    parent, name = path[:-1], str(path[-1])
    annotation = annotation_at(parent) if parent else Config
    siblings = list(annotation.model_fields) if is_model(annotation) else []
    guess = nearest(name, siblings)
    if guess:
        return f"did you mean {dotted((*parent, guess))}?"
    everywhere = {str(known[-1]): known for known in _all_keys(Config, ())}
    elsewhere = nearest(name, everywhere)
    if elsewhere:
        return f"did you mean {dotted(everywhere[elsewhere])}?"
    return f"the keys here are {', '.join(sorted(siblings))}" if siblings else "remove it"


def _all_keys(section: type[BaseModel], path: KeyPath) -> Iterator[KeyPath]:
    for name in section.model_fields:
        here = (*path, name)
        annotation = annotation_at(here)
        if is_model(annotation):
            yield from _all_keys(annotation, here)
        elif get_origin(annotation) is tuple:
            yield here
            element = annotation_at((*here, 0))
            if is_model(element):
                yield from _all_keys(element, (*here, 0))
        else:
            yield here
