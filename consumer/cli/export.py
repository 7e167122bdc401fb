"""``rexstream export``: a checkpoint becomes a version that TensorFlow Serving loads."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from consumer.cli.options import model_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from consumer.model.encoder import Precision
    from consumer.model.export import ExportReport

_FOLDER = click.Path(path_type=Path)


@click.command(name="export", short_help="Turn a checkpoint into a SavedModel with its client bundle.")
@click.option("--checkpoint", type=_FOLDER, required=True, help="Folder with config.json, tokenizer files and weights.")
@click.option("--output", type=_FOLDER, required=True, help="The model's folder; the version is written inside it.")
@click.option("--version", type=click.IntRange(min=1), help="Default: the highest version that exists, plus 1.")
@click.option(
    "--precision",
    type=click.Choice(("float32", "bfloat16", "float16")),
    default="float32",
    show_default=True,
    help="Of the encoder's matrix products; all else stays float32.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(512, 1_048_576),
    default=16_384,
    show_default=True,
    help="Size of the largest warm-up batch: batching.max_tokens of the workers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def command(
    checkpoint: Path, output: Path, version: int | None, precision: Precision, max_tokens: int, as_json: bool
) -> None:
    """Turn a checkpoint into a SavedModel with its client bundle.

    Writes OUTPUT/VERSION with the graph, its weights, warm-up requests and the folder 'bundle' (a worker's
    model.bundle), runs it on real prompts and compares it with a reference in numpy. A polling server never sees half
    a version; one that fails its check is removed (exit code 1).

    \b
    Example:
      rexstream export --checkpoint checkpoint/ --output models/rexuninlu
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    with model_extra("exporting"):
        from consumer.model.encoder_config import CheckpointError
        from consumer.model.export import ExportError, export
        from consumer.model.self_check import SelfCheckError
    try:
        with _announcing() as announce:
            report = export(
                checkpoint,
                output.absolute(),
                version=version,
                precision=precision,
                max_tokens=max_tokens,
                announce=announce,
            )
    except (CheckpointError, ExportError) as error:
        raise click.UsageError(str(error)) from error
    except SelfCheckError as error:
        raise click.ClickException(f"the written model failed its self-check and was removed: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or output}: {error.strerror or error}") from error
    if as_json:
        click.echo(json.dumps({**asdict(report), "folder": str(report.folder), "files": dict(report.files)}))
    else:
        _print(report)


@contextmanager
def _announcing() -> Iterator[Callable[[str], None]]:
    """What is going on, on standard error: a spinner on a terminal, else a line a step."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
    else:
        yield lambda step: click.echo(step, err=True)


def _print(report: ExportReport) -> None:
    table = Table(title=f"{report.folder}", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    check = report.self_check
    difference = f"largest difference {check.max_error:.2g}, {check.relative_error:.2g} of the logits' spread"
    checked = f"({check.tolerance:.2g} allowed), over {check.windows} prompts, padded and unpadded"
    for name, value in (
        ("signatures", ", ".join(report.signatures)),
        ("parameters", f"{report.parameters:,}"),
        ("precision", report.precision),
        ("contract", str(report.contract)),
        ("checkpoint", f"sha256 {report.checkpoint_sha256}"),
        ("warm-up", f"{report.warmup_requests} requests"),
        ("self-check", f"{difference} {checked}"),
        *((path, f"{size:,} bytes") for path, size in report.files),
        ("", f"took {report.seconds:.1f} s"),
    ):
        table.add_row(name, value)
    Console().print(table)
