"""``lbcore completion``: the lines that make a shell complete lbcore's commands and options."""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    BashComplete,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from lbcore.cli import VARIABLE


class Bash(BashComplete):
    """Bash, which takes a word apart at each colon, though names of backends have one.

    The whole line is looked at instead of bash's words; of what is offered, bash wants only the
    part behind the last colon that it has seen.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' response kind value word
    COMPREPLY=()
    word="${COMP_LINE:0:COMP_POINT}"
    response=$(env COMP_WORDS="$word" COMP_CWORD=0 %(complete_var)s=bash_complete $1)
    word="${word##*[[:space:]]}"
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && word="${word%%:*}:" || word=""
    for value in $response; do
        IFS=',' read kind value <<< "$value"
        if [[ $kind == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $kind == 'file' ]]; then
            compopt -o default
        elif [[ $kind == 'plain' ]]; then
            COMPREPLY+=("${value#"$word"}")
        fi
    done
}
%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}
%(complete_func)s_setup;
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor's, and the one that it stands behind."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words, "") if not words or line[-1:].isspace() else (words[:-1], words[-1])


def register() -> None:
    """Makes click complete for bash as above."""
    add_completion_class(Bash, "bash")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete lbcore's command line.

    Names of pools and backends are those of the instance that runs.

    \b
    bash:  lbcore completion bash > ~/.local/share/bash-completion/completions/lbcore
    zsh:   lbcore completion zsh > a file called _lbcore in a directory of $fpath
    fish:  lbcore completion fish > ~/.config/fish/completions/lbcore.fish
    """
    register()
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"this click cannot complete for {shell}")
    # Not kind.source(): for bash it runs the local bash to look at its version, though the
    # lines may be meant for another machine.
    click.echo(ShellComplete.source(kind(ctx.find_root().command, {}, "lbcore", VARIABLE)))
