"""Where configuration comes from: a file, then the environment, then ``--set`` flags. The later wins.

``consumer.config.loading`` calls ``gather`` and checks the merged tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

import yaml

from consumer.config.problems import ConfigError, KeyPath, Problem, dotted, is_secret
from consumer.config.text_rules import text_fault
from consumer.config.tree import Config, is_section, key_at
from consumer.config.yaml import ANCHORS, CONSTRUCTOR_ERRORS, TooManyNodes, read_text, read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PREFIX = "REXSTREAM_"
CONFIG_FILE_VARIABLE = "REXSTREAM_CONFIG"
"""Names the configuration file; the command line reads it, it is no key of the tree."""

_CLIENT = ("kafka", "client")
_SERVICE_LINK = re.compile(
    r"REXSTREAM_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes puts into every pod beside a Service whose name starts with ``rexstream``."""


@dataclass(slots=True)
class Layers:
    """The merged tree, where each key was last set, and what could not be merged."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: KeyPath) -> str | None:
        """Where ``path``, or the nearest key above or below it, was set; None for a default."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.origins:
                return self.origins[path[:end]]
        return next((place for key, place in self.origins.items() if key[: len(path)] == path), None)


def gather(path: str | None, environ: Mapping[str, str], overrides: Sequence[str]) -> Layers:
    """Merge the three sources. Mappings merge key by key, everything else is replaced.

    A variable or flag for a text key is taken as it is written; for any other key its value is read as YAML.
    """
    layers = Layers()
    if path is not None:
        _add_file(layers, Path(path))
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        foreign = name == CONFIG_FILE_VARIABLE or name.startswith("REXSTREAM_TEST_") or _SERVICE_LINK.fullmatch(name)
        if name.startswith(PREFIX) and not foreign:
            _add_text(layers, _path_of(name.removeprefix(PREFIX).lower(), "__"), environ[name], name)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            # Not echoed: a flag that lost its equals sign may be a bare password.
            layers.problems.append(Problem("--set", "flag", "has no key=value", "write --set model.target=host:8500"))
        else:
            _add_text(layers, _path_of(key.strip(), "."), value, f"--set {key.strip()}")
    return layers


def _add_file(layers: Layers, path: Path) -> None:
    if (fault := text_fault(("config_file",), str(path), "")) is not None:
        layers.problems.append(Problem("the configuration file", f"--config or {CONFIG_FILE_VARIABLE}", *fault))
        return
    try:
        value, lines = read_yaml(path)
    except ConfigError as error:
        layers.problems.extend(error.problems)
        return
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if not key.startswith(ANCHORS)}
        layers.origins.update({key: f"{path.name}:{line}" for key, line in lines.items() if key[0] in value})
        layers.tree = _frozen_lists(_without_empty_sections(layers, value, ()))
    elif value is not None:
        what = "is not a mapping of sections"
        layers.problems.append(Problem(str(path), path.name, what, "start with a section such as kafka:"))


def _without_empty_sections(layers: Layers, value: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """A section whose keys are all commented out reads as null and means its defaults, unless it is off by default."""
    kept: dict[str, Any] = {}
    for name, item in value.items():
        here = (*path, name)
        key = key_at(here)
        if isinstance(item, dict):
            kept[name] = _without_empty_sections(layers, item, here)
        elif item is None and is_section(key.type) and key.optional:
            _refuse_empty_section(layers, here, layers.origins.get(here))
        elif item is not None or not (get_origin(key.type) is dict or is_section(key.type)):
            kept[name] = item
    return kept


def _refuse_empty_section(layers: Layers, path: KeyPath, origin: str | None) -> None:
    """Report an empty section that is off by default: it could mean off, or on with the defaults."""
    is_tls = path[-1] == "tls"
    layers.problems.append(
        Problem(
            dotted(path),
            origin,
            f"has nothing below it, which may mean {'TLS' if is_tls else 'one'} and may mean none",
            "write {} for TLS with public authorities, or remove it" if is_tls else "write its keys, or remove it",
        )
    )


def _frozen_lists(value: Any) -> Any:
    """Lists as tuples, which is what the tree's fields are."""
    if isinstance(value, dict):
        return {key: _frozen_lists(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_frozen_lists(item) for item in value)
    return value


def _path_of(name: str, separator: str) -> KeyPath:
    parts = name.split(separator)
    if tuple(parts[:2]) == _CLIENT and len(parts) > 2:
        key = ".".join(parts[2:])
        # librdkafka's names have dots, which a variable cannot have.
        return (*_CLIENT, key if separator == "." else key.replace("_", "."))
    return tuple(int(part) if re.fullmatch("[0-9]{1,4}", part) else part for part in parts)


def _add_text(layers: Layers, path: KeyPath, text: str, origin: str) -> None:
    key = key_at(path)
    if path[:2] == _CLIENT and len(path) > 2:
        # librdkafka reads text itself, and a password of digits must not become a number.
        value: Any = text
    elif key.type is str:
        # A secret is taken as it is written: a password may be the word null, and an empty one does not mean none.
        value = None if text in ("", "null", "~") and key.optional and not is_secret(path) else text
    elif not text.strip() and is_section(key.type) and key.optional:
        _refuse_empty_section(layers, path, origin)
        return
    else:
        try:
            value = read_text(text)
        except ConfigError as error:
            layers.problems += [
                Problem(".".join(filter(None, (dotted(path), each.key))), origin, each.what, each.fix)
                for each in error.problems
            ]
            return
        except (yaml.YAMLError, TooManyNodes, *CONSTRUCTOR_ERRORS):
            layers.problems.append(
                Problem(
                    dotted(path),
                    origin,
                    f"the text of {len(text)} characters is not YAML",
                    'write it as YAML or JSON, for example \'["a", "b"]\'',
                )
            )
            return
    _put(layers, path, _frozen_lists(value), origin)


def _put(layers: Layers, path: KeyPath, value: Any, origin: str) -> None:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            _put(layers, (*path, str(key)), item, origin)
        return
    if len(path) > 1 and path[0] == "routes" and "routes" not in layers.tree:
        # routes.N without a list of routes in an earlier source addresses the default routes.
        layers.tree["routes"] = tuple(route.model_dump() for route in Config().routes)
    try:
        layers.tree = _with(layers.tree, path, value)
    except (TypeError, IndexError):
        what = "leads through a key that is neither a section nor an element of a list"
        layers.problems.append(Problem(dotted(path), origin, what, "compare with `rexstream config print`"))
        return
    kept = {key: place for key, place in layers.origins.items() if key[: len(path)] != path}
    layers.origins = {**kept, **dict.fromkeys(_paths_in(value, path), origin)}


def _paths_in(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, tuple) else ())
    for key, item in pairs:
        yield from _paths_in(item, (*path, key))


def _with(tree: Any, path: KeyPath, value: Any) -> Any:
    """A copy of ``tree`` with ``value`` at ``path``. Raises TypeError or IndexError where the path does not lead."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(tree, tuple) and isinstance(head, int):
        if head > len(tree):
            raise IndexError
        below = tree[head] if head < len(tree) else {}
        return (*tree[:head], _with(below, rest, value), *tree[head + 1 :])
    if tree is None:
        tree = {}
    if isinstance(tree, dict) and isinstance(head, str):
        absent: Any = () if rest and isinstance(rest[0], int) else {}
        return {**tree, head: _with(tree.get(head, absent), rest, value)}
    raise TypeError
