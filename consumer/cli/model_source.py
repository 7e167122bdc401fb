"""Which model a command without Kafka uses: the options for it, opening it, and the exit codes when that fails."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import click

from consumer.config.shipped import shipped
from consumer.config.tree import ModelConfig, ModelTlsConfig
from consumer.extraction.engine import Engine
from consumer.extraction.prompts import MAX_CELLS_PER_WINDOW, PromptLimits, PromptTokenizer, contract_hash, with_markers
from consumer.extraction.task import ExtractionLimits
from consumer.offline import Driver, Unanswered
from consumer.serving.bundle import Bundle, load_bundle
from consumer.serving.protocol import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from consumer.extraction.engine import Extraction
    from consumer.offline import Extracting
    from consumer.serving.protocol import ModelClient

DEMO_MODEL = "deploy/demo-model"
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--checkpoint``, ``--server``, ``--bundle``, ``--model`` and TLS options to a command.

    It gets them as one argument ``model_source``.
    """

    @functools.wraps(command)
    def with_source(
        *,
        checkpoint: Path | None,
        server: str | None,
        bundle: Path | None,
        model: str,
        ca_file: str | None,
        certificate_file: str | None,
        key_file: str | None,
        server_name: str | None,
        **others: Any,
    ) -> Any:
        tls = None
        if ca_file or certificate_file or key_file or server_name:
            tls = ModelTlsConfig(
                ca_file=ca_file, certificate_file=certificate_file, key_file=key_file, server_name=server_name
            )
        return command(model_source=ModelSource(checkpoint, server, bundle, model, tls), **others)

    decorated: Callable[..., Any] = with_source
    for option in (
        click.option("--server-name", metavar="NAME", help="Name in the server's certificate, if not its host's."),
        click.option("--key-file", metavar="PEM", help="Private key of --certificate-file, not encrypted."),
        click.option("--certificate-file", metavar="PEM", help="This client's certificate, if the server wants one."),
        click.option("--ca-file", metavar="PEM", help="Use TLS; the issuers whose certificates are trusted."),
        click.option("--model", default=ModelConfig().name, show_default=True, help="Name of the model on the server."),
        click.option(
            "--bundle",
            type=_FOLDER,
            help="Folder that 'rexstream export' wrote beside the served model; default: the demo model's.",
        ),
        click.option("--server", metavar="HOST:PORT", help="Use the TensorFlow Serving at this gRPC address."),
        click.option("--checkpoint", type=_FOLDER, help="Run this checkpoint in the process; default: the demo model."),
    ):
        decorated = option(decorated)
    return decorated


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What the options say."""

    checkpoint: Path | None
    server: str | None
    bundle: Path | None
    model: str
    tls: ModelTlsConfig | None = None


class Session:
    """A model that answers, and the event loop on which it does so."""

    def __init__(self, runner: asyncio.Runner, client: ModelClient, bundle: Bundle, concurrency: int) -> None:
        self.engine = Engine(bundle.tokenizer, bundle.limits, ExtractionLimits())
        self._runner = runner
        self._driver = Driver(client, concurrency)

    def run(self, starts: Sequence[Callable[[], Extraction]]) -> list[Extracting]:
        """Run extractions; see ``Driver.run``. The loop turns only meanwhile, so Ctrl-C ends waiting for input."""
        return self._runner.run(self._driver.run(starts))


@contextmanager
def opened(source: ModelSource) -> Iterator[Session]:
    """Open the model; end the process with 130 on Ctrl-C, 1 when the reader of the output has gone, and 3 when the
    server cannot be reached. Raises click.UsageError (2) for options that do not fit together or cannot be used.
    """
    try:
        with asyncio.Runner() as runner:
            client, bundle, concurrency = _open(runner, source)
            try:
                yield Session(runner, client, bundle, concurrency)
            finally:
                runner.run(client.close())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # What Python's manual recommends: at exit it flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except Unanswered as unanswered:
        if unanswered.error.failure is Failure.DEPLOYMENT:
            raise click.UsageError(
                f"the model served does not fit what is asked of it ({unanswered}): pass the --bundle that was "
                "exported with it"
            ) from unanswered
        click.echo(f"Error: the model server does not answer: {unanswered}", err=True)
        sys.exit(3)


def _open(runner: asyncio.Runner, source: ModelSource) -> tuple[ModelClient, Bundle, int]:
    if source.tls is not None:
        if source.server is None:
            raise click.UsageError("--ca-file, --certificate-file, --key-file and --server-name belong to --server")
        if (source.tls.certificate_file is None) != (source.tls.key_file is None):
            raise click.UsageError("--certificate-file and --key-file belong together: give both, or neither")
    if source.server is None:
        if source.bundle is not None:
            raise click.UsageError("--bundle belongs to --server; a checkpoint has its own tokenizer")
        return _in_process(source.checkpoint or shipped(DEMO_MODEL))
    if source.checkpoint is not None:
        raise click.UsageError("--checkpoint and --server exclude each other: choose where the model runs")
    return runner.run(_served(source.server, source))


def _in_process(checkpoint: Path) -> tuple[ModelClient, Bundle, int]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _native_chatter_held_back():
        try:
            from consumer.model.encoder_config import CheckpointError
            from consumer.model.runner import CheckpointModel
        except ModuleNotFoundError as missing:
            raise click.UsageError(
                f"running a checkpoint needs the package {missing.name}: install rexstream[model], or use --server"
            ) from missing
        try:
            model = CheckpointModel(checkpoint)
        except CheckpointError as error:
            raise click.UsageError(str(error)) from error
    return model, model.bundle, 1


@contextmanager
def _native_chatter_held_back() -> Iterator[None]:
    """TensorFlow tells file descriptor 2 about the processor before it can be told not to.

    What it said is shown after all when loading fails without an explanation of ours.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    replay = False
    with TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception as error:
            replay = not isinstance(error, click.UsageError)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if replay:
                said.seek(0)
                os.write(2, said.read())


async def _served(server: str, source: ModelSource) -> tuple[ModelClient, Bundle, int]:
    from consumer.serving.client import TfServingClient

    try:
        bundle = _demo_bundle() if source.bundle is None else load_bundle(source.bundle)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        client = TfServingClient(ModelConfig(target=server, name=source.model, tls=source.tls), bundle)
    except ValueError as error:
        # Its settings are called as in a worker's configuration.
        raise click.UsageError(str(error).replace("model.tls.", "--").replace("_file", "-file")) from error
    if not await client.ready():
        await client.close()
        why = f" ({client.unready})" if client.unready else ""
        click.echo(
            f"Error: no version of model {source.model!r} is AVAILABLE at {server}{why}: is a server running there, is "
            "this its gRPC port, and is --model its model's name?",
            err=True,
        )
        sys.exit(3)
    return client, bundle, 2


def _demo_bundle() -> Bundle:
    """As exporting the demo model would write it, without the extra that exporting needs."""
    tokenizer_json = with_markers((shipped(DEMO_MODEL) / "tokenizer.json").read_bytes())
    contract = contract_hash(tokenizer_json, PromptLimits())
    return Bundle(PromptTokenizer(tokenizer_json), PromptLimits(), MAX_CELLS_PER_WINDOW, contract)
