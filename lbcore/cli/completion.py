"""``lbcore completion``: the lines that make a shell complete lbcore's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

VARIABLE = "_LBCORE_COMPLETE"        # click looks for it when the shell asks


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete lbcore's command line.

    \b
    bash:  lbcore completion bash > ~/.local/share/bash-completion/completions/lbcore
    zsh:   lbcore completion zsh > a file called _lbcore in a directory of $fpath
    fish:  lbcore completion fish > ~/.config/fish/completions/lbcore.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"this click cannot complete for {shell}")
    # Not kind.source(): for bash it runs the local bash to look at its version, though the
    # lines may be meant for another machine.
    click.echo(ShellComplete.source(kind(ctx.find_root().command, {}, "lbcore", VARIABLE)))
