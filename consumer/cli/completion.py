"""``rexstream completion``: the script with which a shell completes the command line."""

from __future__ import annotations

from importlib.metadata import version

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command(name="completion", short_help="Print the script that completes commands in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script for your shell that completes commands, options, the keys of --set and their values, files, and
    the configuration's topics and tasks. It asks no broker.

    \b
    Example, for this session:
      source <(rexstream completion bash)
      source <(rexstream completion zsh)
      rexstream completion fish | source

    \b
    For good:
      rexstream completion bash > ~/.local/share/bash-completion/completions/rexstream
      rexstream completion zsh > "${fpath[1]}/_rexstream"
      rexstream completion fish > ~/.config/fish/completions/rexstream.fish
    """  # noqa: D301 - click's own mark for a block that is not wrapped
    import consumer.cli.bash_completion  # noqa: F401 - takes the place of click's own

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click {version('click')} completes nothing in {shell}; install click 8.1 or later")
    root = context.find_root()
    click.echo(kind(root.command, {}, "rexstream", "_REXSTREAM_COMPLETE").source(), nl=False)
