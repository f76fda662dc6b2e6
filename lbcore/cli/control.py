"""Commands that talk to the running instance over its admin address."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbcore.cli.options import State, config_option, json_option

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])
UPGRADE_PATIENCE = 120.0     # seconds that `lbcore upgrade` waits for the new workers
APP_PATIENCE = 3600.0        # for an application to come up: its start_timeout ends it earlier
POLL = 0.1


def running(command: F) -> F:
    """Options of every command that talks to a running instance."""
    admin = click.option(
        "--admin", metavar="ADDRESS",
        help='Admin address, such as "unix:/run/lbcore/admin.sock". '
        "[default: the one in the configuration]")
    return config_option(json_option(admin(command)))


@click.command()
@running
@click.pass_obj
def status(state: State, admin: str | None) -> None:
    """Show workers, listeners, pools and backends."""
    with _instance(state, admin) as client:
        said = client.status()
    if state.json:
        _print_json(said)
        return
    from lbcore.cli.tables import describe  # noqa: PLC0415

    for line in describe(said):
        click.echo(line)


@click.command()
@running
@click.pass_obj
def reload(state: State, admin: str | None) -> None:
    """Read the configuration again and put it into force.

    Established connections are not touched. A configuration with problems changes nothing.
    """
    with _instance(state, admin, APP_PATIENCE) as client:
        said = client.reload()
    lines = [f"reloaded: plan {said['plan_version']} is in force"]
    lines += [f"needs a restart to change: {key}" for key in said["needs_restart"]]
    lines += [f"was replaced: {failure}" for failure in said["workers_failed"]]
    _answer(state, said, *lines)


@click.command()
@click.argument("pool")
@running
@click.pass_obj
def restart(state: State, pool: str, admin: str | None) -> None:
    """Replace the Python application of a pool by a new one, without a failed request.

    The new one has to answer before it gets requests; the old one ends after its last. If the
    new one does not come up, the old one stays.
    """
    with _instance(state, admin, APP_PATIENCE) as client:
        said = client.restart(pool)
    pids = ", ".join(str(one["pid"]) for one in said["servers"])
    _answer(state, said, f"restarted: generation {said['generation']} of {said['application']} "
            f"serves (pid {pids})")


@click.command()
@click.argument("backend", metavar="POOL/BACKEND")
@running
@click.pass_obj
def drain(state: State, backend: str, admin: str | None) -> None:
    """Take a backend out of service: it gets no new connections, established ones go on."""
    pool, name = _split(backend)
    with _instance(state, admin) as client:
        said = client.drain(pool, name)
    _answer(state, said, f"{backend} is in drain; {said['inflight']} connection(s) go on")


@click.command()
@click.argument("backend", metavar="POOL/BACKEND")
@running
@click.pass_obj
def undrain(state: State, backend: str, admin: str | None) -> None:
    """Put a drained backend back into service."""
    pool, name = _split(backend)
    with _instance(state, admin) as client:
        said = client.undrain(pool, name)
    _answer(state, said, f"{backend} is {said['state']}")


@click.command()
@click.argument("backend", metavar="POOL/BACKEND")
@click.argument("weight", metavar="WEIGHT|default")
@running
@click.pass_obj
def weight(state: State, backend: str, weight: str, admin: str | None) -> None:
    """Set a backend's weight, 0 to 1000, until the next restart.

    "default" puts the configured weight back.
    """
    pool, name = _split(backend)
    if weight != "default" and not (weight.isascii() and weight.isdecimal()):
        raise click.BadParameter('a number from 0 to 1000, or "default"', param_hint="WEIGHT")
    with _instance(state, admin) as client:
        said = client.weight(pool, name, None if weight == "default" else int(weight))
    _answer(state, said, f"{backend} has weight {said['weight']}"
            f" (configured: {said['weight_configured']})")


@click.command()
@click.argument("count", type=click.IntRange(min=1))
@running
@click.pass_obj
def workers(state: State, count: int, admin: str | None) -> None:
    """Set the number of workers, until the configuration says another."""
    with _instance(state, admin) as client:
        said = client.workers(count)
    _answer(state, said, f"{said['workers']} worker(s)")


@click.command()
@running
@click.pass_obj
def upgrade(state: State, admin: str | None) -> None:
    """Replace supervisor and workers by the installed version, on the same sockets.

    The installed version has to prove first that it starts. Old workers finish their connections.
    """
    with _instance(state, admin) as client:
        generation = client.upgrade()["next_generation"]
        said = _upgraded(client, generation)
    outcome = said["upgrade"]
    if outcome["state"] != "done":
        raise click.ClickException(
            f"the upgrade ended early, old workers go on: {outcome.get('error', 'no answer yet')}")
    _answer(state, said, f"upgraded: version {said['version']}, pid {said['pid']}, "
            f"{len(said['workers'])} worker(s), draining ones included")


@click.command()
@click.option("--now", is_flag=True, help="Reset connections instead of letting them finish.")
@click.option("--no-wait", is_flag=True, help="Return without waiting for the end.")
@running
@click.pass_obj
def stop(state: State, now: bool, no_wait: bool, admin: str | None) -> None:
    """End lbcore after its connections have finished, at most drain_timeout later."""
    with _instance(state, admin) as client:
        said = client.stop(now)
    if not no_wait:
        _wait_for_end(int(said["pid"]))
    _answer(state, said, "stopping" if no_wait else "stopped")


@contextmanager
def _instance(
    state: State, admin: str | None, patience: float = 60.0
) -> Iterator[AdminClient]:
    """The running instance; its refusals become what the command line prints."""
    from lbcore.admin.client import AdminClient, AdminError, NotRunning  # noqa: PLC0415

    try:
        yield AdminClient(_address(state, admin), patience)
    except NotRunning as error:
        raise click.ClickException(str(error)) from error
    except AdminError as error:
        from lbcore.config import ConfigError, Problem  # noqa: PLC0415

        if error.problems:
            raise ConfigError([Problem(**problem) for problem in error.problems]) from error
        hint = f" Hint: {error.hint}." if error.hint else ""
        raise click.ClickException(f"{error.message}.{hint}") from error


def _address(state: State, admin: str | None) -> Any:
    from lbcore.config import admin_address, default_admin_address, load, values  # noqa: PLC0415

    if admin is not None:
        try:
            return values.parse_bind(admin)
        except values.BadValue as bad:
            raise click.BadParameter(f"{bad.message}; {bad.hint}", param_hint="--admin") from bad
    from lbcore.cli.options import DEFAULT_CONFIGS  # noqa: PLC0415

    if state.config is None and not any(path.exists() for path in DEFAULT_CONFIGS):
        return default_admin_address()
    return admin_address(load(state.config_path()))


def _split(backend: str) -> tuple[str, str]:
    pool, slash, name = backend.partition("/")
    if not slash or not pool or not name:
        raise click.BadParameter(
            f'"{backend}" is not of the form POOL/BACKEND; `lbcore status` shows the names',
            param_hint="POOL/BACKEND")
    return pool, name


def _upgraded(client: AdminClient, generation: int) -> Json:
    """Waits until the new supervisor says how the upgrade went."""
    from lbcore.admin.client import NotRunning  # noqa: PLC0415

    until = time.monotonic() + UPGRADE_PATIENCE
    while True:
        said: Json = {}
        try:
            said = client.status()
        except NotRunning:       # between the two supervisors
            if time.monotonic() > until:
                raise
        over = said.get("upgrade", {}).get("state") in ("done", "failed")
        if said and over and (said["generation"] >= generation or
                              said["upgrade"]["state"] == "failed"):
            return said
        if said and time.monotonic() > until:
            return said
        time.sleep(POLL)


def _wait_for_end(pid: int) -> None:
    import select  # noqa: PLC0415

    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([fd], [], [])
    finally:
        os.close(fd)


def _answer(state: State, said: Json, *lines: str) -> None:
    if state.json:
        _print_json(said)
    else:
        for line in lines:
            click.echo(line)


def _print_json(answer: Json) -> None:
    click.echo(json.dumps(answer, indent=2))

