"""Upgrade: new code for supervisor and workers, on the same sockets, in the same process id.

1. A process of the newly installed version proves that it starts (preflight).
2. The supervisor writes what it knows into a memory file and exec()s the new version, which
   inherits descriptors and children.
3. The new supervisor puts a new worker into one slot after the other; the old ones drain. The
   first that does not start ends the upgrade: old workers go on in the remaining slots.

The configuration is the one in force, whatever the file says by now: what an upgrade does must
not depend on an edit that nobody has asked for yet, and that may not even be possible here.

The state is JSON, so that versions can read each other's. A state that cannot be read costs
counters and operators' wishes, not traffic: the new supervisor then starts over and takes over
from its own workers as it would after a crash.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbcore._scoreboard import LayoutError, Scoreboard
from lbcore.supervisor import image
from lbcore.supervisor.activation import Activation
from lbcore.supervisor.fleet import Slot
from lbcore.supervisor.groups import ListenSocket, SocketTable, address_of
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.kept import of_state
from lbcore.supervisor.log import Log
from lbcore.supervisor.process import Process, environment, python_module, start
from lbcore.supervisor.settings import Read, read, read_text
from lbcore.supervisor.worker import Phase, Place, Worker

if TYPE_CHECKING:
    from lbcore.supervisor.supervisor import Supervisor

Json = dict[str, Any]
SCHEMA = 1
PREFLIGHT_TIMEOUT = 60.0


async def preflight(config: Path, text: str) -> str:
    """Tries the installed version on the text of a file; "" when it starts, else what it said."""
    output = os.memfd_create("lbcore-preflight", os.MFD_CLOEXEC)
    in_force = -1
    try:
        in_force = memory_file("lbcore-config", text)
        child = start("lbcore.supervisor.preflight", [str(config), str(in_force)], [in_force],
                      output=output)
        process = Process(child.pid, child)
        try:
            await asyncio.wait_for(process.ended.wait(), PREFLIGHT_TIMEOUT)
        except TimeoutError:
            process.kill("took too long")
            await process.ended.wait()
            return f"it did not finish within {PREFLIGHT_TIMEOUT:g} seconds"
        except asyncio.CancelledError:
            # lbcore ends, and so does what it has started; like after Ctrl-C, it tidies up.
            process.signal(signal.SIGINT)
            await process.ended.wait()
            raise
        if process.exit_code == 0:
            return ""
        os.lseek(output, 0, os.SEEK_SET)
        lines = os.read(output, 65536).decode("utf-8", "replace").strip().splitlines()
        return (lines[-1] if lines else "it said nothing") + f" ({process.how_it_ended()})"
    except OSError as error:
        return f"it cannot be run: {error.strerror}"
    finally:
        os.close(output)
        if in_force >= 0:
            os.close(in_force)


def memory_file(name: str, text: str) -> int:
    """A descriptor from which a text can be read; not inheritable. Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(text.encode())
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def exec_new_version(supervisor: Supervisor) -> None:
    """Becomes the new version. Returns only when that is not possible; then all is as before.

    ``leaving`` is set by now: who waits for a turn to change something is before us, and is told to
    ask the new version.
    """
    async with supervisor.changing:
        supervisor.log.info("upgrade.exec", message="the new version takes over", pid=os.getpid())
        handled = list(supervisor.handle_signals())
        descriptors: list[int] = []
        state = -1
        try:
            # Who waits for an application or a source is told so, and can ask again.
            supervisor.apps.apps.interrupt("an upgrade came between")
            supervisor.discovery.interrupt(supervisor.closed)
            supervisor.running.interrupt()
            await supervisor.discovery.stop()
            await supervisor.admin.stop()
            await supervisor.monitor.stop()
            # A signal between exec and its handler would end us; blocked, it waits for the handler.
            signal.pthread_sigmask(signal.SIG_BLOCK, handled)
            for _ in range(2):           # what came before that is known to the event loop only,
                await asyncio.sleep(0)   # which takes one turn to see it and one to act
            for worker in supervisor.fleet.workers():
                if worker.channel is not None:
                    worker.channel.pause()
            if supervisor.stopping:
                raise ValueError("lbcore was told to end meanwhile")
            state = memory_file("lbcore-state", json.dumps(export(supervisor, descriptors)))
            for fd in [state, *descriptors]:
                os.set_inheritable(fd, True)
            command = [*python_module("lbcore.supervisor"), str(supervisor.config), str(state)]
            os.execve(command[0], command, environment())
        except Exception as error:      # noqa: BLE001  (whatever it is: this version must go on)
            for fd in descriptors:
                os.set_inheritable(fd, False)
            if state >= 0:
                os.close(state)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
            supervisor.leaving = False
            supervisor.upgraded = _failed(f"cannot exec the new version: {error}")
            supervisor.log.error("upgrade.failed", message="the running version goes on",
                                 error=repr(error))
            for worker in supervisor.fleet.workers():
                if worker.channel is not None:
                    worker.channel.resume()
            supervisor.apps.apps.resume()
            supervisor.monitor.start()
            await supervisor.discovery.resume()
            if supervisor.admin_socket is not None:
                await supervisor.admin.start(supervisor.admin_socket)


