"""A worker between its supervisors: plans, drains, adoption, and messages that make no sense."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import time
from typing import Any

import pytest

from lbcore._scoreboard import SeatState
from lbcore.config.plan import ListenerPlan
from tests.support.relay_lab import (
    PATIENCE,
    Lab,
    close_all,
    ending,
    is_quiet,
    pool,
    read_exactly,
    read_to_end,
    reset,
    until,
)


def ask(client: socket.socket) -> None:
    client.sendall(b"still there?")
    assert read_exactly(client, 12) == b"still there?"


def knock(lab: Lab) -> socket.socket:
    """A visitor at the worker's door."""
    visitor = lab.keep(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    visitor.connect(str(lab.worker.door_path))      # waits for room in the backlog
    visitor.settimeout(PATIENCE)
    return visitor


def adopt(lab: Lab, visitor: socket.socket) -> tuple[dict[str, Any], list[socket.socket]]:
    """Asks for the worker's sockets; returns its answer and them."""
    visitor.send(json.dumps({"op": "adopt", "id": 7}).encode())
    packet, descriptors, _, _ = socket.recv_fds(visitor, 65536, 250)
    return json.loads(packet), [lab.keep(socket.socket(fileno=fd)) for fd in descriptors]


def adopted(lab: Lab) -> socket.socket:
    """Closes the worker's channel and takes the supervisor's place through the door."""
    lab.worker.control.close()
    while True:     # the worker may not have noticed yet, and turn a visitor away
        visitor = knock(lab)
        try:
            adopt(lab, visitor)
        except (ConnectionError, ValueError):
            visitor.close()
            continue
        lab.worker.control = visitor
        return visitor


# ---- plans ---------------------------------------------------------------------------------------

def test_a_reload_keeps_connections_where_they_are_and_sends_new_ones_to_the_new_backends(
        lab: Lab) -> None:
    old, new = lab.origin(), lab.origin()
    lab.serve(pool(old))
    pairs = []
    for _ in range(10):
        pairs.append(lab.link(old))
        lab.apply(pool(new))
        client, server = lab.link(new)
        client.close()
        server.close()
        for client, server in pairs:
            client.sendall(b"ping")
            assert read_exactly(server, 4) == b"ping"
            server.sendall(b"pong")
            assert read_exactly(client, 4) == b"pong"
        lab.apply(pool(old))
    close_all([end for pair in pairs for end in pair])
    lab.expect_ended(normal=20)
    lab.expect_nothing_held()


def test_reloads_leave_no_descriptor_and_no_mapping_behind(lab: Lab) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    ask(lab.connect())

    def mappings() -> int:
        with open(f"/proc/{lab.worker.process.pid}/maps") as maps:  # noqa: PTH123
            return sum(1 for _ in maps)

    for _ in range(20):
        lab.apply(pool(echo))
    lab.let_turn()
    before = lab.descriptors(), mappings()
    for number in range(200):
        lab.apply(pool(echo))
        if number % 10 == 0:
            client = lab.connect()
            ask(client)
            client.close()
    until(lambda: lab.seat["connections"] == 1)
    lab.let_turn()
    assert (lab.descriptors(), mappings()) == before
    assert lab.seat["plan_version"] == lab.worker.version


def test_connections_queued_at_a_socket_that_a_plan_drops_are_served(lab: Lab) -> None:
    echo = lab.echo()
    first = lab.listen()
    second = lab.listen()
    lab.apply(pool(echo))
    with lab.asleep():
        clients = [lab.connect(b"%032d" % n, listener=second) for n in range(100)]
        image = lab.worker.image(lab.listeners, [pool(echo)])
        lab.worker.send({"op": "plan", "id": 9, "version": 9,
                         "sockets": [[lab.numbers[first], 0]]}, [image])
        os.close(image)
    assert lab.worker.receive()["op"] == "applied"
    lab.worker.sockets.pop(lab.numbers[second]).close()
    for number, client in enumerate(clients):
        assert read_exactly(client, 32) == b"%032d" % number
    with pytest.raises(ConnectionRefusedError):
        lab.connect(listener=second)
    ask(lab.connect(listener=first))


def test_a_listener_may_move_to_another_pool(lab: Lab) -> None:
    first, second = lab.origin(), lab.origin()
    lab.serve(pool(first))
    client, server = lab.link(first)
    lab.apply(pool(second))
    lab.link(second)
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"


@pytest.mark.parametrize("kind", ["empty", "short", "noise", "pipe", "none", "extra socket",
                                  "extra listener", "not a number"])
def test_a_plan_that_cannot_be_used_is_answered_and_changes_nothing(lab: Lab, kind: str) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    client = lab.connect()
    ask(client)
    before = lab.descriptors()
    number = lab.numbers[0]
    good = lab.worker.image(lab.listeners, [pool(echo)])
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as file:
        file.write({"short": b"x", "noise": os.urandom(9000)}.get(kind, b""))
        file.flush()
        descriptor = {"pipe": read_end, "empty": file.fileno(), "short": file.fileno(),
                      "noise": file.fileno()}.get(kind, good)
        sockets: list[Any] = [[number, 0]]
        if kind == "extra socket":
            sockets.append([77, 0])
        elif kind == "extra listener":
            sockets = [[number, 5]]
        elif kind == "not a number":
            sockets = [[number, "first"]]
        for _ in range(20):
            lab.worker.send({"op": "plan", "id": 4, "version": 3, "sockets": sockets},
                            [] if kind == "none" else [descriptor])
            answer = lab.worker.receive()
            assert (answer["op"], answer["id"]) == ("error", 4)
            assert answer["error"]
    for end in (good, read_end, write_end):
        os.close(end)
    assert lab.seat["plan_version"] == 1
    ask(client)
    ask(lab.connect())
    until(lambda: lab.descriptors() == before + 2)      # of the second connection


def test_released_sockets_are_left_to_others(lab: Lab) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    client = lab.connect()
    ask(client)
    lab.worker.send({"op": "release", "id": 5, "sockets": lab.numbers})
    assert lab.worker.receive() == {"op": "released", "id": 5}
    queued = lab.connect(b"x")      # the socket is open still, and ours
    assert is_quiet(queued)
    ask(client)


# ---- messages that make no sense -----------------------------------------------------------------

GARBAGE = [
    b"\xff\xfe", b"{", b"[]", b"null", b'"plan"', b"7", b"{}", b'{"op": null}', b'{"op": ["plan"]}',
    b'{"op": "plan"}', b'{"op": "plan", "id": 1, "sockets": 7}', b'{"op": "sockets"}',
    b'{"op": "sockets", "sockets": [[1]]}', b'{"op": "sockets", "sockets": [["a", "b", "c"]]}',
    b'{"op": "release"}', b'{"op": "release", "id": 1, "sockets": 7}',
    b'{"op": "drain"}', b'{"op": "drain", "timeout_ms": "soon"}', b'{"op": "adapt", "id": 1}',
    b'{"op": "plan", "id": 1, "sockets": [["x", {}]]}', b"[" * 60_000, b"\0" * 1000,
    b'{"op": "sockets", "sockets": [[1, 2, 3], 4]}',
]


@pytest.mark.parametrize("packet", GARBAGE, ids=range(len(GARBAGE)))
def test_a_message_that_makes_no_sense_is_answered_and_changes_nothing(
        lab: Lab, packet: bytes) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    client = lab.connect()
    ask(client)
    before = lab.descriptors()
    spare = lab.keep(socket.socket())
    for count in (0, 1, 2):
        socket.send_fds(lab.worker.control, [packet], [spare.fileno()] * count)
        answer = lab.worker.receive()
        assert answer["op"] == "error"
        assert answer["error"]
    until(lambda: lab.descriptors() == before)
    ask(client)
    ask(lab.connect())
    assert lab.seat["state"] == SeatState.SEAT_SERVING


def test_sockets_half_understood_are_not_taken(lab: Lab) -> None:
    """The second entry is wrong: the first must not be kept with a descriptor that is closed."""
    echo = lab.echo()
    lab.serve(pool(echo))
    sock = lab.keep(socket.create_server(("127.0.0.1", 0)))
    before = lab.descriptors()
    lab.worker.send({"op": "sockets", "sockets": [[50, "good", 2], [51, "bad"]]},
                    [sock.fileno()] * 2)
    assert lab.worker.receive()["op"] == "error"
    until(lambda: lab.descriptors() == before)
    lab.worker.send({"op": "sockets", "sockets": [[50, "good", 2]]}, [sock.fileno()])
    lab.places.append((socket.AF_INET, sock.getsockname()))
    lab.numbers.append(50)
    lab.listeners.append(lab.listeners[0])
    lab.apply(pool(echo))
    for index in (0, 1):
        ask(lab.connect(listener=index))


def test_a_socket_number_is_given_once(lab: Lab) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    other = lab.keep(socket.create_server(("127.0.0.1", 0)))
    before = lab.descriptors()
    lab.worker.send({"op": "sockets", "sockets": [[lab.numbers[0], "again", 2]]}, [other.fileno()])
    assert lab.worker.receive()["op"] == "error"
    until(lambda: lab.descriptors() == before)
    lab.apply(pool(echo))
    ask(lab.connect())


def test_a_socket_handed_over_in_blocking_mode_does_not_stop_the_worker(lab: Lab) -> None:
    """Whoever else holds the socket may have changed it: the mode belongs to all of them."""
    sock = socket.create_server(("127.0.0.1", 0))
    lab.places.append((socket.AF_INET, sock.getsockname()))
    lab.numbers.append(lab.worker.add_listener(sock))
    lab.listeners.append(ListenerPlan("blocking", (), 0))
    lab.apply(pool(lab.echo()))
    for _ in range(3):
        ask(lab.connect())
        lab.let_turn()


def test_a_socket_that_does_not_listen_does_not_keep_the_worker_busy(lab: Lab) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    deaf = socket.socket()
    deaf.setblocking(False)
    lab.numbers.append(lab.worker.add_listener(deaf))
    lab.listeners.append(lab.listeners[0])
    lab.apply(pool(echo))
    spent = lab.cpu_seconds()
    client = lab.connect()
    assert is_quiet(client, 0.5)
    assert lab.cpu_seconds() - spent < 0.15
    ask(client)


def bound() -> socket.socket:
    """A socket that could listen."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def test_a_socket_listens_from_the_moment_the_worker_serves_it(lab: Lab) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    fresh = bound()
    number = lab.worker.add_listener(fresh)
    image = lab.worker.image([lab.listeners[0]], [pool(echo)])
    with pytest.raises(ConnectionRefusedError):
        lab.keep(socket.create_connection(fresh.getsockname()))
    lab.worker.send({"op": "plan", "id": 1, "version": 9, "sockets": [[number, 0]],
                     "listen": [[number, 64]]}, [image])
    os.close(image)
    assert lab.worker.receive()["op"] == "applied"
    ask(lab.keep(socket.create_connection(fresh.getsockname())))


def test_a_plan_with_a_socket_that_cannot_listen_is_answered_and_changes_nothing(lab: Lab) -> None:
    """Somebody else began to listen there after it was bound."""
    echo = lab.echo()
    lab.serve(pool(echo))
    fresh = bound()
    rival = lab.keep(socket.socket())
    rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    rival.bind(fresh.getsockname())
    rival.listen()
    number = lab.worker.add_listener(fresh)
    image = lab.worker.image([lab.listeners[0]], [pool(echo)])
    lab.worker.send({"op": "plan", "id": 1, "version": 9, "sockets": [[number, 0]],
                     "listen": [[number, 64]]}, [image])
    os.close(image)
    answer = lab.worker.receive()
    assert answer["op"] == "error"
    assert "in use" in answer["error"]
    ask(lab.connect())


def test_what_a_supervisor_sent_before_it_died_is_done_though_it_left_answers_unread(
        lab: Lab) -> None:
    """Listening sockets may be in what is still unread, and nobody else may hold them."""
    echo = lab.echo()
    lab.serve(pool(echo))
    worker = lab.worker
    worker.send({"op": "nonsense", "id": 1})
    assert worker.control_closed(PATIENCE)      # readable: the answer, which nobody will read
    fresh = bound()
    address = fresh.getsockname()
    image = worker.image([lab.listeners[0]], [pool(echo)])
    os.kill(worker.process.pid, signal.SIGSTOP)
    number = worker.add_listener(fresh)
    worker.send({"op": "plan", "id": 2, "version": 9, "sockets": [[number, 0]],
                 "listen": [[number, 64]]}, [image])
    os.close(image)
    worker.sockets.pop(number).close()
    worker.control.close()
    os.kill(worker.process.pid, signal.SIGCONT)

    def served() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            ask(lab.keep(socket.create_connection(address)))
            return True
        return False

    until(served)


# ---- the end -------------------------------------------------------------------------------------

def gone(lab: Lab) -> int:
    """The exit code, once the worker has ended."""
    return lab.worker.wait_for_exit()


def drain(lab: Lab, timeout_ms: int, *, sweep: bool = False) -> None:
    lab.worker.send({"op": "drain", "timeout_ms": timeout_ms, "sweep": sweep})


def test_a_draining_worker_ends_with_its_last_connection(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    pairs = lab.links(origin, 3)
    drain(lab, 60_000)
    until(lambda: lab.seat["state"] == SeatState.SEAT_DRAINING)
    for client, server in pairs:
        assert lab.worker.process.poll() is None
        client.sendall(b"ping")
        assert read_exactly(server, 4) == b"ping"
        server.close()
        assert ending(client) == "eof"
        client.close()
    assert lab.worker.receive() == {"op": "drained"}
    assert gone(lab) == 0
    lab.expect_ended(normal=3)


def test_an_idle_worker_that_is_to_drain_ends_at_once(lab: Lab) -> None:
    lab.serve(pool(lab.echo()))
    start = time.monotonic()
    drain(lab, 60_000)
    assert gone(lab) == 0
    assert time.monotonic() - start < 30


def test_what_is_left_at_the_deadline_of_a_drain_is_reset(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    start = time.monotonic()
    drain(lab, 200)
    assert ending(client) == "reset"
    assert ending(server) == "reset"
    assert time.monotonic() - start > 0.15
    assert gone(lab) == 0
    lab.expect_ended(shutdown=1)


@pytest.mark.parametrize("sweep", [True, False])
def test_a_drain_takes_what_is_queued_only_when_told_to(lab: Lab, sweep: bool) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    ask(lab.connect())
    with lab.asleep():
        drain(lab, 60_000, sweep=sweep)
        clients = [lab.connect(b"%032d" % n) for n in range(50)]
    if sweep:
        for number, client in enumerate(clients):
            assert read_exactly(client, 32) == b"%032d" % number
        until(lambda: lab.seat["connections"] == 51)
        with pytest.raises(BlockingIOError):
            lab.worker.sockets[lab.numbers[0]].accept()
    else:
        until(lambda: lab.seat["state"] == SeatState.SEAT_DRAINING)
        left = 0        # they are where another worker will find them
        with contextlib.suppress(BlockingIOError):
            while True:
                lab.keep(lab.worker.sockets[lab.numbers[0]].accept()[0])
                left += 1
        assert left + lab.seat["accepted"] == 51
        assert left > 40        # some may have been accepted in the turn before


def test_a_draining_worker_takes_no_plan(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    lab.link(origin)
    drain(lab, 60_000)
    answer = lab.worker.apply(lab.listeners, [pool(origin)], [])
    assert answer["op"] == "error"


def test_stop_resets_everything_at_once(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    pairs = lab.links(origin, 3)
    lab.worker.send({"op": "stop"})
    assert gone(lab) == 0
    for pair in pairs:
        for end in pair:
            assert ending(end) == "reset"
    lab.expect_ended(shutdown=3)


def test_a_drain_goes_on_when_the_supervisor_dies(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    drain(lab, 60_000)
    lab.worker.control.close()
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"
    client.close()
    server.close()
    assert gone(lab) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
                                    signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU])
def test_signals_of_a_terminal_are_the_supervisors(lab: Lab, number: signal.Signals) -> None:
    lab.serve(pool(lab.echo()))
    client = lab.connect()
    lab.worker.process.send_signal(number)
    ask(client)


# ---- the supervisor dies -------------------------------------------------------------------------

def test_a_worker_without_supervisor_goes_on_serving(lab: Lab) -> None:
    lab.serve(pool(lab.echo()))
    client = lab.connect()
    ask(client)
    lab.worker.control.close()
    for _ in range(20):
        ask(client)
        ask(lab.connect())
    assert lab.worker.process.poll() is None


def test_adoption_hands_over_listening_sockets_that_work(lab: Lab) -> None:
    echo = lab.echo()
    lab.listen()
    lab.listen(kind="unix")
    lab.apply(pool(echo))
    lab.worker.control.close()
    ask(lab.connect())
    lab.worker.control = adopted(lab)
    answer, sockets = adopt(lab, lab.worker.control)
    assert answer["op"] == "adopted"
    assert (answer["id"], answer["pid"], answer["seat"], answer["slot"]) == (
        7, lab.worker.process.pid, lab.worker.seat, 0)
    assert (answer["version"], answer["more"], answer["draining"]) == (1, False, False)
    assert sorted(answer["sockets"]) == [[0, "test 0", 0], [1, "test 1", 1]]
    by_number = dict(zip([n for n, _, _ in answer["sockets"]], sockets, strict=True))
    lab.worker.send({"op": "release", "id": 1, "sockets": lab.numbers})
    assert lab.worker.receive()["op"] == "released"
    for number in lab.numbers:
        client = lab.connect(b"hello", listener=number)
        by_number[number].settimeout(PATIENCE)
        with by_number[number].accept()[0] as server:
            assert read_exactly(server, 5) == b"hello"
        client.close()
    drain(lab, 60_000)


def test_a_later_supervisor_may_change_the_plan(lab: Lab) -> None:
    old, new = lab.origin(), lab.origin()
    lab.serve(pool(old))
    client, server = lab.link(old)
    adopted(lab)
    lab.apply(pool(new))
    lab.link(new)
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"


def test_a_visitor_is_turned_away_while_there_is_a_supervisor(lab: Lab) -> None:
    lab.serve(pool(lab.echo()))
    assert knock(lab).recv(100) == b""
    visitor = adopted(lab)
    for _ in range(10):
        assert knock(lab).recv(100) == b""
    visitor.send(json.dumps({"op": "release", "id": 3, "sockets": []}).encode())
    assert json.loads(visitor.recv(65536)) == {"op": "released", "id": 3}
    visitor.close()
    assert adopted(lab) is not visitor
    ask(lab.connect())


def test_visitors_that_come_and_go_leave_nothing_behind(lab: Lab) -> None:
    lab.serve(pool(lab.echo()))
    ask(lab.connect())
    before = lab.descriptors()
    lab.worker.control.close()
    for number in range(50):
        visitor = knock(lab)
        if number % 2:
            visitor.send(b"nonsense" * number)
        visitor.close()
    adopted(lab)
    assert lab.descriptors() == before


def test_more_sockets_than_one_message_carries_are_adopted(lab: Lab) -> None:
    echo = lab.echo()
    for _ in range(230):
        lab.listen()
    lab.apply(pool(echo))
    lab.worker.control.close()
    visitor = knock(lab)
    while True:
        try:
            answer, sockets = adopt(lab, visitor)
            break
        except (ConnectionError, ValueError):
            visitor = knock(lab)
    assert answer["more"]
    packet, descriptors, _, _ = socket.recv_fds(visitor, 65536, 250)
    sockets += [lab.keep(socket.socket(fileno=fd)) for fd in descriptors]
    rest = json.loads(packet)
    assert not rest["more"]
    numbers = [number for number, _, _ in answer["sockets"] + rest["sockets"]]
    assert sorted(numbers) == lab.numbers
    assert len(sockets) == 230
    lab.worker.control = visitor


def test_a_supervisor_that_does_not_read_does_not_stop_the_traffic(lab: Lab) -> None:
    """Answers nobody fetches fill the channel; the worker gives the supervisor up."""
    lab.serve(pool(lab.echo()))
    client = lab.connect()
    ask(client)
    lab.worker.control.setblocking(False)
    slowest = 0.0
    try:
        for _ in range(2000):
            lab.worker.send({"op": "release", "id": 0, "sockets": []})
            start = time.monotonic()
            ask(client)
            slowest = max(slowest, time.monotonic() - start)
    except (BlockingIOError, ConnectionError):
        pass
    for _ in range(20):
        start = time.monotonic()
        ask(client)
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 5      # it waits 0.2 seconds, and once


def test_connections_end_as_they_would_when_nobody_watches(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    first, second = lab.links(origin, 2)
    lab.worker.control.close()
    reset(first[0])
    assert ending(first[1]) == "reset"
    second[1].sendall(b"bye")
    second[1].close()
    assert read_to_end(second[0]) == (b"bye", "eof")
    second[0].close()
    lab.expect_ended(client_reset=1, normal=1)
