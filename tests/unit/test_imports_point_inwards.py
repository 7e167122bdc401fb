"""The layers of the package: imports point from the edges to the core, and heavy libraries stay in the extras."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import consumer

PACKAGE = Path(consumer.__file__).parent

CORE_PACKAGES = ("extraction", "batching", "resilience", "delivery", "codecs", "config")
CORE = (*CORE_PACKAGES, "events", "exit_codes")
EDGES = ("kafka", "serving", "telemetry")
EXTRAS = ("model", "local")
OUTSIDE_LIBRARIES = {"confluent_kafka", "grpc", "prometheus_client", "structlog", "asyncio", "httpx", "click", "rich"}
HEAVY_LIBRARIES = {"tensorflow", "tensorflow_serving", "transformers", "safetensors", "torch"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("consumer", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(source: str, module: str, known: set[str]) -> set[str]:
    """Dotted names of all that a module imports, also inside functions and for type checking only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                # ``from package import module`` imports the module, ``from module import name`` does not.
                name = f"{base}.{alias.name}"
                found.add(name if name in known else base)
        elif isinstance(node, ast.Call) and _is_import_module(node.func) and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                found.add(argument.value)
    return found


def _is_import_module(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "import_module"


MODULES = modules()
IMPORTS = {name: imports_of(path.read_text("utf-8"), name, set(MODULES)) for name, path in MODULES.items()}


def layer(module: str) -> str:
    """The second part of a dotted name: ``consumer.kafka.consume.poll_thread`` is in ``kafka``."""
    return module.split(".")[1] if module.startswith("consumer.") else ""


WIRING = {"worker", "offline"}
"""Puts core and edges together: with Kafka, and without."""


def forbidden_layers(module: str) -> set[str]:
    """Layers of the package that a module must not import, by its own layer."""
    above = {"cli", *WIRING, *EXTRAS}
    if layer(module) in CORE:
        return above | set(EDGES)
    if layer(module) in EDGES:
        return above | set(EDGES) - {layer(module)}
    if layer(module) in WIRING:
        return {"cli", *EXTRAS}
    return {"cli"} if layer(module) in EXTRAS else set()


def violations(module: str, imports: set[str]) -> set[str]:
    """Those of a module's imports that its layer must not have."""
    libraries = {name for name in imports if name.partition(".")[0] != "consumer"}
    bad = {name for name in imports - libraries if layer(name) in forbidden_layers(module)}
    if layer(module) in CORE:
        bad |= {name for name in libraries if name.partition(".")[0] in OUTSIDE_LIBRARIES}
    if layer(module) not in EXTRAS:
        bad |= {name for name in libraries if name.partition(".")[0] in HEAVY_LIBRARIES}
    return bad


def reachable(start: str, imports: dict[str, set[str]]) -> set[str]:
    """Everything that importing ``start`` can ever import, lazily or not, packages' own modules included."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        parents = name.split(".")
        waiting += [".".join(parents[:end]) for end in range(1, len(parents))] + sorted(imports.get(name, ()))
    return seen


def test_every_package_has_a_layer() -> None:
    """A new package must be given its place in the layers here, and the layers named here exist."""
    packages = {layer(name) for name, path in MODULES.items() if path.name == "__init__.py"} - {""}
    assert packages == {*CORE_PACKAGES, *EDGES, *EXTRAS, "worker", "cli"}
    assert {layer(name) for name in MODULES} - {""} == {*CORE, *EDGES, *EXTRAS, *WIRING, "cli", "__main__"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"consumer"}))
def test_imports_point_inwards(module: str) -> None:
    """The core knows no edge, an edge knows no other edge, and only the command line knows all."""
    assert violations(module, IMPORTS[module]) == set()


def test_a_worker_never_loads_tensorflow() -> None:
    """Nothing that a running worker can import leads to the extras' libraries."""
    found = reachable("consumer.cli.run", IMPORTS) | reachable("consumer.worker.lifecycle", IMPORTS)
    assert {name for name in found if name.partition(".")[0] in HEAVY_LIBRARIES} == set()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("consumer.codecs.x", "import confluent_kafka.admin", {"confluent_kafka.admin"}),
        ("consumer.batching.x", "def f():\n    import asyncio", {"asyncio"}),
        ("consumer.delivery.x", "from consumer.kafka import registry", {"consumer.kafka.registry"}),
        ("consumer.delivery.x", "from ..kafka.registry import SchemaResolver", {"consumer.kafka.registry"}),
        ("consumer.events", "from consumer.serving.protocol import Answer", {"consumer.serving.protocol"}),
        ("consumer.kafka.x", "import consumer.telemetry.metrics", {"consumer.telemetry.metrics"}),
        ("consumer.kafka.x", "from consumer.cli import check", {"consumer.cli.check"}),
        ("consumer.serving.x", "import tensorflow as tf", {"tensorflow"}),
        ("consumer.cli.x", "import importlib\nimportlib.import_module('transformers')", {"transformers"}),
        ("consumer.kafka.x", "import confluent_kafka\nfrom consumer.events import Header", set()),
        ("consumer.model.x", "import tensorflow", set()),
    ],
)
def test_the_rules_can_fail(module: str, source: str, expected: set[str]) -> None:
    """Each kind of wrong import is seen, and right ones are not."""
    assert violations(module, imports_of(source, module, set(MODULES))) == expected


def test_the_search_for_tensorflow_can_fail() -> None:
    """The walk finds the library where it is, through lazy imports and over several modules."""
    assert "tensorflow" in {name.partition(".")[0] for name in reachable("consumer.cli.export", IMPORTS)} or (
        "consumer.cli.export" not in MODULES
    )
    chain = {"a": {"b.c"}, "b": {"tensorflow"}}
    assert "tensorflow" in reachable("a", chain)
