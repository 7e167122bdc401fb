"""Problems of a configuration or a task file: which key, where it was set, what is wrong, and how to mend it.

Also how keys and values are shown, here and wherever a configuration is printed: a secret never is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType
from typing import Any

from consumer.exit_codes import EXIT_USAGE

KeyPath = tuple[str | int, ...]
"""Keys and list indexes from the root. A key of ``kafka.client`` is one element, dots and all."""

Origin = Callable[[KeyPath], str | None]
"""Where a key was set: ``file:line``, a variable's name, ``--set key``, None for a default."""

Check = tuple[bool, KeyPath, str, str]
"""One check of a configuration: whether it has failed, the key, what is wrong with it, and the way out."""

HIDDEN = "(hidden)"
"""Shown in place of a secret."""

_UNLIKE_KEYS = re.compile(r"[:=\"'@].*|(?<=\S)\s.*", re.DOTALL)
_SECRET_WORDS = frozenset({"auth", "authorization", "basic", "bearer", "jaas", "jwt", "key", "private", "pwd", "token"})
_SECRET_STARTS = ("credential", "pass", "pasw", "secret")
_PLACE_WORDS = ("file", "location", "url", "urls", "path")
_SECRET_NAMES = frozenset({"sasl.oauthbearer.config"})
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


def dotted(path: KeyPath) -> str:
    """``("routes", 0, "input")`` as ``routes.0.input``, the form that ``--set`` takes.

    A key is cut at the first character that no key contains: YAML takes ``sasl.password:secret``, without the space,
    for a key.
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


def without_login(url: str) -> str:
    """A URL without user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def nearest(name: str, known: Iterable[str], *, strict: bool = False) -> str | None:
    """The known name that ``name`` is most likely a slip of, or None.

    How words are joined and written (``groupId``, ``GROUP-ID``, ``group.id``) makes no difference. A name that is part
    of a single longer one stands for that, as ``servers`` for ``bootstrap_servers``. ``strict``: a letter or two is all
    that may differ.
    """
    spelled = {_words(each): each for each in known}
    asked = _words(name)
    if close := get_close_matches(asked, list(spelled), n=1, cutoff=0.7 if strict else 0.6):
        return spelled[close[0]]
    longer = [each for words, each in spelled.items() if set(asked.split("_")) <= set(words.split("_"))]
    return longer[0] if len(longer) == 1 and not strict else None


def _words(name: str) -> str:
    """The words of a name in lower case, with underscores between them."""
    return re.sub(r"[^\w]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower().strip("_")


def is_secret(path: KeyPath) -> bool:
    """Whether the value of a key must not be printed.

    Decided by the words of its name, and meant to be wrong only on the safe side: a mistyped ``sasl.pasword`` counts.
    """
    name = str(path[-1]).lower() if path else ""
    words = [word for word in re.split(r"[._\-]", name) if word]
    if words and (words[-1] in _PLACE_WORDS or words[0] == "enable"):
        return False
    return name in _SECRET_NAMES or any(word in _SECRET_WORDS or word.startswith(_SECRET_STARTS) for word in words)


def shown(path: KeyPath, value: Any) -> Any:
    """``value`` as it may be printed: secrets hidden, also those inside mappings, lists and URLs."""
    if isinstance(value, dict):
        return {key: shown((*path, key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown((*path, index), item) for index, item in enumerate(value)]
    if value is None or value == "":
        return value
    if is_secret(path):
        return HIDDEN
    return _USERINFO.sub(HIDDEN + "@", value) if isinstance(value, str) else value


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
