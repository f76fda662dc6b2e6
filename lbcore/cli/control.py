"""Commands about the instance as a whole: see it, reload it, replace it, end it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.instance import APP_PATIENCE, answer, instance, reloaded, running
from lbcore.cli.names import complete_pools
from lbcore.cli.options import State
from lbcore.cli.steps import under_way
from lbcore.cli.tables import counted, emit

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient
    from lbcore.cli.steps import Steps

Json = dict[str, Any]
UPGRADE_PATIENCE = 120.0     # seconds that `lbcore upgrade` waits for the new workers
POLL = 0.1


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=2.0, metavar="SECONDS",
              show_default=True, help="How often, with --watch.")
@running
@click.pass_obj
def status(state: State, watch: bool, interval: float) -> None:
    """Show workers, listeners, pools and backends.

    A narrow terminal shows the columns that matter most; a pipe gets all of them.
    """
    from lbcore.cli.picture import describe  # noqa: PLC0415

    with instance(state) as client:
        if watch:
            from lbcore.cli.watch import watch_status  # noqa: PLC0415

            watch_status(state, client, interval)
            return
        said = client.status()
    if state.json:
        click.echo(json.dumps(said, indent=2))
    else:
        emit(state, describe(said))


@click.command()
@running
@click.pass_obj
def reload(state: State) -> None:
    """Read the configuration again and put it into force.

    Established connections are not touched. A configuration with problems changes nothing.
    """
    with instance(state, APP_PATIENCE) as client, under_way(state, client, "reloading"):
        said = client.reload()
    answer(state, said, f"reloaded: plan {said['plan_version']} is in force", *reloaded(said))


@click.command()
@click.argument("pool", shell_complete=complete_pools)
@running
@click.pass_obj
def restart(state: State, pool: str) -> None:
    """Replace the Python application of a pool by a new one, without a failed request.

    The new one has to answer before it gets requests; the old one ends after its last. If the
    new one does not come up, the old one stays.
    """
    with (instance(state, APP_PATIENCE) as client,
          under_way(state, client, f"restarting {pool}", pool)):
        said = client.restart(pool)
    pids = ", ".join(str(one["pid"]) for one in said["servers"])
    answer(state, said, f"restarted: generation {said['generation']} of {said['application']} "
           f"serves (pid {pids})")


@click.command()
@running
@click.pass_obj
def upgrade(state: State) -> None:
    """Replace supervisor and workers by the installed version, on the same sockets.

    The installed version has to prove first that it starts. Old workers finish their connections.
    """
    with instance(state) as client, under_way(state, client, "upgrading") as steps:
        generation = client.upgrade()["next_generation"]
        said = _upgraded(client, generation, steps)
    outcome = said["upgrade"]
    if outcome["state"] != "done":
        raise click.ClickException(
            f"the upgrade ended early, old workers go on: {outcome.get('error', 'no answer yet')}")
    answer(state, said, f"upgraded: version {said['version']}, pid {said['pid']}, "
           f"{counted(len(said['workers']), 'worker')}, draining ones included")


@click.command()
@click.option("--now", is_flag=True, help="Reset connections instead of letting them finish.")
@click.option("--no-wait", is_flag=True, help="Return without waiting for the end.")
@running
@click.pass_obj
def stop(state: State, now: bool, no_wait: bool) -> None:
    """End lbcore after its connections have finished, at most drain_timeout later."""
    with instance(state) as client:
        if no_wait:
            said = client.stop(now)
        else:
            with under_way(state, client, "stopping") as steps:
                said = client.stop(now)
                _wait_for_end(said, client, steps)
    answer(state, said, "stopping" if no_wait else "stopped")


def _upgraded(client: AdminClient, generation: int, steps: Steps) -> Json:
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
        if said and said["generation"] >= generation:
            new = [one for one in said["workers"] if one["state"] == "serving"]
            steps.now(f"{len(new)} of {said['workers_wanted']} workers serve")
        if said and time.monotonic() > until:
            return said
        time.sleep(POLL)


def _wait_for_end(said: Json, client: AdminClient, steps: Steps) -> None:
    """Waits until the instance is gone, and says meanwhile for whom it waits."""
    import os  # noqa: PLC0415
    import select  # noqa: PLC0415

    from lbcore.admin.client import ClientError  # noqa: PLC0415

    try:
        fd = os.pidfd_open(int(said["pid"]))
    except ProcessLookupError:
        return
    limit = said["drain_timeout_ms"] / 1000
    try:
        while not select.select([fd], [], [], 10 * POLL)[0]:
            try:
                left = sum(one.get("connections") or 0 for one in client.status()["workers"])
            except ClientError:      # it answers no more, and ends
                continue
            steps.now(f"{counted(left, 'connection')} left to finish, {limit:g} s at most in all")
    finally:
        os.close(fd)
