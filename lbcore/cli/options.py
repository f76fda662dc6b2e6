"""Options that commands share, and what they leave for the command to use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

DEFAULT_CONFIGS = (Path("lb.toml"), Path("/etc/lbcore/lb.toml"))

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class State:
    """What was asked for on this command line; commands get it from ``click.pass_obj``."""

    config: Path | None = None
    admin: str | None = None         # address, if not the configuration's
    token_file: Path | None = None   # likewise
    json: bool = False
    color: bool | None = None        # None: coloured where a person reads

    def paints(self, *, stderr: bool = False) -> bool:
        """Whether what is printed has colours: --color decides, then NO_COLOR, then the terminal.

        See https://no-color.org.
        """
        if self.color is not None:
            return self.color
        stream = sys.stderr if stderr else sys.stdout
        return (not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
                and stream.isatty())

    def config_path(self) -> Path:
        """The configuration file: the one named, or the first default that exists.

        Raises ``ConfigError`` when none was named and there is no default.
        """
        if self.config is not None:
            return self.config
        for path in DEFAULT_CONFIGS:
            if path.exists():
                return path
        from lbcore.config import ConfigError, Problem  # noqa: PLC0415  (pydantic is slow)

        places = " nor ".join(str(path) for path in DEFAULT_CONFIGS)
        message = f"no configuration was named, and there is neither {places}"
        raise ConfigError([Problem("lbcore", 0, "", message, "name one: lbcore -c FILE")])


def config_option(command: F) -> F:
    """``-c FILE``, before or after the command's name; the later one counts."""
    return click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_keep_config,
        help="Configuration file. [default: ./lb.toml, then /etc/lbcore/lb.toml]",
    )(command)


def admin_option(command: F) -> F:
    """``--admin ADDRESS`` and ``--token-file FILE``: which instance is asked, and how."""
    token = click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="LBCORE_TOKEN_FILE",
        expose_value=False,
        callback=_keep_token_file,
        help="File with the token of the admin address. [default: the one in the configuration]",
    )
    return click.option(
        "--admin",
        metavar="ADDRESS",
        expose_value=False,
        callback=_keep_admin,
        help='Admin address, such as "unix:/run/lbcore/admin.sock". '
        "[default: the one in the configuration]",
    )(token(command))


def json_option(command: F) -> F:
    """``--json``: the answer, also an error, is JSON on standard output."""
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_keep_json,
        help="Answer in JSON.",
    )(command)


def color_option(command: F) -> F:
    """``--color``: when what is printed has colours."""
    return click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        is_eager=True,
        expose_value=False,
        callback=_keep_color,
        help="Colours: on a terminal unless NO_COLOR is set, always or never. [default: auto]",
    )(command)


def _keep_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(State).config = value


def _keep_admin(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(State).admin = value


def _keep_token_file(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(State).token_file = value


def _keep_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(State).json = True


def _keep_color(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        color = {"auto": None, "always": True, "never": False}[value]
        ctx.ensure_object(State).color = ctx.color = color
