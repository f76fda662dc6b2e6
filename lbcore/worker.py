"""A worker process: the Python shell around the event loop.

It takes listening sockets and plans from the supervisor and hands them to ``lbcore._fastpath``,
where it spends its life. Nothing but compiled modules and the standard library is imported here:
that keeps a worker small, keeps secrets out of it, and lets a freshly installed version start
beside the old one. The channel it speaks on is described in docs/internals/control-channel.md.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import gc
import json
import os
import resource
import signal
import socket
import sys
import time
from typing import Any

from lbcore._access import AccessFormat
from lbcore._fastpath import Loop, Wake
from lbcore._scoreboard import Scoreboard

CONTROL, DOOR = 0, 1            # numbers of the watched descriptors
FORMATS = {"none": AccessFormat.ACCESS_NONE, "json": AccessFormat.ACCESS_JSON,
           "combined": AccessFormat.ACCESS_COMBINED}
NOTICES = {                     # what the loop has to say, and what to do about it
    "accept_paused": "no descriptor is left: new clients wait until others have gone; a higher "
                     "limit (ulimit -n, LimitNOFILE) permits more",
    "accept_resumed": "there are descriptors again: those who waited are accepted",
    "upstream_socket_failed": "no socket for a connection to a backend: look at descriptors, "
                              "memory and local ports",
    "spool_failed": "no room for bodies in a temporary file: requests that need one get 503; look "
                    "at $LBCORE_SPOOL_DIR, or else at $TMPDIR, /var/tmp and /tmp",
}
MAX_PACKET = 65536
MAX_DESCRIPTORS = 250           # the kernel's limit is 253 a message
LISTED_AT_ONCE = 200
LONGEST_DRAIN_MS = 2**31 - 1
PATIENCE = 0.2                  # seconds for a supervisor that reads slowly
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE,
           signal.SIGTTIN, signal.SIGTTOU, signal.SIGQUIT)


class Worker:
    """Answers the supervisor between turns of the loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.slot: int = options.slot
        self.seat: int = options.seat
        self.scoreboard = Scoreboard.attach(options.scoreboard)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.loop = Loop(self.scoreboard, self.seat, options.bell, limit)
        self.door = socket.socket(fileno=options.door)
        self.door.setblocking(False)
        self.loop.watch(self.door.fileno(), DOOR)
        self.labels: dict[int, str] = {}
        self.deadline: float | None = None      # of the drain, on time.monotonic's clock
        self.control: socket.socket | None = None
        self.hear(socket.socket(fileno=options.control))
        self.say({"op": "ready", "pid": os.getpid()})

    # -- the channel

    def hear(self, control: socket.socket) -> None:
        """Takes a control channel into use."""
        control.setblocking(False)
        self.control = control
        self.loop.watch(control.fileno(), CONTROL)

    def hang_up(self) -> None:
        """The supervisor is gone: go on serving, and wait at the door for the next one.

        Without a listening socket nobody would miss this worker: it was still starting, or was
        giving its sockets up, or tried an upgrade out. It ends with its last connection.
        """
        if self.control is not None:
            self.loop.unwatch(self.control.fileno())
            self.control.close()
            self.control = None
            if not self.loop.sockets():
                self.loop.drain(False)

    def say(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Sends one packet. A supervisor that does not listen is treated as gone."""
        if self.control is None:
            return
        packet = json.dumps(message, separators=(",", ":")).encode()
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self.control.settimeout(PATIENCE)       # connections wait meanwhile
        try:
            self.control.sendmsg([packet], ancillary)
        except (BrokenPipeError, ConnectionResetError):
            self.control.setblocking(False)     # gone; :meth:`listen` reads what it has still sent
        except OSError:
            self.hang_up()
        else:
            self.control.setblocking(False)

    def log(self, event: str, level: str = "warning", **details: Any) -> None:
        """Sends a line for the log. One that does not fit at once is dropped: traffic goes on."""
        if self.control is None:
            return
        message = {"op": "log", "level": level, "event": event, **details}
        try:
            self.control.send(json.dumps(message, separators=(",", ":")).encode())
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        except OSError:
            self.hang_up()

    def listen(self) -> None:
        """Handles every packet that has arrived."""
        while self.control is not None:
            try:
                packet, descriptors, flags, _ = socket.recv_fds(
                    self.control, MAX_PACKET, MAX_DESCRIPTORS)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue        # gone with something of ours unread; what it has sent still comes
            except OSError:
                packet, descriptors, flags = b"", [], 0
            if not packet:
                self.hang_up()
                return
            if flags & socket.MSG_CTRUNC:
                self.log("descriptors_lost", "error",
                         hint="the worker's descriptor limit is too low for its sockets")
            self.handle(packet, descriptors)

    def answer_door(self) -> None:
        """A later supervisor knocks. While there is one already, it is turned away."""
        try:
            visitor, _ = self.door.accept()
        except OSError:
            return
        if self.control is not None:
            visitor.close()
            return
        self.hear(visitor)

    # -- what the supervisor asks for

    def handle(self, packet: bytes, descriptors: list[int]) -> None:
        """Does what one message says. Bad messages are answered, and change nothing.

        So each is read to its end before anything is done.
        """
        request = None
        try:
            message = json.loads(packet)
            if not isinstance(message, dict):
                raise TypeError("a message is a JSON object")
            op, request = message.get("op"), message.get("id")
            if op == "sockets":
                entries = [(int(number), str(label), int(family))
                           for number, label, family in message["sockets"]]
                self.take_sockets(entries, descriptors)
                descriptors = []
            elif op == "plan":
                pairs = [(int(number), int(listener)) for number, listener in message["sockets"]]
                silent = [(int(number), int(backlog))
                          for number, backlog in message.get("listen", [])]
                self.begin_to_listen(silent)
                self.loop.apply(descriptors[0], pairs)
                self.forget_closed()
                self.say({"op": "applied", "id": request, "version": self.loop.version})
            elif op == "access":
                form = FORMATS[message["format"]]
                fd = descriptors[0] if form else -1
                descriptors = descriptors[1:] if form else descriptors      # the loop owns it
                self.loop.access(fd, form)
            elif op == "release":
                self.loop.release([int(number) for number in message["sockets"]])
                self.forget_closed()
                self.say({"op": "released", "id": request})
            elif op == "drain":
                seconds = min(int(message["timeout_ms"]), LONGEST_DRAIN_MS) / 1000
                self.loop.drain(bool(message.get("sweep")))
                self.deadline = time.monotonic() + seconds
            elif op == "stop":
                self.loop.drain(False)
                self.loop.end_all()
                self.deadline = time.monotonic()
            elif op == "adopt":
                self.give_for_adoption(request)
            else:
                raise ValueError(f"unknown op {op!r}")
        except (ArithmeticError, LookupError, OSError, TypeError, ValueError, MemoryError) as error:
            self.say({"op": "error", "id": request, "error": f"{type(error).__name__}: {error}"})
        except Exception as error:  # noqa: BLE001 - ImageError and kin: answer, keep serving
            self.say({"op": "error", "id": request, "error": str(error)})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def take_sockets(self, entries: list[tuple[int, str, int]], descriptors: list[int]) -> None:
        """Keeps listening sockets for the plan that will name them."""
        if len(entries) != len(descriptors):
            raise ValueError(f"{len(entries)} sockets named, {len(descriptors)} received")
        numbers = [number for number, _, _ in entries]
        taken = {number for number, _ in self.loop.sockets()}.intersection(numbers)
        if taken or len(set(numbers)) < len(numbers):
            raise ValueError(f"socket numbers are given once: {sorted(taken) or numbers}")
        for (number, label, family), descriptor in zip(entries, descriptors, strict=True):
            self.labels[number] = label
            os.set_blocking(descriptor, False)      # shared with all who hold the socket
            self.loop.add_socket(number, descriptor, family == socket.AF_UNIX)

    def begin_to_listen(self, silent: list[tuple[int, int]]) -> None:
        """Makes sockets listen, each with its backlog.

        The supervisor does it too, but whoever connects from then on must be served although it
        may have gone. For one that listens already it is only the backlog once more.
        """
        for number, backlog in silent:
            sock = socket.socket(fileno=self.loop.socket_fd(number))
            try:
                sock.listen(backlog)
            finally:
                sock.detach()

    def forget_closed(self) -> None:
        """Drops the labels of sockets that the loop has closed."""
        live = {number for number, _ in self.loop.sockets()}
        self.labels = {number: label for number, label in self.labels.items() if number in live}

    def give_for_adoption(self, request: Any) -> None:
        """Tells a new supervisor what is served here, and shares the listening sockets."""
        served = self.loop.sockets()
        while True:
            part, served = served[:LISTED_AT_ONCE], served[LISTED_AT_ONCE:]
            self.say(
                {"op": "adopted", "id": request, "pid": os.getpid(), "slot": self.slot,
                 "seat": self.seat, "version": self.loop.version, "more": bool(served),
                 "draining": self.loop.draining,
                 "sockets": [[number, self.labels.get(number, ""), listener]
                             for number, listener in part]},
                [self.loop.socket_fd(number) for number, _ in part])
            if not served:
                return

    # -- life

    def time_left(self) -> int:
        """Milliseconds until the drain must be over; -1 when nothing drains."""
        if self.deadline is None:
            return -1
        return max(0, round((self.deadline - time.monotonic()) * 1000))

    def run(self) -> int:
        """Serves until told to end; returns the exit code."""
        while True:
            woken = self.loop.run(self.time_left())
            if woken & Wake.WAKE_NOTICE:
                for event in self.loop.notices():
                    self.log(event, message=NOTICES.get(event, ""),
                             connections=self.loop.connections)
            if woken & 1 << CONTROL:
                self.listen()
            if woken & 1 << DOOR:
                self.answer_door()
            # Asked for here, not by WAKE_DRAINED alone: told to drain while it has no connection,
            # the loop would sleep for another turn before it says so.
            if self.loop.finished or (self.loop.draining and self.time_left() == 0):
                self.loop.end_all()
                self.say({"op": "drained"})
                return 0


def drop_privileges(uid: int, gid: int) -> None:
    """Becomes an ordinary user for good. Raises OSError when that is not allowed."""
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, which only the supervisor writes."""
    parser = argparse.ArgumentParser(prog="lbcore.worker", description=__doc__)
    for name in ("slot", "seat", "control", "scoreboard", "door", "bell"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--cpu", type=int, help="pin to this CPU")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m lbcore.worker``."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)   # a terminal's signals are the supervisor's
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:  # noqa: PTH123
        name.write(f"lbcore-w{options.slot}")
    if options.cpu is not None:
        with contextlib.suppress(OSError):      # a CPU that went away is no reason not to serve
            os.sched_setaffinity(0, {options.cpu})
    worker = Worker(options)
    if options.uid is not None:
        drop_privileges(options.uid, options.gid)
    gc.freeze()
    gc.disable()                                # nothing here makes cycles
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
