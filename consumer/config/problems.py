"""Problems of a configuration or a task file: which key, where it was set, what is wrong, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType

from consumer.exit_codes import EXIT_USAGE

KeyPath = tuple[str | int, ...]
"""Keys and list indexes from the root. A key of ``kafka.client`` is one element, dots and all."""

Origin = Callable[[KeyPath], str | None]
"""Where a key was set: ``file:line``, a variable's name, ``--set key``, None for a default."""

Check = tuple[bool, KeyPath, str, str]
"""One check of a configuration: whether it has failed, the key, what is wrong with it, and the way out."""

_UNLIKE_KEYS = re.compile(r"[:=\"'@].*|(?<=\S)\s.*", re.DOTALL)


def dotted(path: KeyPath) -> str:
    """``("routes", 0, "input")`` as ``routes.0.input``, the form that ``--set`` takes.

    A key is shown up to what no key holds: YAML takes ``sasl.password:secret``, without the space, for a key.
    """
    return ".".join(_UNLIKE_KEYS.sub("…", str(part)) for part in path)


def kind_of(value: object) -> str:
    """Name the kind of a value in words, without the value: it may be a secret."""
    return "empty text" if value == "" else _KINDS.get(type(value), f"a {type(value).__name__}")


_KINDS: dict[type, str] = {
    NoneType: "empty",
    bool: "true/false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` is most likely a slip of, or None."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend: which key, where it was set (file and line, variable, flag), what is wrong, what to do."""

    key: str
    origin: str | None
    what: str
    fix: str

    def __str__(self) -> str:
        place = f" ({self.origin})" if self.origin else ""
        return f"{self.key}{place}: {self.what}; {self.fix}"


class ConfigError(Exception):
    """A configuration that cannot be run. ``problems`` holds all that was found, not only the first."""

    exit_code = EXIT_USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        head = f"configuration: {len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))
