"""What a person types: ``lbcore`` and its commands.

A command is a click command in a module of this package, named in ``COMMANDS``; its module is
imported only when it runs or is explained, so that ``lbcore`` answers at once. Commands raise:
``ConfigError`` for what is wrong with a configuration, ``click.ClickException`` for everything
else. Only ``main`` prints errors: as text, or as JSON for a command that was given ``--json``.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lbcore import __version__
from lbcore.cli.options import State, color_option, config_option

if TYPE_CHECKING:
    from lbcore.config.problems import Problem

CONFIG_ERROR = 2     # errors at run time are click's: 1, and 2 for a command line that is wrong
INTERRUPTED = 130    # 128 + SIGINT, as shells say it
VARIABLE = "_LBCORE_COMPLETE"        # click looks for it when a shell asks for completions

# name -> module with a click command of that name, and what `lbcore --help` and shells say of it
COMMANDS = {
    "check": ("lbcore.cli.files", "Say what is wrong with a configuration, or dangerous."),
    "show": ("lbcore.cli.files", "Print the configuration with every default, or what runs."),
    "schema": ("lbcore.cli.files", "Print the JSON Schema of the configuration, for editors."),
    "openapi": ("lbcore.cli.openapi", "Print the OpenAPI document of the admin API."),
    "status": ("lbcore.cli.control", "Show workers, listeners, pools and backends."),
    "ready": ("lbcore.cli.doctor", "Exit with 0 when the running instance can take traffic."),
    "doctor": ("lbcore.cli.doctor", "Say what this machine offers to lbcore, and what to change."),
    "top": ("lbcore.cli.top", "Show traffic, backends, workers and events live."),
    "events": ("lbcore.cli.events", "Show what has happened lately."),
    "changes": ("lbcore.cli.changing", "Show where what runs differs from the file, or undo it."),
    "drain": ("lbcore.cli.changing", "Take a backend out of service."),
    "undrain": ("lbcore.cli.changing", "Put a drained backend back into service."),
    "weight": ("lbcore.cli.changing", "Set a backend's share of the traffic."),
    "force": ("lbcore.cli.changing", "Hold a backend up or down whatever its checks say."),
    "add": ("lbcore.cli.changing", "Add a backend to a pool."),
    "remove": ("lbcore.cli.changing", "Remove a backend from its pool."),
    "workers": ("lbcore.cli.changing", "Set the number of workers."),
    "log-level": ("lbcore.cli.changing", "Set what is logged."),
    "reload": ("lbcore.cli.control", "Read the configuration again and put it into force."),
    "restart": ("lbcore.cli.control", "Replace the Python application of a pool by a new one."),
    "upgrade": ("lbcore.cli.control", "Replace lbcore by the installed version, on its sockets."),
    "stop": ("lbcore.cli.control", "End lbcore after its connections have finished."),
    "completion": ("lbcore.cli.completion", "Print what makes a shell complete lbcore's words."),
}


class Commands(click.Group):
    """A group that imports its commands when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            return None
        command.short_help = summary       # click would cut the docstring off after 45 characters
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, from the table: nothing is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names. Raises ``click.UsageError`` for none."""
        if args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else f"Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(f'There is no command "{args[0]}". {hint}', ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
    epilog="""Signals: HUP reloads, USR1 reopens log files, USR2 upgrades, TERM drains and stops,
    INT stops now.

    Exit codes: 0 it was done; 1 it was not; 2 the command line or the configuration is wrong;
    130 it was interrupted.""",
)
@config_option
@color_option
@click.version_option(__version__, prog_name="lbcore")
@click.pass_context
def cli(ctx: click.Context) -> int:
    """A load balancer and reverse proxy for people who run Python services.

    Without a command, lbcore runs what the configuration says, until it is told to stop.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from lbcore.supervisor import run  # noqa: PLC0415  (commands do not need it)

    return run(ctx.ensure_object(State).config_path())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit with its code: 0, 1 for errors, 2 for a bad configuration."""
    sys.exit(execute(args))


def execute(args: Sequence[str] | None = None) -> int:
    """Run a command line, print what goes wrong, and return the exit code."""
    state = State()
    if VARIABLE in os.environ:
        from lbcore.cli.completion import register  # noqa: PLC0415  (only a shell asks)

        register()
    try:
        code = cli.main(args, prog_name="lbcore", standalone_mode=False, obj=state,
                        complete_var=VARIABLE, color=False if os.environ.get("NO_COLOR") else None)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        if state.json:
            _print_json({"ok": False, "error": error.format_message()})
        else:
            error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as head, has seen enough. The interpreter flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # Imported only now: pydantic takes longer than most commands.
        from lbcore.config.problems import ConfigError  # noqa: PLC0415

        if not isinstance(error, ConfigError):
            raise
        if state.json:
            _print_json({"ok": False, "problems": [one.as_dict() for one in error.problems]})
        else:
            print_problems(error.problems, "red", state.paints(stderr=True))
        return CONFIG_ERROR


def print_problems(
    problems: Sequence[Problem], colour: str, painted: bool | None = None
) -> None:
    """Problems on standard error, one per line, their places in a colour if ``painted``.

    None: on a terminal, as far as the command line and NO_COLOR allow it.
    """
    for problem in problems:
        place, rest = problem.parts()
        click.echo(click.style(place, fg=colour) + rest, err=True, color=painted)


def _print_json(answer: dict[str, Any]) -> None:
    click.echo(json.dumps(answer, indent=2))
