"""What half precision changes: sample reviews whose decoded facts are those of full precision.

    python tests/bench/precision.py [--checkpoint deploy/demo-model] [--reviews 400] [--exact 20]

The checkpoint is exported in float32, float16 and bfloat16 (`rexstream export --precision`), each version is served by
the local model server, and `ner` and the demo's three tasks are asked of every review, as `rexstream extract` would. A
review counts as identical when all its tasks give the same facts: types, places and classes; scores may differ. Half
precision is compared with float32; float32 itself, over the first reviews (--exact), with the numpy implementation in
float64, which shares no arithmetic with the graph and takes some four seconds a review. Exit code 1 below a
requirement.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from consumer.cli.model_source import ModelSource, opened
from consumer.config.task_files import load_tasks
from consumer.extraction.engine import Engine
from consumer.extraction.task import ExtractionLimits
from consumer.local.demo_events import sample_events
from consumer.offline import Driver
from consumer.serving.protocol import Answer
from consumer.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.extraction.engine import Extraction
    from consumer.extraction.window import Cells, Window
    from consumer.model.checkpoint import Checkpoint
    from consumer.model.encoder import Precision
    from consumer.offline import Extracting
    from consumer.serving.bundle import Bundle

ROOT = Path(__file__).parents[2]
TASKS: Final = ("product_features", "sentiment", "category", "ner")
REQUIRED: Final[dict[Precision, float]] = {"float16": 0.995, "bfloat16": 0.985}
"""Share of reviews with identical facts."""

Facts = frozenset[tuple[object, ...]]
"""Of one review: (task, (type, start, end), …)."""


class Comparison(NamedTuple):
    """How many reviews have the same facts, and how many facts stand in only one of both."""

    same: int
    reviews: int
    differing: int
    facts: int

    @property
    def share(self) -> float:
        """Of the reviews, in 0 .. 1."""
        return self.same / max(self.reviews, 1)


class ExactModel:
    """Implements ModelClient with the numpy implementation, one window at a time."""

    def __init__(self, checkpoint: Checkpoint, bundle: Bundle) -> None:
        from consumer.serving.tensors import GraphContract

        self._checkpoint, self._agreed = checkpoint, GraphContract.of(bundle)

    async def predict(self, windows: Sequence[Window], padded_length: int, timeout: float) -> Answer:  # noqa: ARG002
        """Answer however long it takes."""
        return Answer(tuple(map(self._cells, windows)), "reference", "float64", "dense", 0.0)

    async def ready(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to close."""

    def _cells(self, window: Window) -> Cells:
        from consumer.model.reference import reference_logits
        from consumer.serving.tensors import legal_cells

        return legal_cells(window, reference_logits(self._checkpoint, window).astype("float32"), self._agreed)


def asked(engine: Engine, texts: Sequence[str]) -> Iterator[Callable[[], Extraction]]:
    """Every task of every text."""
    tasks = load_tasks([])
    for text in texts:
        for name in TASKS:
            yield lambda text=text, task=tasks[name]: engine.start(text, task)  # type: ignore[misc]


def facts_of(done: Sequence[Extracting]) -> list[Facts]:
    """The facts of each text, all tasks together. Raises RuntimeError where one could not be processed."""
    found = []
    for first in range(0, len(done), len(TASKS)):
        facts: set[tuple[object, ...]] = set()
        for name, one in zip(TASKS, done[first : first + len(TASKS)], strict=True):
            if one.extraction is None or one.failure is not None:
                raise RuntimeError(f"{name} of text {first // len(TASKS)} failed: {one.failure}")
            paths = one.extraction.result().paths
            facts |= {(name, *((fact.type, fact.start, fact.end) for fact in path)) for path in paths}
        found.append(frozenset(facts))
    return found


def exported(checkpoint: Path, folder: Path, precision: Precision, texts: Sequence[str]) -> list[Facts]:
    """Export, serve, ask."""
    from consumer.local.catalog import Catalog
    from consumer.local.model_folders import find_models
    from consumer.local.model_server import ModelServer, usable_cpus
    from consumer.local.saved_model import SavedModel
    from consumer.model.export import export

    report = export(checkpoint, folder / precision / "rexuninlu", precision=precision, max_tokens=4_096)
    cpus = usable_cpus()
    server = ModelServer(Catalog(find_models(folder / precision), lambda path: SavedModel(path, cpus)), cpus=cpus)
    try:
        source = ModelSource(None, server.start("127.0.0.1", 0, 3600), report.folder / "bundle", "rexuninlu")
        with opened(source) as session:
            return facts_of(session.run(list(asked(session.engine, texts))))
    finally:
        server.stop()


def exact(checkpoint: Path, texts: Sequence[str]) -> list[Facts]:
    """In float64, without TensorFlow's arithmetic."""
    from consumer.model.checkpoint import load_checkpoint
    from consumer.model.tokenizer import read_bundle

    loaded = load_checkpoint(checkpoint)
    bundle = read_bundle(checkpoint, loaded.config)
    engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
    driver = Driver(ExactModel(loaded, bundle), 1)
    return facts_of(asyncio.run(driver.run(list(asked(engine, texts)))))


def compared(ours: Sequence[Facts], theirs: Sequence[Facts]) -> Comparison:
    """``ours`` may be of more texts."""
    pairs = list(zip(ours, theirs, strict=False))
    return Comparison(
        sum(a == b for a, b in pairs), len(pairs), sum(len(a ^ b) for a, b in pairs), sum(len(b) for _, b in pairs)
    )


@click.command()
@click.option("--checkpoint", type=click.Path(exists=True, path_type=Path), default=ROOT / "deploy/demo-model")
@click.option("--reviews", type=click.IntRange(1), default=400, show_default=True)
@click.option("--exact", "exact_reviews", type=click.IntRange(0), default=20, show_default=True)
def main(checkpoint: Path, reviews: int, exact_reviews: int) -> None:
    """Print the table; exit code 1 below a requirement."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    configure_logging("warning", "precision")
    texts = [json.loads(event.value or b"")["text"] for event in sample_events()][:reviews]
    with tempfile.TemporaryDirectory() as folder:
        full = exported(checkpoint, Path(folder), "float32", texts)
        rows = [("float32", "float64", compared(full, exact(checkpoint, texts[:exact_reviews])), 0.0)]
        for precision, required in REQUIRED.items():
            found = exported(checkpoint, Path(folder), precision, texts)
            rows.append((precision, "float32", compared(found, full), required))
    print(f"{'exported':<10} {'against':<8} {'identical reviews':>18} {'share':>8} {'required':>9} {'other facts':>16}")
    for name, reference, row, required in rows:
        same, other = f"{row.same} of {row.reviews}", f"{row.differing} of {row.facts}"
        wanted = f"{required:.1%}" if required else "-"
        print(f"{name:<10} {reference:<8} {same:>18} {row.share:>8.2%} {wanted:>9} {other:>16}")
    sys.exit(int(any(row.share < required for *_, row, required in rows)))


if __name__ == "__main__":
    main()
