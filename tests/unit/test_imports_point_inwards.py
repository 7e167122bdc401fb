"""The floors of the package: imports point downwards, and I/O packages do not import each other."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
from house.__main__ import LONGEST_MODULE, circles, imports_of, modules_of
from house.__main__ import package_of as full_package_of

FLOORS = (
    ("events", "exit_codes", "batching", "resilience"),
    ("extraction",),
    ("config", "evaluation"),
    ("codecs",),
    ("delivery",),
    ("kafka.clients", "serving", "telemetry"),
    ("kafka.consume", "kafka.registry", "serving.dispatch"),
    ("kafka.publish",),
    ("kafka", "kafka.tools"),
    ("worker", "offline", "model", "local"),
    ("cli",),
    ("__main__",),
)
"""From the ground up. A package imports itself and packages of lower floors, nothing else."""
IO_PACKAGES = {"kafka", "serving", "telemetry"}
"""I/O packages: each talks to one kind of outside system; what they share is below them."""
CORE = {package for floor in FLOORS[:5] for package in floor}
"""Pure: no IO, no clock, no metrics, no event loop."""
EXTRAS = {"model", "local"}
OUTSIDE_LIBRARIES = {"confluent_kafka", "grpc", "prometheus_client", "structlog", "asyncio", "httpx", "click", "rich"}
HEAVY_LIBRARIES = {"tensorflow", "tensorflow_serving", "transformers", "safetensors", "torch"}

FLOOR_OF = {package: number for number, floor in enumerate(FLOORS) for package in floor}
PATHS = modules_of(Path(__file__).parents[2])
PACKAGES = {name for name, path in PATHS.items() if path.name == "__init__.py"}


def package_of(module: str) -> str:
    """``consumer.kafka.consume.lag`` is in ``kafka.consume``, ``consumer.events`` is ``events``."""
    return full_package_of(module, PACKAGES).removeprefix("consumer.")


def all_imports(tree: ast.AST, module: str) -> set[str]:
    """Dotted names of all that a module imports, libraries too, also inside functions and for types only."""
    found = imports_of(tree, module, set(PATHS), module in PACKAGES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "import_module":
            found.update(str(argument.value) for argument in node.args if isinstance(argument, ast.Constant))
    return found - {"consumer", module}


@cache
def imports() -> dict[str, set[str]]:
    """Of every module. Parsed with the first test, and not as each process of the suite collects them."""
    return {name: all_imports(ast.parse(path.read_text("utf-8")), name) for name, path in PATHS.items()}


def violations(module: str, found: set[str]) -> set[str]:
    """Those of a module's imports that its floor must not have."""
    own = package_of(module)
    bad = set()
    for name in found:
        library = name.partition(".")[0]
        if library != "consumer":
            if (own in CORE and library in OUTSIDE_LIBRARIES) or (own not in EXTRAS and library in HEAVY_LIBRARIES):
                bad.add(name)
            continue
        other = package_of(name if name in PATHS else name.rpartition(".")[0])
        sides = {own.partition(".")[0], other.partition(".")[0]}
        if other != own and (FLOOR_OF[other] >= FLOOR_OF[own] or (len(sides) == 2 and sides <= IO_PACKAGES)):
            bad.add(name)
    return bad


def reachable(start: str, found: dict[str, set[str]]) -> set[str]:
    """Everything that importing ``start`` can ever import, lazily or not, packages' own modules included."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        parents = name.split(".")
        waiting += [".".join(parents[:end]) for end in range(1, len(parents))] + sorted(found.get(name, ()))
    return seen


def test_every_package_has_a_floor() -> None:
    """A new package must be given its place, and the packages named here exist."""
    assert {package_of(name) for name in PATHS} - {"consumer"} == set(FLOOR_OF)


@pytest.mark.parametrize("module", sorted(set(PATHS) - {"consumer"}))
def test_imports_point_downwards(module: str) -> None:
    """The core imports no I/O package, an I/O package imports no other one, and only the command line imports all."""
    assert violations(module, imports()[module]) == set()


def test_there_is_no_circle() -> None:
    """Neither between packages nor between modules, imports inside functions included."""
    between: dict[str, set[str]] = {}
    for name, targets in imports().items():
        known = {package_of(target) for target in targets if target in PATHS}
        between.setdefault(package_of(name), set()).update(known - {package_of(name)})
    assert circles(between) == []
    assert circles({name: targets & set(PATHS) for name, targets in imports().items()}) == []


@pytest.mark.parametrize("module", sorted(PATHS))
def test_a_module_can_be_read_in_one_go(module: str) -> None:
    """A module that outgrew this has two ideas."""
    assert len(PATHS[module].read_text("utf-8").splitlines()) <= LONGEST_MODULE


def test_a_worker_never_loads_tensorflow() -> None:
    """Nothing that a running worker can import leads to the extras' libraries."""
    found = reachable("consumer.cli.run", imports()) | reachable("consumer.worker.lifecycle", imports())
    assert {name for name in found if name.partition(".")[0] in HEAVY_LIBRARIES} == set()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("consumer.codecs.x", "import confluent_kafka.admin", {"confluent_kafka.admin"}),
        ("consumer.batching.x", "def f():\n    import asyncio", {"asyncio"}),
        ("consumer.delivery.x", "from consumer.kafka import runtime", {"consumer.kafka.runtime", "consumer.kafka"}),
        ("consumer.delivery.x", "from ..kafka.runtime import KafkaRuntime", {"consumer.kafka.runtime"}),
        ("consumer.events", "from consumer.serving.protocol import Answer", {"consumer.serving.protocol"}),
        ("consumer.extraction.x", "from consumer.config.tree import Config", {"consumer.config.tree"}),
        ("consumer.kafka.x", "import consumer.telemetry.metrics", {"consumer.telemetry.metrics"}),
        ("consumer.kafka.clients.x", "import consumer.kafka.consume.lag", {"consumer.kafka.consume.lag"}),
        ("consumer.serving.dispatch.x", "import consumer.kafka.clients.errors", {"consumer.kafka.clients.errors"}),
        ("consumer.kafka.x", "from consumer.cli.check import command", {"consumer.cli.check"}),
        ("consumer.worker.x", "from consumer.local.broker import EmbeddedBroker", {"consumer.local.broker"}),
        ("consumer.serving.x", "import tensorflow as tf", {"tensorflow"}),
        ("consumer.cli.x", "import importlib\nimportlib.import_module('transformers')", {"transformers"}),
        ("consumer.kafka.x", "import confluent_kafka\nfrom consumer.events import Header", set()),
        ("consumer.model.x", "import tensorflow", set()),
    ],
)
def test_the_rules_can_fail(module: str, source: str, expected: set[str]) -> None:
    """Each kind of wrong import is seen, and right ones are not."""
    assert violations(module, all_imports(ast.parse(source), module)) == expected


def test_the_search_for_tensorflow_can_fail() -> None:
    """The walk finds the library where it is, through lazy imports and over several modules."""
    assert "tensorflow" in {name.partition(".")[0] for name in reachable("consumer.cli.export", imports())}
    assert "tensorflow" in reachable("a", {"a": {"b.c"}, "b": {"tensorflow"}})
