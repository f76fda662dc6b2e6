"""Commands that change a running instance: its backends, workers and log level."""

from __future__ import annotations

import json
from typing import Any

import click

from lbcore.cli.instance import answer, backend_argument, instance, running, split, split_value
from lbcore.cli.names import complete_pools
from lbcore.cli.options import State
from lbcore.cli.tables import Line, Said, Table, ago, counted, emit, state_of, where

Json = dict[str, Any]
LEVELS = ["debug", "info", "warning", "error"]
FORCES = ("up", "down", "off")
MAX_WEIGHT = 1000


@click.command()
@backend_argument()
@running
@click.pass_obj
def drain(state: State, words: tuple[str, ...]) -> None:
    """Take a backend out of service: it gets no new connections, established ones go on."""
    pool, name = split(words)
    with instance(state) as client:
        said = client.drain(pool, name)
    answer(state, said, f"{pool}/{name} is in drain; "
           f"{counted(said['inflight'], 'connection')} left to finish")


@click.command()
@backend_argument()
@running
@click.pass_obj
def undrain(state: State, words: tuple[str, ...]) -> None:
    """Put a drained backend back into service."""
    pool, name = split(words)
    with instance(state) as client:
        said = client.undrain(pool, name)
    answer(state, said, [f"{pool}/{name} is ", state_of(said["state"])])


@click.command()
@backend_argument("WEIGHT|default", ["default"])
@running
@click.pass_obj
def weight(state: State, words: tuple[str, ...]) -> None:
    """Set a backend's weight, 0 to 1000, until lbcore is stopped.

    "default" puts the configured weight back.
    """
    pool, name, value = split_value(words, "WEIGHT")
    if value != "default" and not (value.isascii() and value.isdecimal()):
        raise click.BadParameter('a number from 0 to 1000, or "default"', param_hint="WEIGHT")
    with instance(state) as client:
        said = client.weight(pool, name, None if value == "default" else int(value))
    answer(state, said, f"{pool}/{name} has weight {said['weight']}"
           f" (configured: {said['weight_configured']})")


@click.command()
@backend_argument("up|down|off", FORCES)
@running
@click.pass_obj
def force(state: State, words: tuple[str, ...]) -> None:
    """Hold a backend up or down whatever its checks say; "off" leaves it to them again."""
    pool, name, value = split_value(words, "up|down|off")
    if value not in FORCES:
        raise click.BadParameter(f'"{value}" is none of up, down and off', param_hint="up|down|off")
    with instance(state) as client:
        said = client.force(pool, name, None if value == "off" else value)
    how = "as its checks say" if value == "off" else "forced by you"
    answer(state, said, [f"{pool}/{name} is ", state_of(said["state"]), f", {how}"])


@click.command()
@click.argument("pool", shell_complete=complete_pools)
@click.argument("address")
@click.option("--name", help="What it is called. [default: its address]")
@click.option("--weight", type=click.IntRange(0, MAX_WEIGHT), help="Its share of the traffic.")
@click.option("--backup", is_flag=True, help="It gets traffic only when no other can take it.")
@click.option("--max-connections", type=click.IntRange(min=0), help="Connections at most at once.")
@running
@click.pass_obj
def add(
    state: State, pool: str, address: str, name: str | None, weight: int | None, backup: bool,
    max_connections: int | None,
) -> None:
    """Add the backend at ADDRESS to a pool, until lbcore is stopped.

    It gets traffic at once; its first check, if it has any, decides whether it goes on.
    `lbcore show --running` prints a configuration that has it too.
    """
    table: Json = {"address": address}
    asked = {"name": name, "weight": weight, "max_connections": max_connections,
             "backup": backup or None}
    table |= {key: value for key, value in asked.items() if value is not None}
    with instance(state) as client:
        said = client.add(pool, table)
    answer(state, said, [f"added: {pool}/{said['name']} is ", state_of(said["state"]),
                         f", plan {said['plan_version']}"])


@click.command()
@backend_argument()
@running
@click.pass_obj
def remove(state: State, words: tuple[str, ...]) -> None:
    """Remove a backend from its pool, until lbcore is stopped; its connections finish."""
    pool, name = split(words)
    with instance(state) as client:
        said = client.remove(pool, name)
    left = said.get("inflight", 0)
    answer(state, said, f"removed: {pool}/{name}; {counted(left, 'connection')} left to finish")


@click.command()
@click.option("--forget", is_flag=True, help="Undo them: back to what the file says.")
@click.option("--pool", metavar="POOL", shell_complete=complete_pools,
              help="Only those of this pool.")
@running
@click.pass_obj
def changes(state: State, forget: bool, pool: str | None) -> None:
    """Show where what runs differs from the file: what was changed while it ran."""
    with instance(state) as client:
        if forget:
            said = client.forget_changes(pool)
            number = said.get("forgotten", 0)
            count = number if isinstance(number, int) else len(number)
            answer(state, said, f"back to the file: {counted(count, 'change')} undone")
            return
        said = client.changes()
        if pool is not None:
            said["changes"] = [one for one in said["changes"] if one.get("pool") == pool]
            if not said["changes"]:
                from lbcore.admin import calls  # noqa: PLC0415

                client.do(calls.pool(pool))      # whether there is such a pool
    if state.json:
        click.echo(json.dumps(said, indent=2))
        return
    emit(state, _listed(said["changes"]))


@click.command()
@click.argument("count", metavar="COUNT|auto")
@running
@click.pass_obj
def workers(state: State, count: str) -> None:
    """Set the number of workers, until lbcore is stopped or its file says another.

    "auto" takes the number of the configuration again.
    """
    if count != "auto" and not (count.isascii() and count.isdecimal() and int(count) > 0):
        raise click.BadParameter('a number from 1, or "auto"', param_hint="COUNT")
    with instance(state) as client:
        said = client.workers(None if count == "auto" else int(count))
    answer(state, said, counted(said["workers"], "worker"))


@click.command("log-level")
@click.argument("level", type=click.Choice([*LEVELS, "default"]))
@running
@click.pass_obj
def log_level(state: State, level: str) -> None:
    """Set what is logged, until lbcore is stopped or its file says another level.

    "default" is what the file says.
    """
    with instance(state) as client:
        said = client.log_level(None if level == "default" else level)
    answer(state, said, f"logged from level {said['level']} up")


def _listed(found: list[Json]) -> list[Line | Table]:
    if not found:
        return ["what runs is what the file says"]
    return [Table(["WHAT", "WHERE", "FILE", "RUNNING", "SINCE"],
                  [[one["op"], where(one),
                    _value(one.get("file")), Said(_value(one.get("running")), "doubtful"),
                    f"{ago(one['since'])} ago"] for one in found])]


def _value(value: Any) -> str:
    """A value of a change: backends by their address, the rest as in a file."""
    if value is None:
        return ""
    if isinstance(value, dict) and "address" in value:
        more = [f"{key}={json.dumps(one)}" for key, one in value.items() if key != "address"]
        return " ".join([str(value["address"]), *more])
    return value if isinstance(value, str) else json.dumps(value)
