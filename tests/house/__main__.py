"""The size and shape of the code in figures: ``make house``.

make house                                   a table of consumer/ as it is
make house ARGS="--root ../other-checkout"   of another checkout (its worker is traced, too)
make house ARGS=--files                      names what is counted
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import click

LONGEST_MODULE = 350
HERE = Path(__file__).parents[2]


def modules_of(root: Path) -> dict[str, Path]:
    """Modules of ``root/consumer`` by dotted name; a package's ``__init__`` goes by the package's name."""
    found = {}
    for path in sorted((root / "consumer").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(tree: ast.AST) -> int:
    """Nodes of the syntax tree that are statements, without docstrings (a string alone is one, wherever it stands)."""
    return sum(isinstance(node, ast.stmt) and not _is_docstring(node) for node in ast.walk(tree))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def imports_of(tree: ast.AST, module: str, known: set[str], package: bool) -> set[str]:
    """Modules of ``known`` that ``module`` imports, also inside functions and for types only."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + package]
                base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                # ``from package import module`` imports the module, ``from module import name`` does not.
                name = f"{base}.{alias.name}"
                found.add(name if name in known else base)
    return (found & known) - {module}


def package_of(module: str, packages: set[str]) -> str:
    """The package that a module is in; modules at the top count as packages of their own."""
    parent = module if module in packages else module.rpartition(".")[0]
    return module if parent == "consumer" else parent


def _top(module: str) -> str:
    """The part of ``consumer`` that a module is in, subpackages counted with theirs."""
    return ".".join(module.split(".")[:2])


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that can reach each other, each group of two or more."""
    reach: dict[str, set[str]] = {}
    for start in arrows:
        seen: set[str] = set()
        waiting = list(arrows[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += arrows.get(node, ())
        reach[start] = seen
    groups = {tuple(sorted(b for b in reach[a] | {a} if a in reach.get(b, set()) and b in reach[a])) for a in arrows}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def measure(root: Path) -> dict[str, list[str] | int]:
    """Everything that needs no running: a figure, or the list whose length is the figure."""
    modules = modules_of(root)
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    trees = {name: ast.parse(path.read_text("utf-8")) for name, path in modules.items()}
    # ``from consumer import __version__`` is no arrow: everything is in that package.
    imports = {
        name: imports_of(tree, name, set(modules), name in packages) - {"consumer"} for name, tree in trees.items()
    }
    own = {name: imports[name] for name in modules if name not in packages}
    importers: dict[str, set[str]] = {name: set() for name in modules}
    for name, targets in imports.items():
        for target in targets:
            importers[target].add(name)
    between: dict[str, set[str]] = {}
    for name, targets in imports.items():
        package = package_of(name, packages)
        between.setdefault(package, set()).update(package_of(target, packages) for target in targets)
        between[package].discard(package)
    between.pop("consumer", None)
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in modules.items()}
    return {
        "modules without __init__": sorted(own),
        "statements without docstrings": sum(statements(tree) for tree in trees.values()),
        "lines": sum(lines.values()),
        "at the top: packages and modules": sorted({_top(name) for name in modules} - {"consumer"}),
        "at the top: imports between them": sorted(
            {
                f"{_top(a)} -> {_top(b)}"
                for a, targets in imports.items()
                for b in targets
                if a != "consumer" and _top(a) != _top(b)
            }
        ),
        "packages, those inside others too": sorted(between),
        "imports between them": sorted(f"{a} -> {b}" for a, targets in between.items() for b in targets),
        "circles between them": [" <-> ".join(group) for group in circles(between)],
        "circles between modules": [" <-> ".join(group) for group in circles(imports)],
        f"modules over {LONGEST_MODULE} lines": sorted(
            f"{name} ({count})" for name, count in lines.items() if count > LONGEST_MODULE
        ),
        "modules that one other alone imports": sorted(
            f"{name} (by {next(iter(importers[name]))})" for name in own if len(importers[name]) == 1
        ),
    }


@click.command()
@click.option("--root", type=click.Path(path_type=Path, exists=True), default=HERE, help="Checkout to measure.")
@click.option("--files", is_flag=True, help="Name what is counted.")
@click.option("--trace/--no-trace", default=True, help="Trace one event, too (about 20 s).")
def main(root: Path, files: bool, trace: bool) -> None:
    """Print the table."""
    root = root.resolve()
    figures = measure(root)
    if trace:
        from house.trace import files_of_one_event

        figures["files that run for one event"] = files_of_one_event(root)
    width = max(map(len, figures))
    print(f"| {'measure':{width}} | figure |\n| {'-' * width} | -----: |")
    for name, value in figures.items():
        print(f"| {name:{width}} | {value if isinstance(value, int) else len(value):6} |")
    if files:
        for name, value in figures.items():
            if not isinstance(value, int):
                print(f"\n{name}:")
                print(*(f"  {each}" for each in value), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
