"""``lbcore check``, ``show`` and ``schema``: commands about a file, not a running instance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.options import State, admin_option, config_option, json_option

if TYPE_CHECKING:
    from lbcore.config import Loaded, Plan, Problem
    from lbcore.config.plan import ListenerPlan, PoolPlan


@click.command()
@config_option
@json_option
@click.option(
    "--file-only",
    is_flag=True,
    help="Check the file alone, not whether this machine could run it.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 when there are warnings.")
@click.option(
    "--route",
    metavar='"METHOD URL"',
    help='Say which route takes such a request, and why: "GET http://example.com/path".',
)
@click.option(
    "-H",
    "--header",
    "headers",
    metavar='"NAME: VALUE"',
    multiple=True,
    help="A header field of the request for --route. Can be given several times.",
)
@click.pass_obj
def check(
    state: State, file_only: bool, strict: bool, route: str | None, headers: tuple[str, ...]
) -> int:
    """Say everything that is wrong with a configuration.

    Also looks whether its addresses are free on this machine and its user exists. Exits with 0
    when lbcore would start with it, otherwise with 2; names of backends are not looked up. With
    --route, only the file is looked at.

    Warns of settings that are dangerous; [lbcore] accept_warnings takes the code of what is meant
    to be so.
    """
    if route is not None:
        _check_route(state, route, headers)
        return 0
    if headers:
        raise click.UsageError("-H belongs to a request: --route \"GET http://host/path\"")
    from lbcore.cli import print_problems  # noqa: PLC0415
    from lbcore.config import load_file, to_plan  # noqa: PLC0415

    loaded = load_file(state.config_path())
    plan = to_plan(loaded.config)
    loaded.warnings.extend(_doubts(loaded, plan, file_only))
    if state.json:
        click.echo(json.dumps(_answer(loaded, plan), indent=2))
    else:
        print_problems(loaded.warnings, "yellow")
        for line in _summary(loaded.source.file, plan):
            click.echo(line)
    return 1 if strict and loaded.warnings else 0


def _doubts(loaded: Loaded, plan: Plan, file_only: bool) -> list[Problem]:
    """Dangers of the file and of this machine. Raises ConfigError for what cannot work here."""
    from lbcore.config import ConfigError  # noqa: PLC0415
    from lbcore.config.dangers import warnings  # noqa: PLC0415

    if file_only:
        return warnings(loaded)
    from lbcore.config import host_dangers  # noqa: PLC0415
    from lbcore.config.findings import unaccepted  # noqa: PLC0415
    from lbcore.config.host import host_problems, host_warnings, own_processes  # noqa: PLC0415

    if problems := host_problems(plan, loaded.source, ignore=own_processes(plan)):
        raise ConfigError(problems)
    without_effect = unaccepted(host_warnings(plan, loaded.source),
                                loaded.config.lbcore.accept_warnings)
    here = host_dangers.dangers(loaded.config, plan, loaded.source.file)
    return [*without_effect, *warnings(loaded, here)]


@click.command()
@config_option
@admin_option
@json_option
@click.option("--running", "is_running", is_flag=True,
              help="What the running instance does, changes at run time included.")
@click.pass_obj
def show(state: State, is_running: bool) -> None:
    """Print the effective configuration: every key, with defaults filled in.

    What is printed is a configuration that means the same. With --running it is what the running
    instance does, with all that was changed at run time; what no file can say is in comments.
    """
    if is_running:
        _show_running(state)
        return
    from lbcore.config import load  # noqa: PLC0415
    from lbcore.config.show import effective, to_toml  # noqa: PLC0415

    config = load(state.config_path())
    text = json.dumps(effective(config), indent=2, ensure_ascii=False)
    click.echo(text if state.json else to_toml(config), nl=state.json)


def _show_running(state: State) -> None:
    from lbcore.cli.instance import instance  # noqa: PLC0415

    with instance(state) as client:
        if state.json:
            click.echo(json.dumps(client.config()["config"], indent=2, ensure_ascii=False))
        else:
            click.echo(client.config_toml(), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    Save it, and name it in the first line of lb.toml for editors with taplo (Even Better TOML):

    \b
    #:schema ./lb.schema.json
    """
    from lbcore.config.schema import json_schema  # noqa: PLC0415

    click.echo(json.dumps(json_schema(), indent=2))


def _check_route(state: State, text: str, headers: tuple[str, ...]) -> None:
    from lbcore.cli.routing import explained, lines, parse_request  # noqa: PLC0415
    from lbcore.config import load_file, to_plan  # noqa: PLC0415

    request = parse_request(text, headers)
    loaded = load_file(state.config_path())
    answers = explained(loaded, to_plan(loaded.config), request)
    if state.json:
        click.echo(json.dumps({"ok": True, "request": text, "listeners": answers}, indent=2))
        return
    for line in (line for answer in answers for line in lines(answer)):
        click.echo(line)


def _answer(loaded: Loaded, plan: Plan) -> dict[str, Any]:
    from lbcore.config.plan import NO_POOL  # noqa: PLC0415

    return {
        "ok": True,
        "file": loaded.source.file,
        "workers": plan.workers,
        "admin": str(plan.admin),
        "listeners": [
            {
                "name": listener.name,
                "bind": [str(address) for address in listener.binds],
                "pool": None if listener.pool == NO_POOL else plan.pools[listener.pool].name,
            } | ({"routes": _routes(listener)} if listener.http else {})
            for listener in plan.listeners
        ],
        "pools": [
            {
                "name": pool.name,
                "balance": pool.balance,
                "backends": len(pool.backends) + pool.demo + len(_servers(pool)),
            }
            for pool in plan.pools
        ],
        "warnings": [warning.as_dict() for warning in loaded.warnings],
    }


def _summary(file: str, plan: Plan) -> list[str]:
    lines = [f"{file} is good. With it, {_count(plan.workers, 'worker')} would serve:"]
    for listener in plan.listeners:
        binds = ", ".join(str(address) for address in listener.binds)
        pools = [f"pool {pool.name}, {_pool(pool)}" for pool in plan.pools_of(listener)]
        if listener.http and listener.http.routes:
            lines.append(f"  {listener.name}: {binds} -> {_count(_routes(listener), 'route')}")
            lines += [f"    -> {pool}" for pool in pools]
        else:
            lines.append(f"  {listener.name}: {binds} -> {pools[0]}")
    return lines


def _routes(listener: ListenerPlan) -> int:
    return len({route.name for route in listener.http.routes}) if listener.http else 0


def _pool(pool: PoolPlan) -> str:
    parts = [_count(len(pool.backends), "backend")] if pool.backends else []
    if pool.discover:
        parts.append(f"what {pool.discover.file or pool.discover.python} names")
    if pool.demo:
        parts.append(_count(pool.demo, "demonstration backend"))
    if pool.app:
        servers = _count(len(_servers(pool)), f"{pool.app.server} server")
        parts.append(f"{pool.app.app} on {servers}")
    checks = f", {pool.health.type} checks" if pool.health else ", no active checks"
    return f"{' and '.join(parts)}, {pool.balance}{checks}"


def _servers(pool: PoolPlan) -> tuple[str, ...]:
    return pool.app.names if pool.app else ()


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
