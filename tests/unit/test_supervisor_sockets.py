"""Listening sockets: inherited options, stale files, steering within a group."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lbcore.config.plan import Address, ListenerPlan, LogPlan, Plan, PoolPlan
from lbcore.supervisor import reuseport
from lbcore.supervisor.groups import SHARED, SocketTable
from lbcore.supervisor.sockets import BindError, listens, open_tcp, open_unix
from tests.support.instance import free_port


def plan_of(*binds: Address) -> Plan:
    listener = ListenerPlan("main", binds, 0, backlog=64)
    return Plan((listener,), (PoolPlan("main", ()),), 1, Address(path="/admin"), log=LogPlan())


@pytest.fixture
def table() -> Iterator[SocketTable]:
    table = SocketTable()
    yield table
    table.close_all()


def listening(table: SocketTable, plan: Plan, slots: range) -> SocketTable:
    """The table with sockets of a plan for these slots, which have begun to listen in order."""
    table.open_missing(plan, slots)
    table.begin(list(table), {str(b): 64 for listener in plan.listeners for b in listener.binds})
    return table


def queued(table: SocketTable, bind: Address) -> dict[int, int]:
    """How many connections each slot's socket has in its queue; takes them out."""
    counts = {}
    for member in table.groups[str(bind)].members:
        counts[member.slot] = 0
        while True:
            try:
                member.sock.accept()[0].close()
            except BlockingIOError:
                break
            counts[member.slot] += 1
    return counts


def knock(bind: Address, times: int) -> None:
    for _ in range(times):
        socket.create_connection((bind.host, bind.port), timeout=5).close()


