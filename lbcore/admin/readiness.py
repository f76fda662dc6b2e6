"""Whether traffic can be sent to an instance: what ``/readyz`` answers."""

from __future__ import annotations

from lbcore.admin.contract import Json


def obstacles(status: Json) -> list[str]:
    """Why no traffic should come here; empty: it may come."""
    found = []
    if status["state"] != "running":
        found.append("the instance is ending")
    serving = {worker["slot"] for worker in status["workers"] if worker["state"] == "serving"}
    wanted = {worker["slot"] for worker in status["workers"]} | set(range(status["workers_wanted"]))
    found += [f"worker {slot} does not serve" for slot in sorted(wanted - serving)]
    alive = {pool["name"] for pool in status["pools"] if any(map(_takes, pool["backends"]))}
    for listener in status["listeners"]:
        pools = {listener["pool"], *(route["pool"] for route in listener.get("routes") or ())}
        pools.discard(None)
        if pools and not pools & alive:
            found.append(f"listener {listener['name']} has no backend: all of "
                         f"{', '.join(sorted(pools))} are down")
    return found


def _takes(backend: Json) -> bool:
    """Whether a backend takes traffic."""
    return bool(backend["state"] == "up")
