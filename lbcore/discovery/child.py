"""The process in which a callable of somebody's program tells lbcore a pool's backends.

    python -P -m lbcore.discovery.child MODULE:FUNCTION INTERVAL HEARTBEAT DESCRIPTOR DIRECTORY

It is run by the supervisor and by nobody else: whatever the callable does, it does here. It says,
a line of JSON each, to the pipe DESCRIPTOR:

    {"backends": [...]}      what the callable answered, when it is something new
    {"error": "..."}         why there is no answer; it tries again
    {}                       alive; every HEARTBEAT, but not while a function is being called

So whoever reads hears that the callable hangs, also one that blocks the loop. What it prints goes
where our output goes. The process ends when nobody reads any more.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any

from lbcore.discovery.ask import Said, ask, described

PR_SET_PDEATHSIG = 1         # prctl(2)


def load(name: str, directory: str) -> Callable[[], Any]:
    """The callable ``module:function``. Raises what importing raises, or TypeError."""
    os.chdir(directory)
    sys.path.insert(0, directory)
    module, _, function = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in function.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{name} is no function but {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # what it returns is looked at


class Voice:
    """The pipe to the supervisor."""

    def __init__(self, descriptor: int, heartbeat: float) -> None:
        self._pipe = descriptor
        self._heartbeat = heartbeat
        self.busy = False

    def say(self, what: dict[str, Any]) -> None:
        """One line. Raises OSError when nobody listens."""
        data = json.dumps(what).encode() + b"\n"
        while data:
            data = data[os.write(self._pipe, data):]

    def set_busy(self, on: bool) -> None:
        """Whether a function is being called: then there is no sign of life."""
        self.busy = on

    async def beat(self) -> None:
        """Signs of life, for as long as somebody listens."""
        while True:
            if not self.busy:
                self.say({})
            await asyncio.sleep(self._heartbeat)


async def tell(source: Callable[[], Any], interval: float, voice: Voice) -> None:
    """Says what the source says. Raises OSError when nobody listens any more."""
    beating = asyncio.create_task(voice.beat())
    beating.add_done_callback(lambda _: os._exit(0))     # whatever else is going on here
    async with aclosing(ask(source, interval, busy=voice.set_busy)) as answers:
        async for said in answers:
            voice.say(_as_json(said))


def _as_json(said: Said) -> dict[str, Any]:
    return {"error": said.error} if said.backends is None else {"backends": said.backends}


def main(arguments: list[str]) -> int:
    """Does not return when all is well."""
    name, interval, heartbeat, descriptor, directory = arguments
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0
    os.set_inheritable(int(descriptor), False)
    voice = Voice(int(descriptor), float(heartbeat))
    try:
        source = load(name, directory)
    except BaseException as error:      # noqa: BLE001  (somebody's module may raise anything)
        voice.say({"error": f"{name} cannot be imported: {described(error)}", "fatal": True})
        return 1
    with suppress(OSError):
        asyncio.run(tell(source, float(interval), voice))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
