"""The ``rexstream`` command. Each subcommand lives in a module of its own, imported only when it runs."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from consumer import __version__
from consumer.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK

COMMANDS = {
    "demo": "Watch the whole pipeline run on this machine.",
    "run": "Run a worker.",
    "serve": "Serve exported models over TensorFlow Serving's gRPC API.",
    "broker": "Run an embedded, in-memory Kafka broker.",
    "export": "Turn a checkpoint into a SavedModel with its client bundle.",
    "extract": "Extract from files of reviews, without Kafka.",
    "evaluate": "Score a model against annotated data.",
    "compare": "Compare two versions of a model, or of a task, on the same reviews.",
    "tune": "Measure a model server, and recommend batching settings for it.",
    "send": "Send reviews to a topic.",
    "tail": "Print the results on a topic as they arrive.",
    "dead-letters": "List, show and replay dead letters.",
    "shadow": "Extract a topic again into shadow topics, beside the live workers.",
    "status": "Show the workers of a group: partitions, lag, pauses, model servers.",
    "resume": "End the workers' pauses after too many dead letters.",
    "check": "Validate the configuration; with --connect, try every dependency.",
    "config": "Print the configuration that a worker would run with.",
    "asyncapi": "Describe topics and messages as an AsyncAPI document.",
    "completion": "Print the script that completes commands in bash, zsh or fish.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"consumer.cli.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from consumer.config.problems import nearest

            meant = nearest(args[0], COMMANDS)
            near = f"did you mean {meant!r}?" if meant else "'rexstream --help' lists them"
            ctx.fail(f"there is no command {args[0]!r}; {near}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        # From the table, too: a key press should not import every command.
        found = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # From the table above, so that --help does not import every command.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rexstream")
def cli() -> None:
    """Turn streams of shop reviews into structured facts.

    Exit codes: 0 success, 1 failed work, 2 bad usage or configuration, 3 a dependency is unreachable,
    4 fenced by Kafka or a client that failed for good, 5 a worker whose credentials changed, 130 interrupted.

    \b
    Example:
      rexstream demo
      rexstream run --help
    """  # noqa: D301 - click's own mark for a block that is not wrapped


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point of the console script."""
    if "_REXSTREAM_COMPLETE" in os.environ:  # a key press in a shell
        import consumer.cli.bash_completion  # noqa: F401 - takes the place of click's own
    try:
        # The code of ctx.exit(), or what the command returned: nothing.
        sys.exit(cli.main(args=argv, prog_name="rexstream", standalone_mode=False) or EXIT_OK)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        # click's own answer to Ctrl-C is exit code 1, which here means that work failed.
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        click.echo(f"Error: what this command writes finds no room: {error.strerror}", err=True)
        sys.exit(EXIT_FAILED)