def control_of(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def test_accepted_connections_inherit_the_options() -> None:
    bind = Address("127.0.0.1", free_port())
    plan = ListenerPlan("main", (bind,), 0, tcp_user_timeout_ms=12_345, fastopen=16)
    with open_tcp(bind, plan) as sock:
        sock.listen()
        with socket.create_connection((bind.host, bind.port)):
            sock.setblocking(True)
            accepted, _ = sock.accept()
            with accepted:
                tcp = socket.IPPROTO_TCP
                assert accepted.getsockopt(tcp, socket.TCP_NODELAY)
                assert accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 12_345
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert [accepted.getsockopt(tcp, option) for option in (
                    socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)] == [60, 15, 4]
                assert control_of(accepted) == "reno"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 16


@pytest.mark.parametrize(("host", "local"), [
    ("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False),
])
def test_connections_that_cross_no_network_are_not_paced(host: str, local: bool) -> None:
    bind = Address(host, free_port())
    system = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    with open_tcp(bind, ListenerPlan("main", (bind,), 0)) as sock:
        assert control_of(sock) == ("reno" if local else system)


def test_options_of_a_live_socket_follow_a_new_plan(table: SocketTable) -> None:
    bind = Address("127.0.0.1", free_port())
    plan = plan_of(bind)
    table.open_missing(plan, [0])
    deferring = replace(plan, listeners=(replace(plan.listeners[0], defer_accept_ms=1000),))
    for wanted, there in ((deferring, True), (plan, False)):
        table.update_options(wanted)
        sock = next(iter(table)).sock
        found = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
        assert bool(found) is there


def test_ipv6_wildcard_leaves_ipv4_to_others() -> None:
    port = free_port()
    plan = ListenerPlan("main", (), 0)
    with open_tcp(Address("::", port), plan), open_tcp(Address("0.0.0.0", port), plan):
        pass


def test_unix_socket_of_somebody_alive_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "s"
    plan = ListenerPlan("main", (), 0)
    with open_unix(Address(path=str(path)), plan) as alive:
        alive.listen()
        with pytest.raises(BindError, match="in use"):
            open_unix(Address(path=str(path)), plan)
    open_unix(Address(path=str(path)), plan).close()


def test_file_that_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(BindError, match="not a socket"):
        open_unix(Address(path=str(path)), ListenerPlan("main", (), 0))
    assert path.read_text() == "precious"


def test_program_returns_a_position_for_every_remainder() -> None:
    code = reuseport.program([0, 2, 5])
    assert len(code) % 8 == 0
    assert len(code) // 8 == 2 + 2 * 2 + 1
    with pytest.raises(ValueError, match="no socket"):
        reuseport.program([])


def test_steered_group_sends_nothing_to_leaving_slots_and_both_ways_back(
    table: SocketTable,
) -> None:
    bind = Address("127.0.0.1", free_port())
    listening(table, plan_of(bind), range(4))
    table.update_options(plan_of(bind))
    knock(bind, 60)
    assert all(queued(table, bind).values())
    table.avoid([2, 3])
    knock(bind, 60)
    counts = queued(table, bind)
    assert counts[2] == counts[3] == 0
    assert counts[0] > 0 < counts[1]
    table.close([m for m in table if m.slot >= 2])
    table.welcome([2, 3])
    table.welcome([2, 3])
    knock(bind, 60)
    assert sum(queued(table, bind).values()) == 60


def test_group_repeats_the_kernels_order_when_a_member_in_the_middle_is_closed(
    table: SocketTable,
) -> None:
    bind = Address("127.0.0.1", free_port())
    listening(table, plan_of(bind), range(4))
    table.close([m for m in table if m.slot == 1])
    assert [m.slot for m in table.groups[str(bind)].members] == [0, 3, 2]
    table.avoid([0, 2])
    knock(bind, 30)
    assert queued(table, bind) == {0: 0, 2: 0, 3: 30}


def test_failed_bind_closes_what_was_made_before_it(table: SocketTable) -> None:
    good = Address("127.0.0.1", free_port())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        bad = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(BindError):
            table.open_missing(plan_of(good, bad), range(2))
    assert not list(table)
    with pytest.raises(ConnectionRefusedError):
        knock(good, 1)


def test_new_socket_does_not_listen_and_nobody_can_be_queued_in_it(
    table: SocketTable, tmp_path: Path,
) -> None:
    tcp, unix = Address("127.0.0.1", free_port()), Address(path=str(tmp_path / "s"))
    table.open_missing(plan_of(tcp, unix), range(2))
    table.update_options(plan_of(tcp, unix))
    assert not any(listens(member.sock) for member in table)
    with pytest.raises(ConnectionRefusedError):
        knock(tcp, 1)


def test_socket_that_a_worker_made_listen_takes_its_place_in_the_kernels_order(
    table: SocketTable,
) -> None:
    bind = Address("127.0.0.1", free_port())
    table.open_missing(plan_of(bind), range(3))
    by_slot = {member.slot: member for member in table}
    by_slot[2].sock.listen()
    table.begin([by_slot[0]], {str(bind): 64})
    by_slot[1].sock.listen()
    table.avoid([0, 1])
    group = table.groups[str(bind)]
    assert [m.slot for m in group.members] == [2, 0, 1]
    assert group.ordered
    knock(bind, 20)
    assert queued(table, bind) == {2: 20, 0: 0, 1: 0}


def test_two_that_began_unseen_leave_the_order_unknown(table: SocketTable) -> None:
    bind = Address("127.0.0.1", free_port())
    table.open_missing(plan_of(bind), range(3))
    for member in list(table)[1:]:
        member.sock.listen()
    table.steer()
    assert not table.groups[str(bind)].ordered


def test_socket_that_begins_while_others_are_avoided_gets_connections_too(
    table: SocketTable,
) -> None:
    bind = Address("127.0.0.1", free_port())
    listening(table, plan_of(bind), range(2))
    table.avoid([0])
    listening(table, plan_of(bind), range(3))
    knock(bind, 40)
    counts = queued(table, bind)
    assert counts[0] == 0
    assert counts[1] > 0 < counts[2]


def test_slot_is_not_avoided_when_no_other_is_left(table: SocketTable) -> None:
    bind = Address("127.0.0.1", free_port())
    listening(table, plan_of(bind), range(2))
    table.avoid([0])
    table.avoid([1])
    knock(bind, 10)
    assert sum(queued(table, bind).values()) == 10


def test_slot_that_goes_away_gets_nobody_although_no_other_has_a_worker(
    table: SocketTable,
) -> None:
    """Who is queued at an idle slot waits for its worker; at a closed socket he would be reset."""
    bind = Address("127.0.0.1", free_port())
    listening(table, plan_of(bind), range(3))
    table.avoid([0])
    table.leave([1, 2])
    knock(bind, 10)
    assert queued(table, bind) == {0: 10, 1: 0, 2: 0}


@pytest.fixture
def labelled(table: SocketTable, tmp_path: Path) -> dict[int, tuple[str, socket.socket]]:
    """Labels and sockets of three slots and a shared one, which listen."""
    tcp, unix = Address("127.0.0.1", free_port()), Address(path=str(tmp_path / "s"))
    listening(table, plan_of(tcp, unix), range(3))
    return {m.slot: (table.label(m), m.sock) for m in table}


def adopted(
    labelled: dict[int, tuple[str, socket.socket]], *slots: int,
) -> SocketTable:
    """What a new supervisor makes of what it is handed."""
    other = SocketTable()
    for label, sock in (labelled[slot] for slot in slots):
        other.adopt(label, sock.dup())
    return other


def test_adopted_sockets_keep_slots_and_a_hole_makes_the_order_unknown(
    labelled: dict[int, tuple[str, socket.socket]],
) -> None:
    whole, holed = adopted(labelled, SHARED, 0, 1, 2), adopted(labelled, 0, 2)
    assert all(group.ordered for group in whole.groups.values())
    assert [m.slot for m in whole] == [SHARED, 0, 1, 2]
    label, sock = labelled[1]
    assert whole.adopt(label, sock.dup()) is None
    assert not any(group.ordered for group in holed.groups.values())
    for other in (whole, holed):
        other.close(list(other), unlink=False)


def test_second_socket_of_a_slot_is_adopted_as_one_of_a_slot_that_goes_away(
    labelled: dict[int, tuple[str, socket.socket]],
) -> None:
    """Somebody still serves it: closed as superfluous, it would reset what is queued in it."""
    whole = adopted(labelled, 0, 1)
    with socket.socket() as other:
        other.listen()
        found = whole.adopt(labelled[1][0], other.dup())
    assert found is not None
    assert found.slot == 2
    assert not whole.groups[found.bind].ordered
    whole.close(list(whole), unlink=False)


def test_adopted_socket_that_does_not_listen_yet_has_no_place_in_the_order(
    labelled: dict[int, tuple[str, socket.socket]],
) -> None:
    whole = adopted(labelled, 0)
    assert whole.adopt(labelled[1][0], socket.socket()) is not None
    (group,) = whole.groups.values()
    assert [m.slot for m in group.members] == [0]
    assert group.ordered
    whole.close(list(whole), unlink=False)
