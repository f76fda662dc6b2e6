"""Listening sockets that systemd holds: nobody is refused, whatever becomes of lbcore."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.instance import Instance, until
from tests.support.load import Load, LongLived


def listening(lb: Instance, *, reuse: bool) -> socket.socket:
    """A socket as systemd makes it for ListenStream=, with or without ReusePort=yes."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse))
    sock.bind(lb.address)
    sock.listen(4096)
    return sock


@pytest.fixture(params=["alone", "beside"])
def held(lb: Instance, request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """The socket, which the test holds as systemd would."""
    with listening(lb, reuse=request.param == "beside") as sock:
        lb.file["lbcore"]["workers"] = 2
        yield sock


def reload(lb: Instance, times: int) -> None:
    """Puts the file into force; ``times`` counts reloads of this instance."""
    lb.write()
    lb.signal(signal.SIGHUP)
    lb.wait_for("reloaded", times)


def test_a_passed_socket_is_found_by_its_address_and_served(
    lb: Instance, held: socket.socket
) -> None:
    lb.write()
    lb.start(passing=[("web", held)])
    with LongLived(lb.address) as clients:
        clients.open(40)
        assert clients.ask() == []


def test_sockets_beside_each_other_serve_a_worker_each(lb: Instance) -> None:
    lb.file["lbcore"]["workers"] = 3
    with listening(lb, reuse=True) as one, listening(lb, reuse=True) as two:
        lb.write()
        lb.start(passing=[("web", one), ("web", two)])
        with LongLived(lb.address) as clients:
            clients.open(60)
            assert clients.ask() == []
            until(lambda: all(worker["accepted"] for worker in lb.serving()), "all accept")


def test_without_reuseport_a_worker_that_stands_still_holds_nobody_up(lb: Instance) -> None:
    lb.file["lbcore"].update(workers=2, hang_timeout="1m")
    with listening(lb, reuse=False) as sock:
        lb.write()
        lb.start(passing=[("web", sock)])
        for worker in lb.serving():
            os.kill(worker["pid"], signal.SIGSTOP)
            try:
                with LongLived(lb.address) as clients:
                    clients.open(5)
                    assert clients.ask() == []
            finally:
                os.kill(worker["pid"], signal.SIGCONT)


def test_stop_and_start_again_refuse_nobody(lb: Instance, held: socket.socket) -> None:
    lb.write()
    lb.start(passing=[("web", held)])
    with Load(lb.address) as load:
        for _ in range(2):
            load.wait_for(100)
            lb.signal(signal.SIGTERM)
            assert lb.exit_code() == 0
            lb.start(passing=[("web", held)])
        load.wait_for(100)
        load.expect_no_failure()


def test_what_connects_while_there_is_no_lbcore_is_served_by_the_next(
    lb: Instance, held: socket.socket
) -> None:
    lb.write()
    lb.start(passing=[("web", held)])
    lb.signal(signal.SIGTERM)
    assert lb.exit_code() == 0
    with contextlib.ExitStack() as stack:
        early = [stack.enter_context(socket.create_connection(lb.address, timeout=20))
                 for _ in range(20)]
        for sock in early:
            sock.sendall(b"early")
        lb.start(passing=[("web", held)])
        assert all(sock.recv(5) == b"early" for sock in early)


def test_reload_resize_upgrade_and_a_killed_supervisor_fail_no_connection(
    lb: Instance, held: socket.socket
) -> None:
    lb.write()
    lb.start(passing=[("web", held)])
    with Load(lb.address) as load:
        reload(lb, 1)
        for number, workers in enumerate((3, 1)):
            lb.file["lbcore"]["workers"] = workers
            reload(lb, 2 + number)
            lb.wait_for("resized", workers=workers)
            load.wait_for(100)
        old = [worker["pid"] for worker in lb.wait_serving(1)]
        lb.signal(signal.SIGUSR2)
        old = [worker["pid"] for worker in lb.wait_serving(1, but=old)]
        load.wait_for(100)
        lb.kill_supervisor()
        load.wait_for(50)
        lb.start(passing=[("web", held)])
        lb.wait_serving(1, but=old)
        load.wait_for(100)
        lb.signal(signal.SIGTERM)       # also after all of that
        assert lb.exit_code() == 0
        lb.start(passing=[("web", held)])
        load.wait_for(100)
        load.expect_no_failure()


def test_a_socket_is_found_by_its_name(lb: Instance) -> None:
    with listening(lb, reuse=False) as sock:
        lb.file["listener"][0]["bind"] = "fd:front"
        lb.write()
        lb.start(passing=[("front", sock)])
        with LongLived(lb.address) as clients:
            clients.open(1)
            assert clients.ask() == []
        assert lb.status()["listeners"][0]["bind"] == ["fd:front"]


def test_a_name_that_was_not_passed_is_explained(lb: Instance) -> None:
    lb.file["listener"][0]["bind"] = "fd:front"
    lb.write()
    lb.start(wait=False)
    assert lb.exit_code() == 2
    assert "FileDescriptorName=front" in lb.wait_for("start.failed")["message"]


def test_a_socket_that_no_listener_binds_is_told(lb: Instance) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        lb.write()
        lb.start(passing=[("spare", other)])
        assert "fd:spare" in lb.wait_for("activation.unused")["socket"]


def test_a_passed_unix_socket_keeps_its_path_and_mode(lb: Instance) -> None:
    path = lb.directory / "front.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o640)
        sock.listen()
        lb.file["listener"][0]["bind"] = f"unix:{path}"
        lb.write()
        lb.start(passing=[("web", sock)])
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        lb.signal(signal.SIGTERM)
        assert lb.exit_code() == 0
        assert path.stat().st_mode & 0o777 == 0o640


def test_sockets_for_another_process_are_left_alone(lb: Instance) -> None:
    lb.write()
    lb.start(environment={"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"})
    assert lb.events("activation") == []


def test_a_removed_bind_that_comes_back_is_served_again(
    lb: Instance, held: socket.socket
) -> None:
    other = lb.file["listener"][0] | {"name": "other", "bind": f"unix:{lb.directory}/other.sock"}
    lb.file["listener"].append(other)
    lb.write()
    lb.start(passing=[("web", held)])
    removed = lb.file["listener"].pop(0)
    reload(lb, 1)
    with socket.create_connection(lb.address, timeout=20) as waiting:     # in systemd's queue
        waiting.sendall(b"early")
        lb.file["listener"].append(removed)
        reload(lb, 2)
        assert waiting.recv(5) == b"early"
