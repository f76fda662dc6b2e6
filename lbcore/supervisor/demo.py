"""Demonstration backends: starting them, keeping them running, and ending them with us."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lbcore.config.plan import Address, BackendPlan, Plan, PoolPlan
from lbcore.supervisor.backoff import Backoff
from lbcore.supervisor.instance import MAX_UNIX_PATH, Instance
from lbcore.supervisor.log import Log
from lbcore.supervisor.process import Process, start
from lbcore.supervisor.worker import Identity

STOP_PATIENCE = 2.0
Name = tuple[str, int]       # pool, number from 1


def with_demo_backends(plan: Plan, runtime_dir: Path) -> Plan:
    """The plan with the demonstration backends of its pools among their backends."""
    return replace(plan, pools=tuple(_with_demo(pool, runtime_dir) for pool in plan.pools))


def _with_demo(pool: PoolPlan, runtime_dir: Path) -> PoolPlan:
    demos = tuple(
        BackendPlan(name=f"demo-{number}", address=Address(path=path), label=f"unix:{path}")
        for number in range(1, pool.demo + 1)
        for path in [str(socket_path(runtime_dir, (pool.name, number)))]
    )
    return replace(pool, backends=(*pool.backends, *demos))


def socket_path(runtime_dir: Path, name: Name) -> Path:
    """Where a demonstration backend listens; long pool names are shortened to fit."""
    pool, number = name
    path = runtime_dir / f"demo-{pool}-{number}.sock"
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        path = runtime_dir / f"demo-{zlib.crc32(pool.encode()):08x}-{number}.sock"
    return path


class Demo:
    """One demonstration backend: its listening socket and the process that serves it."""

    def __init__(self, name: Name, sock: socket.socket, path: Path, inode: int) -> None:
        self.name = name
        self.sock = sock
        self.path = path
        self.inode = inode
        self.process: Process | None = None
        self.task: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Closes the socket; its path is removed unless it is somebody else's by now."""
        self.sock.close()
        with suppress(OSError):
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()


class DemoBackends:
    """All demonstration backends of this instance."""

    def __init__(self, instance: Instance, log: Log) -> None:
        self.identity = Identity()
        self._instance = instance
        self._log = log
        self._demos: dict[Name, Demo] = {}

    def apply(self, plan: Plan) -> None:
        """Starts what the plan asks for. See :meth:`forget_others`.

        Raises OSError, and then nothing has been started.
        """
        made: list[Demo] = []
        try:
            for pool in plan.pools:
                for number in range(1, pool.demo + 1):
                    if (pool.name, number) not in self._demos:
                        demo = self._open((pool.name, number))
                        made.append(demo)
        except BaseException:
            for demo in made:
                demo.close()
            raise
        for demo in made:
            self._demos[demo.name] = demo
            demo.task = asyncio.create_task(self._keep(demo))

    async def forget_others(self, plan: Plan) -> None:
        """Ends what the plan, which all workers have by now, does not ask for."""
        wanted = {(pool.name, number) for pool in plan.pools
                  for number in range(1, pool.demo + 1)}
        await self._end([self._demos.pop(name) for name in set(self._demos) - wanted])

    async def stop(self) -> None:
        """Ends all of them."""
        demos = list(self._demos.values())
        self._demos.clear()
        await self._end(demos)

    def pids(self) -> list[int]:
        """The processes that run."""
        return [d.process.pid for d in self._demos.values() if d.process is not None]

    def export(self) -> list[dict[str, Any]]:
        """For :meth:`restore` after an exec, which must leave the sockets open."""
        for demo in self._demos.values():
            demo.sock.set_inheritable(True)
        return [{"pool": d.name[0], "number": d.name[1], "fd": d.sock.fileno(),
                 "path": str(d.path), "inode": d.inode,
                 "pid": d.process.pid if d.process is not None else 0}
                for d in self._demos.values()]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """Goes on looking after the processes of :meth:`export`."""
        for entry in state:
            name = (str(entry["pool"]), int(entry["number"]))
            sock = socket.socket(fileno=entry["fd"])
            sock.set_inheritable(False)
            demo = self._demos[name] = Demo(name, sock, Path(entry["path"]), entry["inode"])
            if entry["pid"]:
                with suppress(ProcessLookupError):
                    demo.process = Process(entry["pid"])
            demo.task = asyncio.create_task(self._keep(demo))

    def _open(self, name: Name) -> Demo:
        path = socket_path(self._instance.runtime_dir, name)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # Made beside its place and moved there, so that there is a socket at every moment when
        # an earlier supervisor's demonstration backend still serves the path.
        fresh = path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            sock.bind(self._instance.path_of(fresh.name))
            fresh.chmod(0o666)       # workers may run as another user
            sock.listen(1024)
            inode = fresh.stat().st_ino
            fresh.rename(path)
        except BaseException:
            sock.close()
            raise
        return Demo(name, sock, path, inode)

    async def _keep(self, demo: Demo) -> None:
        backoff = Backoff()
        while True:
            if demo.process is None:
                demo.process = self._start(demo)
            process = demo.process
            await process.ended.wait()
            demo.process = None
            delay = backoff.died(time.monotonic() - process.started)
            self._log.warning("demo.died", pool=demo.name[0], backend=f"demo-{demo.name[1]}",
                              pid=process.pid, how=process.how_it_ended(), delay=f"{delay:g}s")
            await asyncio.sleep(delay)

    def _start(self, demo: Demo) -> Process:
        child: subprocess.Popen[bytes] = start(
            "lbcore.apps.demo",
            [f"--name=demo-{demo.name[1]}", f"--fd={demo.sock.fileno()}", f"--path={demo.path}",
             f"--inode={demo.inode}"],
            [demo.sock.fileno()], self.identity.uid, self.identity.gid,
        )
        self._log.info("demo.started", pool=demo.name[0], backend=f"demo-{demo.name[1]}",
                       pid=child.pid)
        return Process(child.pid, child)

    async def _end(self, demos: Sequence[Demo]) -> None:
        ending = []
        for demo in demos:
            if demo.task is not None:
                demo.task.cancel()
            demo.close()
            if demo.process is not None:
                demo.process.signal(signal.SIGTERM)
                ending.append(demo.process)
        waits = [asyncio.ensure_future(process.ended.wait()) for process in ending]
        if waits:
            await asyncio.wait(waits, timeout=STOP_PATIENCE)
        for process in ending:
            if not process.ended.is_set():
                process.kill("did not stop")
                await process.ended.wait()
