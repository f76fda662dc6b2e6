"""The small file that lets what was changed at run time outlive a supervisor that is killed.

It lies in the runtime directory beside the admin socket, and only its owner reads it. A stop
removes it, and another start of the machine makes it void: both end what was changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lbcore.supervisor.instance import Instance

Json = dict[str, Any]
NAME = "changes.json"
FRESH = "changes.new"
BOOT = Path("/proc/sys/kernel/random/boot_id")
MOST = 2**31                 # workers count plan versions in 32 bits


def write(instance: Instance, changes: Mapping[str, Any], version: int) -> None:
    """Puts the file into its place, as a whole. Raises OSError."""
    state = {"boot": _boot(), "version": version, **changes}
    fresh = instance.runtime_dir / FRESH
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(json.dumps(state))        # four times as fast as dump(), for ten thousand
    fresh.rename(instance.runtime_dir / NAME)


def read(instance: Instance) -> tuple[Json, int]:
    """What a killed supervisor has left behind, and the plan version it was at; else nothing.

    The version may be one more than was kept: what was coming into force when it was killed.
    """
    with suppress(OSError, ValueError):
        state = json.loads((instance.runtime_dir / NAME).read_text())
        if isinstance(state, dict) and state.get("boot") == _boot():
            version = state.get("version")
            return state, version + 1 if isinstance(version, int) and 0 < version < MOST - 1 else 0
    return {}, 0


def remove(instance: Instance) -> None:
    """Leaves nothing behind."""
    for name in (NAME, FRESH):
        with suppress(OSError):
            (instance.runtime_dir / name).unlink(missing_ok=True)


def of_state(state: Mapping[str, Any]) -> Json:
    """The overlay in what an earlier version handed over. One that had none yet told orders."""
    if "changes" in state:
        said = state["changes"]
        return said if isinstance(said, dict) else {}
    since = str(state.get("started", ""))
    entries = [["weight", pool, backend, None, weight, since]
               for pool, backend, weight in state.get("weights", ())]
    health = state.get("health", {}).get("pools", {})
    entries += [["drain", pool, backend, False, True, since]
                for pool, backends in health.items() for backend, one in backends.items()
                if one.get("draining")]
    return {"changes": entries}


def _boot() -> str:
    with suppress(OSError):
        return BOOT.read_text().strip()
    return ""
