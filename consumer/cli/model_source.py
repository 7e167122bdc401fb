"""What commands that ask a model share: which model and task to use, opening the model, and exit codes.

``model_options`` give a command its ModelSource, ``opened`` a Session in which extractions run on that model.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from consumer.cli.options import Command, Unreachable, model_extra
from consumer.cli.progress import waiting_for
from consumer.config.address_rules import target_faults
from consumer.config.problems import ConfigError
from consumer.config.shipped import shipped
from consumer.config.task_files import load_tasks
from consumer.config.tree import ModelConfig, ModelTlsConfig
from consumer.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from consumer.extraction.engine import Engine, Extraction
from consumer.extraction.prompts import MAX_CELLS_PER_WINDOW, PromptLimits, PromptTokenizer, contract_hash, with_markers
from consumer.extraction.task import ExtractionLimits, Task
from consumer.offline import CALL_SECONDS, Driver, Extracting, Unanswered
from consumer.serving.bundle import Bundle, load_bundle
from consumer.serving.protocol import Failure, ModelClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

DEMO_MODEL = "deploy/demo-model"
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def model_options(command: Command) -> Command:
    """Add ``--checkpoint`` and the options of ``server_options`` to a command.

    It gets them as one argument ``model_source``.
    """
    checkpoint = click.option(
        "--checkpoint", type=_FOLDER, help="Run this checkpoint in the process; default: the demo model."
    )
    return checkpoint(server_options(command))


def server_options(command: Command) -> Command:
    """Add ``--server``, ``--bundle``, ``--model`` and TLS options to a command, as its argument ``model_source``."""

    @click.option("--server", metavar="HOST:PORT", help="Use the TensorFlow Serving at this gRPC address.")
    @click.option(
        "--bundle",
        type=_FOLDER,
        help="Folder that 'rexstream export' wrote beside the served model; default: the demo model's.",
    )
    @click.option("--model", default=ModelConfig().name, show_default=True, help="Name of the model on the server.")
    @click.option("--ca-file", metavar="PEM", help="Use TLS; the issuers whose certificates are trusted.")
    @click.option("--certificate-file", metavar="PEM", help="This client's certificate, if the server wants one.")
    @click.option("--key-file", metavar="PEM", help="Private key of --certificate-file, not encrypted.")
    @click.option("--server-name", metavar="NAME", help="Name in the server's certificate, if not its host's.")
    @functools.wraps(command)
    def with_source(
        *,
        server: str | None,
        bundle: Path | None,
        model: str,
        ca_file: str | None,
        certificate_file: str | None,
        key_file: str | None,
        server_name: str | None,
        checkpoint: Path | None = None,
        **others: Any,
    ) -> Any:
        tls = None
        if ca_file or certificate_file or key_file or server_name:
            tls = ModelTlsConfig(
                ca_file=ca_file, certificate_file=certificate_file, key_file=key_file, server_name=server_name
            )
        return command(model_source=ModelSource(checkpoint, server, bundle, model, tls), **others)

    return with_source


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The values of ``model_options``: a checkpoint, or a server with its bundle."""

    checkpoint: Path | None
    server: str | None
    bundle: Path | None
    model: str
    tls: ModelTlsConfig | None = None
    configured: ModelConfig | None = None
    """Of a worker; it stands for ``model``, ``tls``, ``version`` and ``label``."""
    version: int | None = None
    label: str | None = None

    def or_configured(self, model: ModelConfig) -> ModelSource:
        """Itself where it names a model, else the model of a worker with this configuration, if that has any."""
        if self.checkpoint is not None or self.server is not None or model.bundle is None:
            return self
        return self.on_server(model)

    def on_server(self, model: ModelConfig) -> ModelSource:
        """The model of a worker with this configuration; with the demo model's bundle, where it has none."""
        bundle = None if model.bundle is None else Path(model.bundle)
        return replace(self, server=model.target, bundle=bundle, model=model.name, configured=model)

    def told(self, message: str) -> str:
        """A message about a worker's configuration, in the options of these commands where those chose the model."""
        return message if self.configured is not None else as_options(message)


def loaded_tasks(
    tasks_dirs: Sequence[str], chosen: Collection[str], replacing: Sequence[str] = ()
) -> Mapping[str, Task]:
    """All tasks, those of the folders ``tasks_dirs`` beside the shipped ones, and of ``replacing`` in place of others.

    Raises click.UsageError, also where a task of ``chosen`` is not among them.
    """
    try:
        tasks = load_tasks(tasks_dirs, replacing)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    for name in chosen:
        if name not in tasks:
            raise click.UsageError(f"there is no task {name!r}; the tasks are {', '.join(sorted(tasks))}")
    return tasks


class Session(NamedTuple):
    """An opened model, and what runs extractions on it."""

    engine: Engine
    driver: Driver
    runner: asyncio.Runner
    """With the event loop that the driver belongs to."""
    run: Callable[[Sequence[Callable[[], Extraction]]], list[Extracting]]
    """Run extractions; see ``Driver.run``. The event loop runs only meanwhile, so Ctrl-C ends waiting for input."""
    client: ModelClient
    known_good: Callable[[int], Awaitable[object]] | None
    """As in Driver."""


