"""Characters that no text of the configuration may have: all that is not seen and not meant, and unexpanded variables.

One rule for every text, from a file, a variable or a flag. What producers chose (a route's ``fields``) and certificates
may have any but NUL; a password may begin and end with spaces; names of files and folders may have odd ones inside.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from consumer.config.problems import KeyPath, Origin, Problem, dotted, is_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control, format and surrogate characters, and of separators of lines and paragraphs."""
_CONTROLS = {"\0": "NUL", "\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\ufeff": "BYTE ORDER MARK"}
_VARIABLE = re.compile(r"\$\{[^{}]*\}|\$\([^()]*\)|\$?\{\{(?!task\}\}).*?\}\}|\$\{|\$[A-Z][A-Z0-9_]+(?!\w)")
"""What shells, Compose and Helm put a value in place of, and Kubernetes, which leaves ``$(NAME)`` if it knows none."""
_WHOLE_VARIABLE = re.compile(r"\$\{[A-Za-z_]\w*(:?[-?+][^}]*)?\}|\$\([A-Za-z_]\w*\)")
_SHELL_COMMAND = "sasl.kerberos.kinit.cmd"
_LINE_ENDS = "\r\n"


def text_problems(tree: Any, origin: Origin) -> Iterator[Problem]:
    """Each text of the merged ``tree`` that cannot be meant as it is: the key, where it was set, and the way out."""
    for path, text in _texts(tree, ()):
        if (found := text_fault(path, text, origin(path) or "")) is not None:
            yield Problem(dotted(path), origin(path), *found)


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, (list, tuple)) else ())
    for key, item in pairs:
        if path or not str(key).startswith("x-"):  # what is for YAML anchors only
            yield from _texts(item, (*path, key))


def text_fault(path: KeyPath, text: str, origin: str) -> tuple[str, str] | None:
    """What is wrong with ``text``, and the way out; None when nothing is. ``origin``: where it was set, if known."""
    secret = is_secret(path)
    if "fields" in path or str(path[-1]).endswith(".pem"):
        return ("has NUL in it", "remove it") if "\0" in text else None
    outer = _LINE_ENDS if secret else None  # a password may begin or end with spaces
    if (stripped := text.strip(outer)) != text:
        if not stripped:
            return "is nothing but white space", "write a value, or remove the key to take its default"
        where, character = ("ends", text[-1]) if text[-1].strip(outer) == "" else ("begins", text[0])
        return f"{where} with {_named(character)}", _without(character, origin)
    for character in stripped:
        unseen = unicodedata.category(character) in _UNSEEN
        if unseen or (character.isspace() and character != " " and not (secret or _is_place(path))):
            return f"has {_named(character)} in it", "remove it: it is not seen, and makes another value of this one"
    if secret:
        # A password may look like a variable: only all of it counts, and none of it is shown.
        unreplaced = _WHOLE_VARIABLE.fullmatch(text) is not None
        return ("is a variable that nothing has replaced", "write the value, or name a file") if unreplaced else None
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return "stands in quotation marks that are part of it", "remove them: variables and flags are taken as written"
    if path[-1] != _SHELL_COMMAND and (found := _VARIABLE.search(text)) is not None:
        what = "a variable" if "://" in text else found[0]  # a URL may have a password in it
        return f"holds {what}, which nothing has replaced", "write the value: Rexstream expands no variables"
    return None


def _without(character: str, origin: str) -> str:
    if character not in _LINE_ENDS:
        return "remove it"
    if ":" in origin:
        return "write |- or >- in place of | or >, or all of it on one line"
    return "remove it: printf writes none, and neither does echo -n into a secret"


def _named(character: str) -> str:
    """``a line end``, or a character's number and name."""
    if character in _LINE_ENDS:
        return "a line end"
    if unicodedata.category(character) == "Cs":
        return "a byte that is not UTF-8"
    name = _CONTROLS.get(character) or unicodedata.name(character, "a control character")
    return f"U+{ord(character):04X} {name}"


def _is_place(path: KeyPath) -> bool:
    """Whether a key names a file or folder, whose name may have white space of any kind in it."""
    names = [part for part in path if isinstance(part, str)]
    return names[-1].endswith(("_file", "_dirs", "bundle", ".location"))