def export(supervisor: Supervisor, descriptors: list[int]) -> Json:
    """Everything the next version needs; the descriptors it names are added to the list."""

    def passed(fd: int) -> int:
        descriptors.append(fd)
        return fd

    fleet, table, rollout = supervisor.fleet, supervisor.table, supervisor.rollout
    apps = supervisor.apps.apps.export()
    descriptors += [one["fd"] for app in apps for one in app["servers"] if one["fd"] >= 0]
    demos = supervisor.demos.export()
    descriptors += [demo["fd"] for demo in demos]
    seated = {slot.worker: slot.index for slot in fleet.slots.values() if slot.worker is not None}
    admin = supervisor.admin_socket
    return {
        "schema": SCHEMA, "config": supervisor.text,
        "generation": supervisor.generation, "started": supervisor.started.isoformat(),
        "workers_wanted": supervisor.workers_wanted,
        "admin_address": asdict(supervisor.instance.admin),
        "lock": passed(supervisor.instance.lock_fd),
        "pid_file": str(supervisor.instance.pid_file or ""),
        "board": passed(supervisor.board.fd), "board_number": fleet.board_number,
        "bell": passed(supervisor.bell),
        "access_log": fleet.access.export(passed),
        "admin": passed(admin.fileno()) if admin is not None else -1,
        "plan_version": rollout.version, "resolved": rollout.resolved,
        "changes": supervisor.running.export(), "events": supervisor.events.export(),
        "rows": {rows.kind: rows.export() for rows in rollout.row_tables()},
        "health": supervisor.monitor.export(),
        "sockets": [{"id": member.id, "bind": asdict(group.bind), "slot": member.slot,
                     "server": member.server, "fd": passed(member.sock.fileno()),
                     "given": member.given}
                    for group in table.groups.values() for member in group],
        "passed": table.passed.export(passed), "idle": sorted(table.idle),
        "unordered": [bind for bind, group in table.groups.items() if not group.ordered],
        "slots": len(fleet.slots),
        "workers": [{"pid": w.pid, "slot": w.slot, "seat": w.place.seat, "board": w.place.board,
                     "door": str(w.place.door), "phase": w.phase.value, "version": w.version,
                     "given": sorted(w.given), "started": w.started, "in_slot": seated.get(w, -1),
                     "deadline": fleet.leaving.get(w), "orphan": w in fleet.orphans,
                     "control": passed(w.channel.fileno()) if w.channel is not None else -1,
                     "unsent": [[text, [passed(fd) for fd in fds]] for text, fds in
                                (w.channel.unsent() if w.channel is not None else [])]}
                    for w in fleet.workers()],
        "demos": demos, "apps": apps, "figures": supervisor.figures.export(),
    }


def receive(fd: int) -> Json:
    """The state behind a descriptor; an empty one when it makes no sense."""
    with suppress(OSError, ValueError), os.fdopen(fd, "rb") as file:
        state = json.loads(file.read())
        if isinstance(state, dict):
            return state
    return {}


def configuration(state: Json, config: Path) -> Read:
    """What to run: the configuration that was in force. Raises ConfigError.

    A state that does not tell leaves the file.
    """
    text = state.get("config")
    return read_text(text, config) if isinstance(text, str) and text else read(config)


async def restore(config: Path, found: Read, log: Log, state: Json) -> Supervisor:
    """The instance that an earlier version left behind, with its workers still serving.

    When its state makes no sense, starts over by an exec with nothing but the configuration.
    """
    from lbcore.supervisor.supervisor import Supervisor  # noqa: PLC0415  (it imports this)

    try:
        if "schema" not in state:
            raise ValueError("there is no state")
        if state["schema"] != SCHEMA:
            raise ValueError(f"its state has schema {state['schema']}, not {SCHEMA}")
        instance = Instance.resume(address_of(state["admin_address"]), state["lock"],
                                   state["pid_file"])
        board, number, same_board = _board(state, log)
        table = _sockets(state)
        os.set_inheritable(state["bell"], False)
        supervisor = Supervisor(config, instance, log, board, number, state["bell"], table)
        if state["admin"] >= 0:
            supervisor.admin_socket = _socket(state["admin"])
        await _fill(supervisor, state, found, same_board)
    except Exception as error:      # noqa: BLE001  (whatever it is: traffic must go on)
        log.error("upgrade.state_unreadable", message="starting over, taking over from the workers",
                  error=repr(error))
        _start_over(config, found.text)
    return supervisor


