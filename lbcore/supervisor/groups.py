"""The listening sockets of all slots: who owns which, and which worker serves it.

For every TCP bind address there is one SO_REUSEPORT socket per slot; together they are the
address's group. The kernel keeps the members of a group in an array in the order in which they
began to listen, and moves the last one into the hole when one is closed. A Group repeats that
array, so that connections can be steered away from a socket before it is closed. A unix bind has
a single socket that all slots share, and so may have one whose socket was passed to us.

A socket listens only once a worker holds it too: what is queued in it then outlives the supervisor.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lbcore.config.plan import Address, ListenerPlan, Plan
from lbcore.supervisor import reuseport
from lbcore.supervisor.activation import Activation, Given
from lbcore.supervisor.sockets import (
    BindError,
    apply_options,
    listens,
    open_tcp,
    open_unix,
    same_socket,
)

SHARED = -1      # the slot of a socket that all slots serve: unix, or passed to us
NOBODY = -2      # serves a socket that is about to be closed


@dataclass(eq=False)
class ListenSocket:
    """One listening socket of the supervisor."""

    id: int
    bind: str                    # the bind address as text: what identifies a group
    slot: int                    # or SHARED
    sock: socket.socket
    server: int                  # the slot whose worker serves it; another than ``slot`` while
                                 # the number of workers shrinks, or that slot has no worker
    given: bool = False          # passed to us by who started us, and not ours to empty or remove


@dataclass
class Group:
    """All sockets of one bind address."""

    bind: Address
    members: list[ListenSocket] = field(default_factory=list)   # that listen, in kernel's order
    silent: list[ListenSocket] = field(default_factory=list)    # bound, and not listening yet
    ordered: bool = True         # False: the kernel's order is not known (after a takeover)

    @property
    def spread(self) -> bool:
        """Whether every slot has a socket of its own here (SO_REUSEPORT)."""
        return not self.bind.path and all(member.slot != SHARED for member in self)

    def of_slot(self, slot: int) -> ListenSocket | None:
        """The socket that belongs to a slot."""
        return next((m for m in self if m.slot in (slot, SHARED)), None)

    def add(self, member: ListenSocket) -> None:
        """Takes a socket in, the last of those that listen."""
        (self.members if listens(member.sock) else self.silent).append(member)

    def look(self) -> None:
        """Notes which sockets have begun to listen, which a worker may have made them do."""
        begun = [m for m in self.silent if listens(m.sock)]
        if len(begun) > 1:
            self.ordered = False
        for member in begun:
            self.silent.remove(member)
            self.members.append(member)

    def drop(self, member: ListenSocket) -> None:
        """Closes our descriptor of a member and forgets it."""
        self.look()
        if member in self.silent:
            self.silent.remove(member)
        else:
            place = self.members.index(member)
            last = self.members.pop()
            if last is not member:
                self.members[place] = last
        member.sock.close()

    def __iter__(self) -> Iterator[ListenSocket]:
        yield from self.members
        yield from self.silent


class SocketTable:
    """Every listening socket the supervisor holds, by bind address and slot."""

    def __init__(self, first_id: int = 1) -> None:
        self.groups: dict[str, Group] = {}
        self.passed = Activation()
        # Slots to whose sockets no new connection is to come: they go away, or have no worker.
        self.leaving: set[int] = set()
        self.idle: set[int] = set()
        self._ids = itertools.count(first_id)

    def open_missing(self, plan: Plan, slots: Iterable[int]) -> list[ListenSocket]:
        """Makes the sockets that ``plan`` needs for these slots and that do not exist yet.

        Returns what it made; none of it listens, see :meth:`begin`. Raises BindError, in which
        case nothing was made.
        """
        made: list[ListenSocket] = []
        try:
            for listener in plan.listeners:
                for bind in listener.binds:
                    self._open_group(bind, listener, slots, made)
        except BaseException:
            self.close(made)
            raise
        return made

    def _open_group(
        self, bind: Address, listener: ListenerPlan, slots: Iterable[int],
        made: list[ListenSocket],
    ) -> None:
        group = self.groups.get(str(bind)) or Group(bind)
        slots = sorted(slots)
        given = [one for one in self.passed.find(bind)
                 if not any(same_socket(one.sock, member.sock) for member in group)]
        if given:
            self._take_given(given, group, listener, slots, made)
        elif bind.name and not any(group):
            raise BindError(f"listener {listener.name!r}: no socket of the name {bind.name!r} was "
                            f"passed to lbcore: FileDescriptorName={bind.name} in the socket unit")
        for slot in slots if group.spread else [SHARED]:
            if group.of_slot(slot) is None:
                sock = open_unix(bind, listener) if bind.path else open_tcp(bind, listener)
                made.append(self._join(group, slot, sock))

    def _take_given(
        self, given: list[Given], group: Group, listener: ListenerPlan, slots: list[int],
        made: list[ListenSocket],
    ) -> None:
        """Puts passed sockets into a group: one for each slot, or shared by all."""
        beside: list[socket.socket] = []
        shared = not group.spread or any(one.alone for one in given)
        try:
            if not shared and not any(group):
                for _ in slots[len(given):]:
                    beside.append(open_tcp(given[0].address, listener))     # noqa: PERF401
        except BindError:        # SO_REUSEPORT is among sockets of one user
            shared = True
            for sock in beside:
                sock.close()
            beside = []
        known = [member.slot for member in group]
        group.ordered = group.ordered and not known
        first = 1 + max(known, default=-1)
        for slot, sock in enumerate([*(one.sock.dup() for one in given), *beside], first):
            server = slot if slot in slots else slots[slot % len(slots)]
            made.append(self._join(group, SHARED if shared else slot, sock,
                                   SHARED if shared else server, self.passed.holds(sock)))
        if not shared:
            # What steered connections for the lbcore before us is still in the kernel.
            with suppress(OSError):
                reuseport.unsteer(given[0].sock)

    def _join(
        self, group: Group, slot: int, sock: socket.socket, server: int | None = None,
        given: bool = False,
    ) -> ListenSocket:
        member = ListenSocket(next(self._ids), str(group.bind), slot, sock,
                              slot if server is None else server, given)
        group.add(member)
        self.groups[member.bind] = group
        return member

    def begin(self, members: Iterable[ListenSocket], backlogs: Mapping[str, int]) -> None:
        """Makes sockets listen, each with the backlog of its bind; a worker must hold them.

        The worker does the same when it comes to it. We do not wait for that: one after the other
        from here, they begin in an order that we know. Raises OSError.
        """
        for member in members:
            group = self.groups[member.bind]
            group.look()             # a worker's own doing comes before what we do now
            if member in group.silent:
                member.sock.listen(backlogs[member.bind])
                group.look()
                if self.leaving or self.idle:
                    self.steer()     # the program in force does not know of the new one

    @staticmethod
    def slot_in(label: str) -> int:
        """The slot that a label names."""
        return int(json.loads(label)["slot"])

    def adopt(self, label: str, sock: socket.socket) -> ListenSocket | None:
        """Takes over a listening socket of a supervisor that is gone.

        Returns None, and closes the descriptor, if we have it already: several workers may hold
        the same socket. Members must be adopted in the order of their slots.
        """
        said = json.loads(label)
        slot, bind = int(said["slot"]), address_of(said)
        group = self.groups.setdefault(str(bind), Group(bind))
        if any(same_socket(member.sock, sock) for member in group):
            sock.close()
            return None
        if group.of_slot(slot) is not None:
            # Another one of that slot, which somebody still serves: it must not be closed before
            # it is empty, so it gets a place of its own, as of a slot that goes away.
            slot = 1 + max(member.slot for member in group)
            group.ordered = False
        elif listens(sock) and (slot not in (SHARED, len(group.members))
                                or not said.get("ordered", False)):
            group.ordered = False
        given = bool(said.get("given")) or self.passed.holds(sock)
        return self._join(group, slot, sock, given=given)

    def restore(self, member: ListenSocket, bind: Address, ordered: bool) -> None:
        """Puts a socket that came over an exec back into its place."""
        self.groups.setdefault(str(bind), Group(bind, ordered=ordered)).add(member)

    def label(self, member: ListenSocket) -> str:
        """What whoever adopts the socket has to know, as JSON."""
        group = self.groups[member.bind]
        bind = group.bind
        return json.dumps({"host": bind.host, "port": bind.port, "path": bind.path,
                           "name": bind.name, "slot": member.slot, "ordered": group.ordered,
                           "given": member.given})

    def of_slots(self, slots: Iterable[int]) -> list[ListenSocket]:
        """The sockets that belong to these slots."""
        wanted = set(slots)
        return [m for m in self if m.slot in wanted]

    def served_by(self, slot: int) -> list[ListenSocket]:
        """The sockets that the worker of a slot accepts from."""
        return [m for m in self if m.server in (slot, SHARED)]

    def unknown_in(self, plan: Plan) -> Plan | None:
        """The plan with every bind address that we hold already replaced by one that is always
        free; None when we hold them all. For looking whether somebody else has the others.

        SO_REUSEPORT would let us share an address silently with any process of the same user,
        which would then get a part of the connections.
        """
        free = Address(host="127.0.0.1", port=0)
        listeners = tuple(
            replace(listener, binds=tuple(
                free if str(bind) in self.groups or bind.name or self.passed.find(bind) else bind
                for bind in listener.binds))
            for listener in plan.listeners)
        if all(bind == free for listener in listeners for bind in listener.binds):
            return None
        return replace(plan, listeners=listeners)

    def retired_by(self, plan: Plan) -> list[ListenSocket]:
        """The sockets whose bind address is not in ``plan``."""
        kept = {str(bind) for listener in plan.listeners for bind in listener.binds}
        return [m for m in self if m.bind not in kept]

    def close(self, members: Sequence[ListenSocket], unlink: bool = True) -> None:
        """Closes our descriptors; the paths of unix sockets are removed.

        What is closed already stays so: the end does not wait for changes that are under way.
        """
        for member in members:
            group = self.groups.get(member.bind)
            if group is None or member not in group:
                continue
            group.drop(member)
            if not any(group):
                del self.groups[member.bind]
            path = group.bind.path
            if unlink and path and not path.startswith("@") and not member.given:
                with suppress(OSError):
                    Path(path).unlink()

    def close_all(self) -> None:
        """Closes everything, at the end: workers take what is queued, and nothing joins it."""
        for group in self.groups.values():
            for member in group.members if group.spread else ():
                if not member.given:
                    with suppress(OSError):     # refused by a kernel without filters: it closes
                        reuseport.deafen(member.sock)
        self.close(list(self))

    def prefer_given(self) -> bool:
        """New connections come to sockets that outlive us alone, where there are any.

        Returns whether there are others beside them, in which some may still be on their way.
        """
        others = False
        for group in self.groups.values():
            group.look()
            places = [n for n, member in enumerate(group.members) if member.given]
            if group.spread and group.ordered and 0 < len(places) < len(group.members):
                others = True
                with suppress(OSError):
                    reuseport.steer(group.members[0].sock, places)
        return others

    def leave(self, slots: Iterable[int]) -> None:
        """No new connection comes to the sockets of slots that go away. Raises OSError.

        Not so in groups whose order is not known.
        """
        self.leaving |= set(slots)
        self.steer()

    def avoid(self, slots: Iterable[int]) -> None:
        """The same for slots without a worker, as long as others have one. Raises OSError."""
        self.idle |= set(slots)
        self.steer()

    def welcome(self, slots: Iterable[int]) -> None:
        """The kernel chooses among these slots' sockets too again. Raises OSError."""
        self.leaving -= set(slots)
        self.idle -= set(slots)
        self.steer()

    def steer(self) -> None:
        """Makes the kernel choose as we want it to, whatever it did before. Raises OSError."""
        for group in self.groups.values():
            group.look()
            if not group.spread or not group.members:
                continue
            places = {n: m.slot for n, m in enumerate(group.members) if m.slot not in self.leaving}
            staying = [n for n, slot in places.items() if slot not in self.idle] or list(places)
            if group.ordered and 0 < len(staying) < len(group.members):
                reuseport.steer(group.members[0].sock, staying)
            else:
                reuseport.unsteer(group.members[0].sock)

    def update_options(self, plan: Plan) -> None:
        """Applies backlog and inherited options of ``plan`` to the sockets that exist."""
        for listener in plan.listeners:
            for bind in listener.binds:
                group = self.groups[str(bind)]
                for member in group:
                    apply_options(member.sock, listener)
                ours = not any(member.given for member in group)
                if ours and group.bind.path and not group.bind.path.startswith("@"):
                    with suppress(OSError):
                        Path(group.bind.path).chmod(listener.unix_mode)

    def __iter__(self) -> Iterator[ListenSocket]:
        for group in self.groups.values():
            yield from group


def address_of(said: dict[str, object]) -> Address:
    """The address in a label or in the saved state."""
    return Address(str(said["host"]), int(str(said["port"])), str(said["path"]),
                   str(said.get("name", "")))
