"""One application server: where it listens, its process, and keeping that alive.

A server that can serves a socket that lbcore has made and holds too: when it crashes, whoever
waits there is served by its replacement. Others make a socket of their own in a directory that
they may write to.

    STARTING   has a process that has not answered yet; or will have one in a moment
    READY      answers
    FAILED     did not come up; tried again after a while
    ENDED      was told to end
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from weakref import WeakSet

import psutil

from lbcore.apps.command import PUMP, Place
from lbcore.supervisor.apps_marks import Mark
from lbcore.supervisor.apps_output import SOCKET_NAME, Output, ServerKey, settle, summary
from lbcore.supervisor.apps_place import make_directory, remove
from lbcore.supervisor.apps_probe import Asking, target_for
from lbcore.supervisor.apps_spec import Spec
from lbcore.supervisor.backoff import Backoff
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log
from lbcore.supervisor.process import Process
from lbcore.supervisor.worker import Identity

PIPE_SIZE = 1 << 20              # of output that a busy pump has not taken yet
BACKLOG = 2048
LAST_WORDS = 1.0                 # seconds for the output of a process that has ended
BRIEFLY = 0.1                    # the same when everybody waits for its replacement
PUMP_PAUSE = 1.0                 # seconds until a pump that was killed gets a successor
KILL_PATIENCE = 2.0


class State(StrEnum):
    """Where a server stands in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    ENDED = "ended"


@dataclass(frozen=True)
class Surroundings:
    """What all servers of an instance share. ``workers``: as whom those run who connect."""

    instance: Instance
    output: Output
    log: Log
    workers: Identity


