"""Which settings are secrets, and how they are shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.config.problems import KeyPath

HIDDEN = "(hidden)"

_WORDS = frozenset({"auth", "authorization", "basic", "bearer", "jaas", "jwt", "key", "private", "pwd", "token"})
_STARTS = ("credential", "pass", "pasw", "secret")
_PLACES = ("file", "location", "url", "urls", "path")
_NAMES = frozenset({"sasl.oauthbearer.config"})
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")


def is_secret(path: KeyPath) -> bool:
    """Whether the value of a key must not be printed.

    Decided by the words of its name, and meant to be wrong only on the safe side: a mistyped ``sasl.pasword`` counts.
    """
    name = str(path[-1]).lower() if path else ""
    words = [word for word in re.split(r"[._\-]", name) if word]
    if words and words[-1] in _PLACES:
        return False
    return name in _NAMES or any(word in _WORDS or word.startswith(_STARTS) for word in words)


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
