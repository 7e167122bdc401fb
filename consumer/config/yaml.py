"""Reads YAML with what PyYAML leaves out: line numbers, and errors for keys given twice, keys that are not text, and
numbers that YAML reads as others than are written.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

import yaml

from consumer.config.git_lfs import lfs_pointer
from consumer.config.problems import HIDDEN, ConfigError, KeyPath, Problem, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONSTRUCTOR_ERRORS = (ValueError, RecursionError, LookupError, AttributeError, TypeError)
"""What PyYAML's constructors let out besides YAMLError, such as IndexError for ``!!int ''``."""

ANCHORS = "x-"
"""How keys begin, at the top of a file, that only hold what YAML anchors name, as in Docker Compose."""

MOST_NODES = 50_000
"""Keys and values of one document. A whole configuration has some hundreds; anchors that hold anchors, nine levels of
nine, would be 400 million."""

_QUOTED = re.compile(r"""(['"])(?!<|\\.\1)[^\n]{2,}\1""")
"""Matches text of the file (two characters or more) that a PyYAML message quotes; PyYAML's own quoted words are in
angle brackets."""

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_DATE = "tag:yaml.org,2002:timestamp"
_OTHER_NUMBER = re.compile(r"[-+]?(0[0_]*[1-7][0-7_]+|[0-9][0-9_]*(:[0-9_.]+)+)")
"""What YAML 1.1 reads as octal (``010`` is 8) or in base 60 (``1:30`` is 90). ``0x10`` cannot be meant otherwise."""
_AS_WRITTEN = ("kafka", "client")
"""The section whose values librdkafka reads by itself: ``client.rack: 010`` and ``1.10`` are no numbers there."""


def read_yaml(path: Path) -> tuple[Any, dict[KeyPath, int]]:
    """Read one document: its value, and the line (from 1) of every key and list element.

    Raises ConfigError when the file is missing, unreadable, not YAML, gives a key twice, or holds too much.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        fix = "check the path and its permissions"
        raise ConfigError([Problem(str(path), None, f"cannot be read: {error.strerror}", fix)]) from None
    if (pointer := lfs_pointer(content)) is not None:
        what, _, fix = pointer.partition("; ")
        raise ConfigError([Problem(str(path), None, what, fix)])
    lines: dict[KeyPath, int] = {}
    problems: list[Problem] = []
    try:
        value = _constructed(content, path.name, lines, problems)
    except yaml.MarkedYAMLError as error:
        # The error's own text quotes the line, which may hold a password, and so may an undefined alias or tag.
        place = f"{path.name}:{error.problem_mark.line + 1}" if error.problem_mark else path.name
        what = f"is not YAML: {_QUOTED.sub(HIDDEN, error.problem or '')}"
        problems.append(Problem(str(path), place, what, "mend the syntax at that line"))
    except yaml.reader.ReaderError as error:
        what = f"holds a byte or character that YAML does not allow, at position {error.position}"
        problems.append(Problem(str(path), None, what, "save it as UTF-8"))
    except TooManyNodes as error:
        problems.append(Problem(str(path), None, str(error), "write it without so many anchors"))
    except CONSTRUCTOR_ERRORS:
        what = "holds an impossible date, number or tag, or nests too deep"
        problems.append(Problem(str(path), None, what, "mend it"))
    if problems:
        raise ConfigError(problems)
    return value, lines


def read_text(text: str) -> Any:
    """The value of a variable or flag. Raises ConfigError, YAMLError, TooManyNodes, or one of CONSTRUCTOR_ERRORS."""
    problems: list[Problem] = []
    value = _constructed(text, "", {}, problems)
    if problems:
        raise ConfigError(problems)
    return value


class TooManyNodes(Exception):  # noqa: N818 - it says what was found
    """What anchors and merge keys stand for, written out, has more than MOST_NODES keys and values."""

    def __init__(self) -> None:
        super().__init__(f"holds more than {MOST_NODES} keys and values, what its anchors stand for included")


def _constructed(content: bytes | str, name: str, lines: dict[KeyPath, int], problems: list[Problem]) -> Any:
    """The value of a document, None when there are problems. ``lines`` and ``problems`` are filled.

    The nodes are counted first: what is made of them has every alias written out, and merge keys, too.
    """
    node = yaml.compose(content, yaml.SafeLoader)
    if node is None:
        return None
    problems += _walk(node, (), name, lines, frozenset(), count(1))
    return None if problems else yaml.SafeLoader("").construct_document(node)


def _walk(
    node: yaml.Node,
    path: KeyPath,
    name: str,
    lines: dict[KeyPath, int],
    above: frozenset[int],
    visited: Iterator[int],
) -> Iterator[Problem]:
    """Note the lines below ``node``, and yield what plain YAML would let pass. ``above``: the nodes that hold it."""
    if next(visited) > MOST_NODES:
        raise TooManyNodes
    if id(node) in above:
        place = f"{name}:{node.start_mark.line + 1}"
        yield Problem(dotted(path), place, "refers to itself through an anchor", "write it out")
        return
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*path, index)] = child.start_mark.line + 1
            yield from _walk(child, (*path, index), name, lines, above, visited)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                yield from _walk(child, path, name, {}, above, visited)
                continue
            if key.tag != _TEXT or not isinstance(key, yaml.ScalarNode):
                written = key.value if isinstance(key, yaml.ScalarNode) else "a key that is a list or mapping"
                what = f"YAML does not read the key {written!r} as text"
                yield Problem(dotted(path) or name, f"{name}:{line}", what, "put it in quotes")
                continue
            here = (*path, key.value)
            if here in lines:
                what = f"is given twice, first on line {lines[here]}"
                yield Problem(dotted(here), f"{name}:{line}", what, "keep one of them")
            lines[here] = line
            yield from _walk(child, here, name, lines, above, visited)
    elif path[:2] == _AS_WRITTEN and len(path) > len(_AS_WRITTEN):
        if node.tag in (_FLOAT, _DATE) or (node.tag == _INT and _OTHER_NUMBER.fullmatch(node.value)):
            node.tag = _TEXT
    elif node.tag in (_INT, _FLOAT) and _OTHER_NUMBER.fullmatch(node.value) and not _may_be_odd(path):
        read = yaml.SafeLoader("").construct_document(node)
        what = f"is {node.value}, which YAML reads as {read}"
        yield Problem(dotted(path), f"{name}:{node.start_mark.line + 1}", what, "write it plainly, or text in quotes")


def _may_be_odd(path: KeyPath) -> bool:
    """Whether a number is for anchors, and looked at where it is meant, or an offset from UTC, read in base 60."""
    return bool(path) and (str(path[0]).startswith(ANCHORS) or path[-1] == "utc_offset")
