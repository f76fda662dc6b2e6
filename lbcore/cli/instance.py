"""The running instance that a command talks to, and how what it refuses is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbcore.cli.names import complete_backends
from lbcore.cli.options import (
    DEFAULT_CONFIGS,
    State,
    admin_option,
    color_option,
    config_option,
    json_option,
)
from lbcore.cli.tables import Line, Table, emit, visible, where

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient, AdminError

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])
PATIENCE = 60.0              # seconds for an answer
APP_PATIENCE = 3600.0        # for an application to come up: its start_timeout ends it earlier


def running(command: F) -> F:
    """Options of every command that talks to a running instance."""
    return config_option(admin_option(json_option(color_option(command))))


def backend_argument(value: str = "", choices: Sequence[str] = ()) -> Callable[[F], F]:
    """A backend as POOL/BACKEND or as two words, and a ``value`` behind it if it has a name.

    One argument takes all the words; :func:`split` and :func:`split_value` take it apart.
    """
    metavar = f"POOL/BACKEND {value}".rstrip()
    return click.argument("words", metavar=metavar, nargs=-1, required=True,
                          shell_complete=partial(complete_backends, choices))


@contextmanager
def instance(state: State, patience: float = PATIENCE) -> Iterator[AdminClient]:
    """The running instance; its refusals become what the command line prints."""
    from lbcore.admin.client import AdminError, NotRunning  # noqa: PLC0415

    try:
        yield client_of(state, patience)
    except NotRunning as error:
        raise click.ClickException(str(error)) from error
    except AdminError as error:
        from lbcore.config import ConfigError, Problem  # noqa: PLC0415

        if error.problems:
            raise ConfigError([Problem(**problem) for problem in error.problems]) from error
        raise click.ClickException(refusal(error)) from error


def refusal(error: AdminError) -> str:
    """What the instance refused, and its hint: in a line, or below what has several itself."""
    message = "\n".join(map(visible, error.message.split("\n")))
    hint = f"Hint: {visible(error.hint)}." if error.hint else ""
    if "\n" in message:          # such as what an application said last
        return f"{message}\n{hint}".rstrip()
    return f"{message}. {hint}".rstrip()


def reloaded(said: Json) -> list[str]:
    """What a reload could not do, or ended, in lines."""
    return [
        *(f"needs a restart to change: {key}" for key in said["needs_restart"]),
        *(f"could not be put into force: {why}" for why in said.get("not_in_force", ())),
        *(f"was replaced: {failure}" for failure in said["workers_failed"]),
        *(f"has ended, it no longer applies: {where(change)} {change['op']}"
          for change in said["dropped"]),
    ]


def client_of(state: State, patience: float = PATIENCE) -> AdminClient:
    """A client for the address that was named, or for that of the configuration.

    Raises ``ConfigError`` and ``click.ClickException``.
    """
    from lbcore.admin.client import AdminClient  # noqa: PLC0415
    from lbcore.config import admin_address, default_admin_address, load, values  # noqa: PLC0415

    token_file: Path | None = state.token_file
    if state.admin is not None:
        try:
            where = values.parse_bind(state.admin)
        except values.BadValue as bad:
            raise click.BadParameter(f"{bad.message}; {bad.hint}", param_hint="--admin") from bad
    elif state.config is None and not any(path.exists() for path in DEFAULT_CONFIGS):
        where = default_admin_address()
    else:
        config = load(state.config_path())
        where = admin_address(config)
        # A unix socket asks for no token: it has permissions.
        if token_file is None and config.admin.token_file is not None and not where.path:
            token_file = Path(config.admin.token_file)
    return AdminClient(where, patience, _token(token_file) if token_file else "")


def _token(file: Path) -> str:
    try:
        return file.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise click.ClickException(f"cannot read the token in {file}: {why}") from error


def split(words: Sequence[str]) -> tuple[str, str]:
    """Pool and backend of ``POOL/BACKEND`` or ``POOL BACKEND``."""
    pool, slash, name = words[0].partition("/") if len(words) == 1 else (words[0], "/", words[1])
    if not slash or not pool or not name or len(words) > 2:
        raise click.BadParameter(
            f'"{" ".join(words)}" is not of the form POOL/BACKEND; `lbcore status` shows the names',
            param_hint="POOL/BACKEND")
    return pool, name


def split_value(words: Sequence[str], name: str) -> tuple[str, str, str]:
    """Pool, backend and the value behind them."""
    if len(words) < 2:
        raise click.UsageError(f"Missing argument '{name}' behind POOL/BACKEND.")
    return *split(words[:-1]), words[-1]


def answer(state: State, said: Any, *lines: Line | Table) -> None:
    """Prints what the instance said: as JSON if that was asked for, otherwise these lines."""
    if state.json:
        click.echo(json.dumps(said, indent=2))
    else:
        emit(state, lines)