async def _fill(supervisor: Supervisor, state: Json, found: Read, same_board: bool) -> None:
    fleet, rollout = supervisor.fleet, supervisor.rollout
    supervisor.events.restore(state.get("events"))
    supervisor.figures.restore(state.get("figures"), same_board)
    supervisor.generation = state["generation"] + 1
    supervisor.started = datetime.fromisoformat(state["started"])
    supervisor.workers_wanted = state["workers_wanted"]
    plan = supervisor.running.begin(found, of_state(state))
    supervisor.use_settings(plan)
    fleet.access.restore(state.get("access_log"), plan.log)
    for index in range(state["slots"]):
        fleet.slots[index] = Slot(index, lent=index in supervisor.table.idle)
    for entry in state["workers"]:
        _worker(supervisor, entry)
    rollout.version = state["plan_version"]
    rollout.resolved = state["resolved"]
    if same_board:
        for rows in rollout.row_tables():
            rows.restore(state["rows"][rows.kind])
    supervisor.demos.restore(state["demos"])
    supervisor.apps.apps.restore(state.get("apps", []), plan)
    change = await supervisor.apps.apps.prepare(plan, starting=True)
    supervisor.monitor.restore(state["health"])
    answers = await image.ask(image.hosts(plan))
    await supervisor.apps.put(change, range(state["slots"]), tell=False, answers=answers)
    supervisor.running.begun()
    supervisor.monitor.start()
    for slot in fleet.slots.values():
        fleet.keep(slot)
    supervisor.begin()
    if supervisor.admin_socket is not None:
        await supervisor.admin.start(supervisor.admin_socket)
    supervisor.serving = True
    supervisor.upgraded = {"state": "running"}
    supervisor.spawn(_replace_workers(supervisor))
    if fleet.orphans:
        supervisor.spawn(supervisor.relieve())


async def _replace_workers(supervisor: Supervisor) -> None:
    """A new worker for every slot, one after the other; stops at the first that fails."""
    log, fleet = supervisor.log, supervisor.fleet
    async with supervisor.changing:
        for slot in list(fleet.slots.values()):
            if supervisor.stopping:
                return
            try:
                await fleet.replace(slot)
            except Exception as error:  # noqa: BLE001  ("running" for ever would forbid another)
                if supervisor.stopping:      # that is why
                    return
                why = str(error) or repr(error)
                supervisor.upgraded = _failed(f"worker of slot {slot.index}: {why}")
                log.error("upgrade.failed", message="old workers go on", slot=slot.index,
                          error=why)
                return
        supervisor.upgraded = {"state": "done", "finished": _now()}
        log.info("upgraded", generation=supervisor.generation)
        await supervisor.rollout.let_go()


def _worker(supervisor: Supervisor, entry: Json) -> None:
    fleet = supervisor.fleet
    control = _socket(entry["control"]) if entry["control"] >= 0 else None
    place = Place(entry["slot"], entry["seat"], entry["board"], Path(entry["door"]))
    try:
        worker = Worker(entry["pid"], place, fleet.heard, fleet.ended)
    except ProcessLookupError:
        if control is not None:
            control.close()
        for fd in (fd for _, fds in entry["unsent"] for fd in fds):
            os.close(fd)
        return
    worker.phase = Phase(entry["phase"])
    worker.version = entry["version"]
    worker.given = set(entry["given"])
    worker.started = entry["started"]
    if control is not None:
        for fd in (fd for _, fds in entry["unsent"] for fd in fds):
            os.set_inheritable(fd, False)
        worker.connect(control)
        if worker.channel is not None:
            worker.channel.send_first(entry["unsent"])
    if entry["in_slot"] >= 0:
        fleet.slots[entry["in_slot"]].worker = worker
    elif entry["deadline"] is not None:
        fleet.leaving[worker] = entry["deadline"]
    elif entry.get("orphan"):
        fleet.orphans.add(worker)
    else:                            # it was starting when we were replaced
        fleet.starting.add(worker)
        worker.kill("no longer wanted")


def _board(state: Json, log: Log) -> tuple[Scoreboard, int, bool]:
    """The scoreboard, its number, and whether it is the one that old workers use."""
    os.set_inheritable(state["board"], False)
    try:
        return Scoreboard.attach(state["board"]), state["board_number"], True
    except LayoutError as error:
        log.warning("upgrade.new_scoreboard", message="counters start at zero", reason=str(error))
        return Scoreboard.create(), state["board_number"] + 1, False


def _sockets(state: Json) -> SocketTable:
    table = SocketTable(1 + max((entry["id"] for entry in state["sockets"]), default=0))
    for entry in state["sockets"]:
        bind = address_of(entry["bind"])
        member = ListenSocket(entry["id"], str(bind), entry["slot"], _socket(entry["fd"]),
                              entry["server"], entry.get("given", False))
        table.restore(member, bind, str(bind) not in state["unordered"])
    table.idle = set(state.get("idle", ()))
    table.passed = Activation.restore(state.get("passed", ()))
    return table


def _socket(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def _start_over(config: Path, text: str) -> None:
    """Execs once more, inheriting nothing else: the workers become orphans and are taken over."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2:
            with suppress(OSError):
                os.set_inheritable(int(entry.name), False)
    state = memory_file("lbcore-state", json.dumps({"over": True, "config": text}))
    os.set_inheritable(state, True)
    command = [*python_module("lbcore.supervisor"), str(config), str(state)]
    os.execve(command[0], command, environment())


def _failed(why: str) -> Json:
    return {"state": "failed", "error": why, "finished": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