class AppServer:
    """A server and its place. ``keep`` starts looking after it."""

    def __init__(
        self, around: Surroundings, key: ServerKey, spec: Spec, path: Path,
        changed: Callable[[AppServer], None], process: Process | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        """``process`` and ``sock``: what there is already of a server that runs."""
        self.around = around
        self.key = key
        self.spec = spec
        self.path = path
        self.process = process
        self.sock = sock
        self.state = State.STARTING
        self.error = ""                      # why it is not ready
        self.restarts = 0
        self.since = time.time()             # of the state
        self.decided = asyncio.Event()       # it has been READY or FAILED once
        self.pumps: set[Process] = set()
        self._changed = changed
        self._backoff = Backoff()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clearing: WeakSet[asyncio.Task[None]] = WeakSet()
        self._keeper: asyncio.Task[None] | None = None

    # -- its life

    def keep(self) -> None:
        """Starts it unless it runs, and again whenever it ends."""
        self._keeper = asyncio.create_task(self._keep())
        self._keeper.add_done_callback(self._done)

    async def _keep(self) -> None:
        while True:
            began = time.monotonic()
            why = await self._come_up()
            if not why and self.process is not None:
                self._become(State.READY)
                self._log("info", "app.ready", after=f"{time.monotonic() - began:.2f}s",
                          path=str(self.path))
                await self.process.ended.wait()
                why = await self._obituary(self.process, BRIEFLY)
                # Whoever waits at our socket waits for the next one: no reason to send them away.
                self._become(State.STARTING if self.sock is not None else State.FAILED, why)
            else:
                self._become(State.FAILED, why)
                self._turn_away()
            self.restarts += 1
            delay = self._backoff.died(time.monotonic() - began)
            self._log("error" if self.state is State.FAILED else "warning", "app.died",
                      why.partition("\n")[0], delay=f"{delay:g}s")
            await self._clear()
            # `error` has the last words of this process; the next one is judged by its own.
            self.around.output.forget(self.key)
            await asyncio.sleep(delay)

    async def _come_up(self) -> str:
        """Waits until it answers; returns why it does not."""
        if self.process is None:
            try:
                self.process = self._start()
            except OSError as error:
                return f"cannot start it: {error.strerror or error}"
        process, timeout = self.process, self.spec.plan.start_timeout_ms / 1000
        asking = Asking(target_for(self.spec.pool, self.path))
        waits = [asyncio.ensure_future(asking.passed()),
                 asyncio.ensure_future(process.ended.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if waits[0].done() and not process.ended.is_set():
                return ""
        finally:
            for wait in waits:
                wait.cancel()
        if process.ended.is_set():
            return await self._obituary(process, LAST_WORDS)
        self.around.output.read()
        return (f"{self.spec.plan.server} did not come up within {timeout:g} seconds: "
                f"{asking.said}{summary(self.around.output.last(self.key))}")

    async def _obituary(self, process: Process, patience: float) -> str:
        for ended in [pump.ended for pump in self.pumps]:
            await settle(self.around.output, ended, patience)
        lines = summary(self.around.output.last(self.key))
        return f"{self.spec.plan.server} ended ({process.how_it_ended()}){lines}"

    async def _clear(self) -> None:
        """Leaves nothing of a process that has ended or has not come up."""
        process = self.process
        if process is not None:
            if not process.ended.is_set():
                process.signal(signal.SIGTERM)
                await _ended([process], KILL_PATIENCE)
            self._clearing.add(self._spawn(_end_group(process.pid, KILL_PATIENCE)))
            if not process.ended.is_set():
                process.kill("did not come up")
                await process.ended.wait()
            self.process = None

    def _become(self, state: State, error: str = "") -> None:
        self.state, self.error, self.since = state, error, time.time()
        if state is not State.STARTING:
            self.decided.set()
        self._changed(self)

    async def stop(self, patience: float) -> None:
        """Ends it: gracefully for so many seconds, then by force."""
        self.state = State.ENDED
        if self._keeper is not None:
            self._keeper.cancel()
        if self.sock is not None:
            self.sock.close()
        process = self.process
        if process is not None:
            process.signal(signal.SIGTERM)
            await _ended([process], patience)
            await _end_group(process.pid, 0.0 if not process.ended.is_set() else KILL_PATIENCE)
            if not process.ended.is_set():
                self._log("warning", "app.killed", "it did not end when told to",
                          after=f"{patience:g}s", pid=process.pid)
                process.kill("did not stop")
            await process.ended.wait()
            self._log("info", "app.ended", pid=process.pid, how=process.how_it_ended())
        if clearing := self._tasks & set(self._clearing):
            await asyncio.wait(clearing)
        for ended in [pump.ended for pump in self.pumps]:
            await settle(self.around.output, ended, LAST_WORDS)
        for task in self._tasks:
            task.cancel()
        self.around.output.forget(self.key)
        remove(self.around.instance, self.path)

    def leave(self) -> None:
        """Looks after it no more; it goes on."""
        for task in (self._keeper, *self._tasks):
            if task is not None:
                task.cancel()
        if self.sock is not None:
            self.sock.close()

    # -- starting

    def _start(self) -> Process:
        spec, instance = self.spec, self.around.instance
        if spec.takes_descriptor and self.sock is None:
            self.sock = listening_socket(instance, self.path, self.around.workers.uid)
        if not spec.takes_descriptor:
            make_directory(instance, self.path, spec.uid, self.around.workers)
        fd = self.sock.fileno() if self.sock is not None else -1
        mark = Mark(str(instance.runtime_dir), *self.key, spec.takes_descriptor, spec.fingerprint,
                    os.geteuid() if spec.uid is None else spec.uid)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            with suppress(OSError):      # more than this user may have
                fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            child = subprocess.Popen(
                spec.command(Place(self.path, fd)), cwd=spec.directory,
                env=spec.environment(mark.sealed()), stdin=subprocess.DEVNULL, stdout=writing,
                stderr=writing, pass_fds=[fd] if fd >= 0 else [], start_new_session=True,
                user=spec.uid, group=spec.gid,
                extra_groups=None if spec.uid is None else spec.groups)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        process = Process(child.pid, child)
        self._spawn(self._pump(process, reading))
        self._log("info", "app.started", pid=process.pid, server=spec.plan.server)
        return process

    async def _pump(self, process: Process, reading: int) -> None:
        """Has the output carried to us, by a process that outlives us."""
        label = json.dumps({"pool": self.key[0], "backend": self.key[1],
                            "generation": self.key[2], "pid": process.pid})
        try:
            while True:
                pump = _start_pump(self.around.instance.runtime_dir, label, reading)
                self.pumps.add(pump)
                await pump.ended.wait()
                self.pumps.discard(pump)
                if pump.exit_code == 0 or process.ended.is_set():
                    return
                await asyncio.sleep(PUMP_PAUSE)
        finally:
            os.close(reading)

    def _turn_away(self) -> None:
        """Closes the connections that wait for a server that does not come up."""
        if self.sock is None:
            return
        with suppress(OSError):
            while True:
                self.sock.accept()[0].close()

    # -- small things

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log("error", "internal", "please report this", error=repr(error))

    def _log(self, level: str, event: str, message: str = "", **fields: object) -> None:
        self.around.log.event(level, event, message, {
            "pool": self.key[0], "backend": self.key[1], "generation": self.key[2], **fields})


def listening_socket(instance: Instance, path: Path, owner: int | None) -> socket.socket:
    """A unix socket at a path of the runtime directory, for ``owner`` to connect to.

    Where there is one already, of a server that an earlier supervisor started, it is made beside
    its place and moved there: the path is never without a socket. Raises OSError.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    fresh = path.with_suffix(".new") if path.exists() else path
    try:
        fresh.unlink(missing_ok=True)
        sock.bind(instance.path_of(fresh.name))
        fresh.chmod(0o600)
        if owner is not None:
            os.chown(fresh, owner, -1)
        sock.listen(BACKLOG)
        if fresh != path:
            fresh.rename(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _start_pump(directory: Path, label: str, reading: int) -> Process:
    # The directory is where the socket is, so that its name is short however long the path.
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(PUMP), SOCKET_NAME, label], stdin=reading, cwd=directory,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    return Process(child.pid, child)


async def _ended(processes: list[Process], patience: float) -> bool:
    waits = [asyncio.ensure_future(process.ended.wait()) for process in processes]
    if not waits:
        return True
    _, pending = await asyncio.wait(waits, timeout=patience)
    for wait in pending:
        wait.cancel()
    return not pending


async def _end_group(leader: int, patience: float) -> None:
    """Ends what a server has left behind: workers whose master is gone may not notice it."""
    left = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if pid != leader and os.getpgid(pid) == leader:
                left.append(Process(pid))
    for process in left:
        process.signal(signal.SIGTERM)
    if not await _ended(left, patience):
        for process in left:
            process.kill("its server is gone")
        await _ended(left, KILL_PATIENCE)