@contextmanager
def quiet_end() -> Iterator[None]:
    """End the process with 130 on Ctrl-C, and with 1 when the reader of the output has gone."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # What Python's manual recommends: at exit it flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_FAILED)


@contextmanager
def opened(
    source: ModelSource, limits: ExtractionLimits | None = None, beside: Session | None = None
) -> Iterator[Session]:
    """Open the model; end as ``quiet_end`` does, and with 3 when the server cannot be reached or serves a model that
    does not fit the bundle. ``limits`` None are the defaults. ``beside`` is a session whose event loop it shares.
    Raises click.UsageError (2) for options that do not fit together or cannot be used.
    """
    try:
        with quiet_end(), asyncio.Runner() if beside is None else nullcontext(beside.runner) as runner:
            with waiting_for("the model"):
                client, bundle, concurrency = _open(runner, source)
            engine = Engine(bundle.tokenizer, bundle.limits, limits or ExtractionLimits())
            known_good = _known_good(client, engine)
            driver = Driver(client, concurrency, known_good=known_good)
            try:
                yield Session(engine, driver, runner, lambda starts: runner.run(driver.run(starts)), client, known_good)
            finally:
                runner.run(client.close())
    except Unanswered as unanswered:
        error = unanswered.error
        if error.failure is Failure.DEPLOYMENT:
            raise Unreachable(f"the served model cannot be used: {source.told(error.message)}") from unanswered
        raise Unreachable(f"the model server does not answer: {source.told(str(error))}") from unanswered


_OPTIONS = {
    "model.tls.ca_file": "--ca-file",
    "model.tls.certificate_file": "--certificate-file",
    "model.tls.key_file": "--key-file",
    "model.tls.server_name": "--server-name",
    "model.tls": "the options for TLS (--ca-file and those after it)",
    "model.target": "--server",
    "model.name": "--model",
    "model.bundle": "--bundle",
    "model.version": "--version",
    "model.label": "--label",
}


def as_options(message: str) -> str:
    """A message about a worker's configuration, in the options of these commands."""
    return re.sub(
        r"model\.(tls\.\w+|tls|target|name|bundle|version|label)\b", lambda key: _OPTIONS.get(key[0], key[0]), message
    )


def _known_good(client: ModelClient, engine: Engine) -> Callable[[int], Awaitable[object]] | None:
    """Asks a served model a known-good window; None for one in this process, which is its own bundle's."""
    from consumer.serving.client import TfServingClient

    if not isinstance(client, TfServingClient):
        return None
    return lambda length: client.known_good(engine.known_good_window("好" * length), CALL_SECONDS)


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
    for what, fix in target_faults(source.server):
        raise click.UsageError(f"--server {what}; {fix}")
    if source.checkpoint is not None:
        raise click.UsageError("--checkpoint and --server exclude each other: choose where the model runs")
    return runner.run(_served(source.server, source))


def _in_process(checkpoint: Path) -> tuple[ModelClient, Bundle, int]:
    with native_stderr_held_back():
        with model_extra("running a checkpoint", ", or use --server"):
            from consumer.model.encoder_config import CheckpointError
            from consumer.model.runner import CheckpointModel
        try:
            model = CheckpointModel(checkpoint)
        except CheckpointError as error:
            raise click.UsageError(str(error)) from error
    return model, model.bundle, 1


@contextmanager
def native_stderr_held_back() -> Iterator[None]:
    """Keep what TensorFlow writes to file descriptor 2 off standard error.

    It describes the processor there before its log level is read. What it wrote is shown after all when loading fails
    with anything but a click.UsageError, which explains itself.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    replay = False
    with TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception as error:
            replay = not isinstance(error, click.UsageError)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if replay:
                held.seek(0)
                os.write(2, held.read())


async def _served(server: str, source: ModelSource) -> tuple[ModelClient, Bundle, int]:
    from consumer.serving.client import TfServingClient

    try:
        bundle = _demo_bundle() if source.bundle is None else load_bundle(source.bundle)
    except ValueError as error:
        raise click.UsageError(source.told(str(error))) from error
    try:
        model = source.configured or ModelConfig(
            target=server, name=source.model, tls=source.tls, version=source.version, label=source.label
        )
        client = TfServingClient(model, bundle)
    except ValueError as error:
        raise click.UsageError(source.told(str(error))) from error
    if not await client.ready():
        loaded = "" if model.version is None else await client.loaded()
        await client.close()
        if loaded:
            raise Unreachable(
                f"version {model.version} of model {source.model!r} is not AVAILABLE at {server}, which has {loaded}: "
                f"load it, or change {source.told('model.version')}"
            )
        raise Unreachable(
            f"no version of model {source.model!r} is AVAILABLE at {server} ({source.told(client.unready)}): is a "
            f"server running there, is this its gRPC port, and is {source.told('model.name')} its model's name?"
        )
    return client, bundle, 2


def _demo_bundle() -> Bundle:
    """As exporting the demo model would write it, without the extra that exporting needs."""
    tokenizer_json = with_markers((shipped(DEMO_MODEL) / "tokenizer.json").read_bytes())
    contract = contract_hash(tokenizer_json, PromptLimits())
    name = f"of the shipped demo model (contract {contract})"
    return Bundle(PromptTokenizer(tokenizer_json), PromptLimits(), MAX_CELLS_PER_WINDOW, contract, name)
