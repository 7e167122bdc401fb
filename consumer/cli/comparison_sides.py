"""The two sides of ``rexstream compare``: options that say in what they differ, and opening their models."""

from __future__ import annotations

import functools
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from consumer.cli.model_source import ModelSource, native_stderr_held_back, opened
from consumer.cli.options import Unreachable, model_extra
from consumer.evaluation.comparison import SIDES
from consumer.serving.protocol import ServingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from consumer.cli.model_source import Session
    from consumer.cli.options import Command
    from consumer.evaluation.agreement import Side

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_SHORT: Final = 8
"""Characters of the text of the call that shows whether a model fits."""
_NEVER: Final = 86_400.0
"""Seconds between two looks at the disk for other versions of an export: it is one."""


class SideOptions(NamedTuple):
    """What one side has of its own. All empty: it is what the options for both sides say."""

    server: str | None
    model: str | None
    version: int | None
    label: str | None
    bundle: Path | None
    checkpoint: Path | None
    export: Path | None
    tasks_dirs: tuple[str, ...]

    def source(self, side: Side, both: ModelSource) -> ModelSource:
        """The model of ``side``, unless it is an export; ``both`` has what does not differ.

        Raises click.UsageError.
        """
        named = [name for name in ("server", "checkpoint", "export") if getattr(self, name) is not None]
        if len(named) > 1:
            raise click.UsageError(f"--{side}-{named[0]} and --{side}-{named[1]} exclude each other")
        if self.version is not None and self.label is not None:
            raise click.UsageError(f"--{side}-version and --{side}-label exclude each other")
        if self.checkpoint is not None or self.export is not None:
            both = ModelSource(self.checkpoint, None, None, both.model)
        elif self.server is not None:
            both = replace(both, server=self.server, checkpoint=None)
        for name in ("model", "version", "label", "bundle"):
            if getattr(self, name) is not None and both.server is None:
                raise click.UsageError(f"--{side}-{name} belongs to a server: give --{side}-server or --server")
        return replace(
            both,
            bundle=self.bundle or both.bundle,
            model=self.model or both.model,
            version=self.version,
            label=self.label,
        )


def side_options(side: Side) -> Callable[[Command], Command]:
    """Add the options of one side, which the command gets as one argument of that name, SideOptions."""

    def with_options(command: Command) -> Command:
        options = (
            click.option(f"--{side}-server", metavar="HOST:PORT", help=f"Model server of the {side} side."),
            click.option(f"--{side}-model", metavar="NAME", help="Its model's name there."),
            click.option(f"--{side}-version", type=click.IntRange(min=0), help="Version to ask there."),
            click.option(f"--{side}-label", metavar="LABEL", help="Version label to ask there, such as canary."),
            click.option(f"--{side}-bundle", type=_FOLDER, help="The bundle of that version."),
            click.option(f"--{side}-checkpoint", type=_FOLDER, help="Run this checkpoint instead."),
            click.option(
                f"--{side}-export", type=_FOLDER, help="Run this version folder of 'rexstream export' instead."
            ),
            click.option(
                f"--{side}-tasks-dir",
                f"{side}_tasks_dirs",
                multiple=True,
                metavar="DIR",
                help=f"Folder with task files of the {side} side, in place of others with their names.",
            ),
        )

        @functools.wraps(command)
        def with_side(**given: Any) -> Any:
            own = SideOptions(*(given.pop(f"{side}_{name}") for name in SideOptions._fields))
            return command(**given, **{side: own})

        decorated: Command = with_side
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return with_options


def both_opened(stack: ExitStack, both: ModelSource, sides: tuple[SideOptions, SideOptions]) -> tuple[Session, Session]:
    """Sessions of old and new, on one event loop; each model has answered a call. ``stack`` closes them.

    Raises click.UsageError, Unreachable, which name the side.
    """
    sources = [own.source(side, both) for side, own in zip(SIDES, sides, strict=True)]
    sessions: list[Session] = []
    for side, own, source in zip(SIDES, sides, sources, strict=True):
        try:
            if own.export is not None:
                source = stack.enter_context(_served(own.export))
            session = stack.enter_context(opened(source, None, sessions[0] if sessions else None))
            _require_answer(session, source)
        except click.ClickException as error:
            what = re.sub(
                r"--(server|model|bundle|checkpoint|version|label)\b(?!-)", rf"--{side}-\1", error.format_message()
            )
            raise type(error)(f"{side}: {what}") from error
        sessions.append(session)
    old, new = sessions
    return old, new


def _require_answer(session: Session, source: ModelSource) -> None:
    """Raise Unreachable where a served model does not answer, or has no such label, before an hour's run."""
    known_good = session.known_good
    if known_good is None:
        return
    from consumer.serving.client import TfServingClient

    async def ask() -> None:
        await known_good(_SHORT)

    try:
        session.runner.run(ask())
    except ServingError as error:
        what = source.told(error.message)
        if source.label is not None and isinstance(session.client, TfServingClient):
            what += f" (it has {session.runner.run(session.client.loaded()) or 'no version'})"
        raise Unreachable(f"the served model cannot be used: {what}") from error


@contextmanager
def _served(folder: Path) -> Iterator[ModelSource]:
    """A version folder behind a model server of this process, on a free port of loopback. Raises click.UsageError."""
    from consumer.local.catalog import Catalog, Refusal
    from consumer.local.model_folders import ModelSource as Served
    from consumer.local.model_folders import VersionPolicy
    from consumer.local.model_server import ModelServer, usable_cpus

    folder = folder.resolve()
    if not (folder / "saved_model.pb").is_file() or not folder.name.isdecimal():
        raise click.UsageError(
            f"{folder} is no version folder of 'rexstream export', such as models/rexuninlu/1 with saved_model.pb"
        )
    version, name, cpus = int(folder.name), folder.parent.name, usable_cpus()
    with native_stderr_held_back():
        with model_extra("running an export", ", or serve it and use --server"):
            from consumer.local.saved_model import SavedModel
        served = Served(name, folder.parent, VersionPolicy(specific=frozenset({version})))
        server = ModelServer(Catalog([served], lambda path: SavedModel(path, cpus)), cpus=cpus)
        try:
            address = server.start("127.0.0.1", 0, poll_seconds=_NEVER)
        except Refusal as refusal:
            server.stop()
            raise click.UsageError(f"{folder} cannot be used: {refusal.message}") from refusal
    try:
        yield ModelSource(None, address, folder / "bundle", name, version=version)
    finally:
        server.stop()
