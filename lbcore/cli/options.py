"""Options that commands share, and what they leave for the command to use."""

from __future__ import annotations

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
    json: bool = False

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


def _keep_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(State).config = value


def _keep_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(State).json = True
