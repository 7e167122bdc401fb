"""Trains the demo model, goes on from it on your own reviews, and measures both. Needs PyTorch: make train-install.

python deploy/demo-model/train.py train --data ../data --start bge.jar --work .cache/train
python deploy/demo-model/train.py tune --data my_reviews.jsonl --out my-model
python deploy/demo-model/train.py calibrate .cache/train/best --data ../data
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

# Threads that spin at every barrier take each other's core as soon as anything else runs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import yaml
from recipe import checkpoint, validation
from recipe.measuring import Measured, key_of, measured, table
from recipe.naming import Naming
from recipe.network import RexUniNLU, Shape
from recipe.rows import DataError, read_rows
from recipe.samples import Layout
from recipe.sources import WRITTEN, makers, read_sources, texts_of
from recipe.starting_weights import started
from recipe.training import Settings, Supply, Training
from recipe.tuning import OwnSamples, sides
from recipe.vocabulary import tokenizer_of, vocabulary_of

from consumer.evaluation.calibration import calibration
from consumer.extraction.prompts import PromptTokenizer, with_markers

if TYPE_CHECKING:
    from collections.abc import Callable

    from recipe.sources import Sources

HERE: Final = Path(__file__).parent
_PROBES: Final = 400
"""Texts on which the units of the starting weights are judged."""


def logger(work: Path) -> Callable[[str], None]:
    """Writes lines to standard error and to ``work/train.log``."""
    work.mkdir(parents=True, exist_ok=True)
    file = (work / "train.log").open("a", encoding="utf-8", buffering=1)

    def log(line: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {line}"
        click.echo(stamped, err=True)
        file.write(f"{stamped}\n")

    return log


def read_config(path: Path) -> dict[str, Any]:
    """``recipe.yaml``."""
    config: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return config


_DATA = click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True, help="Folder with the sets."
)
_CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=HERE / "recipe.yaml",
    show_default=True,
)
_WORK = click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path(".cache/train"),
    show_default=True,
    help="State, log, best weights.",
)
_THREADS = click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
def main() -> None:
    """See the module."""


@main.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder with the sets of recipe.yaml.")
@click.option(
    "--start", type=click.Path(exists=True, path_type=Path), help="The starting weights' archive, or a checkpoint."
)
@click.option("--quick", is_flag=True, help="A tiny network on the written reviews alone, to try the recipe.")
@_CONFIG
@_WORK
@_THREADS
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Instead of the configured time.")
def train(
    data: Path | None, start: Path | None, quick: bool, config: Path, work: Path, threads: int, minutes: float | None
) -> None:
    """Train on the sets of recipe.yaml. Interrupted by Ctrl-C or a signal, the same command goes on where it was."""
    torch.set_num_threads(threads)
    log, raw, naming = logger(work), read_config(config), Naming.read()
    if quick:
        raw = {
            name: {**value, **raw["quick"].get(name, {})} if isinstance(value, dict) else value
            for name, value in raw.items()
        }
        raw["vocabulary"] = raw["quick"]["vocabulary"]
    elif data is None:
        raise click.UsageError("--data is missing: the folder with the annotated sets; or try --quick")
    read = partial(read_sources, raw, data or HERE, only=WRITTEN if quick else frozenset())
    settings = Settings(**{**raw["training"], **({"minutes": minutes} if minutes else {})})
    state = work / "state.pt"
    try:
        sources, looked_at = read(validation=False), read(validation=True)
        vocabulary = _vocabulary(work, start, raw, naming, sources, data or HERE)
        tokenizer_json = tokenizer_of(vocabulary)
        tokenizer = PromptTokenizer(with_markers(tokenizer_json.encode()))
        model = _starting_model(start, vocabulary, raw, sources, tokenizer, state)
    except DataError as error:
        raise click.ClickException(str(error)) from error
    layout = Layout(tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log(f"{parameters / 1e6:.2f} M parameters, {len(vocabulary)} words in the vocabulary")
    checks = validation.suite(looked_at, naming, tokenizer, raw["validation"]["rows"], raw["seed"])
    training = Training(model, settings, state, log)
    supply = Supply(makers(sources, raw, layout, naming), raw["kinds"], layout, settings, raw["seed"])

    def validate() -> None:
        averaged = RexUniNLU(model.shape)
        averaged.load_state_dict(training.averaged)
        log(f"validation after {training.progress.tokens / 1e6:.2f} M tokens")
        figures = checks.figures(averaged)
        score = validation.report(figures, log)
        history = work / "validation.jsonl"
        earlier = (
            [json.loads(line)["score"] for line in history.read_text("utf-8").splitlines()] if history.is_file() else []
        )
        with history.open("a", encoding="utf-8") as lines:
            line = {"tokens": training.progress.tokens, "score": score, **figures}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        if score > max(earlier, default=-1.0):
            checkpoint.save(training.averaged, model.shape, tokenizer_json, vocabulary, work / "best")

    if training.run(supply, validate):
        validate()
        checkpoint.save(training.averaged, model.shape, tokenizer_json, vocabulary, work / "last")
        log(f"done; {work / 'last'} has the last weights, {work / 'best'} those with the best validation")
    else:
        log("interrupted; the same command goes on from here")


def _vocabulary(
    work: Path, start: Path | None, raw: dict[str, Any], naming: Naming, sources: Sources, data: Path
) -> list[str]:
    """That of this training, of the checkpoint that it starts from, or a new one."""
    file = work / "vocab.txt"
    known = file if file.is_file() else start / "vocab.txt" if start is not None and start.is_dir() else None
    if known is not None:
        vocabulary = known.read_text("utf-8").splitlines()
    else:
        types = {
            name
            for group in sources.rows.values()
            for rows in group.values()
            for row in rows
            for name in _types(row.schema)
        }
        files = [*sorted((HERE.parent.parent / "schemas/tasks").glob("*.yaml")), HERE / "recipe/templates.yaml"]
        written = "".join(row.text for row in sources.written)
        required = naming.characters() + "".join(sorted(types)) + "".join(path.read_text("utf-8") for path in files)
        vocabulary = vocabulary_of(texts_of(sources, raw, data), required + written, raw["vocabulary"])
    file.write_text("\n".join(vocabulary) + "\n", "utf-8")
    return vocabulary


def _types(schema: Any) -> list[str]:
    return [name for key, below in (schema or {}).items() for name in (key, *_types(below))]


def _starting_model(
    start: Path | None,
    vocabulary: list[str],
    raw: dict[str, Any],
    sources: Any,
    tokenizer: PromptTokenizer,
    state: Path,
) -> RexUniNLU:
    shape = Shape(len(vocabulary), **raw["shape"])
    if state.is_file() or start is None:
        torch.manual_seed(raw["seed"])
        return RexUniNLU(shape)
    if start.is_dir():
        return checkpoint.load(start)[0]
    rng = random.Random(raw["seed"])
    probes = rng.sample(sources.shop, min(_PROBES, len(sources.shop)))
    cls, sep = tokenizer.cls, tokenizer.sep
    ids = [[cls, *tokenizer.ids(row.text)[:120], sep] for row in probes]
    return started(start, vocabulary, shape, ids, raw["seed"])


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_DATA
@_CONFIG
@_THREADS
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the calibrated checkpoint.")
def calibrate(folder: Path, data: Path, config: Path, threads: int, out: Path) -> None:
    """Divide all logits by one temperature, fitted on validation rows, so that scores say how often they are right.

    It is folded into the weights: every decision stays the same, and nothing has to be configured.
    """
    torch.set_num_threads(threads)
    raw = read_config(config)
    model, tokenizer, vocabulary = checkpoint.load(folder)
    sources = read_sources(raw, data, validation=True)
    suite = validation.suite(sources, Naming.read(), tokenizer, raw["validation"]["rows"], raw["seed"])
    found = calibration([case for cases in suite.cases(model).values() for case in cases])
    if found is None or found.temperature is None:
        raise click.ClickException("the model finds too little in the validation rows to fit a temperature")
    scaled = checkpoint.scaled(model.state_dict(), found.temperature)
    checkpoint.save(scaled, model.shape, (folder / "tokenizer.json").read_text("utf-8"), vocabulary, out)
    click.echo(
        f"temperature {found.temperature:.3f}: expected calibration error {found.ece:.3f} -> {found.ece_after:.3f} "
        f"over {found.facts} facts; written to {out}"
    )


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_DATA
@_CONFIG
@click.option(
    "--before",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another checkpoint beside it.",
)
@click.option("--only", metavar="WORDS", default="", help="Only measures whose name has these words.")
def measure(folder: Path, data: Path, config: Path, before: Path | None, only: str) -> None:
    """Print the model card's table: rexstream evaluate on validation rows and on the project's gold."""
    earlier: dict[str, float] = {}
    lines: list[Measured] = []
    with tempfile.TemporaryDirectory() as temporary:
        for each in read_config(config)["measures"]:
            if only not in each["name"]:
                continue
            click.echo(each["name"], err=True)
            lines += measured(folder, each, data, Path(temporary))
            if before is not None:
                earlier |= {key_of(line): line.value for line in measured(before, each, data, Path(temporary))}
    click.echo(table(lines, earlier))


@main.command()
@click.option(
    "--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Annotated rows."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the new checkpoint.")
@click.option(
    "--from", "start", type=click.Path(exists=True, file_okay=False, path_type=Path), default=HERE, help="Checkpoint."
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True)
@click.option("--learning-rate", type=float, default=1e-4, show_default=True)
@_THREADS
def tune(data: Path, out: Path, start: Path, minutes: float, learning_rate: float, threads: int) -> None:
    """Go on from a checkpoint on your own annotated reviews, and show what it brought.

    A fifth of the rows is held out, by a hash of the text, and measured before and after. Reviews that were written for
    the demo model are mixed in, so that what it knew is not forgotten.
    """
    torch.set_num_threads(threads)
    log = logger(out)
    try:
        trained, held = sides(read_rows(data))
    except DataError as error:
        raise click.ClickException(str(error)) from error
    model, tokenizer, vocabulary = checkpoint.load(start)
    checks = validation.Suite({"held out": [validation.row_question(row) for row in held]}, tokenizer)
    before = checks.figures(model)
    raw, layout = read_config(HERE / "recipe.yaml"), Layout(tokenizer)
    settings = Settings(
        **{
            **raw["training"],
            "minutes": minutes,
            "learning_rate": learning_rate,
            "head_rate": 1,
            "warm_up": 0.05,
            "averaged": 0.99,
            "validate_minutes": 1e9,
        }
    )
    rehearsed = makers(read_sources(raw, HERE, validation=False, only=WRITTEN), raw, layout, Naming.read())
    kinds = {
        "own": 0.8,
        "aspects": 0.05,
        "opinions": 0.05,
        "links": 0.05,
        "sentiment": 0.02,
        "category": 0.02,
        "intent": 0.01,
    }
    supply = Supply({**rehearsed, "own": OwnSamples(trained, layout).own}, kinds, layout, settings, raw["seed"])
    training = Training(model, settings, out / "state.pt", log)
    finished = training.run(supply, lambda: None)
    if not finished:
        log("interrupted; the same command goes on from here")
        return
    tuned = RexUniNLU(model.shape)
    tuned.load_state_dict(training.averaged)
    checkpoint.save(training.averaged, model.shape, (start / "tokenizer.json").read_text("utf-8"), vocabulary, out)
    (out / "state.pt").unlink()
    click.echo(f"{len(trained)} rows trained on, {len(held)} held out:")
    click.echo(validation.summary(checks.figures(tuned), before))
    click.echo(f"try it: rexstream evaluate --checkpoint {out} --data {data}")


if __name__ == "__main__":
    main()
